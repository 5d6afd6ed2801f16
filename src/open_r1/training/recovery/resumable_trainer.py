"""Trainers with complete checkpoints, exact resuming, and stops that all processes make together.

`ResumableTrainer` is a mixin for TRL trainers. What it changes in transformers 5.17, and why:

- checkpoints are staged and renamed when complete (`checkpoint_store`); only then are the oldest deleted;
- full weights are loaded strictly: the library matches 1 of 58 names of a Qwen-VL checkpoint and continues from the
  base model with a warning (transformers#43701);
- running sums of the next log entry are saved, so that logged numbers equal those of an uninterrupted run;
- evaluations use separate random numbers, so that they do not change the training;
- a loss, gradient or reward that is not finite stops the run before the update; a signal stops it after the step or
  within an evaluation, which the resumed run repeats.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import DistributedType
from safetensors import SafetensorError
from transformers import Trainer

from open_r1.checkpoints.processors import no_progress_bars, quiet_transformers
from open_r1.common.atomic_files import DiskError
from open_r1.common.errors import UserError
from open_r1.common.redaction import public_copy
from open_r1.modeling.agreement import all_finite, on_any_process, stop_everywhere
from open_r1.training.memory.sharded_optimizer import DividesOptimizer, part_names
from open_r1.training.recovery.checkpoint_store import (
    STAGE,
    clear_stage,
    full_disk,
    prune,
    publish_files,
    require,
    seal,
)
from open_r1.training.recovery.continuing import PROGRESS, CheckpointRestorer
from open_r1.training.recovery.reward_guard import RewardGuard
from open_r1.training.recovery.stop_signals import StopOnSignal
from open_r1.training.recovery.watchdog import Watchdog
from open_r1.training.setup.trainable_parts import groups_with_vision_rate

_Trainer = Trainer if TYPE_CHECKING else object


@contextmanager
def full_disk_in_one_line(run: Path) -> Iterator[None]:
    """Raise a `DiskError` if the disk is full while a checkpoint of this run is written."""
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        problem = full_disk(error, run)
        if problem is None:
            raise
        raise DiskError(problem) from error


class _StopRequested(Exception):
    """A signal arrived during an evaluation."""


class ResumableTrainer(CheckpointRestorer, DividesOptimizer, _Trainer):
    """Mixin before a TRL trainer: `class X(ResumableTrainer, GRPOTrainer)`."""

    args: Any
    state: Any
    control: Any
    model: Any
    model_wrapped: Any
    accelerator: Any
    lr_scheduler: Any
    optimizer: Any
    _metrics: dict[str, Any]
    _tr_loss: torch.Tensor

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.rewards_guard = RewardGuard()
        self._staged: Path | None = None
        self._resume_folder: Path | None = None
        self._saved_at = -1
        self._evaluation_is_due = False
        self._start_time: float | None = None
        self._earlier_seconds = 0.0
        self._losses: list[torch.Tensor] = []
        self.stopped_by_alarm = ""
        self.vision_learning_rate: float | None = None
        """Peak learning rate of the vision tower; None for that of the other weights."""
        with no_progress_bars():  # TRL reads the reference model's weights
            super().__init__(*arguments, **options)
        self.args.logging_nan_inf_filter = False  # it looks at every loss; one that is not finite stops the run anyway
        device = self.accelerator.device
        self.signals = StopOnSignal(device, self._can_resume_here, self._save_in_full)
        self.add_callback(self.signals)
        limit = float(self.args.ddp_timeout)
        self.watchdog = Watchdog(limit, self.accelerator.process_index, Path(self.args.output_dir))

    def train(self, resume_from_checkpoint: Any = None, **options: Any) -> Any:
        """As in transformers; watchdog and signal handlers are removed at the end."""
        self._resume_folder = Path(resume_from_checkpoint) if resume_from_checkpoint else None
        if self._resume_folder is not None:
            self.args.eval_on_start = False  # the run was evaluated at its start
        try:
            return super().train(resume_from_checkpoint=resume_from_checkpoint, **options)
        finally:
            self.watchdog.pause()
            self.signals.release()

    def create_optimizer(self, model: Any = None) -> Any:
        """As in transformers, with `vision_learning_rate` for the vision tower where that is set."""
        if self.vision_learning_rate is not None and self.optimizer is None:
            target = self.model if model is None else model
            decayed = self.get_decay_parameter_names(target)
            groups = groups_with_vision_rate(target, decayed, self.args.weight_decay, self.vision_learning_rate)
            kind, options = self.optimizer_cls_and_kwargs or self.get_optimizer_cls_and_kwargs(self.args, target)
            self.optimizer_cls_and_kwargs = kind, options | {"params": groups}
        return super().create_optimizer(model)

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """Nothing: `model_card.py` writes the card at the end of the run."""

    def _send_telemetry(self) -> None:
        """Nothing: no telemetry about runs on patients' data (TRL 1.16 reports every trainer to the hub)."""

    # --- saving --------------------------------------------------------------------------------------------------

    def _can_resume_here(self) -> bool:
        """Whether a run could resume from the step that has just ended."""
        return True

    def _save_in_full(self) -> None:
        """Save the checkpoint of a stopped run in full, even with `--save_only_model`."""
        self.args.save_only_model = False

    @property
    def _is_resumable(self) -> bool:
        return not self.args.save_only_model and not getattr(self.args, "sync_ref_model", False)

    def _get_output_dir(self, trial: Any) -> str:
        return super()._get_output_dir(trial) if self._staged is None else str(self._staged)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Save one complete checkpoint or none; a step is not saved twice."""
        step = self.state.global_step
        if self._saved_at == step:
            return
        self.watchdog.pause()
        run = Path(super()._get_output_dir(trial))
        final = run / f"checkpoint-{step}"
        stage = run / STAGE / final.name
        if self.args.should_save:
            clear_stage(run)
        self.accelerator.wait_for_everyone()
        self._staged = run / STAGE
        try:
            # under DeepSpeed and FSDP all processes write and wait for each other, so an error is raised at once
            with self._agree_on_disk_errors(run) if self.engine == "DDP" else nullcontext():
                super()._save_checkpoint(model, trial)
                self._write_progress(stage)
        finally:
            self._staged = None
        self.accelerator.wait_for_everyone()
        problem = None
        if self.args.should_save:
            self._correct_best_checkpoint(run, final, stage)
            try:
                require(stage, self._required_files())
                seal(stage, final, self._manifest_entries())
                best = self.state.best_model_checkpoint
                prune(run, self.args.save_total_limit, [Path(best)] if best else [])
            except UserError as error:
                problem = str(error)
        stop_everywhere(problem, self.accelerator.device)
        self._saved_at = step
        if self.args.push_to_hub:
            super()._push_from_checkpoint(str(final))

    def _save(self, *arguments: Any, **options: Any) -> None:
        """As in transformers; training_args.bin, a pickle of `args`, contains no secrets."""
        original, self.args = self.args, public_copy(self.args)
        try:
            with quiet_transformers():
                super()._save(*arguments, **options)
        finally:
            self.args = original

    @contextmanager
    def _agree_on_disk_errors(self, run: Path) -> Iterator[None]:
        """Wait for all processes at the end of the block; stop all if the disk of one is full.

        Within the block a process must not wait for others after it has started to write.
        """
        problem = None
        try:
            with full_disk_in_one_line(run):
                yield
        except DiskError as error:
            problem = str(error)
        stop_everywhere(problem, self.accelerator.device)

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Nothing: `_save_checkpoint` pushes the checkpoint under its final name."""

    def _correct_best_checkpoint(self, run: Path, final: Path, stage: Path) -> None:
        """transformers looks for the best checkpoint in the stage; set its final path."""
        if not self.state.best_global_step:
            return
        best = run / f"checkpoint-{self.state.best_global_step}"
        self.state.best_model_checkpoint = str(best) if best == final or best.is_dir() else None
        self.state.save_to_json(str(stage / "trainer_state.json"))

    def _manifest_entries(self) -> dict[str, Any]:
        return {
            "resumable": self._is_resumable,
            "processes": self.accelerator.num_processes,
            "engine": self.engine,
            "ends_rollout": self._can_resume_here(),
        }

    @property
    def engine(self) -> str:
        """What divides the weights among the processes: DDP (nothing does), FSDP, or ZeRO with its stage."""
        kind = self.accelerator.distributed_type
        if kind == DistributedType.DEEPSPEED:
            return f"ZeRO-{self.accelerator.state.deepspeed_plugin.zero_stage}"
        return "FSDP" if kind == DistributedType.FSDP else "DDP"

    def _required_files(self) -> list[str]:
        """Patterns of the files of a complete checkpoint."""
        ranks = [self.accelerator.process_index] if self.args.save_on_each_node else range(self.args.world_size)
        patterns = ["trainer_state.json", *(PROGRESS.format(rank=rank) for rank in ranks)]
        engine = self.engine
        if engine == "FSDP":
            patterns += ["pytorch_model_fsdp*"]
        elif engine != "ZeRO-3":
            patterns += ["*.safetensors"]
        if self.args.save_only_model:
            return patterns
        is_single = self.args.world_size <= 1
        patterns += ["rng_state.pth"] if is_single else [f"rng_state_{rank}.pth" for rank in ranks]
        if engine.startswith("ZeRO"):
            return [*patterns, "latest", "global_step*/*"]
        optimizer = part_names(ranks, self.args.world_size) if self.divides_optimizer else ["optimizer*"]
        return [*patterns, "scheduler.pt", *optimizer]

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """As in transformers; final weights are moved to the run's folder only when complete."""
        run = Path(self.args.output_dir)
        if output_dir is not None:
            with self._agree_on_disk_errors(run):  # only the first process writes, after all have sent their shards
                super().save_model(output_dir, _internal_call)
            return
        if self.args.should_save:
            clear_stage(run)
        self.accelerator.wait_for_everyone()
        with self._agree_on_disk_errors(run):
            super().save_model(str(run / STAGE), _internal_call=True)
        if self.args.should_save:
            publish_files(run / STAGE, run)
        if self.args.push_to_hub and not _internal_call:
            self.push_to_hub(commit_message="Model save", revision=self.args.hub_revision)

    # --- resuming ------------------------------------------------------------------------------------------------

    def _run_epoch(self, *arguments: Any, **options: Any) -> None:
        """Run an epoch in its order, after restoring the progress of a resumed run; nothing if all steps are done."""
        self._restore_progress()
        if self.state.global_step >= self.state.max_steps or self.signals.stopped:
            self.control.should_training_stop = True
            return
        self._start_epoch(options["epoch"])
        super()._run_epoch(*arguments, **options)

    def _restore_progress(self) -> None:
        """Restore the running sums of the checkpoint, once at the start of training."""
        if self._start_time is None:
            self._start_time = time.time()
            if self._resume_folder is not None:
                self._read_progress(self._resume_folder)
                self._saved_at = self.state.global_step
                if self._evaluation_is_due:
                    self._determine_best_metric(self._evaluate(None, None), None)

    def _start_epoch(self, epoch: int) -> None:
        """Called before the first question of an epoch is sampled."""

    def _finalize_training(self, trial: Any, num_train_samples: int, start_time: float) -> Any:
        """Let the final summary cover the whole run, not only its resumed part."""
        self._restore_progress()  # needed if no epoch remained to run
        return super()._finalize_training(trial, num_train_samples, start_time - self._earlier_seconds)

    # --- evaluating ----------------------------------------------------------------------------------------------

    def evaluate(self, *arguments: Any, **options: Any) -> dict[str, float]:
        """As in transformers, with separate random numbers that are the same each time."""
        device = self.accelerator.device
        with torch.random.fork_rng([] if device.type == "cpu" else [device]):
            torch.manual_seed(self.args.seed + self.accelerator.process_index)
            return super().evaluate(*arguments, **options)

    def _evaluate(self, *arguments: Any, **options: Any) -> dict[str, float]:
        """As in transformers; stops at a signal and leaves the evaluation to the resumed run."""
        self._evaluation_is_due = False
        try:
            return super()._evaluate(*arguments, **options)
        except _StopRequested:
            self._metrics["eval"].clear()
            self._evaluation_is_due = self.control.should_save = True
            self.signals.stop(self.control)
            return {}
        finally:
            self.watchdog.pause()

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        """As in transformers; a step whose evaluation was stopped by a signal is saved."""
        return super()._determine_best_metric(metrics, trial) if metrics else True

    def prediction_step(self, *arguments: Any, **options: Any) -> Any:
        """As in TRL, under the watchdog.

        Raises:
            _StopRequested: on all processes, if one received a signal.
        """
        if self.signals.due_within_evaluation():
            raise _StopRequested
        self.watchdog.beat(f"evaluation after step {self.state.global_step}")
        return super().prediction_step(*arguments, **options)

    def _load_best_model(self) -> None:
        """As in transformers, but strictly if a process has all weights."""
        if self.engine == "DDP":
            self._load_from_checkpoint(self.state.best_model_checkpoint)
        else:
            super()._load_best_model()

    # --- stopping ------------------------------------------------------------------------------------------------

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """As in TRL. The loss is checked together with the gradient: a look at it makes the host wait for the GPU."""
        result = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        if self.model.training:
            self._losses.append((result[0] if isinstance(result, tuple) else result).detach())
        return result

    def training_step(self, *arguments: Any, **options: Any) -> torch.Tensor:
        """Run a micro-step under the watchdog."""
        self._guard_engine()
        self.watchdog.beat(f"step {self.state.global_step + 1}")
        loss = super().training_step(*arguments, **options)
        self.watchdog.pause()
        return loss

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm)
        is_true_norm = self.accelerator.scaler is None and norm is not None
        self._require_finite([torch.as_tensor(norm)] if is_true_norm else [])
        return norm

    def _guard_engine(self) -> None:
        """Check gradients before DeepSpeed's step, which is part of its backward pass."""
        engine = self.model_wrapped
        if self.accelerator.distributed_type != DistributedType.DEEPSPEED or hasattr(engine, "open_r1_step"):
            return
        engine.open_r1_step = engine.step

        def step(*arguments: Any, **options: Any) -> Any:
            groups = getattr(engine.optimizer, "averaged_gradients", {}).values()
            gradients = [
                gradient for group in groups if group is not None for gradient in group if gradient is not None
            ]
            self._require_finite(gradients)
            return engine.open_r1_step(*arguments, **options)

        engine.step = step

    def _require_finite(self, gradients: list[torch.Tensor]) -> None:
        """Stop all processes if a loss of this step, or one of the gradients, is not finite on any."""
        losses, self._losses = self._losses, []
        device = self.accelerator.device
        if not on_any_process(not (all_finite(losses) and all_finite(gradients)), device):
            return
        checkpoint = f"checkpoint-{self._saved_at}" if self._saved_at >= 0 else "none yet"
        for quantity, values in (("loss", losses), ("gradient", gradients)):
            problem = (
                f"the {quantity} of step {self.state.global_step + 1} is not finite; stopped before the update, so "
                f"the weights are unchanged (last checkpoint: {checkpoint}). Lower --learning_rate or --max_grad_norm, "
                "check the logged rewards, or train in float32"
            )
            stop_everywhere(None if all_finite(values) else problem, device)
