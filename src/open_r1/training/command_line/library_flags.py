"""Names and types of the flags of transformers and TRL, to find typing errors before either library is loaded.

library_flags.json is written by `python -m open_r1.training.command_line.library_flags` and compared with the
installed libraries by tests/training/test_training_flags.py; an upgrade that changes a flag fails there. Defaults and
help texts are not stored.
"""

import argparse
import json
from collections.abc import Mapping
from dataclasses import field, make_dataclass
from importlib import resources
from typing import Any

Kind = str | list[str]
"""A key of `_TYPES`, or the choices of a flag."""

# Kind -> type of the field, default, and further settings of argparse.
_TYPES: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "int": (int | None, None, {}),
    "float": (float | None, None, {}),
    "text": (str | None, None, {}),
    "texts": (list[str] | None, None, {}),
    "floats": (list[float] | None, None, {}),
    "switch": (bool, False, {}),  # needs no value: `--adam_debug`
    "switch that is on": (bool, True, {}),  # also has a --no_ form
    "true or false": (bool | None, None, {}),  # needs a value
    "text or nothing": (str | None, None, {"nargs": "?", "const": True}),
}
_FILE = "library_flags.json"


def library_kinds(method: str) -> dict[str, Kind]:
    """Name -> kind of every library flag of `grpo` or `sft`."""
    table = json.loads(resources.files("open_r1.training.command_line").joinpath(_FILE).read_text(encoding="utf-8"))
    return table["TrainingArguments"] | table[f"{method.upper()}Config"] | table["ModelConfig"]


def as_dataclass(kinds: Mapping[str, Kind]) -> type:
    """A dataclass with these flags, for `HfArgumentParser`."""
    return make_dataclass("LibraryFlags", [_as_field(name, kind) for name, kind in kinds.items()])


def _as_field(name: str, kind: Kind) -> tuple[str, Any, Any]:
    if isinstance(kind, list):
        return name, str | None, field(default=None, metadata={"choices": kind})
    type_, default, metadata = _TYPES[kind]
    return name, type_, field(default=default, metadata=metadata)


def describe(parser: argparse.ArgumentParser) -> dict[str, Kind]:
    """Name -> kind of every flag of an `HfArgumentParser`."""
    on = {action.dest for action in parser._actions if isinstance(action, argparse._StoreFalseAction)}
    stored = [action for action in parser._actions if type(action) is argparse._StoreAction]
    return {action.dest: _kind(action, action.dest in on) for action in stored}


def _kind(action: argparse.Action, is_on: bool) -> Kind:
    if action.choices:
        return [str(choice) for choice in action.choices]
    name = getattr(action.type, "__name__", "")
    if name == "string_to_bool":
        return ("switch that is on" if is_on else "switch") if action.nargs == "?" else "true or false"
    kind = name if name in ("int", "float") else "text"  # dictionaries and other types are given as text
    if action.nargs == "?":
        return f"{kind} or nothing"
    return f"{kind}s" if action.nargs == "+" else kind


def described_libraries() -> dict[str, dict[str, Kind]]:
    """The table for the installed libraries; of TRL's classes only what differs from `TrainingArguments`."""
    from transformers import HfArgumentParser, TrainingArguments
    from trl import GRPOConfig, ModelConfig, SFTConfig

    def kinds_of(config: Any) -> dict[str, Kind]:
        return describe(HfArgumentParser(config))

    base = kinds_of(TrainingArguments)
    table = {"TrainingArguments": base, "ModelConfig": kinds_of(ModelConfig)}
    for config_class in (GRPOConfig, SFTConfig):
        kinds = kinds_of(config_class)
        assert base.keys() <= kinds.keys(), f"{config_class.__name__} lacks flags of TrainingArguments"
        table[config_class.__name__] = {name: kind for name, kind in kinds.items() if base.get(name) != kind}
    return table


def main() -> None:
    """Write library_flags.json."""
    text = json.dumps(described_libraries(), indent=1, sort_keys=True)
    resources.files("open_r1.training.command_line").joinpath(_FILE).write_text(text + "\n", encoding="utf-8")  # type: ignore[attr-defined]


if __name__ == "__main__":
    main()
