"""Decide whether and from which checkpoint a run resumes, before anything is loaded.

The same command with the same folder continues from the newest undamaged checkpoint. Settings that affect the result
(data, batch sizes, learning rate) must not change; others (logging, names, number of checkpoints) may. A finished run
can be extended, and the number of processes may change if every step keeps its questions.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from open_r1.checkpoints.folder import RUN_FILE
from open_r1.common.atomic_files import parse_json
from open_r1.common.errors import UserError
from open_r1.common.redaction import known_secrets, redacted
from open_r1.training.recovery.checkpoint_store import checkpoint_manifest, damage, newest_first, set_aside, step_of

DONE, RUNNING, INTERRUPTED, NOT_READ_BACK = "done", "running", "interrupted", "not read back"
ALARM = "stopped by an alarm"
# Training arguments that do not affect the result.
_FREE = (
    *("output_dir", "run_name", "report_to", "project", "disable_tqdm", "resume_from_checkpoint", "ddp_timeout"),
    *("save_only_model", "save_steps", "save_strategy", "save_total_limit", "save_on_each_node", "log_level"),
    *("log_on_each_node", "local_rank", "dataloader_num_workers", "dataloader_prefetch_factor"),
    *("dataloader_persistent_workers", "dataloader_pin_memory", "torch_empty_cache_steps", "skip_memory_metrics"),
    *("plan", "shard_optimizer", "try_longest_batch", "judge_cache", "record", "stop_on_alarm", "probe_steps"),
)
_FREE_PREFIXES = ("logging_", "log_", "hub_", "push_to_hub", "trackio_", "wandb_")
# Training arguments for the length of a run, and for the division of a step among processes.
_LENGTH = ("num_train_epochs", "max_steps")
_ACCUMULATION = "gradient_accumulation_steps"
_DIVISION = (
    *(_ACCUMULATION, "steps_per_generation", "per_device_train_batch_size", "train_batch_size"),
    *("per_device_eval_batch_size", "eval_batch_size"),
)
# Values with which the questions of a step, and the steps of an epoch, do not depend on the number of processes.
_FIXED_ORDER_OF_SFT = {
    "dataloader_drop_last": (False,),
    "auto_find_batch_size": (False,),
    "train_sampling_strategy": ("random", "sequential"),
}
_RECORD_KEYS = ("method", "mode", "base_model", "prompts_per_step", "completions_per_step")
_ARGUMENT_GROUPS = ("script_arguments", "training_arguments", "model_arguments")


def checkpoint_to_continue(
    folder: Path, requested: str | None, say: Callable[[str], object] = print, length: tuple[float, int] | None = None
) -> Path | None:
    """The checkpoint that a run resumes from; None to start from the base model.

    Args:
        folder: `--output_dir`.
        requested: `--resume_from_checkpoint`: a folder, `true` (as without the flag), or None.
        say: prints lines about damaged checkpoints and the step.
        length: `--num_train_epochs` and `--max_steps`; a finished run that was shorter is extended.

    Raises:
        UserError: if the folder holds a finished run or other files, or no checkpoint can be resumed from.
    """
    requested = None if requested in (None, "", "true", "True", True) else str(requested)
    finished = refuse_foreign_output(folder, length)
    checkpoint = _requested(Path(requested), folder) if requested else _newest_undamaged(folder, say, finished)
    if finished and checkpoint is None:
        raise UserError(
            f"--output_dir {folder} holds a finished run without a checkpoint to resume from, so it cannot be "
            f"extended. Train its weights in a new run: --model_name_or_path {folder} and another --output_dir"
        )
    if checkpoint is not None:
        say(f"continuing from {checkpoint}, after step {step_of(checkpoint)}")
    return checkpoint


def refuse_foreign_output(folder: Path, length: tuple[float, int] | None = None) -> bool:
    """Refuse an output folder that holds a finished run, or files of something else.

    Args:
        folder: `--output_dir`.
        length: `--num_train_epochs` and `--max_steps` of a command that may extend a finished run.

    Returns:
        Whether it holds a finished run that is to be extended.
    """
    if not folder.exists():
        return False
    if not folder.is_dir():
        raise UserError(f"--output_dir {folder} is a file; name a folder")
    if (folder / RUN_FILE).is_file():
        record = _read_record(folder)
        if record.get("status") == DONE and length is not None and _is_longer(record, *length):
            return True
        if record.get("status") in (DONE, NOT_READ_BACK):
            raise UserError(
                f"--output_dir {folder} holds a finished run, which would be overwritten; "
                "name another folder, remove this one, or extend the run with more --num_train_epochs"
            )
    elif any(not path.name.startswith(".") for path in folder.iterdir()):
        raise UserError(
            f"--output_dir {folder} holds other files and no {RUN_FILE}; "
            "name a new folder so that nothing is overwritten"
        )
    return False


def _is_longer(record: dict[str, Any], epochs: float, steps: int) -> bool:
    """Whether these epochs, or steps if positive, are more than a finished run had."""
    earlier = record.get("training_arguments") or {}
    if steps > 0:
        return steps > int(record.get("steps") or 0)
    return int(earlier.get("max_steps") or 0) <= 0 and epochs > float(earlier.get("num_train_epochs") or epochs)


def _newest_undamaged(folder: Path, say: Callable[[str], object], finished: bool) -> Path | None:
    """The newest undamaged checkpoint; newer damaged ones are renamed.

    The last checkpoint of a finished run may lie between two uses of the same completions, which cannot be resumed.
    """
    damaged = []
    for path in newest_first(folder):
        problem = damage(path)
        if problem is None and finished and not checkpoint_manifest(path).get("ends_rollout", True):
            continue
        if problem is None:
            _require_resumable(path)
            for damaged_path, reason in damaged:
                say(f"{damaged_path} is damaged ({reason}); it is renamed to {set_aside(damaged_path).name}")
            return path
        damaged.append((path, problem))
    if not damaged:
        return None
    reasons = "; ".join(f"{path.name}: {reason}" for path, reason in damaged)
    raise UserError(
        f"--output_dir {folder} holds an interrupted run, and all of its checkpoints are damaged ({reasons}); "
        "restore one from a copy, or name another folder to start again"
    )


def _requested(path: Path, folder: Path) -> Path:
    if not path.is_dir():
        raise UserError(f"--resume_from_checkpoint {path} is not a folder; name a checkpoint-N folder of a run")
    if problem := damage(path):
        raise UserError(
            f"--resume_from_checkpoint {path} is damaged: {problem}. Leave the flag out to continue from the "
            "newest undamaged checkpoint"
        )
    _require_resumable(path)
    newer = [checkpoint.name for checkpoint in newest_first(folder) if step_of(checkpoint) > step_of(path)]
    if newer:
        raise UserError(
            f"--resume_from_checkpoint {path}: {folder} holds {newer[0]}, which this run would overwrite; "
            "leave the flag out to continue from there, or name another --output_dir"
        )
    return path


def _require_resumable(path: Path) -> None:
    if not checkpoint_manifest(path).get("resumable"):
        raise UserError(
            f"{path} was saved with --save_only_model true: it has no optimizer state, so its run cannot be resumed, "
            "and a new run would overwrite it. Name another --output_dir (or remove this one; --model_name_or_path may "
            "name its weights), and leave --save_only_model out of runs that may be interrupted or extended"
        )


def earlier_record(checkpoint: Path) -> dict[str, Any]:
    """Run record of the run that a checkpoint belongs to.

    Raises:
        UserError: if there is none, so that this command cannot be compared with the run.
    """
    if not (checkpoint.parent / RUN_FILE).is_file():
        raise UserError(f"{checkpoint.parent} has no {RUN_FILE}, so it is unknown which run its checkpoints belong to")
    return _read_record(checkpoint.parent)


def accumulation_to_continue(checkpoint: Path, training: Any) -> int:
    """Micro-batches per optimizer step with which a step keeps its prompts on another number of processes.

    The same command on as many processes as before gets what it got then.

    Args:
        checkpoint: checkpoint to resume from.
        training: training arguments of this command.

    Returns:
        The command's own number if no other fits; `require_same_run` then says why.

    Raises:
        UserError: the run of the checkpoint has no run record.
    """
    flag = training.gradient_accumulation_steps
    earlier = earlier_record(checkpoint)
    if getattr(training, "steps_per_generation", flag) != flag:
        return flag
    if checkpoint_manifest(checkpoint).get("processes") == training.world_size:
        return earlier["training_arguments"][_ACCUMULATION] if earlier.get("accumulation_flag") == flag else flag
    prompts, per_micro_batch = earlier.get("prompts_per_step", 0), training.prompts_per_step // flag
    is_divisible = prompts > 0 and prompts % per_micro_batch == 0
    return prompts // per_micro_batch if is_divisible else flag


def require_same_run(
    earlier: dict[str, Any], now: dict[str, Any], checkpoint: Path, processes: int, engine: str
) -> None:
    """Refuse to continue with other settings, other data, or weights that are divided in another way.

    Args:
        earlier: run record of the interrupted run.
        now: run record of this command.
        checkpoint: checkpoint to resume from.
        processes: number of processes of this command.
        engine: of this command: DDP, FSDP, or ZeRO with its stage.

    Raises:
        UserError: with every difference.
    """
    may_change = {*_FREE, *(_LENGTH if earlier.get("status") == DONE else ())}
    earlier_processes = checkpoint_manifest(checkpoint).get("processes")
    same_processes = earlier_processes == processes
    problem = None if same_processes else _division_problem(earlier, now, checkpoint, processes)
    if not same_processes and problem is None:
        may_change |= set(_DIVISION)
    # secrets are hidden in both: an early run record may contain them
    changed = list(_differences(redacted(earlier, known_secrets()), json.loads(json.dumps(now)), may_change))
    if problem is not None:
        changed.insert(0, f"{earlier_processes} processes then, {processes} now ({problem})")
    saved_by = checkpoint_manifest(checkpoint).get("engine", engine)
    if saved_by != engine:
        changed.insert(
            0,
            f"{saved_by} wrote it, and {engine} cannot read it; launch with the same configuration"
            + (" (on CPUs FSDP takes two processes at least)" if saved_by == "FSDP" else ""),
        )
    if changed:
        differences = "; ".join(changed[:8]) + (f" and {len(changed) - 8} more" if len(changed) > 8 else "")
        raise UserError(
            f"{checkpoint} belongs to another run than this command: {differences}. Use the command of "
            f"{checkpoint.parent / RUN_FILE}, or another --output_dir for a new run"
        )


def require_no_alarm(earlier: dict[str, Any], now: dict[str, Any], folder: Path) -> None:
    """Refuse to continue a run that an alarm has stopped, as long as that alarm is to stop it.

    A scheduler that starts a command again and again would train on otherwise, a step at a time.

    Args:
        earlier: run record of the stopped run.
        now: run record of this command.
        folder: of the run.

    Raises:
        UserError: with the alarm.
    """
    stop_on = (now.get("script_arguments") or {}).get("stop_on_alarm") or []
    alarms = [name for name in str(earlier.get("alarm", "")).split() if name in stop_on]
    if earlier.get("status") == ALARM and alarms:
        raise UserError(
            f"the alarm {' '.join(alarms)} stopped the run in {folder} after step {earlier.get('steps')}: see "
            f"{folder / 'alarms.jsonl'}. To train on in spite of it, leave it out of --stop_on_alarm"
        )


def changes(earlier: dict[str, Any], checkpoint: Path, processes: int, now: dict[str, Any]) -> Iterator[str]:
    """Log lines about allowed changes between the interrupted run and this command."""
    if earlier.get("status") == DONE:
        yield f"this run was finished after {earlier.get('steps')} steps and is extended from {checkpoint.name}"
    earlier_processes = checkpoint_manifest(checkpoint).get("processes")
    if earlier_processes != processes:
        samples = earlier.get("method") == "grpo"
        yield (
            f"{earlier_processes} processes then, {processes} now: every step keeps its questions"
            + ("" if samples else ", but for those repeated to fill the last step of an epoch")
            + "; weights, optimizer and learning rate are the checkpoint's to the bit. Results differ from an "
            "uninterrupted run's: "
            + ("completions are" if samples else "dropout, as of LoRA, is")
            + " drawn with other random numbers, and gradients are summed in another order"
        )
    before = {reward["name"]: reward["sha256"] for reward in earlier.get("custom_rewards") or ()}
    for reward in now.get("custom_rewards") or ():
        if before.get(reward["name"], reward["sha256"]) != reward["sha256"]:
            yield (
                f"the reward {reward['name']} has changed since this run began ({reward['file']} is another file): "
                "from here on completions are rewarded in another way, and results differ from an uninterrupted run's"
            )


def _division_problem(earlier: dict[str, Any], now: dict[str, Any], checkpoint: Path, processes: int) -> str | None:
    """Why steps would not keep their questions with this number of processes; None if they do.

    TRL fills a generation batch in the order of the questions, for any number of processes. If a batch is used for one
    optimizer step, the step keeps its questions; if for several, every process divides its own rows at random. SFT
    takes the questions of a step one after another from an order that depends on seed and epoch alone, with the values
    of `_FIXED_ORDER_OF_SFT`.
    """
    engine = str(checkpoint_manifest(checkpoint).get("engine"))
    if engine.startswith("ZeRO"):
        return f"a checkpoint of {engine} can only be loaded by the same number of processes"
    before, after = earlier.get("training_arguments") or {}, now.get("training_arguments") or {}
    if earlier.get("method") == "sft":
        for name, values in _FIXED_ORDER_OF_SFT.items():
            if after.get(name, values[0]) not in values:
                return f"with --{name} {after[name]} the questions of a step depend on the number of processes"
    for arguments in (before, after) if earlier.get("method") == "grpo" else ():
        if arguments.get("steps_per_generation") != arguments.get(_ACCUMULATION):
            return "completions are used for several steps, whose questions would change"
    per_step = int(earlier["prompts_per_step"])
    per_micro_batch = int(now["prompts_per_step"]) // int(after[_ACCUMULATION])
    if per_step % per_micro_batch == 0:
        return None
    per_process = per_micro_batch // processes
    possible = [str(n) for n in range(1, per_step // per_process + 1) if per_step % (n * per_process) == 0]
    return f"{per_step} prompts per step cannot be divided among {processes} processes with {per_process} each; " + (
        f"{', '.join(possible)} processes can do it" if possible else "lower --per_device_train_batch_size"
    )


def _differences(earlier: dict[str, Any], now: dict[str, Any], may_change: set[str]) -> Iterator[str]:
    for name in _RECORD_KEYS:
        if earlier.get(name) != now.get(name):
            yield f"{name} was {earlier.get(name)!r}, is {now.get(name)!r}"
    for group in _ARGUMENT_GROUPS:
        before, after = earlier.get(group) or {}, now.get(group) or {}
        for name in sorted(before.keys() | after.keys()):
            if name in may_change or name.startswith(_FREE_PREFIXES):
                continue
            if _as_compared(name, before.get(name)) != _as_compared(name, after.get(name)):
                yield f"--{name} was {before.get(name)!r}, is {after.get(name)!r}"
    if earlier.get("data", {}).get("ids_sha256") != now.get("data", {}).get("ids_sha256"):
        yield "the training questions or their order have changed"
    elif earlier.get("data", {}).get("content_sha256") not in (None, now.get("data", {}).get("content_sha256")):
        yield "the images or texts of the training questions have changed (content_sha256)"


def _as_compared(name: str, value: Any) -> Any:
    """The part of a flag's value that affects the result: of a judge its model, not its address."""
    return value[1:] if name == "judge" and value else value


def _read_record(folder: Path) -> dict[str, Any]:
    try:
        record = parse_json((folder / RUN_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{folder / RUN_FILE} cannot be read ({type(error).__name__}), so the state of the run is unknown; "
            "restore it, or name another --output_dir"
        ) from error
    if not isinstance(record, dict):
        raise UserError(f"{folder / RUN_FILE} is not a run record; restore it, or name another --output_dir")
    return record
