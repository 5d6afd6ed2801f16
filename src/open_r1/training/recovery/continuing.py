"""Restore the state of a checkpoint, so that a resumed run equals an uninterrupted one.

In addition to transformers: all weights, strictly, and the running sums of the next log entry. With a longer schedule
than the checkpoint's, the learning rate follows the new schedule at once. With another number of processes, the sums
are averaged and random numbers are seeded anew.
"""

import json
import time
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import DistributedType
from torch.optim.lr_scheduler import LambdaLR
from transformers import Trainer, set_seed

from open_r1.checkpoints.loading import load_model, require_adapter
from open_r1.training.recovery.checkpoint_store import checkpoint_manifest

_Trainer = Trainer if TYPE_CHECKING else object
PROGRESS = "progress_{rank}.json"
_SEED_STEP = 1_000_003  # between the seeds of two steps; more than a run has processes


class CheckpointRestorer(_Trainer):
    """The part of `ResumableTrainer` that resumes from a checkpoint."""

    args: Any
    state: Any
    model: Any
    accelerator: Any
    lr_scheduler: Any
    optimizer: Any
    _metrics: dict[str, Any]
    _tr_loss: torch.Tensor
    _start_time: float | None
    _earlier_seconds: float
    _evaluation_is_due: bool
    _total_train_tokens: int  # of SFT

    @property
    def _rank(self) -> int:
        return self.accelerator.process_index

    def _process_count_changed(self, checkpoint: str | Path) -> bool:
        return checkpoint_manifest(Path(checkpoint)).get("processes") != self.accelerator.num_processes

    def _write_progress(self, folder: Path) -> None:
        """Write this process's running sums of the next log entry, and the duration of the run."""
        progress = {
            "loss": self._tr_loss.item(),
            "total_loss": self._total_loss_scalar,
            "last_logged": self._globalstep_last_logged,
            "seconds": self.seconds_so_far(),
            "evaluation_is_due": self._evaluation_is_due,
            "tokens": getattr(self, "_total_train_tokens", 0),
            "metrics": {name: dict(values) for name, values in self._metrics.items()},
        }
        folder.mkdir(parents=True, exist_ok=True)
        (folder / PROGRESS.format(rank=self._rank)).write_text(json.dumps(progress))

    def seconds_so_far(self) -> float:
        """Seconds that this run has trained, earlier parts of a continued run included."""
        return self._earlier_seconds + time.time() - (self._start_time or time.time())

    def _read_progress(self, folder: Path) -> None:
        paths = [folder / PROGRESS.format(rank=self._rank)]
        if self._process_count_changed(folder):
            paths = sorted(folder.glob(PROGRESS.format(rank="*")))
        by_rank = [json.loads(path.read_text()) for path in paths]
        progress = by_rank[0]  # metrics are the same on all processes
        self._tr_loss = torch.tensor(fmean(entry["loss"] for entry in by_rank), device=self.args.device)
        self._total_loss_scalar = fmean(entry["total_loss"] for entry in by_rank)
        self._globalstep_last_logged = progress["last_logged"]
        self._earlier_seconds = progress["seconds"]
        self._evaluation_is_due = progress["evaluation_is_due"]
        self._total_train_tokens = progress.get("tokens", 0)
        for name, values in progress["metrics"].items():
            self._metrics[name].clear()
            self._metrics[name].update(values)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """As in transformers; with another number of processes, seed anew from seed, step and rank."""
        if checkpoint is not None and self._process_count_changed(checkpoint):
            set_seed((self.args.seed + _SEED_STEP * self.state.global_step + self._rank) % 2**32)
        else:
            super()._load_rng_state(checkpoint)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """As in transformers; but the next step's learning rate is that of this run's schedule.

        transformers 5.17 keeps the saved rate until after the first step: zero at the end of a linear schedule.
        """
        if (
            self.args.device.type == "cpu"
        ):  # transformers 5.17 asks torch.load for "cpu:0", which torch 2.13 does not know
            self.args._setup_devices = torch.device("cpu")
        super()._load_optimizer_and_scheduler(checkpoint)
        scheduler = getattr(self.lr_scheduler, "scheduler", self.lr_scheduler)
        if checkpoint is None or not isinstance(scheduler, LambdaLR):
            return
        groups = self.optimizer.param_groups
        before = [group["lr"] for group in groups]
        step = scheduler.last_epoch
        for group, base, factor in zip(groups, scheduler.base_lrs, scheduler.lr_lambdas, strict=True):
            group["lr"] = base * factor(step)
        scheduler._last_lr = [group["lr"] for group in groups]
        if scheduler._last_lr != before and self.accelerator.is_main_process:
            print(
                f"learning rate after step {step}: {before[0]:.3g} in the checkpoint's schedule, now "
                f"{groups[0]['lr']:.3g} in that over {self.state.max_steps} steps ({self.args.lr_scheduler_type})"
            )

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Load all weights of a checkpoint into the model, strictly.

        Raises:
            UserError: if a tensor is missing, unexpected or of another shape.
        """
        if model is not None or self.accelerator.distributed_type == DistributedType.FSDP:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        elif hasattr(self.model, "peft_config"):
            super()._load_from_checkpoint(resume_from_checkpoint)
            require_adapter(self.model, Path(resume_from_checkpoint))
        else:
            saved = load_model(resume_from_checkpoint, dtype=self.model.dtype, device="cpu")
            self.model.load_state_dict(saved.state_dict(), strict=True)
