"""The cost of a study: steps and questions from the plan, time from the items that are finished."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from open_r1.common.durations import duration
from open_r1.study.execution.leases import Leases
from open_r1.study.planning.plan import Item, Plan

_UNITS = {"train": "optimizer steps", "test": "answers"}


class Forecast:
    """Counts and expected times of items.

    Args:
        leases: whose records hold the times of finished items.
        checked: what the flags mean for a step, from `preflight.check`.
        processes: per run.
        items: of the whole study; the time per unit is computed from their records.
    """

    def __init__(self, leases: Leases, checked: Mapping[str, Any], processes: int, items: Sequence[Item]):
        self._leases, self._checked, self._processes, self._items = leases, checked, processes, items

    def units(self, item: Item) -> int:
        """Optimizer steps of a training, questions of a test; prompts over the length limit are still counted."""
        if item.kind == "test":
            return item.questions
        flags = self._checked.get(item.subject.way) or self._checked[item.subject.method]  # the key in older studies
        if flags["max_steps"] > 0:
            return int(flags["max_steps"])
        per_step = flags["prompts_per_step"] * self._processes
        # the last, smaller batch of an epoch is a step in fine-tuning and is dropped in GRPO
        per_epoch = -(-item.questions // per_step) if item.subject.method == "sft" else item.questions // per_step
        return max(1, math.ceil(per_epoch * flags["epochs"]))

    def seconds(self, items: Sequence[Item]) -> tuple[float, list[str]]:
        """Seconds that these items take one worker, and the kinds ("train", "test") without an estimate."""
        rates = self._rates()
        total, unknown = 0.0, set()
        for item in items:
            rate = rates.get((item.kind, item.subject.method, item.subject.mode)) or rates.get((item.kind, "", ""))
            if rate is None:
                unknown.add(item.kind)
            else:
                total += rate * self.units(item)
        return total, sorted(unknown)

    def line(self, items: Sequence[Item]) -> str:
        """The estimate for these items as text."""
        if not items:
            return "nothing left to do"
        counts = ", ".join(
            f"{sum(self.units(item) for item in items if item.kind == kind):,} {name}" for kind, name in _UNITS.items()
        )
        seconds, unknown = self.seconds(items)
        if len(unknown) == len({item.kind for item in items}):
            return f"{counts}; a time can be estimated when the first item of this study is finished"
        exception = f", without {' and '.join(_UNITS[kind] for kind in unknown)}, of which none are finished yet"
        return f"{counts}; about {duration(seconds)} for one worker at the pace so far{exception if unknown else ''}"

    def _rates(self) -> dict[tuple[str, str, str], float]:
        """Seconds per unit by kind, method and mode, and by kind alone; from items that were not interrupted."""
        spent: dict[tuple[str, str, str], list[float]] = defaultdict(lambda: [0.0, 0.0])
        for item in self._items:
            for record in self._leases.ends(item.name):
                if record.get("outcome") == "done" and record.get("units"):
                    for key in ((item.kind, item.subject.method, item.subject.mode), (item.kind, "", "")):
                        spent[key][0] += record["seconds"]
                        spent[key][1] += record["units"]
        return {key: seconds / units for key, (seconds, units) in spent.items()}


def plan_lines(plan: Plan, selected: Plan, finished: set[str], forecast: Forecast) -> list[str]:
    """The plan as text: a line per selected subject, then the totals.

    Args:
        plan: the whole study.
        selected: the part of it that this command runs.
        finished: names of the finished items.
        forecast: counts and times.
    """
    rows = [("", "train questions", "steps", "cells", "test questions", "")]
    items = {(item.kind, item.subject): item for item in selected.items}
    for subject, sets in selected.subjects:
        train, test = items.get(("train", subject)), items.get(("test", subject))
        subject_items = [item for item in (train, test) if item is not None]
        state = "done" if all(item.name in finished for item in subject_items) else ""
        state = "trained" if not state and train is not None and train.name in finished else state
        steps = "" if train is None else f"{forecast.units(train):,}"
        questions = "" if train is None else f"{train.questions:,}"
        rows.append((subject.name, questions, steps, f"{len(sets)}", f"{test.questions if test else 0:,}", state))
    widths = [max(len(row[column]) for row in rows) for column in range(6)]
    table = [
        "  ".join(text.ljust(width) if column in (0, 5) else text.rjust(width) for column, (text, width) in columns)
        for columns in (enumerate(zip(row, widths, strict=True)) for row in rows)
    ]
    remaining = [item for item in selected.items if item.name not in finished]
    selection_note = "" if selected == plan else f" (this command: {_counts(selected)})"
    return [
        *(line.rstrip() for line in table),
        f"plan: {_counts(plan)}{selection_note}; "
        f"{len(selected.items) - len(remaining)} of {len(selected.items)} items are done",
        f"estimate: {forecast.line(remaining)}",
    ]


def _counts(plan: Plan) -> str:
    """`26 runs, 178 cells and 26 of zero-shot`."""
    trained = sum(subject.trained_on is not None for subject, _ in plan.cells)
    zero_shot = len(plan.cells) - trained
    return f"{len(plan.runs)} runs, {trained} cells" + (f" and {zero_shot} of zero-shot" if zero_shot else "")
