"""Which options refer to other options, so that they cannot be shuffled.

"None of these" may stand behind the others only; "Both A and B" or "1 and 2 only" becomes another statement when what
they name moves. The rules rather keep one order too many: a question whose order stays is asked as it was written.
"""

import re
from collections.abc import Mapping

_GROUP = r"(?:options?|choices?|answers?|alternatives?|statements?)"
_SIDE = r"(?:below|preceding|previous|foregoing|following)"
_MANY = r"\b(?:all|none|any|both|either|neither|each|some|most|more than one|one|two|three|four|half)\b"

_WHOLE = re.compile(
    # "all of these", "none of the above", "any two of the other options", "all the above drugs"
    rf"{_MANY}(?:\s+of)?\s+(?:(?:the|other|listed|given)\s+)*(?:these|those|them|the others?|above|{_GROUP})\b"
    rf"|{_MANY}\s+(?:of\s+(?:the\s+)?|the\s+){_SIDE}\b"
    # nothing but: "none", "all are true", "both correct", "not listed", "other"
    r"|^(?:all|none|both|neither|any|not (?:listed|given|mentioned)|others?)"
    r"(?:\s+(?:are|is|of|the|here|correct|true|false|wrong|possible|equally|same))*$",
    re.IGNORECASE,
)
_SIDED = re.compile(rf"\b(?:above|{_SIDE})\b", re.IGNORECASE)
_ORDERED = re.compile(
    rf"^(?:only\s+|both\s+)?(?:the\s+)?(?:former|latter|(?:first|last)\s+(?:two|three|{_GROUP}))"
    rf"(?:\s+(?:are|is|only|correct|true|false|wrong|{_GROUP}))*$",
    re.IGNORECASE,
)

# Options made of names and of these words only are combinations: "A, B and D are correct", "only 1 and 3".
_LINKS = frozenset(
    {
        *{"and", "or", "nor", "&", "+", ",", "both", "either", "neither", "only", "alone", "all", "none", "except"},
        *{"but", "option", "options"},
    }
)
_FILLERS = frozenset(
    {
        *{"not", "of", "the", "above", "is", "are", "am", "be", "correct", "true", "false", "wrong", "right"},
        *{"choice", "choices", "answer", "answers", "statement", "statements"},
    }
)
_WORDS = re.compile(r"[^\W_]+|[&+,/]")
_ROMAN = re.compile(r"[IVX]{1,4}", re.IGNORECASE)

_NAMED = re.compile(
    rf"\b(?i:{_GROUP})\s+\(?[A-Z]\b"  # "option B", "answers (A) and (C)"
    r"|(?<!\S)\([A-Z]\)"  # "(B)"
    r"|\b(?i:both|either|neither|between|all\s+(?:except|but)|none\s+except|same\s+as)\s+[A-Z]\b"
    r"(?=\s*(?:$|[.,;&/+]|(?i:and|or|nor)\s+[A-Z]\b))"  # "both A and B", "same as C"
)

_SEVERAL = re.compile(r"(?!\w*(\w)\w*\1)[a-h]{1,8}", re.IGNORECASE)  # "ac", "bcd": no letter twice
_MARKER = re.compile(r"(?<![^\s(])[A-Z]\)")  # "see A) above"


def fixed_options(question: str, options: Mapping[str, str]) -> frozenset[str]:
    """Letters of the options that keep their place when options are permuted; all of them where the order must stay.

    All: where an option or the question names options by letter or number ("Both A and B", "see option C"; "A) C" in
    a new order would be read both ways), where an option means the first or the last ones, and where one that speaks
    of those above it has others below. Otherwise only those that speak of the rest as a whole: "None of these".

    Args:
        question: what stands before the options.
        options: letter -> text, in the order in which they are offered.
    """
    every = frozenset(options)
    texts = {letter: " ".join(text.split()).rstrip(" .") for letter, text in options.items()}
    ordered = any(_names(text, every) or _combines(text, every) or _ORDERED.search(text) for text in texts.values())
    if ordered or _names(question, every) or all(_SEVERAL.fullmatch(text) for text in texts.values()):
        return every
    fixed = frozenset(letter for letter, text in texts.items() if _WHOLE.search(text))
    movable = sorted(every - fixed)
    if len(movable) < 2 or any(_SIDED.search(texts[letter]) and letter < movable[-1] for letter in fixed):
        return every
    return fixed


def _names(text: str, letters: frozenset[str]) -> bool:
    """Whether a text names one of the letters as an option's: "option B", "(B)", "see A) above", "both A and B"."""
    references = [match.group() for match in _NAMED.finditer(text)]
    if text.count(")") > text.count("("):  # otherwise "(37.5 C)" closes what it opened
        references += _MARKER.findall(text)
    return any(letters.intersection(re.findall(r"\b[A-Z]\b", name)) for name in references)


def _combines(text: str, letters: frozenset[str]) -> bool:
    """Whether an option is nothing but a name or a combination of names: "B", "A & C", "1 and 2 only", "II, III"."""
    if text.upper() in letters:
        return True
    words = [word.lower() for word in _WORDS.findall(text)]
    for is_name in (
        lambda word: word.upper() in letters,
        lambda word: len(word) == 1 and word.isdecimal(),
        _ROMAN.fullmatch,
    ):
        other_words = {word for word in words if not is_name(word)}
        if len(other_words) < len(set(words)) and other_words & _LINKS and other_words <= _LINKS | _FILLERS:
            return True
    return False
