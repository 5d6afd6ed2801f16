"""What a run takes up from the checkpoint that it goes on from, so that it is the same run as before.

Beside what transformers 5.17 keeps: every tensor of the weights, strictly, and the sums behind the next logged line. A
run of a longer schedule than the checkpoint's takes the rate of the new one at once; one on another number of
processes takes the mean of what they had summed up, and random numbers of its own.
"""

import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import DistributedType
from torch.optim.lr_scheduler import LambdaLR
from transformers import Trainer, set_seed

from open_r1.checkpoints.loading import load_model, require_adapter
from open_r1.training.recovery.checkpoint_store import read_about

_Trainer = Trainer if TYPE_CHECKING else object
PROGRESS = "progress_{rank}.json"
_APART = 1_000_003  # between the seeds of two steps; more than a run has processes


class Continuing(_Trainer):
    """The part of `ResumableTrainer` that goes on from a checkpoint."""

    args: Any
    state: Any
    model: Any
    accelerator: Any
    lr_scheduler: Any
    optimizer: Any
    _metrics: dict[str, Any]
    _tr_loss: torch.Tensor
    _begun: float | None
    _earlier_seconds: float
    _evaluation_is_due: bool

    @property
    def _rank(self) -> int:
        return self.accelerator.process_index

    def _had_other_processes(self, checkpoint: str | Path) -> bool:
        return read_about(Path(checkpoint)).get("processes") != self.accelerator.num_processes

    def _write_progress(self, folder: Path) -> None:
        """What this process has summed up for the next logged line, and how long the run has taken."""
        progress = {
            "loss": self._tr_loss.item(),
            "total_loss": self._total_loss_scalar,
            "last_logged": self._globalstep_last_logged,
            "seconds": self._seconds_so_far(),
            "evaluation_is_due": self._evaluation_is_due,
            "metrics": {name: dict(values) for name, values in self._metrics.items()},
        }
        folder.mkdir(parents=True, exist_ok=True)
        (folder / PROGRESS.format(rank=self._rank)).write_text(json.dumps(progress))

    def _seconds_so_far(self) -> float:
        return self._earlier_seconds + time.time() - (self._begun or time.time())

    def _read_progress(self, folder: Path) -> None:
        own = folder / PROGRESS.format(rank=self._rank)
        paths = sorted(folder.glob(PROGRESS.format(rank="*"))) if self._had_other_processes(folder) else [own]
        each = [json.loads(path.read_text()) for path in paths]
        progress = each[0]  # numbers that are logged are those of all processes already
        self._tr_loss = torch.tensor(_mean(one["loss"] for one in each), device=self.args.device)
        self._total_loss_scalar = _mean(one["total_loss"] for one in each)
        self._globalstep_last_logged = progress["last_logged"]
        self._earlier_seconds = progress["seconds"]
        self._evaluation_is_due = progress["evaluation_is_due"]
        for name, values in progress["metrics"].items():
            self._metrics[name].clear()
            self._metrics[name].update(values)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """As the Trainer's; on another number of processes new numbers, which follow from seed, step and process."""
        if checkpoint is not None and self._had_other_processes(checkpoint):
            set_seed((self.args.seed + _APART * self.state.global_step + self._rank) % 2**32)
        else:
            super()._load_rng_state(checkpoint)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """As the Trainer's; the next step's learning rate is that of this run's schedule.

        transformers 5.17 leaves the saved rate until after the first step: after a linear schedule has ended, zero.
        """
        super()._load_optimizer_and_scheduler(checkpoint)
        scheduler = getattr(self.lr_scheduler, "scheduler", self.lr_scheduler)
        if checkpoint is None or not isinstance(scheduler, LambdaLR):
            return
        groups = self.optimizer.param_groups
        before = [group["lr"] for group in groups]
        step = scheduler.last_epoch
        for group, base, of in zip(groups, scheduler.base_lrs, scheduler.lr_lambdas, strict=True):
            group["lr"] = base * of(step)
        scheduler._last_lr = [group["lr"] for group in groups]
        if scheduler._last_lr != before and self.accelerator.is_main_process:
            print(
                f"learning rate after step {step}: {before[0]:.3g} by the schedule so far, {groups[0]['lr']:.3g} by "
                f"that over {self.state.max_steps} steps ({self.args.lr_scheduler_type}), which holds from here on"
            )

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Put a checkpoint's weights into the model, every one of them.

        Raises:
            UserError: a tensor is missing, left over or of another shape.
        """
        if model is not None or self.accelerator.distributed_type == DistributedType.FSDP:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        elif hasattr(self.model, "peft_config"):
            super()._load_from_checkpoint(resume_from_checkpoint)
            require_adapter(self.model, Path(resume_from_checkpoint))
        else:
            saved = load_model(resume_from_checkpoint, dtype=self.model.dtype, device="cpu")
            self.model.load_state_dict(saved.state_dict(), strict=True)


def _mean(values: Iterable[float]) -> float:
    held = list(values)
    return sum(held) / len(held)
