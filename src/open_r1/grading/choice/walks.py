"""A walk through the options that explains them behind an answer: "Why the other options are less likely: A. ..."

Such a list names every option, and none as another answer: its heading says that it explains, each of its lines begins
with an option, and no line but that of the answer says anything in favour.
"""

import re
from collections.abc import Mapping
from functools import lru_cache

from open_r1.grading.choice.option_texts import text_pattern

_HEADING = re.compile(
    r"(?:^|\n)[^\n]{0,80}\b(?:(?:other|remaining|incorrect|wrong)\s(?:options|choices|answers|diagnoses)"
    r"|explanations?|rationale|reasoning|reasons?|why)\b[^\n]{0,60}:\s{0,3}\n",
    re.IGNORECASE,
)
_IN_FAVOUR = re.compile(
    r"\b(?:correct|right|best|better|most|also|equally|as well|possible|possibly|(?<!less )(?<!not )likely|answer"
    r"|choose|fits?|match\w*|consistent|typical|support\w*|suggest\w*|favou?r\w*|explains?|agree\w*|indeed"
    r"|actually|wait|but|however|yes|true|this is|here|i|we|my|me|prefer\w*|now|answers|shown|used)\b|\?",
    re.IGNORECASE,
)


def without_walk(text: str, start: int, letter: str, options: Mapping[str, str]) -> str:
    """The text without the lines of a walk through the options that begins behind `start` and speaks for none but one.

    Args:
        text: without markup.
        start: where the answer ends.
        letter: the answer.
        options: letter -> text.
    """
    heading = _HEADING.search(text, start)
    if heading is None:
        return text
    lines = text[heading.end() :].split("\n")
    pattern = _line(tuple(options.items()))
    walked, names = 0, set()
    for line in lines:
        if not line.strip():
            walked += 1
            continue
        begins = pattern.match(line)
        if begins is None:
            break
        if begins.lastgroup != letter and _IN_FAVOUR.search(line, begins.end()):
            return text
        names.add(begins.lastgroup)
        walked += 1
    if not names - {letter}:
        return text
    return text[: heading.end()] + "\n".join(lines[walked:])


@lru_cache(maxsize=4096)
def _line(options: tuple[tuple[str, str], ...]) -> re.Pattern[str]:
    """A line of a walk: a mark, a letter or its option's text or both, a colon or a dash, and words about it."""
    names = "|".join(
        rf"(?P<{letter}>(?:option\s)?\(?{letter}[).:]{{1,2}}\s{{0,3}}(?:(?i:{text_pattern(option)}))?|(?i:{text_pattern(option)}))"
        for letter, option in options
    )
    return re.compile(
        rf"\s{{0,8}}(?:[-•+]\s{{0,4}}|\d\.\s{{0,4}})?(?:{names})\s{{0,2}}(?=[:-]|\s(?:is|are|uses?|would|was|typically|usually)\b|(?<=:)|(?<=[.)]))"
    )
