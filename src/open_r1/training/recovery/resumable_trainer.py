"""Trainers that survive: whole checkpoints, continuing to the bit, and stops that all processes make together.

`ResumableTrainer` goes in front of a TRL trainer. What it changes in transformers 5.17, and why:

- checkpoints are built aside and get their name when they are complete (`saving`); the oldest go only then;
- full weights are reloaded strictly: the library's own way matches 1 of 58 names of a Qwen-VL checkpoint and goes on
  from the base with a warning (transformers#43701);
- the sums behind the next logged line are saved too, so that every logged number equals an uninterrupted run's;
- an evaluation draws random numbers of its own, so training goes on as if there had been none;
- a loss, gradient or reward that is not finite stops the run before the update, a signal after the step or within an
  evaluation, which the continued run then makes from its beginning (`guards`).
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

from open_r1.common.atomic_files import DiskError
from open_r1.common.errors import UserError
from open_r1.common.redaction import public_copy
from open_r1.modeling.agreement import all_finite, stop_everywhere
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
from open_r1.training.recovery.continuing import PROGRESS, Continuing
from open_r1.training.recovery.reward_guard import Rewards
from open_r1.training.recovery.stop_signals import StopOnSignal
from open_r1.training.recovery.watchdog import Watchdog

_Trainer = Trainer if TYPE_CHECKING else object


@contextmanager
def full_disk_in_one_line(run: Path) -> Iterator[None]:
    """Turn a disk that fills up while a checkpoint of this run is written into a `DiskError`."""
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        problem = full_disk(error, run)
        if problem is None:
            raise
        raise DiskError(problem) from error


class _ToldToStop(Exception):
    """A signal has come within an evaluation."""


class ResumableTrainer(Continuing, DividesOptimizer, _Trainer):
    """In front of a TRL trainer: `class X(ResumableTrainer, GRPOTrainer)`."""

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
        self.rewards_guard = Rewards()
        self._staged: Path | None = None
        self._continued: Path | None = None
        self._saved_at = -1
        self._evaluation_is_due = False
        self._begun: float | None = None
        self._earlier_seconds = 0.0
        super().__init__(*arguments, **options)
        device = self.accelerator.device
        self.signals = StopOnSignal(device, self._can_resume_here, self._save_in_full)
        self.add_callback(self.signals)
        limit = float(self.args.ddp_timeout)
        self.watchdog = Watchdog(limit, self.accelerator.process_index, Path(self.args.output_dir))

    def train(self, resume_from_checkpoint: Any = None, **options: Any) -> Any:
        """As the Trainer's; the watchdog and the signals are given back in the end."""
        self._continued = Path(resume_from_checkpoint) if resume_from_checkpoint else None
        if self._continued is not None:
            self.args.eval_on_start = False  # it was evaluated when it began
        try:
            return super().train(resume_from_checkpoint=resume_from_checkpoint, **options)
        finally:
            self.watchdog.rest()
            self.signals.release()

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """Nothing: the card of `model_card.py` is written when the run is done."""

    def _send_telemetry(self) -> None:
        """Nothing: a run on patients' data calls nobody unasked (TRL 1.16 tells the hub of each trainer it builds)."""

    # --- saving --------------------------------------------------------------------------------------------------

    def _can_resume_here(self) -> bool:
        """Whether a run could go on from the step that has just ended."""
        return True

    def _save_in_full(self) -> None:
        """A run that is told to stop is saved in full, whatever `--save_only_model` says of the others."""
        self.args.save_only_model = False

    @property
    def _can_be_continued(self) -> bool:
        return not self.args.save_only_model and not getattr(self.args, "sync_ref_model", False)

    def _get_output_dir(self, trial: Any) -> str:
        return super()._get_output_dir(trial) if self._staged is None else str(self._staged)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """One complete checkpoint, or none; a step that is saved already is not saved again."""
        step = self.state.global_step
        if self._saved_at == step:
            return
        self.watchdog.rest()
        run = Path(super()._get_output_dir(trial))
        final = run / f"checkpoint-{step}"
        stage = run / STAGE / final.name
        if self.args.should_save:
            clear_stage(run)
        self.accelerator.wait_for_everyone()
        self._staged = run / STAGE
        try:
            # DeepSpeed and FSDP write with all processes, which wait for each other: there an error is raised at once
            with self._agreed_on_disk_errors(run) if self._engine() == "DDP" else nullcontext():
                super()._save_checkpoint(model, trial)
                self._write_progress(stage)
        finally:
            self._staged = None
        self.accelerator.wait_for_everyone()
        problem = None
        if self.args.should_save:
            self._name_the_best(run, final, stage)
            try:
                require(stage, self._needed())
                seal(stage, final, self._about())
                best = self.state.best_model_checkpoint
                prune(run, self.args.save_total_limit, [Path(best)] if best else [])
            except UserError as error:
                problem = str(error)
        stop_everywhere(problem, self.accelerator.device)
        self._saved_at = step
        if self.args.push_to_hub:
            super()._push_from_checkpoint(str(final))

    def _save(self, *arguments: Any, **options: Any) -> None:
        """As the Trainer's; training_args.bin, which is a pickle of `args`, gets them without secrets."""
        given, self.args = self.args, public_copy(self.args)
        try:
            super()._save(*arguments, **options)
        finally:
            self.args = given

    @contextmanager
    def _agreed_on_disk_errors(self, run: Path) -> Iterator[None]:
        """Wait for all processes at the end; stop all if the disk of one is full.

        Within the block no process may wait for another once it has begun to write.
        """
        problem = None
        try:
            with full_disk_in_one_line(run):
                yield
        except DiskError as error:
            problem = str(error)
        stop_everywhere(problem, self.accelerator.device)

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Not from the stage: `_save_checkpoint` pushes what has its name."""

    def _name_the_best(self, run: Path, final: Path, stage: Path) -> None:
        """transformers has looked for the best checkpoint in the stage; say where it is."""
        if not self.state.best_global_step:
            return
        best = run / f"checkpoint-{self.state.best_global_step}"
        self.state.best_model_checkpoint = str(best) if best == final or best.is_dir() else None
        self.state.save_to_json(str(stage / "trainer_state.json"))

    def _about(self) -> dict[str, Any]:
        return {
            "resumable": self._can_be_continued,
            "processes": self.accelerator.num_processes,
            "engine": self._engine(),
            "ends_rollout": self._can_resume_here(),
        }

    def _engine(self) -> str:
        kind = self.accelerator.distributed_type
        if kind == DistributedType.DEEPSPEED:
            return f"ZeRO-{self.model_wrapped.zero_optimization_stage()}"
        return "FSDP" if kind == DistributedType.FSDP else "DDP"

    def _needed(self) -> list[str]:
        """Patterns of the files without which a checkpoint is not complete."""
        ranks = [self.accelerator.process_index] if self.args.save_on_each_node else range(self.args.world_size)
        needed = ["trainer_state.json", *(PROGRESS.format(rank=rank) for rank in ranks)]
        engine = self._engine()
        if engine == "FSDP":
            needed += ["pytorch_model_fsdp*"]
        elif engine != "ZeRO-3":
            needed += ["*.safetensors"]
        if self.args.save_only_model:
            return needed
        single = self.args.world_size <= 1
        needed += ["rng_state.pth"] if single else [f"rng_state_{rank}.pth" for rank in ranks]
        if engine.startswith("ZeRO"):
            return [*needed, "latest", "global_step*/*"]
        optimizer = part_names(ranks, self.args.world_size) if self.divides_optimizer else ["optimizer*"]
        return [*needed, "scheduler.pt", *optimizer]

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """As the Trainer's; the final weights in the run's folder are whole under their names or not there."""
        run = Path(self.args.output_dir)
        if output_dir is not None:
            with self._agreed_on_disk_errors(run):  # the first process alone writes, after all have given their parts
                super().save_model(output_dir, _internal_call)
            return
        if self.args.should_save:
            clear_stage(run)
        self.accelerator.wait_for_everyone()
        with self._agreed_on_disk_errors(run):
            super().save_model(str(run / STAGE), _internal_call=True)
        if self.args.should_save:
            publish_files(run / STAGE, run)
        if self.args.push_to_hub and not _internal_call:
            self.push_to_hub(commit_message="Model save", revision=self.args.hub_revision)

    # --- continuing ----------------------------------------------------------------------------------------------

    def _run_epoch(self, *arguments: Any, **options: Any) -> None:
        """The epoch, in its own order; a continued run takes up its sums, and one that had all its steps adds none."""
        self._take_up()
        if self.state.global_step >= self.state.max_steps or self.signals.stopped:
            self.control.should_training_stop = True
            return
        self._start_epoch(options["epoch"])
        super()._run_epoch(*arguments, **options)

    def _take_up(self) -> None:
        """Once, when training begins: the sums of the checkpoint that it goes on from."""
        if self._begun is None:
            self._begun = time.time()
            if self._continued is not None:
                self._read_progress(self._continued)
                self._saved_at = self.state.global_step
                if self._evaluation_is_due:
                    self._determine_best_metric(self._evaluate(None, None), None)

    def _start_epoch(self, epoch: int) -> None:
        """Called before the first question of an epoch is drawn."""

    def _finalize_training(self, trial: Any, num_train_samples: int, start_time: float) -> Any:
        """The closing summary is about the whole run, not about what was left of it."""
        self._take_up()  # no epoch was left where the last step was made before
        return super()._finalize_training(trial, num_train_samples, start_time - self._earlier_seconds)

    # --- evaluating ----------------------------------------------------------------------------------------------

    def evaluate(self, *arguments: Any, **options: Any) -> dict[str, float]:
        """As the Trainer's, with the same random numbers each time, which are none of the training's."""
        device = self.accelerator.device
        with torch.random.fork_rng([] if device.type == "cpu" else [device]):
            torch.manual_seed(self.args.seed + self.accelerator.process_index)
            return super().evaluate(*arguments, **options)

    def _evaluate(self, *arguments: Any, **options: Any) -> dict[str, float]:
        """As the Trainer's; nothing where a signal came, which leaves the evaluation to the continued run."""
        self._evaluation_is_due = False
        try:
            return super()._evaluate(*arguments, **options)
        except _ToldToStop:
            self._metrics["eval"].clear()
            self._evaluation_is_due = self.control.should_save = True
            self.signals.stop(self.control)
            return {}
        finally:
            self.watchdog.rest()

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        """As the Trainer's; a step that was not evaluated for a signal is saved."""
        return super()._determine_best_metric(metrics, trial) if metrics else True

    def prediction_step(self, *arguments: Any, **options: Any) -> Any:
        """As the trainer's, under the watchdog.

        Raises:
            _ToldToStop: on all processes, if a signal has come to one.
        """
        if self.signals.due_within_evaluation():
            raise _ToldToStop
        self.watchdog.beat(f"evaluation after step {self.state.global_step}")
        return super().prediction_step(*arguments, **options)

    def _load_best_model(self) -> None:
        """As the Trainer's, with every tensor checked where a process has them all."""
        if self._engine() == "DDP":
            self._load_from_checkpoint(self.state.best_model_checkpoint)
        else:
            super()._load_best_model()

    # --- stopping ------------------------------------------------------------------------------------------------

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """As the trainer's; stops all processes if the loss of one is not finite."""
        result = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        if self.model.training:
            loss = result[0] if isinstance(result, tuple) else result
            self._require_finite("loss", loss.detach())
        return result

    def training_step(self, *arguments: Any, **options: Any) -> torch.Tensor:
        """One micro-step under the watchdog."""
        self._guard_engine()
        self.watchdog.beat(f"step {self.state.global_step + 1}")
        loss = super().training_step(*arguments, **options)
        self.watchdog.rest()
        return loss

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm)
        if self.accelerator.scaler is None and norm is not None:
            self._require_finite("gradient", torch.as_tensor(norm))
        return norm

    def _guard_engine(self) -> None:
        """DeepSpeed makes its step within the backward pass; look at the gradients just before."""
        engine = self.model_wrapped
        if self.accelerator.distributed_type != DistributedType.DEEPSPEED or hasattr(engine, "open_r1_step"):
            return
        engine.open_r1_step = engine.step

        def step(*arguments: Any, **options: Any) -> Any:
            held = getattr(engine.optimizer, "averaged_gradients", {}).values()
            gradients = [gradient for group in held if group is not None for gradient in group if gradient is not None]
            self._require_finite("gradient", *gradients)
            return engine.open_r1_step(*arguments, **options)

        engine.step = step

    def _require_finite(self, what: str, *values: torch.Tensor) -> None:
        problem = None
        if not all_finite(values):
            last = f"checkpoint-{self._saved_at}" if self._saved_at >= 0 else "none yet"
            problem = (
                f"the {what} of step {self.state.global_step + 1} is not finite; stopped before the update, so no "
                f"weight is spoilt (last checkpoint: {last}). Lower --learning_rate or --max_grad_norm, look at the "
                "logged rewards, or train in float32"
            )
        stop_everywhere(problem, self.accelerator.device)
