"""How much of an open answer is right, by its words: token recall and F1, BLEU-1 and ROUGE-L, 0 to 1.

Words are in lower case, without articles and punctuation; a Chinese character is a word. Of several references the one
counts that gives the highest value.

- Recall and F1 over the words as a bag, each counted as often as in the other: Rajpurkar et al. 2016 (arXiv
  1606.05250), section 6.1; recall is what LLaVA-Med reports for open questions (arXiv 2306.00890, section 5).
- BLEU-1: clipped precision of single words times the brevity penalty, Papineni et al. 2002; computed by sacrebleu.
- ROUGE-L: F1 over the longest common subsequence of words, Lin 2004, with beta = 1; the subsequence by rapidfuzz.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

from open_r1.grading.choice.option_texts import normalized, plain_text

_WORD = re.compile(r"\d+(?:\.\d+)?|[\u3400-\u9fff]|[^\W\d_\u3400-\u9fff]+")
_ARTICLES = frozenset({"a", "an", "the"})


class WordScores(NamedTuple):
    """The scores of one answer, each from 0 to 1."""

    recall: float
    f1: float
    bleu_1: float
    rouge_l: float


def words(text: str) -> list[str]:
    """The words of a text as they are compared."""
    return [word for word in _WORD.findall(plain_text(normalized(text)).casefold()) if word not in _ARTICLES]


def word_scores(answer: str, references: Sequence[str]) -> WordScores:
    """All scores of an answer.

    Args:
        answer: as it was read from a completion; "" scores 0.
        references: at least one right answer; of each score the best counts.
    """
    return WordScores(*(_best(score, answer, references) for score in (_recall, _f1, _bleu_1, _rouge_l)))


def token_f1(answer: str, references: Sequence[str]) -> float:
    """F1 over words, 0 to 1."""
    return _best(_f1, answer, references)


def rouge_l(answer: str, references: Sequence[str]) -> float:
    """ROUGE-L over words, 0 to 1."""
    return _best(_rouge_l, answer, references)


_Score = Callable[[list[str], list[str]], float]


def _best(score: _Score, answer: str, references: Sequence[str]) -> float:
    written = words(answer)
    return max(score(written, reference) if (reference := words(text)) and written else 0.0 for text in references)


def _overlap(answer: list[str], reference: list[str]) -> int:
    return (Counter(answer) & Counter(reference)).total()


def _recall(answer: list[str], reference: list[str]) -> float:
    return _overlap(answer, reference) / len(reference)


def _f1(answer: list[str], reference: list[str]) -> float:
    return 2 * _overlap(answer, reference) / (len(answer) + len(reference))


def _bleu_1(answer: list[str], reference: list[str]) -> float:
    score = _sacrebleu().sentence_score(" ".join(answer), [" ".join(reference)]).score / 100
    return min(1.0, score)


@lru_cache(maxsize=1)
def _sacrebleu() -> "sacrebleu.BLEU":  # type: ignore[name-defined]  # noqa: F821
    from sacrebleu.metrics import BLEU  # imported where it is needed: a run of multiple choice needs none of it

    return BLEU(tokenize="none", max_ngram_order=1, smooth_method="none", effective_order=True)


def _rouge_l(answer: list[str], reference: list[str]) -> float:
    from rapidfuzz.distance import LCSseq

    return 2 * LCSseq.similarity(answer, reference) / (len(answer) + len(reference))
