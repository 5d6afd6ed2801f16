"""Read a pickle that holds nothing but lists, dicts, texts and numbers.

`pickle.load` runs whatever code a file names. Here the file is only taken apart into its instructions, and those that
would build anything else, or look anything up, are refused by name. Numbers and texts are built by us.
"""

import pickletools
from pathlib import Path
from typing import Any

from open_r1.common.errors import UserError
from open_r1.data.images import ImageError, read_file

MAX_PICKLE_BYTES = 256 * 2**20
"""Longest pickle that is read; PathVQA's questions are 3 MB."""

_MAX_DEPTH = 8
_TEXTS = {"BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "UNICODE"}
_BYTE_TEXTS = {"STRING", "BINSTRING", "SHORT_BINSTRING"}  # of Python 2
_NUMBERS = {"INT", "LONG", "BININT", "BININT1", "BININT2", "LONG1", "LONG4", "FLOAT", "BINFLOAT"}
_CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_IGNORED = {"PROTO", "FRAME"}
_PUTS = {"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"}
_GETS = {"GET", "BINGET", "LONG_BINGET"}


class _Mark:
    """Where the parts of a list or dict begin on the stack."""


def plain_pickle(path: Path) -> Any:
    """What a pickle of lists, dicts, texts and numbers holds.

    Raises:
        UserError: it is no pickle, holds anything else, or is larger than MAX_PICKLE_BYTES.
    """
    try:
        data = read_file(path, MAX_PICKLE_BYTES)
    except ImageError as error:
        raise UserError(str(error)) from None
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    try:
        for instruction, argument, _ in pickletools.genops(data):
            if instruction.name == "STOP":
                return _checked(stack.pop())
            _apply(instruction.name, argument, stack, memo)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except Exception as error:  # a damaged file: an empty stack, a text that is cut, a list that is none
        raise UserError(f"{path} is no pickle that can be read: {error or type(error).__name__}") from None
    raise UserError(f"{path} is no pickle that can be read: it has no end")


def _apply(name: str, argument: Any, stack: list[Any], memo: dict[int, Any]) -> None:
    """One instruction on the stack and the memory of a pickle."""
    if name in _IGNORED:
        return
    if name in _TEXTS or name in _NUMBERS:
        stack.append(argument)
    elif name in _BYTE_TEXTS:
        stack.append(argument.decode() if isinstance(argument, bytes) else argument)
    elif name in _CONSTANTS:
        stack.append(_CONSTANTS[name])
    elif name in _PUTS:
        memo[len(memo) if argument is None else argument] = stack[-1]
    elif name in _GETS:
        if isinstance(memo[argument], list | dict):  # a small file could become a structure without end
            raise UserError("it is a pickle in which one list or dict stands in several places; refused")
        stack.append(memo[argument])
    elif name == "MARK":
        stack.append(_Mark)
    elif name == "EMPTY_LIST":
        stack.append([])
    elif name == "EMPTY_DICT":
        stack.append({})
    elif name in ("LIST", "DICT"):
        parts = _since_mark(stack)
        stack.append(parts if name == "LIST" else _pairs(parts))
    elif name in ("APPEND", "APPENDS"):
        parts = [stack.pop()] if name == "APPEND" else _since_mark(stack)
        _container(stack, list).extend(parts)
    elif name in ("SETITEM", "SETITEMS"):
        parts = [stack.pop() for _ in range(2)][::-1] if name == "SETITEM" else _since_mark(stack)
        _container(stack, dict).update(_pairs(parts))
    else:
        raise UserError(
            f"it is a pickle with the instruction {name}, which builds or runs something else than lists, dicts, texts "
            "and numbers; refused. Use the JSON or Parquet form of the set"
        )


def _checked(value: Any) -> Any:
    """The value, if it is nested like rows; deeper ones overflow whatever shows them."""
    level = [value]
    for _ in range(_MAX_DEPTH):
        level = [
            part
            for node in level
            if isinstance(node, list | dict)
            for part in (node if isinstance(node, list) else [*node.keys(), *node.values()])
        ]
    if level:
        raise UserError(f"it is a pickle nested deeper than {_MAX_DEPTH} levels; rows are not")
    return value


def _since_mark(stack: list[Any]) -> list[Any]:
    at = len(stack) - 1
    while stack[at] is not _Mark:
        at -= 1
        if at < 0:
            raise ValueError("a list without a beginning")
    parts = stack[at + 1 :]
    del stack[at:]
    return parts


def _pairs(parts: list[Any]) -> dict[Any, Any]:
    return dict(zip(parts[::2], parts[1::2], strict=True))


def _container(stack: list[Any], kind: type) -> Any:
    if type(stack[-1]) is not kind:
        raise ValueError(f"a {type(stack[-1]).__name__} where a {kind.__name__} is filled")
    return stack[-1]
