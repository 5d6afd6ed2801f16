"""The flags of the training commands: the published ones, TRL's, and what they mean together.

The published commands were written for trl 0.14; its defaults, which the published runs relied on, are restored here
where trl 1.16 has changed its own. `per_device_train_batch_size` counts prompts, as those commands mean it.
"""

import os
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from trl import GRPOConfig, ModelConfig

from open_r1.arguments import GRPODefaults, VQAArguments
from open_r1.errors import UserError
from open_r1.publishing import take_over_push
from open_r1.redaction import known_secrets, redacted
from open_r1.sharding import shard_on_cpu
from open_r1.tracking import prepare_trackers
from open_r1.training_flags import TrainingParser
from open_r1.trl_options import refuse_unserved


class PublicSettings:
    """In front of a training configuration: what trackers are told of it holds no secret."""

    def to_dict(self) -> dict[str, Any]:
        """As `TrainingArguments.to_dict`, which run.json and every tracker take, without secrets."""
        return redacted(super().to_dict(), known_secrets(vars(self)))  # type: ignore[misc]


@dataclass
class GRPOTrainingConfig(PublicSettings, GRPODefaults, GRPOConfig):
    """`trl.GRPOConfig` with the defaults of the published runs and batch sizes counted in prompts.

    After construction `per_device_train_batch_size` and `per_device_eval_batch_size` hold completions, as TRL wants
    them, and `prompts_per_device` what the user typed. `notes` are lines to show once at the start.
    """

    def __post_init__(self) -> None:
        GRPODefaults.__post_init__(self)
        refuse_unserved(vars(self))
        self.notes: list[str] = []
        self._fit_to_hardware()
        group = int(self.num_generations or 0)
        self.prompts_per_device = self.per_device_train_batch_size
        self.per_device_train_batch_size *= group
        self.per_device_eval_batch_size *= self.num_generations_eval or group
        GRPOConfig.__post_init__(self)
        shard_on_cpu(self)
        if self.save_only_model and self.save_strategy != "no":
            self.notes.append(
                "--save_only_model true: checkpoints hold weights only, so an interrupted run cannot be continued"
            )

    def _fit_to_hardware(self) -> None:
        if torch.cuda.is_available() and not self.use_cpu:
            return
        if self.bf16 or self.fp16:
            asked = "--bf16" if self.bf16 else "--fp16"
            self.notes.append(f"{asked}: no GPU here, so this run computes in float32")
        self.use_cpu, self.bf16, self.fp16, self.dataloader_pin_memory = True, False, False, False
        if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not torch.distributed.is_initialized():
            open_process_group(timedelta(seconds=self.ddp_timeout), bool(self.deepspeed))

    @property
    def prompts_per_step(self) -> int:
        """Prompts per optimizer step over all processes."""
        return self.prompts_per_device * self.world_size * self.gradient_accumulation_steps

    def filled_evaluation(self, questions: int) -> int:
        """How many of so many questions can be asked so that each counts the same: those that fill whole batches.

        TRL logs the mean of the batches' means, and accelerate begins anew where a batch is not full. Where the
        questions are fewer than one batch, it is made smaller; of fewer questions than processes some are asked twice.
        """
        group = self.num_generations_eval or int(self.num_generations or 1)
        each = min(self.per_device_eval_batch_size // group, max(1, questions // self.world_size))
        self.per_device_eval_batch_size = each * group
        at_once = each * self.world_size
        return questions // at_once * at_once or questions

    @property
    def completions_per_step(self) -> int:
        """Completions per optimizer step over all processes."""
        return self.prompts_per_step * int(self.num_generations or 0)


def open_process_group(timeout: timedelta, deepspeed: bool) -> None:
    """Open gloo's process group before transformers does, which on a CPU leaves the timeout out."""
    if deepspeed or os.environ.get("ACCELERATE_USE_DEEPSPEED", "false") == "true":
        # transformers opens torch's group alone, and ZeRO-3 then believes to be one process
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
        import deepspeed as engine
        from deepspeed import ops

        # It would compile its shared-memory calls first, a minute in each new environment, for nothing that gloo
        # does not do here.
        ops.__compatible_ops__["deepspeed_shm_comm"] = False
        engine.init_distributed("gloo", verbose=False, timeout=timeout)
    else:
        torch.distributed.init_process_group("gloo", timeout=timeout)


def parse(
    arguments: list[str] | None = None, defaults: Mapping[str, Any] | None = None
) -> tuple[VQAArguments, GRPOTrainingConfig, ModelConfig]:
    """Read the command line, and the YAML file that `--config` names.

    Args:
        arguments: default: the program's own.
        defaults: what an entry sets where neither the command line nor the file does.

    Raises:
        UserError: for an unknown flag, a missing one or a value that cannot be.
    """
    return parse_into((VQAArguments, GRPOTrainingConfig, ModelConfig), arguments, defaults)


def parse_into(
    classes: tuple[type, type, type], arguments: list[str] | None, defaults: Mapping[str, Any] | None
) -> Any:
    """`parse` into any script arguments, training configuration with `notes`, and model configuration."""
    # the published flag and TRL 1.16 itself keep the old name, which works; nobody who trains can do anything about it
    warnings.filterwarnings("ignore", r"`(is_)?gradient_checkpointing` is deprecated", FutureWarning)
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
    """Refuse `--trust_remote_code`: no family here needs the Python files that a checkpoint may bring.

    Raises:
        UserError: it is set.
    """
    if any(getattr(each, "trust_remote_code", False) for each in arguments):
        raise UserError(
            "--trust_remote_code would run code that a checkpoint brings, which nothing here needs; leave it out"
        )
