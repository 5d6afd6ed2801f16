"""Text that is nothing but an answer: a letter, a letter with its text, an option's text, a letter on the last line."""

import re
from collections.abc import Mapping

from open_r1.grading.choice.option_texts import (
    EDGES,
    ENDS,
    fold_text,
    longest_option,
    plain_text,
    whole_words,
    without_article,
)

_LEAD = re.compile(
    r"(?:(?:the|my)\s{1,3})?(?:(?:final|correct|best|right)\s{1,3})?(?:answer|option|choice|letter)"
    r"(?:\s{0,3}:\s{0,3}|\s{1,3})(?:(?:option|choice|letter)\s{1,3})?|(?:选项|答案|正解|정답)\s{0,3}:?\s{0,3}",
    re.IGNORECASE,
)


def read_statement(content: str, options: Mapping[str, str], cut: bool = False) -> str | None:
    """The letter, if `content` is nothing but an answer: a letter, a letter with its text, or an option's text."""
    content = content.strip()
    if len(content) > 2 * longest_option(options) + 120:
        return None
    by_text = _option_named(content, options)
    by_letter = _read_letter(content, options, cut)
    if len(plain_text(content).strip(EDGES)) == 1:
        return by_letter or by_text  # a lone letter is a letter, even where an option's text is a letter too
    if by_letter and by_text and by_letter != by_text:
        return None
    return by_letter or by_text


def _option_named(content: str, options: Mapping[str, str]) -> str | None:
    """The letter of the one option whose full text is `content`."""
    folded = fold_text(content)
    letters = [letter for letter, text in options.items() if folded and fold_text(text) == folded]
    if not letters and not folded.startswith("a "):  # "A chest X-ray" may begin with a letter
        bare = without_article(folded)
        letters = [letter for letter, text in options.items() if bare and without_article(fold_text(text)) == bare]
    if not letters and len(folded) > 3 and not folded.startswith("a "):
        bare = _without_place(folded)
        letters = [letter for letter, text in options.items() if _without_place(fold_text(text)) == bare]
    if not letters and (shorter := _without_addition(folded, options)) != folded:
        return _option_named(shorter, options)
    return letters[0] if len(letters) == 1 else None


_PREPOSITION = re.compile(r"(?:in|on|at|within)\s(?=\w)")


def _without_place(folded: str) -> str:
    """A folded text without the preposition before it and the hyphens in it: "in the right lung", "fine-needle"."""
    text = without_article(_PREPOSITION.sub("", folded, count=1) if _PREPOSITION.match(folded) else folded)
    return re.sub(r"(?<=[a-z])-(?=[a-z])", " ", text)


_ADDITION = re.compile(
    r"(?:\s(?:scan|image|imaging|picture|study|plane|view|section|deficiency)|\s?\((?P<bracket>[^()]{2,60})\))$"
)


def _without_addition(folded: str, options: Mapping[str, str]) -> str:
    """A text without a word such as "scan" or a bracket behind it: "CT scan", "right lower lobe (RLL)".

    A bracket that names a letter or an option, or denies one, stays.
    """
    addition = _ADDITION.search(folded)
    if addition is None:
        return folded
    words = (addition["bracket"] or "").split()
    named = any(len(word) == 1 or word in ("not", "no", "or", "and") for word in words)
    if named or (words and _option_named(" ".join(words), options) is not None):
        return folded
    return folded[: addition.start()]


def _read_letter(content: str, options: Mapping[str, str], cut: bool = False) -> str | None:
    """The letter, if `content` is an offered letter alone or beside its own option's text."""
    text = plain_text(content).strip()
    lead = _LEAD.match(text)
    if lead and lead.end() < len(text):
        text = text[lead.end() :]
    trailing = _trailing_letter(text, options)
    if trailing is not None:
        return trailing
    text = text.strip(EDGES) + (" " if text[-1:].isspace() else "")
    letter, after = text[:1].upper(), text[1:]
    if letter not in options or not text[:1].isascii() or (after[:1].isascii() and after[:1].isalnum()):
        return None
    body = after.strip(EDGES)
    if not body or _fits(letter, after, options, cut):
        return letter
    repeated = all(piece.upper() == letter for piece in re.split(r"[\s,;/()]+", body))
    return letter if repeated and _option_named(body, options) is None else None


def beside(after: str) -> tuple[str, str]:
    """The text that stands beside a letter, read twice: without the letter's mark, and without any sign before it.

    The first keeps the sign of "B) -5 mm", the second drops the dash of "C - Pneumonia".
    """
    return after.lstrip(" \t\n)].:,;"), after.lstrip(EDGES)


def _fits(letter: str, after: str, options: Mapping[str, str], cut: bool) -> bool:
    """Whether the text after a letter is that option's text: in full, or after a mark (`C)`, `C:`) in part."""
    option_text = fold_text(options[letter])
    other_texts = {fold_text(text) for other_letter, text in options.items() if other_letter != letter}
    bodies = [fold_text(body) for body in beside(after)]
    bodies += [without_article(body) for body in bodies if body.startswith("the ")]
    for body in bodies:
        if body == option_text:
            return True
        if body in other_texts:
            return False
    if after.lstrip()[:1] not in tuple(")].:,;-"):
        return False
    if any(_without_addition(body, options) == option_text or _goes_on(body, option_text) for body in bodies):
        return True
    return any(
        (cut and option_text.startswith(body)) or whole_words(body) in whole_words(option_text) for body in bodies
    )


def _goes_on(body: str, option_text: str) -> bool:
    """Whether a text is an option's with a place behind it: "right lower lobe of the lung"."""
    rest = body.removeprefix(option_text)
    return rest != body and _PLACE.fullmatch(rest) is not None


_PLACE = re.compile(
    r"\s(?:of|in|on) the"
    r"(?:\s(?!(?:not|no|is|are|was|were|has|have|can|does|did|seems|appears|looks|or|and)\b)[\w-]{1,20}){1,4}"
)


_BRACKET = re.compile(r"[(\[](?:(?:option|choice|answer)\s)?([A-Za-z])[)\]]$", re.IGNORECASE)


def _trailing_letter(text: str, options: Mapping[str, str]) -> str | None:
    """The letter of "Pneumonia (C)", if the text before it is that option's."""
    text = text.rstrip(ENDS)
    bracket = _BRACKET.search(text[-20:])
    if bracket is None:
        return None
    letter, named = bracket[1].upper(), text[: len(text) - len(bracket.group())]
    return letter if letter in options and _option_named(named, options) == letter else None


_LINES = 64  # an answer below more lines than that is still found; only they are compared with it


def last_line(text: str, options: Mapping[str, str]) -> str | None:
    """The letter on the last line, unless a line above it reads as another answer (a list of the options)."""
    lines = [line for line in text.rstrip().rsplit("\n", _LINES)[-_LINES:] if line.strip()]
    if len(lines) < 2 or len(lines[-1]) > 2 * longest_option(options) + 120:
        return None
    letter = _read_letter(lines[-1].strip(), options)
    if letter is None or any(read_statement(line, options) not in (None, letter) for line in lines[:-1]):
        return None
    return letter
