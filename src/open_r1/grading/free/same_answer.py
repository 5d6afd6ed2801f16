"""Whether two short answers say the same: an exact match after normalisation by rules, never by likeness.

What does not count: case, punctuation, articles, markup, singular or plural, a number as digits or as a word, one
unit of a quantity or another ("5 mm" is "0.5 cm"), "no evidence of" for "no", a preposition before a place, and the
order of a list. Everything else counts, above all "left" and "right", "no" and "without", every number, every unit.
"""

import re
from collections.abc import Iterable
from fractions import Fraction
from functools import lru_cache

from open_r1.grading.choice.option_texts import normalized, plain_text
from open_r1.vocabulary.answer_types import yes_or_no

Token = str | tuple[str, Fraction]
"""A word, or a quantity: its dimension ("" for a bare number) and its size in the base unit."""

_LONGEST = 20_000  # characters; longer texts are compared as they stand
_DIGITS = 40  # a longer number is a word

_UNITS: dict[str, tuple[str, Fraction]] = {
    **dict.fromkeys(("mm", "millimeter", "millimetre"), ("metre", Fraction(1, 1000))),
    **dict.fromkeys(("cm", "centimeter", "centimetre"), ("metre", Fraction(1, 100))),
    **dict.fromkeys(("\u00b5m", "\u03bcm", "um", "micron", "micrometer", "micrometre"), ("metre", Fraction(1, 10**6))),
    **dict.fromkeys(("m", "meter", "metre"), ("metre", Fraction(1))),
    **dict.fromkeys(("ml", "milliliter", "millilitre", "cc"), ("litre", Fraction(1, 1000))),
    **dict.fromkeys(("l", "liter", "litre"), ("litre", Fraction(1))),
    **dict.fromkeys(("mg", "milligram"), ("gram", Fraction(1, 1000))),
    **dict.fromkeys(("g", "gram"), ("gram", Fraction(1))),
    **dict.fromkeys(("kg", "kilogram"), ("gram", Fraction(1000))),
    **dict.fromkeys(("%", "percent", "per cent"), ("percent", Fraction(1))),
    **dict.fromkeys(("hour", "hr"), ("minute", Fraction(60))),
    **dict.fromkeys(("minute", "min"), ("minute", Fraction(1))),
    **dict.fromkeys(("day",), ("day", Fraction(1))),
    **dict.fromkeys(("week", "wk"), ("day", Fraction(7))),
    **dict.fromkeys(("month",), ("month", Fraction(1))),
    **dict.fromkeys(("year", "yr"), ("month", Fraction(12))),
}
_NUMBERS = {
    word: number
    for number, word in enumerate(
        [
            "zero",
            "one",
            "two",
            "three",
            "four",
            "five",
            "six",
            "seven",
            "eight",
            "nine",
            "ten",
            "eleven",
            "twelve",
            "thirteen",
            "fourteen",
            "fifteen",
            "sixteen",
            "seventeen",
            "eighteen",
            "nineteen",
            "twenty",
        ]
    )
} | {"thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90, "hundred": 100}
_ORDINALS = dict(
    zip(
        [
            "first",
            "second",
            "third",
            "fourth",
            "fifth",
            "sixth",
            "seventh",
            "eighth",
            "ninth",
            "tenth",
            "eleventh",
            "twelfth",
        ],
        ["1st", "2nd", "3rd", "4th", "5th", "6th", "7th", "8th", "9th", "10th", "11th", "12th"],
        strict=True,
    )
)
_IRREGULAR = {
    **{"vertebrae": "vertebra", "bronchi": "bronchus", "nuclei": "nucleus", "emboli": "embolus", "foci": "focus"},
    **{"thrombi": "thrombus", "calculi": "calculus", "diverticula": "diverticulum", "ova": "ovum", "teeth": "tooth"},
    **{"feet": "foot", "men": "man", "women": "woman", "children": "child", "phalanges": "phalanx", "atria": "atrium"},
    **{"mice": "mouse", "scapulae": "scapula", "fibulae": "fibula", "tibiae": "tibia", "bacteria": "bacterium"},
    **{"sulci": "sulcus", "gyri": "gyrus", "villi": "villus", "alveoli": "alveolus", "ganglia": "ganglion"},
    **{"metastases": "metastasis", "diagnoses": "diagnosis", "stenoses": "stenosis", "biopsies": "biopsy"},
    **{"prognoses": "prognosis", "cirrhoses": "cirrhosis", "fibroses": "fibrosis", "arthroses": "arthrosis"},
    **{"lungs": "lung", "lenses": "lens", "viruses": "virus", "sinuses": "sinus", "fetuses": "fetus"},
}
_NO_PLURAL = ("ss", "us", "is", "as", "os", "ous", "ics", "ies")
_ARTICLES = frozenset({"a", "an", "the"})
_PLACES = frozenset({"in", "on", "at", "within"})  # before a place: "in the left lung"

_PIECES = re.compile(
    r"(?P<number>(?<![\w.])(?:(?<![\d)])-)?\d[\d,]*(?:\.\d+)?|(?<![\w.])\.\d+)(?P<ordinal>st\b|nd\b|rd\b|th\b)?"
    r"|(?P<word>[^\W\d_\u3400-\u9fff][^\W_\u3400-\u9fff]*(?:'[^\W\d_]+)?|\d+[^\W_]+)|(?P<sign>[\u3400-\u9fff]|[<>\u2264\u2265%+\u00b1~/&-])"
)
_LISTS = re.compile(r"\s*[,;/&\u3001]\s*(?:and\s)?|\s+and\s+")
_NO = (
    (re.compile(r"\b(?:no|without|absence of|absent)\s+(?:any\s+)?(?:evidence|signs?|indication)\s+of\b"), "no"),
    (re.compile(r"\b(?:without(?:\s+any)?|absence of)\b"), "no"),
    (re.compile(r"\bx[\s-]?rays?\b"), "xray"),
    (re.compile(r"\b(ct|mri|mr|xray|pet|ultrasound)\s(?:scan|image|imaging)s?\b"), r"\1"),
    (re.compile(r"\b(axial|coronal|sagittal|frontal|lateral)\s(?:plane|view|image|section|scan|slice)s?\b"), r"\1"),
    (re.compile(r"\b(left|right)(?:[\s-]sided|\s+hand\s+side|\s+side)\b"), r"\1"),
    (re.compile(r"\bboth\s+sides\b|\bbilaterally\b|\bbilateral\b"), "both"),
)
_NEGATIONS = frozenset({"no", "not", "none", "neither", "nor", "never", "non", "negative"})


def same_answer(answer: str, reference: str) -> bool:
    """Whether an answer is the reference by the rules of this module."""
    if max(len(answer), len(reference)) > _LONGEST:
        return answer.strip() == reference.strip()
    polarity = yes_or_no(reference)
    if polarity is not None and yes_or_no(answer) is not None:
        return yes_or_no(answer) == polarity
    tokens, others = canonical(answer), canonical(reference)
    if tokens == others:
        return bool(tokens)
    if _NEGATIONS.intersection(token for token in (*tokens, *others) if isinstance(token, str)):
        return False  # "no A and B" in another order may mean something else
    items, other_items = _items(answer), _items(reference)
    return len(items) > 1 and sorted(map(str, items)) == sorted(map(str, other_items))


def is_any(answer: str, references: Iterable[str]) -> bool:
    """Whether an answer is one of several references."""
    return any(same_answer(answer, reference) for reference in references)


def _items(text: str) -> list[tuple[Token, ...]]:
    """The items of a list such as "Lung, Spinal Cord", each canonical."""
    return [item for piece in _LISTS.split(_plain(text)) if (item := canonical(piece))]


def _plain(text: str) -> str:
    text = plain_text(normalized(text)).casefold().replace("\u00d7", " x ")
    return " ".join(text.split())


@lru_cache(maxsize=4096)
def canonical(text: str) -> tuple[Token, ...]:
    """The words and quantities of a text in the form in which answers are compared."""
    text = _plain(text)
    for pattern, replacement in _NO:
        text = pattern.sub(replacement, text)
    tokens: list[Token] = []
    for piece in _PIECES.finditer(text):
        tokens += _tokens_of(piece)
    while tokens and tokens[0] in _PLACES:
        tokens.pop(0)
    tokens = [token for token in tokens if token not in _ARTICLES and token != "-"]
    return tuple(_with_units(tokens))


def _tokens_of(piece: re.Match[str]) -> list[Token]:
    """The tokens of one number, word or sign."""
    if piece["number"] is not None:
        if piece["ordinal"]:
            return [piece["number"] + piece["ordinal"]]
        return _numbers(piece["number"])
    if piece["sign"] is not None:
        return [{"&": "and"}.get(piece["sign"], piece["sign"])]
    word = piece["word"]
    glued = re.fullmatch(r"(\d+)([^\W\d_]+)", word)  # "5mm"
    if glued and singular(glued[2]) in _UNITS:
        return [("", Fraction(glued[1])), glued[2]]
    if word in _NUMBERS:
        return [("", Fraction(_NUMBERS[word]))]
    return [_ORDINALS.get(word) or singular(word.removesuffix("'s"))]


def _numbers(text: str) -> list[Token]:
    """A number as written: "1,000" is a thousand, "2,5" two and a half; "1,2,3" are three."""
    if len(text) > _DIGITS:
        return [text]
    if re.fullmatch(r"-?\d{1,3}(?:,\d{3})+(?:\.\d+)?", text):
        text = text.replace(",", "")
    elif text.count(",") == 1 and "." not in text and not text.endswith(","):
        text = text.replace(",", ".")
    return [("", Fraction(part)) for part in text.split(",") if part]


def singular(word: str) -> str:
    """The singular of an English noun, by rules that both sides of a comparison go through."""
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 4 and word.endswith(("sses", "shes", "ches", "xes")):
        return word[:-2]
    if len(word) > 3 and word.endswith("s") and not word.endswith(_NO_PLURAL):
        return word[:-1]
    return word


def _with_units(tokens: list[Token]) -> list[Token]:
    """Numbers joined with the units behind them; of "2 x 3 cm" both numbers are in centimetres."""
    joined: list[Token] = []
    for token in tokens:
        previous = joined[-1] if joined else None
        if isinstance(token, str) and singular(token) in _UNITS and isinstance(previous, tuple) and not previous[0]:
            dimension, scale = _UNITS[singular(token)]
            joined[-1] = (dimension, previous[1] * scale)
            place = len(joined) - 3
            while place >= 0 and joined[place + 1] == "x" and isinstance(joined[place], tuple) and not joined[place][0]:
                joined[place] = (dimension, joined[place][1] * scale)  # type: ignore[operator]
                place -= 2
        else:
            joined.append(token)
    return joined


def folded(text: str) -> str:
    """A text for messages and votes: one form for all spellings that `same_answer` takes for one."""
    return " ".join(token if isinstance(token, str) else f"{token[1]} {token[0]}".strip() for token in canonical(text))
