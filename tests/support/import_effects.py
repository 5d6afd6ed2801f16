"""Imports the modules of libraries that standard input names, then those of open_r1, and prints what that changed.

A program, because it needs a fresh process. Input and output are JSON: {"libraries": [...], "ours": [...]} and a list
of sentences.
"""

import importlib
import json
import logging
import os
import signal
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any

import torch

OBJECTS = (dict, list, set)


def content(value: Any) -> Any:
    """Which object it is and, of a container, what it holds."""
    return (id(value), list(value)) if type(value) in OBJECTS else id(value)


def process_state() -> Iterator[tuple[str, Any]]:
    """What belongs to the whole process."""
    yield "warnings.filters", list(warnings.filters)
    yield "os.environ", dict(os.environ)
    yield "sys.excepthook", sys.excepthook
    yield "sys.path", list(sys.path)
    yield "signal handlers", {number: signal.getsignal(number) for number in signal.valid_signals()}
    yield "torch's dtype and threads", (torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled())
    yield "torch's matrix products", (torch.get_float32_matmul_precision(), torch.backends.cuda.matmul.allow_tf32)
    yield "torch's determinism", (torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.deterministic)
    for name, logger in [("", logging.getLogger()), *logging.Logger.manager.loggerDict.items()]:
        if isinstance(logger, logging.Logger):
            state = (
                logger.level,
                logger.disabled,
                logger.propagate,
                *map(id, logger.handlers),
                *map(id, logger.filters),
            )
            yield f"logger {name!r}", state


def library_state(names: Iterable[str]) -> Iterator[tuple[str, Any]]:
    """The attributes of modules and of the classes they define."""
    for name in names:
        for key, value in list(vars(sys.modules[name]).items()):
            yield f"{name}.{key}", content(value)
            if isinstance(value, type) and value.__module__ == name:
                yield from ((f"{name}.{key}.{inner}", content(thing)) for inner, thing in vars(value).items())


def main() -> None:
    """See the module's docstring."""
    request = json.load(sys.stdin)
    loaded = []
    for name in request["libraries"]:
        with suppress(Exception):  # some modules cannot be imported first
            importlib.import_module(name)
            loaded.append(name)
    before = dict(process_state()) | dict(library_state(loaded))
    for name in request["ours"]:
        importlib.import_module(name)
    after = dict(process_state()) | dict(library_state(loaded))
    changed = [name for name, value in before.items() if name not in after or after[name] != value]
    patched = [
        name
        for name in after.keys() - before.keys()
        if (module := sys.modules.get(name.rpartition(".")[0])) is not None
        and str(getattr(vars(module).get(name.rpartition(".")[2]), "__module__", "")).startswith("open_r1")
    ]
    print(json.dumps(sorted(changed + patched)))


if __name__ == "__main__":
    main()
