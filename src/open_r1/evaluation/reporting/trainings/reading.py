"""What a training has written into its folder: numbers, alarms, groups of completions and the run record.

The run may still go on, or have been killed while writing: a line that is not whole is left out.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from open_r1.checkpoints.folder import RUN_FILE
from open_r1.common.atomic_files import parse_json
from open_r1.common.errors import UserError
from open_r1.common.metrics_log import ALARMS, GROUPS, METRICS, read_lines, read_metrics
from open_r1.drawing.training_curves import STATE, Log, read_log
from open_r1.evaluation.comparing.run_names import named_apart
from open_r1.rewards.settings import CORRECTNESS

NO_GRADIENT = 1e-9


@dataclass(frozen=True)
class Group:
    """The completions of one prompt with what they earned; all lists have one entry per completion."""

    step: int  # of the optimizer step that uses it, from 1
    id: str
    rewards: Mapping[str, Sequence[float | None]]  # by name; None: the reward says nothing
    advantages: Sequence[float]
    lengths: Sequence[int]  # tokens
    cut_off: Sequence[bool]
    completions: Sequence[str] | None = None
    modality: str = ""
    task: str = ""
    left_out: bool = False
    replaced: bool = False

    @property
    def is_dead(self) -> bool:
        """Whether no gradient comes from it: no completion is better than another."""
        return self.left_out or all(abs(advantage) < NO_GRADIENT for advantage in self.advantages)


@dataclass(frozen=True)
class Training:
    """A run folder as far as it is written."""

    name: str
    folder: Path
    log: Log
    record: Mapping[str, Any]  # run.json; empty where there is none
    groups: Sequence[Group] = ()
    has_groups: bool = False  # whether there is a file of groups
    questions: Mapping[str, tuple[str, str]] = field(default_factory=dict)  # by id, problem and solution
    alarms: Sequence[tuple[int, str, str]] = ()  # step, name, message
    unread: int = 0  # lines of groups.jsonl that are no group

    @cached_property
    def outcome_reward(self) -> str | None:
        """The reward by which a completion counts as right: one of CORRECTNESS, or else the first."""
        names = list(dict.fromkeys(name for group in self.groups for name in group.rewards))
        return next((name for name in CORRECTNESS if name in names), names[0] if names else None)

    def rights(self, group: Group) -> list[bool | None]:
        """Per completion, whether it earned the whole `outcome_reward`; None where that says nothing."""
        values = group.rewards.get(self.outcome_reward or "", [None] * len(group.advantages))
        return [None if value is None else value >= 1 for value in values]


def read_logs(run_dirs: Sequence[Path]) -> dict[str, Log]:
    """The log of each run folder, by a short name.

    Raises:
        UserError: one has no log.
    """
    names = named_apart([path.resolve() for path in run_dirs])
    return dict(zip(names, map(read_log, run_dirs), strict=True))


def read_trainings(run_dirs: Sequence[Path]) -> list[Training]:
    """The trainings in these folders.

    Raises:
        UserError: a folder has no log, or its run record cannot be read.
    """
    names = named_apart([path.resolve() for path in run_dirs])
    return [_read(path, name) for path, name in zip(run_dirs, names, strict=True)]


def _read(folder: Path, name: str) -> Training:
    entries = read_metrics(folder)
    if entries == [] and not (folder / STATE).is_file():
        raise UserError(f"{folder / METRICS} holds no whole line yet, so there is nothing to show; wait for a step")
    log = entries or read_log(folder)
    if not log:
        raise UserError(f"the log of {folder} holds no step, so there is nothing to show")
    alarms = {}
    for line in _lines(folder / ALARMS):
        alarms[line["step"], str(line.get("alarm"))] = str(line.get("message", ""))
    for entry in log:  # a run whose alarms have no message
        for key in entry:
            if key.startswith("alarms/") and entry[key]:
                alarms.setdefault((entry["step"], key.removeprefix("alarms/")), "")
    groups, questions, unread = _read_groups(folder / GROUPS)
    return Training(
        *(name, folder, log, _record(folder), groups, (folder / GROUPS).is_file(), questions),
        alarms=[(step, alarm, message) for (step, alarm), message in sorted(alarms.items())],
        unread=unread,
    )


def _record(folder: Path) -> Mapping[str, Any]:
    path = folder / RUN_FILE
    try:
        record = parse_json(path.read_bytes()) if path.is_file() else {}
    except ValueError as error:
        raise UserError(f"{path} cannot be read ({error!s:.200}); it says how the run was trained") from None
    return record if isinstance(record, dict) else {}


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """The lines with a step; nothing if there is no file. Half a line, where a run was killed, is left out."""
    return read_lines(path) if path.is_file() else iter(())


def _read_groups(path: Path) -> tuple[list[Group], dict[str, tuple[str, str]], int]:
    """Groups by step, the last of each step and question; problem and solution by id; lines that are no group."""
    groups: dict[tuple[int, str], Group] = {}
    questions: dict[str, tuple[str, str]] = {}
    unread = 0
    for line in _lines(path):
        group = _group(line)
        if group is None:
            unread += 1
            continue
        groups[group.step, group.id] = group
        problem, solution = questions.get(group.id, ("", ""))
        questions[group.id] = problem or _text(line, "problem"), solution or _text(line, "solution")
    return sorted(groups.values(), key=lambda group: group.step), questions, unread


def _group(line: Mapping[str, Any]) -> Group | None:
    """The group of a line; None if it is not of the form."""
    name, rewards = line.get("id"), line.get("rewards")
    advantages = _numbers(line.get("advantages"))
    if not isinstance(name, str) or not isinstance(rewards, dict) or not advantages:
        return None
    size, texts = len(advantages), line.get("completions")
    by_name = {str(key).removesuffix("_reward"): _numbers(values) for key, values in rewards.items()}
    lengths = _numbers(line.get("lengths")) or [0] * size
    cut_off = line.get("cut_off") or [False] * size
    lists = [*by_name.values(), lengths, cut_off, *([] if texts is None else [texts])]
    if not all(isinstance(values, list) and len(values) == size for values in lists):
        return None
    return Group(
        *(line["step"], name, by_name, [value or 0.0 for value in advantages], [int(value or 0) for value in lengths]),
        cut_off=[bool(value) for value in cut_off],
        completions=None if texts is None else [str(text) for text in texts],
        modality=_text(line, "modality"),
        task=_text(line, "task"),
        left_out=line.get("left_out") is True,
        replaced=line.get("replaced") is True,
    )


def _numbers(values: Any) -> list[float | None]:
    """Numbers as they are, None for what is no finite number; no list for what is none."""
    if not isinstance(values, list):
        return []
    return [value if isinstance(value, int | float) and math.isfinite(value) else None for value in values]


def _text(line: Mapping[str, Any], key: str) -> str:
    value = line.get(key)
    return value if isinstance(value, str) else ""
