"""Read the flags of a training command into TRL's classes."""

import sys
from collections.abc import Mapping
from typing import Any

from trl import ModelConfig

from open_r1.checkpoints.publishing import take_over_push
from open_r1.common.errors import UserError
from open_r1.training.command_line.arguments import VQAArguments
from open_r1.training.command_line.flags import TrainingParser
from open_r1.training.command_line.grpo_config import GRPOTrainingConfig
from open_r1.training.setup.tracking import prepare_trackers


def parse(
    arguments: list[str] | None = None, defaults: Mapping[str, Any] | None = None
) -> tuple[VQAArguments, GRPOTrainingConfig, ModelConfig]:
    """Read the command line, and the YAML file that `--config` names.

    Args:
        arguments: None for those of the program.
        defaults: of the entry script, for flags that neither the command line nor the file sets.

    Raises:
        UserError: if a flag is unknown, missing or invalid.
    """
    return parse_into((VQAArguments, GRPOTrainingConfig, ModelConfig), arguments, defaults)


def parse_into(
    classes: tuple[type, type, type], arguments: list[str] | None, defaults: Mapping[str, Any] | None
) -> Any:
    """`parse` into any script arguments, training configuration with `notes`, and model configuration."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser = TrainingParser(classes)
    if {"--help", "--help_all", "-h"}.intersection(words):
        parser.print_help()
        raise SystemExit(0)
    script, training, model = parser.read(words, defaults)
    if not model.model_name_or_path:
        raise UserError("--model_name_or_path is missing: name a checkpoint folder or org/repo:subfolder")
    training.notes += parser.notes
    prepare_trackers(training)
    take_over_push(training)
    refuse_remote_code(training, model)
    return script, training, model


def refuse_remote_code(*arguments: Any) -> None:
    """Refuse `--trust_remote_code`: no supported model needs Python code from a checkpoint.

    Raises:
        UserError: if it is set.
    """
    if any(getattr(group, "trust_remote_code", False) for group in arguments):
        raise UserError(
            "--trust_remote_code would run code from a checkpoint, which no supported model needs; leave it out"
        )
