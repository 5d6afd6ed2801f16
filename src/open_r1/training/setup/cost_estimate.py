"""Early cost of a run: whether its largest batch fits, and after a few steps an estimate of time and memory."""

import resource
import time
from typing import Any

import torch
from tqdm.auto import tqdm
from transformers import TrainerCallback

from open_r1.common.durations import duration
from open_r1.common.errors import UserError
from open_r1.training.memory.room_to_come import bytes_to_come, room_taken
from open_r1.training.setup.trial_pass import try_pass

GIB = 2**30
WARM_UP, TIMED = 1, 3  # optimizer steps: the first pays for compilation and caches


def peak_memory() -> str:
    """Peak memory of this process so far: on its GPU, or on the host without one."""
    if torch.cuda.is_available():
        total = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
        return f"{torch.cuda.max_memory_allocated() / GIB:.1f} of {total / GIB:.0f} GiB on the GPU"
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB:.1f} GiB on the host"


class CostEstimate(TrainerCallback):
    """After some steps, prints an estimate of the remaining time and the peak memory."""

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer
        self._start_time = 0.0
        self._seconds: dict[str, float] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Note the step at which this process starts."""
        self._first_step = state.global_step

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Time the steps after the warm-up."""
        steps = state.global_step - self._first_step
        if steps == WARM_UP:
            self._start_time, self._seconds = time.perf_counter(), dict(self._trainer.meter.total)
        if steps != WARM_UP + TIMED or not state.is_world_process_zero:
            return
        seconds = (time.perf_counter() - self._start_time) / TIMED
        totals = self._trainer.meter.total
        phases = ", ".join(
            f"{name} {(totals[name] - self._seconds.get(name, 0)) / TIMED:.1f}"
            for name in ("rollout", "reward", "train")
        )
        remaining = state.max_steps - state.global_step
        tqdm.write(  # keeps the progress bar intact
            f"estimate: {seconds:.1f} s a step ({phases}), {remaining} steps left, about "
            f"{duration(remaining * seconds)}; peak memory so far: {peak_memory()}"
        )


class TryLongestBatch(TrainerCallback):
    """Before the first step, runs forward and backward on the largest micro-batch that this run can have.

    Args:
        trainer: `SharedPrefixGRPOTrainer`.
        rows: the longest prompts, one micro-batch.
    """

    def __init__(self, trainer: Any, rows: list[dict[str, Any]]) -> None:
        self._trainer, self._rows = trainer, rows

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Run the pass.

        Raises:
            UserError: if it does not fit in memory.
        """
        start = time.perf_counter()
        try:
            with room_taken(self._trainer) as later:
                tokens = try_pass(self._trainer, self._rows)
        except torch.OutOfMemoryError as error:
            raise UserError(
                f"the longest batch of this run does not fit: {len(self._rows)} prompts with "
                f"{args.num_generations} completions of {args.max_completion_length} tokens, beside the "
                f"{bytes_to_come(self._trainer) / GIB:.1f} GiB that later steps hold ({error}); lower "
                "--per_device_train_batch_size or --tokens_per_micro_batch, or use --gradient_checkpointing or LoRA"
            ) from error
        if state.is_world_process_zero:
            print(
                f"longest batch: {tokens} tokens fit, beside {later / GIB:.1f} GiB that later steps hold, "
                f"{time.perf_counter() - start:.1f} s for one pass; peak memory: {peak_memory()}"
            )
