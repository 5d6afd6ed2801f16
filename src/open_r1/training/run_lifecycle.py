"""A run from its folder to its end: the folder is held, the checkpoint found, and run.json tells the story."""

import sys
from collections.abc import Iterator
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
from open_r1.common.errors import EXIT_INTERRUPTED, UserError
from open_r1.common.locks import claimed
from open_r1.common.provenance import commit, hardware, package_versions
from open_r1.common.redaction import known_secrets, recorded_command, redacted
from open_r1.modeling.agreement import stop_everywhere
from open_r1.training.command_line.arguments import QuestionArguments
from open_r1.training.recovery.checkpoint_store import step_of
from open_r1.training.recovery.resumable_trainer import full_disk_in_one_line
from open_r1.training.recovery.resume import (
    DONE,
    INTERRUPTED,
    NOT_READ_BACK,
    RUN_FILE,
    RUNNING,
    changes,
    checkpoint_to_continue,
    earlier_story,
    require_same_run,
)
from open_r1.training.setup.tracking import join_trackers, tracker_ids
from open_r1.vocabulary.modes import Mode
from open_r1.vocabulary.prompts import question_text

# Seconds in which the data loader's processes of a run that was killed notice it and let go of its folder.
PATIENCE = 15.0


@contextmanager
def own_folder(training: Any) -> Iterator[Path | None]:
    """Hold `--output_dir` for this run alone, and look where it goes on.

    Args:
        training: of this process; the first one looks and holds for all.

    Yields:
        The checkpoint to go on from; None for a new run.

    Raises:
        UserError: another run writes there, or the folder must not be written to or holds a run that cannot be
            continued.
    """
    found, problem = None, None
    with ExitStack() as held:
        if training.process_index == 0:
            folder = Path(training.output_dir or ".")
            try:
                held.enter_context(claimed(folder, PATIENCE))
                length = training.num_train_epochs, training.max_steps
                found = checkpoint_to_continue(folder, training.resume_from_checkpoint, length=length)
                open_repository(training)
            except UserError as error:
                problem = str(error)
        stop_everywhere(problem, training.device)
        yield broadcast_object_list([found])[0]


def run_training(trainer: Any, story: dict[str, Any], checkpoint: Path | None) -> int:
    """Train from the base or from a checkpoint, save, and keep run.json up to date.

    Args:
        trainer: `ResumableTrainer`.
        story: what run.json says of the run.
        checkpoint: to go on from; None begins.

    Returns:
        The exit status: 0, or `EXIT_INTERRUPTED` after a signal.

    Raises:
        UserError: the checkpoint is of another run, the disk is full, the numbers are not finite, or what was saved is
            not the model that was trained.
    """
    folder, main_process = Path(trainer.args.output_dir), trainer.accelerator.is_main_process
    earlier, problem = {}, None
    if checkpoint is not None and main_process:
        processes = trainer.accelerator.num_processes
        begun = {"at_step": step_of(checkpoint), "time": _now(), "processes": processes}
        try:
            earlier = earlier_story(checkpoint)
            require_same_run(earlier, story, checkpoint, processes)
            for line in changes(earlier, checkpoint, processes):
                print(line)
            if earlier.get("status") == DONE:
                begun["finished_before"] = earlier.get("finished")
            story = story | {"started": earlier["started"], "continued": [*earlier.get("continued", []), begun]}
        except UserError as error:
            problem = str(error)
    stop_everywhere(problem, trainer.accelerator.device)
    story["trackers"] = ids = tracker_ids(trainer.args, earlier)

    def record(**more: Any) -> None:
        if main_process:
            write_json(folder / RUN_FILE, story | more)

    record(status=RUNNING)
    begin = 0 if checkpoint is None else step_of(checkpoint)
    with full_disk_in_one_line(folder), lost_process_in_one_line():
        join_trackers(trainer, ids, begin)
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        if trainer.signals.stopped:
            record(status=INTERRUPTED, steps=trainer.state.global_step)
            if main_process:
                print(f"stopped by a signal after step {trainer.state.global_step}; the same command continues")
            return EXIT_INTERRUPTED
        trainer.save_model()
        if main_process:
            trainer.state.save_to_json(str(folder / "trainer_state.json"))
            print(f"saved: {folder}")
        try:
            line = read_back(trainer, folder)
        except UserError as error:
            record(status=NOT_READ_BACK, steps=trainer.state.global_step, problem=str(error))
            raise
    if main_process:
        print(line)
    ending = {"status": DONE, "finished": _now(), "steps": trainer.state.global_step}
    if (readable := getattr(trainer, "readable", None)) and readable.left_out:
        ending["left_out_while_training"] = readable.left_out
    record(**ending)
    if main_process:
        conclude(trainer.args, story | ending)
    return 0


@contextmanager
def lost_process_in_one_line() -> Iterator[None]:
    """Turn the end of another process, which shows as a broken collective call, into a `UserError`."""
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


def run_story(
    mode: Mode,
    script: QuestionArguments,
    training: Any,
    model_config: ModelConfig,
    report: dict[str, Any],
) -> dict[str, Any]:
    """What run.json records about a run, enough to repeat it, without secrets."""
    secrets = known_secrets(vars(training), vars(script), vars(model_config))
    story = {
        "method": "grpo",
        "mode": mode.value,
        "base_model": model_config.model_name_or_path,
        "base_model_bases": base_names(model_source(str(model_config.model_name_or_path))),
        "command": recorded_command(sys.argv, secrets),
        "prompt": question_text("{Question}", mode),
        "prompts_per_step": training.prompts_per_step,
        "completions_per_step": training.completions_per_step,
        "data": report,
        "script_arguments": asdict(script),
        "training_arguments": training.to_sanitized_dict(),
        "model_arguments": asdict(model_config),
        "packages": package_versions(),
        "commit": commit(),
        "hardware": hardware(),
        "started": _now(),
    }
    return redacted(story, secrets)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
