"""The lenient matching of HuatuoGPT-o1's evaluation, reproduced so that old numbers can be compared. Not our grader.

It always finds an answer: a letter after "answer is", else any letter that stands alone, else an option's text, else
the option that the text is most similar to. What it finds first and what it finds last are scored apart, and per
source the better of the two counts. So it guesses where ours says unparsed, and picks the rule by the result:
numbers made with it stand beside ours only under its name.

Source: the evaluation scripts of FreedomIntelligence/HuatuoGPT-o1. Own code; its oddities are kept and named below.
"""

import difflib
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import NamedTuple

_FINAL = "## Final Response\n\n"  # the heading under which HuatuoGPT-o1 answers
_LETTERS = "ABCDEFGHIJKLMN"  # all that the published patterns know
_CLAIM = re.compile(rf"answer is\s*([{_LETTERS}])")  # whether or not the letter is offered, or begins a word


class How(StrEnum):
    """Which of the four rules found the answer."""

    CLAIM = "claim"
    LETTER = "letter"
    TEXT = "text"
    SIMILAR = "similar"


class Match(NamedTuple):
    """The letters found first and last, and how."""

    first: str
    last: str
    how: How


def match_choice(text: str, options: Mapping[str, str]) -> Match:
    """The letters that the published matching reads from a completion; it never finds none.

    Args:
        text: the completion, thoughts included.
        options: letter -> text, in order from A; at least one.
    """
    text = text.rpartition(_FINAL)[2]
    claimed = [match[1] for match in _CLAIM.finditer(text)]
    if claimed:
        return Match(claimed[0], claimed[-1], How.CLAIM)
    alone = [match[1] for match in _letters_alone(len(options)).finditer(text)]
    if alone:
        return Match(alone[0], alone[-1], How.LETTER)
    return _by_text(text.lower(), {letter: option.lower() for letter, option in options.items()})


def _letters_alone(count: int) -> re.Pattern[str]:
    """An offered letter between signs, spaces or Chinese characters. An A before a space never counts, as it may be the
    article; any other letter does, whatever follows: "vitamin C deficiency" answers C."""
    sign = r"\W|[\u4e00-\u9fff]"
    return re.compile(rf"(?:{sign}|^)(?![aA] )([{_LETTERS[:count]}])(?:{sign}|$)")


def _by_text(text: str, options: Mapping[str, str]) -> Match:
    """The option whose text occurs, all in lower case; where none does, the most similar one.

    Oddity: "first" is the option whose first occurrence is furthest back, not foremost. Kept, as numbers hang on it.
    """
    occurring = [letter for letter, option in options.items() if option in text]
    if occurring:
        first_letter = max(occurring, key=lambda letter: text.index(options[letter]))
        last_letter = max(occurring, key=lambda letter: text.rindex(options[letter]))
        return Match(first_letter, last_letter, How.TEXT)
    # of several that are equally similar the last one counts
    likeness = {letter: difflib.SequenceMatcher(None, option, text).ratio() for letter, option in options.items()}
    letter = max(reversed(likeness), key=lambda candidate: likeness[candidate])
    return Match(letter, letter, How.SIMILAR)


class Judged(NamedTuple):
    """One answered question."""

    source: str
    output: str
    letter: str
    """The right one."""
    options: Mapping[str, str]


class Score(NamedTuple):
    """Right answers of one source by both matches; `best` is what the published tables show."""

    n: int
    first: int
    last: int
    guessed: int
    """Answers found by text or by likeness alone, where a stricter reader may find none."""

    @property
    def best(self) -> float:
        """The better of the two accuracies, 0 to 1."""
        return max(self.first, self.last) / self.n

    @property
    def counted(self) -> str:
        """Which of the two that is: "first" or "last"; of equals the first."""
        return "first" if self.first >= self.last else "last"


def scores(answered: Iterable[Judged]) -> dict[str, Score]:
    """The published score of every source, in the order in which the sources come."""
    return tallied((answer, match_choice(answer.output, answer.options)) for answer in answered)


def tallied(matched: Iterable[tuple[Judged, Match]]) -> dict[str, Score]:
    """The same from answers that have been matched."""
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    for answer, match in matched:
        right = answer.letter.upper()
        row = counts[answer.source]
        row[0] += 1
        row[1] += match.first.upper() == right
        row[2] += match.last.upper() == right
        row[3] += match.how in (How.TEXT, How.SIMILAR)
    return {source: Score(*row) for source, row in counts.items()}
