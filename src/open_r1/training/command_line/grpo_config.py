"""TRL's GRPO configuration with the meaning that the published commands give its flags.

The published commands were written for trl 0.14; defaults that trl 1.16 has changed are restored here.
`per_device_train_batch_size` counts prompts, as in those commands.
"""

import os
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from trl import GRPOConfig

from open_r1.common.errors import UserError
from open_r1.common.redaction import known_secrets, redacted
from open_r1.modeling.sharding import open_process_group, shard_on_cpu
from open_r1.training.command_line.arguments import GRPODefaults
from open_r1.training.command_line.trl_options import refuse_unsupported


class RunSettings:
    """Mixin of training configurations: hides secrets from trackers, and fits a continued run to its processes."""

    accumulation_flag: int | None = None
    """`--gradient_accumulation_steps` of the command line, where the run takes another number."""

    def accumulate(self, micro_batches: int) -> None:
        """Make each optimizer step of so many micro-batches; completions are sampled for one step at a time."""
        self.accumulation_flag = self.gradient_accumulation_steps
        self.gradient_accumulation_steps = micro_batches
        if hasattr(self, "steps_per_generation"):
            self.generation_batch_size = self.generation_batch_size // self.steps_per_generation * micro_batches
            self.steps_per_generation = micro_batches

    def to_dict(self) -> dict[str, Any]:
        """As `TrainingArguments.to_dict`, which run.json and all trackers use, without secrets."""
        return redacted(super().to_dict(), known_secrets(vars(self)))  # type: ignore[misc]


@dataclass
class GRPOTrainingConfig(RunSettings, GRPODefaults, GRPOConfig):
    """`trl.GRPOConfig` with the defaults of the published runs and batch sizes counted in prompts.

    After construction `per_device_train_batch_size` and `per_device_eval_batch_size` count completions, as in TRL, and
    `prompts_per_device` is the number on the command line. `notes` are lines to print once at the start.
    """

    def __post_init__(self) -> None:
        GRPODefaults.__post_init__(self)
        refuse_unsupported(vars(self))
        self.notes: list[str] = []
        self._scales_by_default = self.scale_rewards is None
        self.scale_rewards = self.scale_rewards or "group"
        self.fit_to_hardware()
        group = int(self.num_generations or 0)
        self.prompts_per_device = self.per_device_train_batch_size
        self.per_device_train_batch_size *= group
        self.per_device_eval_batch_size *= self.num_generations_eval or group
        GRPOConfig.__post_init__(self)
        shard_on_cpu(self)
        if self.save_only_model and self.save_strategy != "no":
            self.notes.append(
                "--save_only_model true: checkpoints hold weights only, so an interrupted run cannot be resumed"
            )

    def fit_to_hardware(self) -> None:
        if torch.cuda.is_available() and not self.use_cpu:
            return
        if self.bf16 or self.fp16:
            flag = "--bf16" if self.bf16 else "--fp16"
            self.notes.append(f"{flag}: no GPU here, so this run computes in float32")
        self.use_cpu, self.bf16, self.fp16, self.dataloader_pin_memory = True, False, False, False
        if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not torch.distributed.is_initialized():
            open_process_group(timedelta(seconds=self.ddp_timeout), bool(self.deepspeed))

    def keep_sizes_of_rewards(self, reward: str) -> str | None:
        """Do not divide advantages by the standard deviation of the group, which takes the size of a reward away.

        Args:
            reward: the name of one whose size matters.

        Returns:
            A line to print, if this changes what is done without `--scale_rewards`.

        Raises:
            UserError: `--scale_rewards group` was given.
        """
        if self.scale_rewards != "group":
            return None
        if not self._scales_by_default:
            raise UserError(
                f"--scale_rewards group takes the size of the reward {reward} away: whatever right answers earn, they "
                "are as many standard deviations of their group above wrong ones. Give none or batch, or leave it out"
            )
        self.scale_rewards = "none"
        return f"--scale_rewards none: the reward {reward} acts by its size (default with it)"

    @property
    def prompts_per_step(self) -> int:
        """Prompts per optimizer step over all processes."""
        return self.prompts_per_device * self.world_size * self.gradient_accumulation_steps

    def filled_evaluation(self, questions: int) -> int:
        """The number of questions to evaluate, at most `questions`, so that all have the same weight: whole batches.

        TRL logs the mean of the batch means, and accelerate fills an incomplete batch with repeated questions. With
        fewer questions than one batch the batch becomes smaller; with fewer than processes some are repeated.
        """
        group = self.num_generations_eval or int(self.num_generations or 1)
        per_device = min(self.per_device_eval_batch_size // group, max(1, questions // self.world_size))
        self.per_device_eval_batch_size = per_device * group
        batch = per_device * self.world_size
        return questions // batch * batch or questions

    @property
    def completions_per_step(self) -> int:
        """Completions per optimizer step over all processes."""
        return self.prompts_per_step * int(self.num_generations or 0)
