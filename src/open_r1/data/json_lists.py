"""Reads a JSON list or JSON Lines entry by entry, so that a damaged entry does not affect the others."""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from open_r1.common.atomic_files import object_of, parse_json, repeated_key
from open_r1.common.errors import UserError
from open_r1.data.images import shown
from open_r1.data.rows import TEXT_KEYS, RowError

_LONGEST_NUMBER = 4300  # digits; Python does not convert longer texts to int
_CHUNK = 2**20  # characters read at once
LONGEST_ENTRY = 2**24
"""Characters of the longest row that is read; a longer one is taken for damage."""

_TOKEN = 64  # characters before the end of a piece in which an entry that goes on may look wrong
_PLAIN = re.compile(r'[^"\[\]{},]*+')
_QUOTED = re.compile(r'(?>[^"\\]+|\\.)*+', re.DOTALL)


def json_entries(path: str | os.PathLike) -> Iterator[Any]:
    """The entries of a JSON file that holds one list, in order, in constant memory.

    An entry with a repeated key, or longer than LONGEST_ENTRY, is yielded as a `RowError`, so that the caller can
    count it and go on.

    Raises:
        UserError: the file is missing, not UTF-8, not JSON, or not a list (possibly after some entries).
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path} is missing or not a file; a JSON list of questions is expected")
    try:
        with open(path, encoding="utf-8-sig") as file:
            yield from _entries(file, path)
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 ({error.reason}); save it as UTF-8") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except RecursionError:
        raise UserError(f"{path} is nested too deeply to be a list of questions") from None


def json_lines(path: str | os.PathLike) -> Iterator[Any]:
    """The entries of a JSON Lines file in order; blank lines are none.

    A line that is no JSON, is longer than LONGEST_ENTRY or repeats a key is yielded as a `RowError`.

    Raises:
        UserError: the file is missing, is not UTF-8 or cannot be read (possibly after some entries).
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path} is missing or not a file; JSON Lines, one question a line, are expected")
    try:
        for entry in lines_of(path):
            key = repeated_key(entry)
            yield entry if key is None else key_twice(key)
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 ({error.reason}); save it as UTF-8") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None


def lines_of(path: Path) -> Iterator[Any]:
    """The parsed lines of a file, as `json_lines` says.

    Raises:
        UnicodeDecodeError, OSError: the file is not UTF-8 or cannot be read.
    """
    with path.open(encoding="utf-8-sig") as file:
        while line := file.readline(LONGEST_ENTRY):
            if len(line) == LONGEST_ENTRY and not line.endswith("\n"):
                while (skipped := file.readline(LONGEST_ENTRY)) and not skipped.endswith("\n"):
                    pass
                yield too_long()
            elif line.strip():
                try:
                    yield parse_json(line, object_of)
                except ValueError as error:
                    yield RowError("not-json", f"the line is no JSON: {error}")


def _entries(file: Any, path: Path) -> Iterator[Any]:
    decode = json.JSONDecoder(parse_int=_whole, object_pairs_hook=object_of).raw_decode
    text, at = "", 0

    def next_sign() -> str:
        """The next character that is not white space, '' at the end; `at` stands on it."""
        nonlocal text, at
        while True:
            while at < len(text) and text[at] in " \t\r\n":
                at += 1
            if at < len(text):
                return text[at]
            text, at = file.read(_CHUNK), 0
            if not text:
                return ""

    if next_sign() != "[":
        raise UserError(f"{path} holds no JSON list; a list of objects with {', '.join(TEXT_KEYS)} is expected")
    at += 1
    entry = 0
    if next_sign() == "]":
        return
    while True:
        next_sign()
        while True:
            try:
                value, end = decode(text, at)
                if end < len(text) and text[end] in " \t\r\n,]":
                    value = value if end - at <= LONGEST_ENTRY else too_long()
                    break
                problem, goes_on = "the file ends, or the entry is followed by something else", True  # a number may
            except json.JSONDecodeError as error:
                goes_on = error.msg.startswith("Unterminated string") or error.pos >= len(text) - _TOKEN
                problem = error.msg
            if len(text) - at > LONGEST_ENTRY and goes_on and (end_of_entry := _after_entry(file, text, at)):
                (text, end), value = end_of_entry, too_long()
                break
            chunk = file.read(_CHUNK) if len(text) - at <= LONGEST_ENTRY else ""
            if not chunk:
                raise UserError(f"{path} is no valid JSON at entry {entry}: {problem}; is the file complete?")
            text, at = text[at:] + chunk, 0
        key = repeated_key(value)
        yield value if key is None else key_twice(key)
        entry, at = entry + 1, end
        sign = next_sign()
        at += 1
        if sign == "]":
            break
        if sign != ",":
            raise UserError(f"{path} is no valid JSON after entry {entry - 1}: expected ',' or ']'")
    if next_sign():
        raise UserError(f"{path} is no valid JSON: there is more text after the list")


def _after_entry(file: Any, text: str, at: int) -> tuple[str, int] | None:
    """A piece of text and the place in it of the sign after the entry that begins at `at`; None if the file ends."""
    depth, quoted = 0, False
    while True:
        while at < len(text):
            jump = (_QUOTED if quoted else _PLAIN).match(text, at)
            assert jump is not None
            at = jump.end()
            if at == len(text) or (text[at] == "\\" and quoted):  # an escape goes on in the next piece
                break
            sign = text[at]
            if not quoted and depth == 0 and sign in ",]":
                return text, at
            depth += 0 if quoted else (sign in "[{") - (sign in "]}")
            quoted = sign == '"' and not quoted
            at += 1
        chunk = file.read(_CHUNK)
        if not chunk:
            return None
        text, at = text[at:] + chunk, 0


def too_long() -> RowError:
    """The error of a row of more than LONGEST_ENTRY characters."""
    return RowError("too-long", f"it has more than {LONGEST_ENTRY:,} characters")


def key_twice(key: str) -> RowError:
    """The error of a row with a repeated key."""
    return RowError("repeated-key", f"the key {shown(key)} stands twice in it, and which value is meant nobody can say")


def _whole(digits: str) -> int | float:
    """A JSON integer; one with thousands of digits, for which `int` raises, becomes infinity."""
    return int(digits) if len(digits) <= _LONGEST_NUMBER else float(digits)
