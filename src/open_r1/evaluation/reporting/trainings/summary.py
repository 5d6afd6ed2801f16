"""The beginning of the page: which trainings, how far they are, and what the rewards and the alarms say."""

import math
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from open_r1.common.durations import duration
from open_r1.drawing.training_curves import series
from open_r1.evaluation.reporting.sections.section import Section
from open_r1.evaluation.reporting.table_formats import BLANK, Sheet
from open_r1.evaluation.reporting.trainings.curve_panels import continuations, short_number
from open_r1.evaluation.reporting.trainings.reading import Training

COMPARED = 10  # at the start and at the end of a run at most so many logged values, and never over a quarter of them
LISTED_ALARMS = 50


def page_title(trainings: Sequence[Training]) -> str:
    """What was trained, from what, on what, how far it is, and when: the heading of the page."""
    if len(trainings) > 1:
        return f"Trainings {', '.join(training.name for training in trainings)}{_date(trainings[-1])}"
    (training,) = trainings
    parts = [f"Training {training.name}", *_facts(training), steps_text(training)]
    return ", ".join(filter(None, parts)) + _date(training)


def _date(training: Training) -> str:
    day = str(training.record.get("started") or "")[:10]
    return f", {day}" if day else ""


def _facts(training: Training) -> list[str]:
    model, data = base_model(training), data_name(training)
    return [" on ".join(filter(None, [f"{model} ({mode})" if (mode := _mode(training)) else model, data]))]


def _mode(training: Training) -> str:
    return ", ".join(str(training.record[key]) for key in ("method", "mode") if training.record.get(key))


def base_model(training: Training) -> str:
    """The last part of the name of the model that the training started from; blank where it is not recorded."""
    return Path(str(training.record.get("base_model") or "")).name


def data_name(training: Training) -> str:
    """The last parts of the names of its data sets."""
    data = training.record.get("data")
    sets = data.get("sets") if isinstance(data, dict) else None
    return " and ".join(Path(str(part.get("path"))).name for part in sets or [] if isinstance(part, dict))


def steps_done(training: Training) -> int:
    """The last step that was logged."""
    return max(entry["step"] for entry in training.log)


def total_steps(training: Training) -> int | None:
    """The steps that the run has in the end: as its flags say, or from the epochs; None where neither is known."""
    arguments = training.record.get("training_arguments") or {}
    most, epochs = arguments.get("max_steps"), arguments.get("num_train_epochs")
    if training.record.get("status") == "done":
        return steps_done(training)
    if isinstance(most, int) and most > 0:
        return most
    steps, passed = series(training.log, "epoch")
    return round(steps[-1] * epochs / passed[-1]) if steps and passed[-1] and isinstance(epochs, int | float) else None


def steps_text(training: Training) -> str:
    """`step 12 of 20`."""
    total = total_steps(training)
    return f"step {steps_done(training):,}" + (f" of {total:,}" if total else "")


def elapsed(training: Training) -> float | None:
    """Seconds that the run has taken; of runs that do not log it the sum of its steps.

    `step_time` is the mean over the steps since the entry before.
    """
    if values := series(training.log, "elapsed_seconds")[1]:
        return values[-1]
    steps, values = series(training.log, "step_time")
    counts = [step - before for before, step in zip([0, *steps], steps, strict=False)]
    return sum(count * value for count, value in zip(counts, values, strict=True)) or None


def _remaining(training: Training) -> float | None:
    if training.record.get("status") == "done":
        return None
    if values := series(training.log, "remaining_seconds")[1]:
        return values[-1]
    spent, total = elapsed(training), total_steps(training)
    return spent / steps_done(training) * (total - steps_done(training)) if spent and total else None


def summary_section(trainings: Sequence[Training]) -> Section:
    """A sentence for each run, and a table of facts."""
    section = Section("What happened", texts=[_sentence(training, len(trainings) > 1) for training in trainings])
    for training in trainings:
        for earlier in trainings:
            base = str(training.record.get("base_model") or "")
            if training is not earlier and base and Path(base).resolve() == earlier.folder.resolve():
                section.texts.append(f"{training.name} started from the weights that {earlier.name} ended with.")
        if training.unread:
            section.texts.append(
                f"{training.unread:,} lines of {training.name}'s groups.jsonl are no groups and are left out."
            )
    if unrecorded := [training.name for training in trainings if not training.has_groups]:
        section.texts.append(
            f"No groups.jsonl in {', '.join(unrecorded)} (trained with --record none, or by an earlier version), so "
            "questions and completions of it are not shown."
        )
    head = ["run", "model", "data", "how", "steps", "elapsed", "remaining", "state", "started"]
    section.sheets.append(Sheet("Runs", head, [_row(training) for training in trainings]))
    if alarms := alarm_rows(trainings):
        notes = [f"The first {LISTED_ALARMS} of {len(alarms):,}."] * (len(alarms) > LISTED_ALARMS)
        section.page_sheets.append(Sheet("Alarms", ["run", "step", "alarm", "message"], alarms[:LISTED_ALARMS], notes))
    return section


def alarm_rows(trainings: Sequence[Training]) -> list[list[str]]:
    """Run, step, name and message of each alarm."""
    return [
        [training.name, f"{step:,}", name.replace("_", " "), message]
        for training in trainings
        for step, name, message in training.alarms
    ]


def _row(training: Training) -> list[str]:
    spent, left = elapsed(training), _remaining(training)
    started = str(training.record.get("started") or "")
    parts = [f"step {part['at_step']:,}" for part in continuations(training)]
    state = str(training.record.get("status") or BLANK)
    return [
        *(training.name, base_model(training) or BLANK, data_name(training) or BLANK, _mode(training) or BLANK),
        steps_text(training).removeprefix("step "),
        BLANK if spent is None else duration(spent),
        BLANK if left is None else f"about {duration(left)}",
        state + (f", continued at {', '.join(parts)}" if parts else ""),
        f"{datetime.fromisoformat(started):%Y-%m-%d %H:%M}" if started else BLANK,
    ]


def _sentence(training: Training, is_named: bool) -> str:
    """How rewards went from the start to the end of a run, and which alarms fired."""
    keys = [key for entry in training.log for key in entry if key.startswith("rewards/") and key.endswith("/mean")]
    parts = [_change("reward", series(training.log, "reward"), training)]
    rewards = list(dict.fromkeys(keys))
    for key in rewards if len(rewards) > 1 else []:
        name = key.split("/")[1].removesuffix("_reward").replace("_", " ")
        parts.append(_change(name, series(training.log, key)))
    change = "; ".join(filter(None, parts)) or _change("loss", series(training.log, "loss"), training)
    names = list(dict.fromkeys(name.replace("_", " ") for _, name, _ in training.alarms))
    steps = [min(step for step, name, _ in training.alarms if name.replace("_", " ") == alarm) for alarm in names]
    fired = [f"{name} (from step {step:,})" for name, step in zip(names, steps, strict=True)]
    text = f"{change}. " if change else ""
    text = f"{training.name}: {text}" if is_named else text[:1].upper() + text[1:]
    return f"{text}{'Alarms: ' + ', '.join(fired) if fired else 'No alarm is recorded'}."


def _change(name: str, values: tuple[list[int], list[float]], training: Training | None = None) -> str:
    """`reward went from 0.31 ± 0.02 (steps 1 to 5, n 160) to 0.97 ± 0.01 (steps 16 to 20, n 160)`."""
    steps, numbers = values
    if not numbers:
        return ""
    count = max(1, min(COMPARED, len(numbers) // 4))
    if len(numbers) == 1:
        return f"{name} is {short_number(numbers[0])} at step {steps[0]:,}"
    first, last = (_mean(numbers[part]) for part in (slice(count), slice(-count, None)))
    if training is None:
        return f"{name} from {first} to {last}"
    ends = [_span(steps[part], steps, training) for part in (slice(count), slice(-count, None))]
    return f"{name} went from {first} ({ends[0]}) to {last} ({ends[1]})"


def _mean(numbers: Sequence[float]) -> str:
    """The mean with its standard error over the logged values, in the digits that the error leaves."""
    error = stdev(numbers) / math.sqrt(len(numbers)) if len(numbers) > 2 else 0.0
    if error < 1e-3 * abs(fmean(numbers)) or error == 0:
        return short_number(fmean(numbers))
    digits = max(0, -math.floor(math.log10(error)))
    return f"{fmean(numbers):.{digits}f} ± {error:.{digits}f}"


def _span(part: Sequence[int], steps: Sequence[int], training: Training) -> str:
    """Steps that logged values stand for, and how many completions they had."""
    before = [step for step in steps if step < part[0]]
    first = before[-1] + 1 if before else 1
    completions: Any = training.record.get("completions_per_step")
    n = f", n {completions * (part[-1] - first + 1):,} completions" if isinstance(completions, int) else ""
    return (f"step {first:,}" if first == part[-1] else f"steps {first:,} to {part[-1]:,}") + n
