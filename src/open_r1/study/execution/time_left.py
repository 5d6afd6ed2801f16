"""What a study will cost: steps and questions from the plan, time from what has been finished in it."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from open_r1.common.durations import duration
from open_r1.study.execution.leases import Leases
from open_r1.study.planning.plan import Item, Plan

_UNITS = {"train": "optimizer steps", "test": "answers"}


class Forecast:
    """Counts and times of items.

    Args:
        leases: whose records tell how long what was finished took.
        checked: what the flags mean for a step, as `checks.check` answers.
        processes: per run.
        items: of the whole study, whose records count.
    """

    def __init__(self, leases: Leases, checked: Mapping[str, Any], processes: int, items: Sequence[Item]):
        self._leases, self._checked, self._processes, self._items = leases, checked, processes, items

    def units(self, item: Item) -> int:
        """Optimizer steps of a training, questions of a test; prompts over the length limit are not known yet."""
        if item.kind == "test":
            return item.questions
        flags = self._checked.get(item.subject.way) or self._checked[item.subject.method]  # as older studies have it
        if flags["max_steps"] > 0:
            return int(flags["max_steps"])
        per_step = flags["prompts_per_step"] * self._processes
        # the last, smaller batch is a step in fine-tuning and is left out in GRPO
        per_epoch = -(-item.questions // per_step) if item.subject.method == "sft" else item.questions // per_step
        return max(1, math.ceil(per_epoch * flags["epochs"]))

    def seconds(self, items: Sequence[Item]) -> tuple[float, list[str]]:
        """Seconds that these will take one worker, and of which kinds nothing is known ("train", "test")."""
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
        """The estimate for these, as far as it goes."""
        if not items:
            return "nothing is left to do"
        counts = ", ".join(
            f"{sum(self.units(item) for item in items if item.kind == kind):,} {name}" for kind, name in _UNITS.items()
        )
        seconds, unknown = self.seconds(items)
        if len(unknown) == len({item.kind for item in items}):
            return f"{counts}; how long that takes is not known before a first item of this study is finished"
        more = f", without {' and '.join(_UNITS[kind] for kind in unknown)}, of which none are finished yet"
        return f"{counts}; about {duration(seconds)} for one worker, by what is finished{more if unknown else ''}"

    def _rates(self) -> dict[tuple[str, str, str], float]:
        """Seconds per unit by kind, method and mode, and by kind alone; of items done in one go."""
        spent: dict[tuple[str, str, str], list[float]] = defaultdict(lambda: [0.0, 0.0])
        for item in self._items:
            for record in self._leases.ends(item.name):
                if record.get("outcome") == "done" and record.get("units"):
                    for key in ((item.kind, item.subject.method, item.subject.mode), (item.kind, "", "")):
                        spent[key][0] += record["seconds"]
                        spent[key][1] += record["units"]
        return {key: seconds / units for key, (seconds, units) in spent.items()}


def plan_lines(whole: Plan, part: Plan, done: set[str], forecast: Forecast) -> list[str]:
    """The plan as text: a line per subject of this part, then the sums.

    Args:
        whole: the study.
        part: what this command does of it.
        done: names of the items that are finished.
        forecast: counts and times.
    """
    rows = [("", "train questions", "steps", "cells", "test questions", "")]
    items = {(item.kind, item.subject): item for item in part.items}
    for subject, sets in part.subjects:
        train, test = items.get(("train", subject)), items.get(("test", subject))
        own = [item for item in (train, test) if item is not None]
        state = "done" if all(item.name in done for item in own) else ""
        state = "trained" if not state and train is not None and train.name in done else state
        steps = "" if train is None else f"{forecast.units(train):,}"
        questions = "" if train is None else f"{train.questions:,}"
        rows.append((subject.name, questions, steps, f"{len(sets)}", f"{test.questions if test else 0:,}", state))
    widths = [max(len(row[place]) for row in rows) for place in range(6)]
    table = [
        "  ".join(text.ljust(width) if place in (0, 5) else text.rjust(width) for place, (text, width) in columns)
        for columns in (enumerate(zip(row, widths, strict=True)) for row in rows)
    ]
    left = [item for item in part.items if item.name not in done]
    share = "" if part == whole else f" (this command: {_counts(part)})"
    return [
        *(line.rstrip() for line in table),
        f"plan: {_counts(whole)}{share}; {len(part.items) - len(left)} of {len(part.items)} items are done",
        f"estimate: {forecast.line(left)}",
    ]


def _counts(plan: Plan) -> str:
    """`26 runs, 178 cells and 26 of zero-shot`."""
    trained = sum(subject.trained_on is not None for subject, _ in plan.cells)
    zero_shot = len(plan.cells) - trained
    return f"{len(plan.runs)} runs, {trained} cells" + (f" and {zero_shot} of zero-shot" if zero_shot else "")
