"""A training command's flags, read and judged before torch, transformers or TRL's trainers are loaded.

`check_training_flags` finds what a person can mistype within a second: names of flags and of rewards, choices, numbers
and paths, on the command line and in the file of --config. `config.parse` reads the same into TRL's own classes later.
"""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from trl.scripts.utils import TrlParser  # torch is loaded by neither

from open_r1.checkpoints.names import local_source
from open_r1.common.command_line import CommandParser
from open_r1.common.errors import UserError, is_first_process
from open_r1.data.missing_sets import require_data
from open_r1.training.command_line.arguments import GRPODefaults, QuestionArguments, SFTDefaults, VQAArguments
from open_r1.training.command_line.flag_help import help_text
from open_r1.training.command_line.legacy_flags import ELSEWHERE, translated, translated_flags
from open_r1.training.command_line.library_flags import as_dataclass, library_kinds
from open_r1.training.command_line.trl_options import refuse_unsupported

Method = Literal["grpo", "sft"]

_CLASSES: dict[Method, tuple[type, type]] = {
    "grpo": (VQAArguments, GRPODefaults),
    "sft": (QuestionArguments, SFTDefaults),
}
_FILES = ("deepspeed", "fsdp_config", "accelerator_config", "difficulty")
"""Flags whose value is the name of a file, or JSON itself."""


class TrainingParser(CommandParser, TrlParser):
    """`TrlParser` with errors of one line, which reads old keys too.

    After `read`, `notes` has a line for each old key, and `given` the names that the command line or the file of
    --config sets, old ones as what they are called today.
    """

    def __init__(self, classes: Sequence[type]) -> None:
        form = argparse.ArgumentDefaultsHelpFormatter
        super().__init__(classes, hints=ELSEWHERE, formatter_class=form, add_help=False)
        self.notes: list[str] = []
        self.given: set[str] = set()

    def set_defaults_with_config(self, **kwargs: Any) -> list[str]:
        """Take defaults from a --config file.

        Raises:
            UserError: a key is unknown.
        """
        config, notes = translated(kwargs)
        self.notes += notes
        unknown = next((key for key in config if f"--{key}" not in self._option_string_actions), None)
        if unknown is not None:
            self.error(f"unknown key {unknown!r} in the --config file{self.suggestion(unknown, dashes='')}")
        self.given |= config.keys()
        return super().set_defaults_with_config(**config)

    def read(self, words: Sequence[str], defaults: Mapping[str, Any] | None) -> tuple[Any, ...]:
        """The command line, over the file of --config, over `defaults`, as one object of each class.

        Raises:
            UserError: a flag or its value cannot be used.
        """
        given, notes = translated_flags(_config_apart(words))
        self.notes += notes
        if "--config" in given:
            name = next(iter(given[given.index("--config") + 1 :]), None)
            if name is None or not Path(name).is_file():
                raise UserError(f"--config {name!r} is no file")
        self.set_defaults_with_config(**(defaults or {}))
        self.given = {word.partition("=")[0][2:].replace("-", "_") for word in given if word.startswith("--")}
        try:
            return self.parse_args_and_config(given)
        except UserError:
            raise
        except Exception as error:  # of YAML, argparse, transformers or TRL: whatever they do not take
            kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
            reason = " ".join(str(error).split())
            raise UserError(f"the flags or their --config file cannot be used: {kind}{reason}") from error


def _config_apart(words: Sequence[str]) -> list[str]:
    """The words with `--config=FILE` as two, the form that TRL reads."""
    return [part for word in words for part in (word.split("=", 1) if word.startswith("--config=") else [word])]


@dataclass(frozen=True)
class TrainingFlags:
    """What a command line says, as far as it can be judged without the libraries."""

    script: QuestionArguments
    defaults: GRPODefaults | SFTDefaults
    library: Any
    """The other flags of transformers and TRL; None or False where they are not given."""
    given: frozenset[str]
    """The names of those that the command line or the file of --config sets."""


def read_training_flags(
    method: Method, words: Sequence[str], defaults: Mapping[str, Any] | None = None
) -> TrainingFlags:
    """Read a command line without loading torch.

    Args:
        method: `grpo` or `sft`.
        words: the command line.
        defaults: of the entry script, by flag.

    Raises:
        UserError: a flag is unknown or missing, or its value cannot be.
    """
    kinds = library_kinds(method)
    ours = {each.name for of in _CLASSES[method] for each in fields(of)}
    library = as_dataclass({name: kind for name, kind in kinds.items() if name not in ours})
    parser = TrainingParser((*_CLASSES[method], library))
    flags = TrainingFlags(*parser.read(words, defaults), given=frozenset(parser.given))
    for name in ours & kinds.keys():  # whose default is ours and whose choices are the library's
        value, choices = getattr(flags.defaults, name), kinds[name]
        if isinstance(choices, list) and value not in choices:
            raise UserError(f"--{name} {value!r} does not exist; choose one of {', '.join(choices)}")
    if method == "grpo":
        refuse_unsupported(vars(flags.library) | vars(flags.defaults))
    return flags


def check_training_flags(method: Method, description: str | None, defaults: Mapping[str, Any] | None = None) -> None:
    """Judge the program's command line as far as it can be done without torch; --help ends the program here.

    Raises:
        UserError: a flag is unknown or missing, its value cannot be, or a file, data set or checkpoint that it names
            is not there.
    """
    words = sys.argv[1:]
    if "--help_all" in words:
        return  # the libraries' own help texts, which `config.parse` prints
    if "--help" in words or "-h" in words:
        if is_first_process():
            print(help_text(method, description, defaults or {}))
        raise SystemExit(0)
    flags = read_training_flags(method, words, defaults)
    require_files(flags)
    require_sources(flags)


def require_sources(flags: TrainingFlags) -> None:
    """Refuse names of data sets and of local checkpoints that are not there.

    Raises:
        UserError: the first that is not.
    """
    if not flags.library.model_name_or_path:
        raise UserError("--model_name_or_path is missing: name a checkpoint folder or org/repo:subfolder")
    local_source(flags.library.model_name_or_path)
    for flag in ("dataset_name", "eval_dataset_name"):
        for name in getattr(flags.script, flag) or ():
            require_data(f"--{flag}", name)


def require_files(flags: TrainingFlags) -> None:
    """Refuse names of other files and folders that are not there.

    Raises:
        UserError: the first that is not.
    """
    root = flags.script.image_root
    if root is not None and not os.path.isdir(root):
        raise UserError(f"--image_root {root} is no folder; the image paths of a JSON list are relative to it")
    for flag in _FILES:
        value = getattr(flags.library, flag, None) or getattr(flags.script, flag, None)
        if isinstance(value, str) and not value.lstrip().startswith("{") and not os.path.isfile(value):
            raise UserError(f"--{flag} {value} is no file")
