"""The data of the browser of groups: an index that the page opens at once, and the completions in packed blocks.

Of a long run the page holds the groups of evenly spread steps; tables count them all.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from open_r1.evaluation.reporting.items.packing import pack
from open_r1.evaluation.reporting.trainings.reading import Group, Training

PER_BLOCK = 64
"""Groups of one block."""
MOST_GROUPS = 20_000
"""Limit for the groups of a page, of all its runs together."""
TEXT_BYTES = 8 * 2**20
"""Limit for all blocks together."""
RIGHT, WRONG, UNKNOWN = "1", "0", "?"

Member = tuple[int, Group]  # number of the run, group


@dataclass
class GroupBrowser:
    """What groups.js expects, and notes for the reader."""

    packed_index: str
    blocks: list[str]
    notes: list[str] = field(default_factory=list)


def build_browser(trainings: Sequence[Training]) -> GroupBrowser | None:
    """The groups of all runs, or those of evenly spread steps if they are too many; None if there are none."""
    groups = [(run, group) for run, training in enumerate(trainings) for group in training.groups]
    groups.sort(key=lambda member: (member[1].step, member[0]))
    if not groups:
        return None
    chosen = _of_spread_steps(groups, min(1.0, MOST_GROUPS / len(groups)))
    blocks = _blocks(chosen)
    while (size := sum(map(len, blocks))) > TEXT_BYTES and len(chosen) > 1:
        chosen = _of_spread_steps(groups, min(0.95 * TEXT_BYTES / size, 0.95) * len(chosen) / len(groups))
        blocks = _blocks(chosen)
    notes = [_outcome_note(training) for training in trainings if training.outcome_reward]
    if len(chosen) < len(groups):
        notes.append(
            f"{len(chosen):,} of {len(groups):,} recorded groups are in this page, those of evenly spread steps; the "
            "tables above count them all, and groups.jsonl has them."
        )
    return GroupBrowser(pack(_index(trainings, chosen)), blocks, list(dict.fromkeys(notes)))


def _outcome_note(training: Training) -> str:
    return f"A completion counts as right where its reward {training.outcome_reward!r} is 1."


def _of_spread_steps(groups: Sequence[Member], share: float) -> list[Member]:
    """The groups of a share of the steps, evenly spread, the first and the last among them."""
    steps = sorted({group.step for _, group in groups})
    count = max(1, int(share * len(steps)))
    chosen = {steps[round(place * (len(steps) - 1) / max(1, count - 1))] for place in range(count)}
    return [member for member in groups if member[1].step in chosen]


def _blocks(groups: Sequence[Member]) -> list[str]:
    return [
        pack([_content(group) for _, group in groups[start : start + PER_BLOCK]])
        for start in range(0, len(groups), PER_BLOCK)
    ]


def _content(group: Group) -> list[Any]:
    return [group.completions, group.lengths, [int(flag) for flag in group.cut_off], group.rewards, group.advantages]


def _index(trainings: Sequence[Training], groups: Sequence[Member]) -> dict[str, Any]:
    """Columns of the groups, in which a question is a number, and columns of the questions."""
    problems: dict[tuple[str, str], int] = {}  # two data sets may both have a "row 12"
    questions: dict[str, list[Any]] = {name: [] for name in ("id", "problem", "solution", "modality", "task")}
    known_problems = {name: text for training in trainings for name, (text, _) in training.questions.items() if text}
    columns: dict[str, list[Any]] = {
        name: [] for name in ("run", "step", "question", "rights", "dead", "leftOut", "replaced", "longest", "cut")
    }
    for run, group in groups:
        problem, solution = trainings[run].questions[group.id]
        key = group.id, problem or known_problems.get(group.id, "")
        if key not in problems:
            problems[key] = len(problems)
            for name, value in zip(questions, (*key, solution, group.modality, group.task), strict=True):
                questions[name].append(value)
        rights = "".join(UNKNOWN if r is None else RIGHT if r else WRONG for r in trainings[run].rights(group))
        flags = int(group.is_dead), int(group.left_out), int(group.replaced)
        values = (run, group.step, problems[key], rights, *flags, max(group.lengths), int(any(group.cut_off)))
        for column, value in zip(columns.values(), values, strict=True):
            column.append(value)
    return {"runs": [training.name for training in trainings], "questions": questions, "perBlock": PER_BLOCK} | columns
