"""The course of a run: lock its folder, find the checkpoint, train, save, and keep the run record."""

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast_object_list
from trl import ModelConfig

from open_r1.checkpoints.checks.read_back import read_back
from open_r1.checkpoints.folder import base_names
from open_r1.checkpoints.names import model_source
from open_r1.checkpoints.publishing import conclude, open_repository
from open_r1.common.atomic_files import write_json
from open_r1.common.errors import EXIT_ALARM, EXIT_INTERRUPTED, UserError
from open_r1.common.locks import claimed
from open_r1.common.provenance import commit, hardware, package_versions
from open_r1.common.redaction import known_secrets, recorded_command, redacted
from open_r1.modeling.agreement import stop_everywhere
from open_r1.rewards.custom import records_of
from open_r1.training.command_line.arguments import QuestionArguments
from open_r1.training.recovery.checkpoint_store import step_of
from open_r1.training.recovery.resumable_trainer import full_disk_in_one_line
from open_r1.training.recovery.resume import (
    ALARM,
    DONE,
    INTERRUPTED,
    NOT_READ_BACK,
    RUN_FILE,
    RUNNING,
    accumulation_to_continue,
    changes,
    checkpoint_to_continue,
    earlier_record,
    require_no_alarm,
    require_same_run,
)
from open_r1.training.setup.tracking import join_trackers, tracker_ids
from open_r1.vocabulary.modes import Mode
from open_r1.vocabulary.prompts import recorded_prompt

# Seconds until the data loader processes of a killed run release the lock of its folder.
LOCK_TIMEOUT = 15.0


@contextmanager
def locked_output_folder(training: Any) -> Iterator[Path | None]:
    """Lock `--output_dir` for this run, and find the checkpoint to resume from.

    Args:
        training: training arguments; the first process locks for all. Where another number of processes continues a
            run, they accumulate as many micro-batches as keep the prompts of a step.

    Yields:
        The checkpoint to resume from; None for a new run.

    Raises:
        UserError: if another run uses the folder, it is not writable, or it holds a run that cannot be resumed.
    """
    flag = accumulation = training.gradient_accumulation_steps
    checkpoint, problem = None, None
    with ExitStack() as lock:
        if training.process_index == 0:
            folder = Path(training.output_dir or ".")
            try:
                lock.enter_context(claimed(folder, LOCK_TIMEOUT))
                length = training.num_train_epochs, training.max_steps
                checkpoint = checkpoint_to_continue(folder, training.resume_from_checkpoint, length=length)
                if checkpoint is not None:
                    accumulation = accumulation_to_continue(checkpoint, training)
                open_repository(training)
            except UserError as error:
                problem = str(error)
        stop_everywhere(problem, training.device)
        checkpoint, accumulation = broadcast_object_list([checkpoint, accumulation])
        if accumulation != flag:
            training.accumulate(accumulation)
            processes = f"{training.world_size} process{'es' * (training.world_size > 1)}"
            training.notes.append(
                f"--gradient_accumulation_steps {accumulation} instead of {flag} on {processes}: a step keeps its "
                f"{training.prompts_per_step} prompts"
            )
        yield checkpoint


def run_training(trainer: Any, run_record: dict[str, Any], checkpoint: Path | None) -> int:
    """Train from the base or from a checkpoint, save, and keep run.json up to date.

    Args:
        trainer: `ResumableTrainer`.
        run_record: run record of this command.
        checkpoint: checkpoint to resume from; None for a new run.

    Returns:
        The exit status: 0, `EXIT_INTERRUPTED` after a signal, or `EXIT_ALARM`.

    Raises:
        UserError: if the checkpoint belongs to another run, the disk is full, numbers are not finite, or the saved
            model is not the trained one.
    """
    folder, main_process = Path(trainer.args.output_dir), trainer.accelerator.is_main_process
    earlier, problem = {}, None
    if checkpoint is not None and main_process:
        processes = trainer.accelerator.num_processes
        continuation = {"at_step": step_of(checkpoint), "time": _now(), "processes": processes}
        try:
            earlier = earlier_record(checkpoint)
            require_same_run(earlier, run_record, checkpoint, processes, trainer.engine)
            require_no_alarm(earlier, run_record, checkpoint.parent)
            for line in changes(earlier, checkpoint, processes, run_record):
                print(line)
            if earlier.get("status") == DONE:
                continuation["finished_before"] = earlier.get("finished")
            continuations = [*earlier.get("continued", []), continuation]
            run_record = run_record | {"started": earlier["started"], "continued": continuations}
        except UserError as error:
            problem = str(error)
    stop_everywhere(problem, trainer.accelerator.device)
    run_record["trackers"] = ids = tracker_ids(trainer.args, earlier)

    def write_record(**entries: Any) -> None:
        if main_process:
            write_json(folder / RUN_FILE, run_record | entries)

    write_record(status=RUNNING)
    with full_disk_in_one_line(folder), lost_process_in_one_line():
        join_trackers(trainer, ids, 0 if checkpoint is None else step_of(checkpoint))
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        if trainer.signals.stopped:
            return _stopped(trainer, write_record)
        trainer.save_model()
        if main_process:
            trainer.state.save_to_json(str(folder / "trainer_state.json"))
            print(f"saved: {folder}")
        try:
            line = read_back(trainer, folder)
        except UserError as error:
            write_record(status=NOT_READ_BACK, steps=trainer.state.global_step, problem=str(error))
            raise
    if main_process:
        print(line)
    ending = {"status": DONE, "finished": _now(), "steps": trainer.state.global_step}
    if (readable := getattr(trainer, "readable", None)) and readable.left_out:
        ending["left_out_while_training"] = readable.left_out
    write_record(**ending)
    if main_process:
        conclude(trainer.args, run_record | ending)
    return 0


@contextmanager
def lost_process_in_one_line() -> Iterator[None]:
    """Raise a `UserError` if a collective call fails because another process has ended."""
    try:
        yield
    except RuntimeError as error:
        broken = isinstance(error, torch.distributed.DistError) or "gloo" in str(error)
        if not (broken and torch.distributed.is_initialized()):
            raise
        raise UserError(
            "another process of this run has ended or does not answer; its own message says why. The last complete "
            "checkpoint is kept, and the same command continues from it"
        ) from error


def _stopped(trainer: Any, write_record: Callable[..., None]) -> int:
    """Record why a run has stopped early; returns the exit status."""
    alarm, step = trainer.stopped_by_alarm, trainer.state.global_step
    write_record(steps=step, **({"status": ALARM, "alarm": alarm} if alarm else {"status": INTERRUPTED}))
    if trainer.accelerator.is_main_process:
        reason = (
            f"the alarm {alarm} after step {step}"
            if alarm
            else f"a signal after step {step}; the same command continues"
        )
        print(f"stopped by {reason}")
    return EXIT_ALARM if alarm else EXIT_INTERRUPTED


def run_record_of(
    mode: Mode,
    script: QuestionArguments,
    training: Any,
    model_config: ModelConfig,
    report: dict[str, Any],
) -> dict[str, Any]:
    """The run record: everything needed to repeat a run, without secrets."""
    secrets = known_secrets(vars(training), vars(script), vars(model_config))
    run_record = {
        "method": "grpo",
        "mode": mode.value,
        "base_model": model_config.model_name_or_path,
        "base_model_bases": base_names(model_source(str(model_config.model_name_or_path))),
        "command": recorded_command(sys.argv, secrets),
        "prompt": recorded_prompt(mode, None, report["answer_types"])[1],
        "prompts_per_step": training.prompts_per_step,
        "completions_per_step": training.completions_per_step,
        "accumulation_flag": training.accumulation_flag or training.gradient_accumulation_steps,
        "data": report,
        "script_arguments": asdict(script),
        "custom_rewards": records_of(getattr(script, "reward_funcs", ())),
        "training_arguments": training.to_sanitized_dict(),
        "model_arguments": asdict(model_config),
        "packages": package_versions(),
        "commit": commit(),
        "hardware": hardware(),
        "started": _now(),
    }
    return redacted(run_record, secrets)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
