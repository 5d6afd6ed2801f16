"""An option that running text asserts by its words: "The consolidation is located in the right lower lobe."

A text may name many options and assert one. Every place where an option's text stands is an assertion, a rejection
("not CT", "CT is unlikely"), or neither. It is an assertion where its clause says nothing but the option: every other
word is the question's own ("consolidation", "located") or one of a list of words that only lead to an answer ("the
image shows", "most consistent with"). So no clause that brings in something new, a doubt, a condition, a comparison,
another subject or somebody else's opinion, is one. The text gives an option where it asserts that one alone, what
follows can be read as its explanation, and no letter speaks for another.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from itertools import islice
from typing import NamedTuple

from open_r1.grading.choice.claims import RETRACTION
from open_r1.grading.choice.later_statements import is_denied, is_rejected, mentions
from open_r1.grading.choice.option_texts import fold_text, text_pattern
from open_r1.grading.choice.prose_words import (
    ADJECTIVE,
    BEST_OF,
    CONDITION,
    DOUBTED_LATER,
    EXPLAINS,
    FUNCTION_WORDS,
    HEDGES,
    INTRODUCES,
    LEADING_WORDS,
    NEGATED_QUESTION,
    NOT_THERE,
    REST_OF_SENTENCE,
    SPEAKS_AGAINST,
    UNBOUND,
    VERBS,
    WHY,
)

_MENTIONS = 64  # a text that names options more often than that is no short answer
_SENTENCE = 600  # characters of a sentence that is looked at
_AFTER = 1500  # characters that may follow an assertion

_ENDS = re.compile(r"[.!?;](?=[\s\"')]|$)|\n")
_WHOLE_ENDS = (".", "!", ")", '"', "'", "]")
_NUMBER = re.compile(r"\W*\d.*")
_NO_NAME = re.compile(
    r"(?:yes|no|true|false|normal|abnormal|present|absent|positive|negative|unknown|healthy|none|other|all|both|neither"
    r"|benign|malignant|cannot be determined|(?:none|both|any|either|neither) .*)"
)
_CLAUSE_BEGINS = re.compile(r"[,:]\s|→|=>|\s-\s|\b(?:so|thus|therefore|hence)\b")
_CLAUSE_ENDS = re.compile(
    r"[,;:(→]|\s-\s|\b(?:because|since|as|given\s(?:the|that|its)|based|rather|instead|without|which|with|due|involving|including|affecting|and\snot)\b",
    re.IGNORECASE,
)
_LABEL = re.compile(
    r"\W{0,6}(?:(?:the|most|likely|probable|final|correct|best|primary|main|overall)\s){0,3}"
    r"(?:diagnosis|answer|conclusion|impression|interpretation)\s?:\s{0,3}[\"']?",
    re.IGNORECASE,
)
_SUPERLATIVE = re.compile(
    r"\s{0,3}(?:the|these|this|all)\b.{3,300}\b(?:is|are)\smost\s(?:consistent|compatible|suggestive|in\skeeping)\s(?:with|of)"
    r"(?:\san?|\sthe)?\s{1,3}",
    re.IGNORECASE,
)
_REASONED = re.compile(r",?\s(?:because|since|as\s(?:the|it|there)|given|based\son|due\sto)\b", re.IGNORECASE)
_WORDS = re.compile(r"[^\W_]+(?:['-][^\W_]+)*|'s\b")
_LIST = re.compile(r"\s{0,2}(?:,|/|,?\s(?:and|or|nor))\s{1,2}(?:an?\s|the\s)?")


class _Mention(NamedTuple):
    letter: str
    start: int
    end: int
    asserted: bool
    rejected: bool


def asserted_option(text: str, options: Mapping[str, str], question: str = "") -> str | None:
    """The letter of the one option that a text asserts by its words, or None.

    Options such as "Normal" are read where other rules read them; here they would be met in sentences about something
    else. Numbers are read only beside words of the question.

    Args:
        text: without markup and thoughts.
        options: letter -> text.
        question: the question, with its options or without; with "" only general words lead to an option.
    """
    pattern = _names(tuple(options.items()))
    places = list(islice(pattern.finditer(text), _MENTIONS + 1))
    words = question_words(question)
    if not places or len(places) > _MENTIONS or NEGATED_QUESTION.search(_asked(question)):
        return None
    mentioned = _with_lists(text, [_mention(text, place, pattern, words) for place in places])
    asserted = [mention for mention in mentioned if mention.asserted]
    if len({mention.letter for mention in asserted}) != 1:
        return None
    last = asserted[-1]
    after = text[last.end :]
    name = fold_text(options[last.letter])
    if _NO_NAME.fullmatch(name) or (_NUMBER.fullmatch(name) and not words) or len(after) > _AFTER:
        return None
    for mention in mentioned:
        if mention.letter == last.letter and mention.rejected:
            return None
        if mention.letter != last.letter and mention.start > asserted[0].start and not mention.rejected:
            return None
    sentence_end = _ENDS.search(after)
    later = after[sentence_end.start() :] if sentence_end else ""
    if DOUBTED_LATER.search(later) or RETRACTION.search(later) or not _explains(later, pattern):
        return None
    if later.strip(" .\n") and not text.rstrip().endswith(_WHOLE_ENDS):
        return None  # cut off: what would have come is not known
    return last.letter if mentions(pattern.sub(" it ", text), options) <= {last.letter} else None


def _asked(question: str) -> str:
    """A question without its options."""
    return re.split(r"\bA\)", question, maxsplit=1)[0][-2000:]


@lru_cache(maxsize=4096)
def question_words(question: str) -> frozenset[str]:
    """The stems of a question's words, those left out that hedge or deny."""
    return frozenset(_stem(word) for word in _WORDS.findall(_asked(question).lower())) - HEDGES


def _stem(word: str) -> str:
    word = word.removesuffix("'s")
    for ending in ("ement", "ment", "ing", "ed", "es", "s", "e"):
        if len(word) - len(ending) >= 3 and word.endswith(ending) and not word.endswith(("ss", "us", "is")):
            return word[: -len(ending)]
    return word


def _with_lists(text: str, mentioned: list[_Mention]) -> list[_Mention]:
    """The mentions, each of a list rejected where the last of it is: "Drusen and edema are less likely"."""
    for at in range(len(mentioned) - 2, -1, -1):
        here, following = mentioned[at], mentioned[at + 1]
        if following.rejected and _LIST.fullmatch(text, here.end, following.start):
            mentioned[at] = _Mention(here.letter, here.start, here.end, asserted=False, rejected=True)
    return mentioned


def _explains(later: str, pattern: re.Pattern[str]) -> bool:
    """Whether every sentence behind an assertion can be read as its explanation, or rejects an option."""
    anything = WHY.match(later) is not None
    for sentence in _ENDS.split(later):
        if not sentence.strip(" \n\"')]*-:"):
            continue
        others = list(pattern.finditer(sentence))
        if others and not sentence[: others[0].start()].strip() and is_rejected(sentence, others[-1].end()):
            continue
        if SPEAKS_AGAINST.search(NOT_THERE.sub("", sentence)) or not (anything or EXPLAINS.match(sentence)):
            return False
    return True


@lru_cache(maxsize=4096)
def _names(options: tuple[tuple[str, str], ...]) -> re.Pattern[str]:
    """A pattern of every option's text, with its letter or without; where one contains another, the longer."""
    names = []
    for letter, option in sorted(options, key=lambda item: -len(fold_text(item[1]))):
        folded = fold_text(option)
        if len(folded) > 1 or folded.isdecimal():
            names.append(
                rf"(?P<{letter}>(?:(?:option\s)?[(]?{letter}[).:]{{1,2}}\s{{0,2}})?{text_pattern(option)}(?!-|[.,]\d)"
                rf"(?:\s{{0,2}}\((?:option\s)?{letter}\))?)"
            )
    return re.compile(rf"(?<![\w-])(?<!\d[.,])(?:{'|'.join(names) or '(?!)'})", re.IGNORECASE)


def _mention(text: str, place: re.Match[str], pattern: re.Pattern[str], words: frozenset[str]) -> _Mention:
    letter = place.lastgroup or ""
    low = max(0, place.start() - _SENTENCE)
    begins = [end.end() for end in _ENDS.finditer(text, low, place.start())]
    before = text[begins[-1] if begins else low : place.start()]
    ending = _ENDS.search(text, place.end(), place.end() + _SENTENCE)
    rest = text[place.end() : ending.end() if ending else place.end() + _SENTENCE]
    rejected = is_denied(before[-90:]) or is_rejected(text, place.end())
    alone = not text[: place.start() - len(before)].strip() and not text[place.end() + len(rest) :].strip(" .\n")
    known_start = bool(begins) or not low
    asserted = (
        known_start
        and not rejected
        and _says_only(before, rest, pattern, words, alone, re.search(r"\([A-Z]\)$", place.group()) is not None)
    )
    return _Mention(letter, place.start(), place.end(), asserted, rejected)


def _says_only(
    before: str, rest: str, pattern: re.Pattern[str], words: frozenset[str], alone: bool, place_has_letter: bool
) -> bool:
    """Whether the clause around an option says it and nothing else, in a sentence that neither doubts nor compares."""
    tail_end = _CLAUSE_ENDS.search(rest)
    tail, remainder = (rest[: tail_end.start()], rest[tail_end.start() :]) if tail_end else (rest, "")
    if "?" in rest or REST_OF_SENTENCE.search(pattern.sub("", remainder)):
        return False
    if tail.strip(" .!\n\"')") == "" and (_LABEL.fullmatch(before) or _open_lead(before)):
        return True
    head, introduction = _clause(before)
    head = ADJECTIVE.sub(" ", head)
    if CONDITION.search(introduction) or not (INTRODUCES.match(introduction) or _leads(introduction, words)):
        return False
    lead, trail = _WORDS.findall(head.lower()), _WORDS.findall(tail.lower())
    if not (_leads(head, words) and _leads(tail, words)) or UNBOUND.search(head) or UNBOUND.search(tail):
        return False
    arrow = before.rstrip(" \"'(").endswith(("→", "=>"))
    concludes = re.search(r"\b(?:thus|therefore|hence),?\s{0,3}(?:(?:an?|the)\s)?$", before, re.IGNORECASE) is not None
    if any(word in VERBS or word.endswith("'s") for word in lead) or arrow or concludes:
        return True
    if not lead and not trail and place_has_letter and not introduction.strip():
        return _REASONED.match(remainder) is not None
    says = any(word not in VERBS and word not in FUNCTION_WORDS for word in trail)
    is_subject = any(word in VERBS for word in trail)
    if is_subject:
        return says and not re.match(r"\W{0,3}\w+\s(?:an?|one|part|some)\b", tail)
    return alone and not introduction.strip() and not remainder.strip() and bool(trail or lead) and bool(words)


def only_leads(text: str, question: str) -> bool:
    """Whether a text, such as a sentence's subject, says nothing but what the question says."""
    return bool(text.strip()) and _leads(text, question_words(question))


def _leads(text: str, words: frozenset[str]) -> bool:
    """Whether a text has no words but those that lead to an answer and those of the question."""
    names = _WORDS.findall(text.lower())
    for name, following in zip(names, [*names[1:], ""], strict=False):
        if name not in LEADING_WORDS and _stem(name) not in words:
            return False
        if name == "best" and following not in BEST_OF and "best" not in words:
            return False  # "is best seen with MRI" speaks of MRI in general
    return True


def _open_lead(before: str) -> bool:
    """Whether any findings are "most consistent with" the option, without a word of doubt."""
    return (
        _SUPERLATIVE.fullmatch(before) is not None and not CONDITION.search(before) and not DOUBTED_LATER.search(before)
    )


def _clause(before: str) -> tuple[str, str]:
    """The clause that leads to an option, and what its sentence has before it."""
    at = 0
    for sign in _CLAUSE_BEGINS.finditer(before):
        at = sign.end()
    return before[at:], before[:at]
