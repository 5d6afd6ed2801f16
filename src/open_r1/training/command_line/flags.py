"""Read and check the flags of a training command before torch, transformers or TRL's trainers are loaded.

`check_training_flags` finds typing errors within a second: names of flags and rewards, choices, numbers and paths, on
the command line and in the --config file. `parsing.parse` later reads the same into TRL's classes.
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

FLAG_CLASSES: dict[Method, tuple[type, type]] = {
    "grpo": (VQAArguments, GRPODefaults),
    "sft": (QuestionArguments, SFTDefaults),
}
_FILES = ("deepspeed", "fsdp_config", "accelerator_config", "difficulty")
"""Flags whose value is a file name or JSON text."""


class TrainingParser(CommandParser, TrlParser):
    """`TrlParser` with one-line errors, which also reads old keys.

    After `read`, `notes` has a line for every old key, and `set_names` the flags that the command line or the --config
    file sets, old ones by their new name.
    """

    def __init__(self, classes: Sequence[type]) -> None:
        form = argparse.ArgumentDefaultsHelpFormatter
        super().__init__(classes, hints=ELSEWHERE, formatter_class=form, add_help=False)
        self.notes: list[str] = []
        self.set_names: set[str] = set()

    def set_defaults_with_config(self, **kwargs: Any) -> list[str]:
        """Take defaults from a --config file.

        Raises:
            UserError: if a key is unknown.
        """
        config, notes = translated(kwargs)
        self.notes += notes
        unknown = next((key for key in config if f"--{key}" not in self._option_string_actions), None)
        if unknown is not None:
            self.error(f"unknown key {unknown!r} in the --config file{self.suggestion(unknown, dashes='')}")
        self.set_names |= config.keys()
        return super().set_defaults_with_config(**config)

    def read(self, words: Sequence[str], defaults: Mapping[str, Any] | None) -> tuple[Any, ...]:
        """Read the command line, the --config file and `defaults`, in this precedence, into one object per class.

        Raises:
            UserError: if a flag or its value is invalid.
        """
        arguments, notes = translated_flags(_split_config(words))
        self.notes += notes
        if "--config" in arguments:
            name = next(iter(arguments[arguments.index("--config") + 1 :]), None)
            if name is None or not Path(name).is_file():
                raise UserError(f"--config {name!r} is not a file")
        self.set_defaults_with_config(**(defaults or {}))
        self.set_names = {word.partition("=")[0][2:].replace("-", "_") for word in arguments if word.startswith("--")}
        try:
            return self.parse_args_and_config(arguments)
        except UserError:
            raise
        except Exception as error:  # any error of YAML, argparse, transformers or TRL
            kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
            reason = " ".join(str(error).split())
            raise UserError(f"the flags or the --config file cannot be used: {kind}{reason}") from error


def _split_config(words: Sequence[str]) -> list[str]:
    """The words with `--config=FILE` split in two, the form that TRL reads."""
    return [piece for word in words for piece in (word.split("=", 1) if word.startswith("--config=") else [word])]


@dataclass(frozen=True)
class TrainingFlags:
    """The flags of a command line, read without the libraries."""

    script: QuestionArguments
    defaults: GRPODefaults | SFTDefaults
    library: Any
    """The other flags of transformers and TRL; None or False if they are not given."""
    set_names: frozenset[str]
    """Names of the flags that the command line or the --config file sets."""


def read_training_flags(
    method: Method, words: Sequence[str], defaults: Mapping[str, Any] | None = None
) -> TrainingFlags:
    """Read a command line without loading torch.

    Args:
        method: `grpo` or `sft`.
        words: the command line.
        defaults: of the entry script, by flag.

    Raises:
        UserError: if a flag is unknown, missing or invalid.
    """
    kinds = library_kinds(method)
    ours = {flag.name for flag_class in FLAG_CLASSES[method] for flag in fields(flag_class)}
    library = as_dataclass({name: kind for name, kind in kinds.items() if name not in ours})
    parser = TrainingParser((*FLAG_CLASSES[method], library))
    flags = TrainingFlags(*parser.read(words, defaults), set_names=frozenset(parser.set_names))
    for name in ours & kinds.keys():  # flags with our default and the library's choices
        value, choices = getattr(flags.defaults, name), kinds[name]
        if isinstance(choices, list) and value not in choices:
            raise UserError(f"--{name} {value!r} does not exist; choose one of {', '.join(choices)}")
    if method == "grpo":
        refuse_unsupported(vars(flags.library) | vars(flags.defaults))
    return flags


def check_training_flags(method: Method, description: str | None, defaults: Mapping[str, Any] | None = None) -> None:
    """Check the program's command line as far as possible without torch; --help ends the program here.

    Raises:
        UserError: if a flag is unknown, missing or invalid, or names a file, data set or checkpoint that does not
            exist.
    """
    words = sys.argv[1:]
    if "--help_all" in words:
        return  # `parsing.parse` prints the help of the libraries
    if "--help" in words or "-h" in words:
        if is_first_process():
            print(help_text(method, description, defaults or {}))
        raise SystemExit(0)
    flags = read_training_flags(method, words, defaults)
    if flags.script.plan is not None:
        print_plan(flags, method)
        raise SystemExit(0)
    require_files(flags)
    require_sources(flags)


def print_plan(flags: TrainingFlags, method: Method) -> None:
    """Print the plan of --plan.

    Raises:
        UserError: there is no checkpoint, card or DeepSpeed file of that name.
    """
    from open_r1.training.memory.plan_command import plan_for

    if not flags.library.model_name_or_path:
        raise UserError("--model_name_or_path is missing: name a checkpoint folder or org/repo:subfolder")
    require_files(flags)
    text = plan_for(flags, supervised=method == "sft")
    if is_first_process():
        print(text)


def require_sources(flags: TrainingFlags) -> None:
    """Refuse data sets and local checkpoints that do not exist.

    Raises:
        UserError: with the first of them.
    """
    if not flags.library.model_name_or_path:
        raise UserError("--model_name_or_path is missing: name a checkpoint folder or org/repo:subfolder")
    local_source(flags.library.model_name_or_path)
    for flag in ("dataset_name", "eval_dataset_name", "exclude_overlap"):
        for name in getattr(flags.script, flag) or ():
            require_data(f"--{flag}", name)


def require_files(flags: TrainingFlags) -> None:
    """Refuse other files and folders that do not exist.

    Raises:
        UserError: with the first of them.
    """
    root = flags.script.image_root
    if root is not None and not os.path.isdir(root):
        raise UserError(f"--image_root {root} is not a folder; the image paths of a JSON list are relative to it")
    for flag in _FILES:
        value = getattr(flags.library, flag, None) or getattr(flags.script, flag, None)
        if isinstance(value, str) and not value.lstrip().startswith("{") and not os.path.isfile(value):
            raise UserError(f"--{flag} {value} is not a file")
