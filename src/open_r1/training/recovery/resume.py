"""Whether and from where a run goes on: its folder is looked at before anything is loaded.

The same command in the same folder continues from the newest checkpoint that is whole. What would make the run another
one (its data, its batch sizes, its learning rate) must be as it was; what it is only told with (logging, names, how
many checkpoints to keep) may change. A finished run can be made longer, and the questions of a step may be divided
among another number of processes.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from open_r1.common.atomic_files import parse_json
from open_r1.common.errors import UserError
from open_r1.common.redaction import known_secrets, redacted
from open_r1.training.recovery.checkpoint_store import damage, newest_first, read_about, set_aside, step_of

RUN_FILE = "run.json"
DONE, RUNNING, INTERRUPTED, NOT_READ_BACK = "done", "running", "interrupted", "not read back"
# Training arguments that do not decide what is learnt.
_FREE = (
    *("output_dir", "run_name", "report_to", "project", "disable_tqdm", "resume_from_checkpoint", "ddp_timeout"),
    *("save_only_model", "save_steps", "save_strategy", "save_total_limit", "save_on_each_node", "log_level"),
    *("log_on_each_node", "local_rank", "dataloader_num_workers", "dataloader_prefetch_factor"),
    *("dataloader_persistent_workers", "dataloader_pin_memory", "torch_empty_cache_steps", "skip_memory_metrics"),
    *("plan", "shard_optimizer", "try_longest_batch"),
)
_FREE_BEGINNINGS = ("logging_", "log_", "hub_", "push_to_hub", "trackio_", "wandb_")
# Which say how long a run is, and how its steps are divided among processes.
_LENGTH = ("num_train_epochs", "max_steps")
_DIVISION = (
    *("gradient_accumulation_steps", "steps_per_generation", "per_device_train_batch_size", "train_batch_size"),
    *("per_device_eval_batch_size", "eval_batch_size"),
)
_STORIES = ("method", "mode", "base_model", "prompts_per_step", "completions_per_step")
_SETTINGS = ("script_arguments", "training_arguments", "model_arguments")


def checkpoint_to_continue(
    folder: Path, asked: str | None, say: Callable[[str], object] = print, length: tuple[float, int] | None = None
) -> Path | None:
    """The checkpoint that a run goes on from; None to begin at the base.

    Args:
        folder: `--output_dir`.
        asked: `--resume_from_checkpoint`: a folder, `true` (as without the flag), or None.
        say: told what is damaged and where the run goes on.
        length: `--num_train_epochs` and `--max_steps`; a finished run that was shorter goes on.

    Raises:
        UserError: the folder holds a finished run or something that is no run, or no checkpoint can be gone on from.
    """
    asked = None if asked in (None, "", "true", "True", True) else str(asked)
    finished = refuse_foreign_output(folder, length)
    found = _asked_for(Path(asked), folder) if asked else _newest_whole(folder, say, finished)
    if finished and found is None:
        raise UserError(
            f"--output_dir {folder} holds a finished run without a checkpoint to go on from, so it cannot be made "
            f"longer. Train its weights further as a new run: --model_name_or_path {folder} and another --output_dir"
        )
    if found is not None:
        say(f"continuing from {found}, after step {step_of(found)}")
    return found


def refuse_foreign_output(folder: Path, length: tuple[float, int] | None = None) -> bool:
    """Refuse an output folder that holds a finished run, or something that is no run of ours.

    Args:
        folder: `--output_dir`.
        length: `--num_train_epochs` and `--max_steps` of a command that may make a finished run longer.

    Returns:
        Whether it holds a finished run that is to become longer.
    """
    if not folder.exists():
        return False
    if not folder.is_dir():
        raise UserError(f"--output_dir {folder} is a file; name a folder")
    if (folder / RUN_FILE).is_file():
        story = _read_story(folder)
        if story.get("status") == DONE and length is not None and _is_longer(story, *length):
            return True
        if story.get("status") in (DONE, NOT_READ_BACK):
            raise UserError(
                f"--output_dir {folder} holds a finished run, which would be overwritten; "
                "name another folder or remove this one, or train it further with more --num_train_epochs"
            )
    elif any(not path.name.startswith(".") for path in folder.iterdir()):
        raise UserError(
            f"--output_dir {folder} holds other files and no {RUN_FILE}; "
            "name a new folder so that nothing is overwritten"
        )
    return False


def _is_longer(story: dict[str, Any], epochs: float, steps: int) -> bool:
    """Whether so many epochs, or steps if positive, are more than a finished run had."""
    earlier = story.get("training_arguments") or {}
    if steps > 0:
        return steps > int(story.get("steps") or 0)
    return int(earlier.get("max_steps") or 0) <= 0 and epochs > float(earlier.get("num_train_epochs") or epochs)


def _newest_whole(folder: Path, say: Callable[[str], object], finished: bool) -> Path | None:
    """The newest checkpoint without damage; damaged ones above it are set aside under another name.

    The last one of a finished run may lie between two uses of the same completions, where a run cannot go on.
    """
    damaged = []
    for path in newest_first(folder):
        problem = damage(path)
        if problem is None and finished and not read_about(path).get("ends_rollout", True):
            continue
        if problem is None:
            _require_resumable(path)
            for bad, why in damaged:
                say(f"{bad} is damaged ({why}); it is kept as {set_aside(bad).name}")
            return path
        damaged.append((path, problem))
    if not damaged:
        return None
    listed = "; ".join(f"{path.name}: {why}" for path, why in damaged)
    raise UserError(
        f"--output_dir {folder} holds a run that was interrupted, and none of its checkpoints is whole ({listed}); "
        "restore one from a copy, or name another folder to begin again"
    )


def _asked_for(path: Path, folder: Path) -> Path:
    if not path.is_dir():
        raise UserError(f"--resume_from_checkpoint {path} is no folder; name a checkpoint-N folder of a run")
    if problem := damage(path):
        raise UserError(
            f"--resume_from_checkpoint {path} cannot be continued from: {problem}. Leave the flag out to go on from "
            "the newest checkpoint that is whole"
        )
    _require_resumable(path)
    newer = [each.name for each in newest_first(folder) if step_of(each) > step_of(path)]
    if newer:
        raise UserError(
            f"--resume_from_checkpoint {path}: {folder} holds {newer[0]}, which this run would overwrite; "
            "leave the flag out to go on from there, or name another --output_dir"
        )
    return path


def _require_resumable(path: Path) -> None:
    if not read_about(path).get("resumable"):
        raise UserError(
            f"{path} was saved with --save_only_model true: it has no optimizer, so its run cannot be continued and a "
            "new one would overwrite it. Name another --output_dir (or remove this one; --model_name_or_path may "
            "name its weights), and leave --save_only_model out of runs that may be interrupted or made longer"
        )


def earlier_story(checkpoint: Path) -> dict[str, Any]:
    """run.json of the run that a checkpoint belongs to.

    Raises:
        UserError: there is none beside it, so nobody can say whether this command is the same run.
    """
    if not (checkpoint.parent / RUN_FILE).is_file():
        raise UserError(f"{checkpoint.parent} has no {RUN_FILE}, so its checkpoints cannot be told to be of this run")
    return _read_story(checkpoint.parent)


def require_same_run(earlier: dict[str, Any], now: dict[str, Any], checkpoint: Path, processes: int) -> None:
    """Refuse to continue with other settings or other data.

    Args:
        earlier: run.json as the run began.
        now: what this command would write there.
        checkpoint: to be continued from.
        processes: of this command.

    Raises:
        UserError: with every difference.
    """
    # hidden in both, or a run of before secrets were hidden could not be continued
    may_change = {*_FREE, *(_LENGTH if earlier.get("status") == DONE else ())}
    had = read_about(checkpoint).get("processes")
    problem = None if had == processes else _why_not_divided(earlier, now, checkpoint, processes)
    if had != processes and problem is None:
        may_change |= set(_DIVISION)
    changed = list(_differences(redacted(earlier, known_secrets()), json.loads(json.dumps(now)), may_change))
    if problem is not None:
        changed.insert(0, f"{had} processes then, {processes} now ({problem})")
    if changed:
        shown = "; ".join(changed[:8]) + (f" and {len(changed) - 8} more" if len(changed) > 8 else "")
        raise UserError(
            f"{checkpoint} belongs to another run than this command: {shown}. Use the command of "
            f"{checkpoint.parent / RUN_FILE}, or another --output_dir for a new run"
        )


def changes(earlier: dict[str, Any], checkpoint: Path, processes: int) -> Iterator[str]:
    """A line for each way in which a run goes on otherwise than it was."""
    if earlier.get("status") == DONE:
        yield f"this run was finished after {earlier.get('steps')} steps and becomes longer, from {checkpoint.name} on"
    had = read_about(checkpoint).get("processes")
    if had != processes:
        yield (
            f"{had} processes then, {processes} now: each step has the questions that it would have had; completions "
            "are drawn with other random numbers, so the numbers are not those of an uninterrupted run"
        )


def _why_not_divided(earlier: dict[str, Any], now: dict[str, Any], checkpoint: Path, processes: int) -> str | None:
    """Why the questions of each step cannot be divided among so many processes as they were; None if they can be.

    TRL draws a generation batch in the order of the questions, whatever the number of processes. Where it serves one
    optimizer step alone, each step has the same questions then; where several, each process divides its own at random.
    """
    about = read_about(checkpoint)
    if about.get("engine") != "DDP":
        return f"the shards of {about.get('engine')} belong to as many processes as wrote them"
    if earlier.get("method") != "grpo":
        return "the order of the questions would be another one"
    then, today = earlier.get("training_arguments") or {}, now.get("training_arguments") or {}
    for each in (then, today):
        if each.get("steps_per_generation") != each.get("gradient_accumulation_steps"):
            return "with completions for several steps the questions would be divided anew"
    per_step, now_per_step = int(earlier["prompts_per_step"]), int(now["prompts_per_step"])
    if per_step == now_per_step:
        return None
    at_once = now_per_step // int(today["gradient_accumulation_steps"])
    if per_step % at_once:
        return f"{per_step} prompts per step cannot be divided among {processes}"
    return f"give --gradient_accumulation_steps {per_step // at_once} to keep {per_step} prompts per step"


def _differences(earlier: dict[str, Any], now: dict[str, Any], may_change: set[str]) -> Iterator[str]:
    for name in _STORIES:
        if earlier.get(name) != now.get(name):
            yield f"{name} was {earlier.get(name)!r}, is {now.get(name)!r}"
    for group in _SETTINGS:
        then, today = earlier.get(group) or {}, now.get(group) or {}
        for name in sorted(then.keys() | today.keys()):
            if name not in may_change and not name.startswith(_FREE_BEGINNINGS) and then.get(name) != today.get(name):
                yield f"--{name} was {then.get(name)!r}, is {today.get(name)!r}"
    if earlier.get("data", {}).get("ids_sha256") != now.get("data", {}).get("ids_sha256"):
        yield "the questions that are trained on, or their order, are others"
    elif earlier.get("data", {}).get("content_sha256") not in (None, now.get("data", {}).get("content_sha256")):
        yield "the images or texts of the questions that are trained on are others (content_sha256)"


def _read_story(folder: Path) -> dict[str, Any]:
    try:
        story = parse_json((folder / RUN_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{folder / RUN_FILE} cannot be read ({type(error).__name__}), so nobody can say what the folder holds; "
            "restore it, or name another --output_dir"
        ) from error
    if not isinstance(story, dict):
        raise UserError(f"{folder / RUN_FILE} is no run's record; restore it, or name another --output_dir")
    return story
