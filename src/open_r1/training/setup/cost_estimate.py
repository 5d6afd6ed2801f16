"""What a run will cost, found out early: its largest batch before the first step, its time and memory after a few."""

import resource
import time
from typing import Any

import torch
from tqdm.auto import tqdm
from transformers import TrainerCallback

from open_r1.common.durations import duration
from open_r1.common.errors import UserError
from open_r1.training.grpo.trial_pass import try_pass

GIB = 2**30
WARM_UP, TIMED = 1, 3  # optimizer steps: the first pays for compilation and caches


def peak_memory() -> str:
    """The most memory that this process has held so far: of its GPU, or of the host where there is none."""
    if torch.cuda.is_available():
        whole = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
        return f"{torch.cuda.max_memory_allocated() / GIB:.1f} of {whole / GIB:.0f} GiB on the GPU"
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB:.1f} GiB of the host"


class Estimate(TrainerCallback):
    """After some steps, says how long the rest will take and how much memory it has needed so far."""

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer
        self._begun = 0.0
        self._seconds: dict[str, float] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Take note of where this run begins."""
        self._first = state.global_step

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Time the steps after the first."""
        done = state.global_step - self._first
        if done == WARM_UP:
            self._begun, self._seconds = time.perf_counter(), dict(self._trainer.meter.total)
        if done != WARM_UP + TIMED or not state.is_world_process_zero:
            return
        step = (time.perf_counter() - self._begun) / TIMED
        now = self._trainer.meter.total
        phases = ", ".join(
            f"{name} {(now[name] - self._seconds.get(name, 0)) / TIMED:.1f}" for name in ("rollout", "reward", "train")
        )
        left = state.max_steps - state.global_step
        tqdm.write(  # beside the progress bar, not into it
            f"estimate: {step:.1f} s a step ({phases}), {left} steps left, about {duration(left * step)}; "
            f"most memory so far: {peak_memory()}"
        )


class TryLongest(TrainerCallback):
    """Before the first step, makes the forward and backward pass of the largest micro-batch that this run can meet.

    Args:
        trainer: whose pass it is.
        rows: the longest prompts, as many as a micro-batch holds.
    """

    def __init__(self, trainer: Any, rows: list[dict[str, Any]]) -> None:
        self._trainer, self._rows = trainer, rows

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Try it.

        Raises:
            UserError: it does not fit, with what to lower.
        """
        begun = time.perf_counter()
        try:
            tokens = try_pass(self._trainer, self._rows)
        except torch.OutOfMemoryError as error:
            raise UserError(
                f"the longest batch of this run does not fit: {len(self._rows)} prompts with "
                f"{args.num_generations} completions of {args.max_completion_length} tokens ({error}); lower "
                "--per_device_train_batch_size or --tokens_per_micro_batch, or use --gradient_checkpointing or LoRA"
            ) from error
        if state.is_world_process_zero:
            print(
                f"longest batch: {tokens} tokens fit, {time.perf_counter() - begun:.1f} s for one pass; "
                f"most memory: {peak_memory()}"
            )
