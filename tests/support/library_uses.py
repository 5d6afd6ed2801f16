"""Finds what our source overrides and reads of the libraries beyond their public names, for the table in `seams.py`."""

import ast
import importlib
import inspect
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

SOURCE = Path(__file__).resolve().parents[2] / "src" / "open_r1"
PYTHONS_OWN = {name for kind in (type, object, FunctionType, ModuleType, BaseException) for name in dir(kind)} | {
    *("__iter__", "__post_init__", "__file__", "__version__", "__all__"),
}
DOCUMENTED = {"_exit", "_current_frames"}
"""Functions of `os` and `sys` that Python documents under these names."""


def modules() -> list[str]:
    """Every module of open_r1 that can be imported; the entry scripts and `__main__` run when imported."""
    paths = [path.relative_to(SOURCE.parent) for path in sorted(SOURCE.rglob("*.py"))]
    names = [".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in paths]
    return [name for name in names if not name.endswith(".__main__")]


def is_ours(cls: type) -> bool:
    """Whether open_r1 defines the class."""
    return cls.__module__.partition(".")[0] == "open_r1"


def path_of(cls: type) -> str:
    """The module and name of a class: `trl.trainer.grpo_trainer:GRPOTrainer`."""
    return f"{cls.__module__}:{cls.__qualname__}"


@cache
def our_classes() -> tuple[type, ...]:
    """The classes of open_r1 that have a class of a library among their bases."""
    values = []
    for name in modules():
        for value in vars(importlib.import_module(name)).values():
            if isinstance(value, type) and value.__module__ == name and library_bases(value):
                values.append(value)
    return tuple(values)


def library_bases(cls: type) -> list[type]:
    """The classes that a class inherits from and open_r1 does not define, nearest first."""
    return [base for base in cls.__mro__ if not is_ours(base) and base is not object]


def is_pythons(cls: type) -> bool:
    """Whether a class belongs to the standard library."""
    return cls.__module__.partition(".")[0] in sys.stdlib_module_names


def _own_methods(cls: type) -> Iterator[str]:
    generated = {"__repr__", "__eq__"} if is_dataclass(cls) else set()
    for name, value in vars(cls).items():
        if isinstance(value, FunctionType | property | classmethod | staticmethod) and name not in generated:
            yield name


def overrides() -> set[tuple[str, str]]:
    """(class of a library, method) of every method that a class of ours replaces. Constructors, which pass on what
    they are given, are left out, and so are the classes of Python itself."""
    pairs = set()
    for cls in our_classes():
        for ours in filter(is_ours, cls.__mro__):
            for name in _own_methods(ours):
                base = next((base for base in library_bases(cls) if name in vars(base)), None)
                if base is not None and not is_pythons(base) and name != "__init__":
                    pairs.add((path_of(base), name))
    return pairs


def is_private(name: str) -> bool:
    """Whether a name has a leading underscore and is not one that Python gives a meaning."""
    return name.startswith("_") and name not in PYTHONS_OWN | DOCUMENTED


def _trees() -> Iterator[ast.Module]:
    for path in sorted(SOURCE.rglob("*.py")):
        yield ast.parse(path.read_text())


@cache
def attributes() -> frozenset[str]:
    """Every attribute that the source reads, sets or imports from a module, its own included."""
    names = set()
    for tree in _trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute):
                names.add(node.attr)
            elif isinstance(node, ast.ImportFrom):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("getattr", "hasattr", "setattr"):
                names |= {str(argument.value) for argument in node.args[1:2] if isinstance(argument, ast.Constant)}
    return frozenset(names)


@cache
def our_private_names() -> frozenset[str]:
    """The private names that the source defines: functions, classes, constants and attributes of `self`."""
    names = set()
    for tree in _trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                names.add(node.name)
            elif isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
                names.add(node.id if isinstance(node, ast.Name) else node.attr)
    for cls in our_classes():
        if is_dataclass(cls):
            names |= {field.name for field in fields(cls)}
    return frozenset(filter(is_private, names))


@cache
def attributes_of(cls: type) -> frozenset[str]:
    """The names in a class's body and those that its methods set on `self`."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(cls)))
    except (OSError, TypeError):
        return frozenset(vars(cls))
    stored = {
        node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
    }
    return frozenset(stored | vars(cls).keys())


def private_names_of_libraries() -> set[str]:
    """The private names that the source uses and does not define, or defines over those of a class it inherits from."""
    inherited = {name for cls in our_classes() for base in library_bases(cls) for name in attributes_of(base)}
    return {name for name in attributes() - (our_private_names() - inherited) if is_private(name)}


def resolve(path: str) -> Any:
    """The module or class that a path of the table names."""
    module, _, name = path.partition(":")
    value = importlib.import_module(module)
    for part in filter(None, name.split(".")):
        value = getattr(value, part)
    return value
