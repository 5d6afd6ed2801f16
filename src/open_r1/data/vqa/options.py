"""Options and right answers in their published spellings.

Options come as a dict, a list of texts, a list of `{letter, content}`, or any of these written into a text as JSON or
as a Python literal; the right one is named by a letter, by its text, or by both.
"""

import ast
import json
import re
from collections.abc import Mapping
from typing import Any

from open_r1.data.answer_texts import letter_by_text
from open_r1.data.rows import RowError
from open_r1.data.text.questions import options_by_letter
from open_r1.grading.problems import LETTERS

LONGEST_LITERAL = 100_000
"""Characters of the longest list that is read from a text."""

_PREFIX = re.compile(r"\s*([A-Z])\s?[:.)]\s*")


def literal(text: str) -> Any:
    """The list or dict that a text holds, as JSON or as a Python literal; nothing in it is run.

    Raises:
        RowError: it holds neither, or is too long.
    """
    if len(text) > LONGEST_LITERAL:
        raise RowError("too-long", f"a list of {len(text):,} characters is not read; the limit is {LONGEST_LITERAL:,}")
    for parse in (json.loads, ast.literal_eval):
        try:
            value = parse(text.strip())
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            continue
        if isinstance(value, list | tuple | dict):
            return list(value) if isinstance(value, tuple) else value
    raise RowError("no-options", f"a list is expected, not {text!r:.80}")


def listed_options(value: Any) -> dict[str, str]:
    """Options of any spelling by letter, without letters in front of all of them.

    Raises:
        RowError: they cannot be told apart, or are too many.
    """
    options = literal(value) if isinstance(value, str) else value
    if isinstance(options, list | tuple | dict) and len(options) > len(LETTERS):
        raise RowError("too-many-options", f"{len(options):,} options are offered; letters end at {len(LETTERS)}")
    return options_by_letter(options)


def without_prefix(letter: str, text: str) -> str:
    """An option's text without its own letter in front: `A: Green`, `A:Green`, ` A : Green`; removed once."""
    match = _PREFIX.match(text)
    return text[match.end() :].strip() if match and match[1] == letter and text[match.end() :].strip() else text.strip()


def index_by_text(answer: str, options: Mapping[str, str]) -> int:
    """The index of the option whose text is the answer.

    Raises:
        UnusableInput: none is, or several are.
    """
    return list(options).index(letter_by_text(answer, options))
