"""Texts as the grader compares them: characters, markup, and option texts at a place of a completion."""

import re
import unicodedata
from collections.abc import Mapping
from functools import lru_cache

# Characters are mapped one by one. unicodedata.normalize over a whole completion would take quadratic time
# on a long run of combining marks.
_CHARACTERS: dict[int, str] = {
    point: unicodedata.normalize("NFKC", chr(point))
    for low, high in (
        (0xFF01, 0xFF5E),  # full width
        (0x249C, 0x24E9),  # (a), circled
        (0x1D400, 0x1D7FF),  # mathematical bold, italic, ...
    )
    for point in range(low, high + 1)
}
_CHARACTERS |= dict.fromkeys(map(ord, "\u00ad\u200b\u200c\u200d\u200e\u200f\u2060\ufeff\ufe0e\ufe0f"), "")
_CHARACTERS |= dict.fromkeys(map(ord, "\u00a0\u2002\u2003\u2009\u202f\u3000"), " ")
_CHARACTERS |= dict.fromkeys(map(ord, "\u2010\u2011\u2012\u2013\u2014\u2212"), "-")
_CHARACTERS |= dict.fromkeys(map(ord, "\u2018\u2019\u02bc"), "'") | dict.fromkeys(map(ord, "\u201c\u201d"), '"')


def normalized(text: str) -> str:
    """The text with full-width, circled and mathematical letters as plain ones, and without invisible signs."""
    return text if text.isascii() else text.translate(_CHARACTERS)


REACH = 240
"""Characters after the word "answer" in which its letter must begin and end."""

_LATEX = re.compile(
    r"\\(?:boxed|fbox|mbox|text(?:bf|it|rm|sf|tt)?|math(?:bf|rm|it|sf|tt)?|bm|bf|rm|emph|underline|left|right)"
    r"(?![A-Za-z])"
)
_HTML = re.compile(r"</?(?:b|strong|i|em|u|p|br|span|center)\s{0,2}/?>", re.IGNORECASE)
_MARKUP = re.compile(r"[*`$#{}\\_]+")
EDGES = " \t\r\n\f\v.,;:!?\"'()[]<>|=/>«»。、【】「」『』《》…·•→-"
ENDS = " \t\r\n\f\v.,;:!?\"'。、…"
ALSO = re.compile(
    r"(?:\s{0,3}(?:[,;/&+)\]]|\b(?:and|or|und|oder|et|ou|(?-i:y|o|e))\b|和|或|及|与|と|또는)){1,4}\s{0,3}",
    re.IGNORECASE,
)


def plain_text(text: str) -> str:
    """The text without bold marks, code marks, LaTeX commands and HTML emphasis."""
    return _MARKUP.sub("", _HTML.sub("", _LATEX.sub("", text)))


def fold_text(text: str) -> str:
    """The form in which option texts are compared: case, spacing, markup and punctuation around do not count."""
    text = " ".join(plain_text(normalized(text)).casefold().split())
    text = text.lstrip(" \"':").rstrip(ENDS)
    if text[:1] == "(" and text[-1:] == ")" and text.count("(") == 1:
        text = text[1:-1].strip(ENDS)
    return text


def whole_words(text: str) -> str:
    """The words of a text with a space around each, so that words are searched and not parts of them."""
    return " " + " ".join(re.findall(r"\w+", text)) + " "


def longest_option(options: Mapping[str, str]) -> int:
    """Characters of the longest option text."""
    return max((len(text) for text in options.values()), default=0)


def options_beginning(text: str, options: Mapping[str, str]) -> tuple[list[str], str]:
    """The letters of the longest option text that `text` begins with, and what follows it (in lower case)."""
    window = " ".join(text[: REACH + 2 * longest_option(options)].casefold().split())
    letters_by_text: dict[str, list[str]] = {}
    for letter, option in options.items():
        folded = fold_text(option)
        if folded and window.startswith(folded) and not window[len(folded) :][:1].isalnum():
            letters_by_text.setdefault(folded, []).append(letter)
    longest = max(letters_by_text, key=len, default="")
    return letters_by_text.get(longest, []), window[len(longest) :]


_ARTICLE = re.compile(r"(?:the|an?)\s{1,3}", re.IGNORECASE)


def without_article(folded: str) -> str:
    """A folded text without the article before it; an article alone stays."""
    article = _ARTICLE.match(folded)
    return folded[article.end() :] if article and article.end() < len(folded) else folded


@lru_cache(maxsize=4096)
def text_pattern(option: str) -> str:
    """A pattern of an option's text in any case and spacing; one that matches nothing where the text is empty."""
    words = fold_text(option).split()
    return r"\s{1,4}".join(map(re.escape, words)) + r"(?!\w)" if words else r"(?!)"


@lru_cache(maxsize=4096)
def _beside_letter(option: str) -> re.Pattern[str]:
    return re.compile(rf"[\s)\].:,;\"'-]{{0,6}}(?:(?:an?|the)\s{{1,3}})?{text_pattern(option)}", re.IGNORECASE)


def after_option(text: str, at: int, option: str) -> int:
    """The end of an option that a letter names: behind its own text if that stands at `at`, else `at`."""
    match = _beside_letter(option).match(text, at)
    return match.end() if match else at
