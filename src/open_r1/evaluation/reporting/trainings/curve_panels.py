"""Every logged number as a small diagram, the runs overlaid, by theme: lines as paths of an SVG that the page draws."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from matplotlib.ticker import MaxNLocator

from open_r1.drawing.training_curves import SMOOTHED_FROM, Log, Series, panels, series, smoothed
from open_r1.evaluation.reporting.trainings.reading import Training

WIDTH, HEIGHT = 340, 150
LEFT, RIGHT, TOP, BOTTOM = 40, 332, 8, 130  # of the area with the curves
MOST_POINTS = 300
"""Points of a curve in the page; of more, as many means over neighbours, and their least and largest values."""
THEMES = (
    ("Rewards", r"reward(s/.*|_.*)?|frac_reward.*|groups.*|resampl.*|dead.*"),
    ("Lengths", r"completions/.*"),
    ("KL, entropy and gradient", r"kl|entropy|grad_norm|loss|learning_rate|clip_ratio/.*"),
    ("Speed", r"step_time|seconds/.*|.*_per_second|tokens/.*|num_tokens|mfu|.*_seconds"),
    ("Memory", r".*(gpu|memory|gib|rss).*"),
    ("Other numbers", r".*"),
)
_MAIN = re.compile(r"frac_reward_zero_std|step_time|completions_per_second|gpu_peak_gib|(eval_)?loss")
_NO_CURVE = re.compile(r"step|epoch|total_flos|train_.*|alarms/.*|(elapsed|remaining)_seconds")
_NAMES = {
    "frac_reward_zero_std": "share of dead groups",
    "step_time": "seconds per step",
    "completions_per_second": "completions per second",
    "gpu_peak_gib": "GPU memory, peak (GiB)",
}


@dataclass(frozen=True)
class Line:
    """A path of a diagram: `kind` is raw, smooth, evaluated, band or dots."""

    run: int
    kind: str
    path: str


@dataclass(frozen=True)
class Drawing:
    """One diagram."""

    title: str
    key: str
    lines: Sequence[Line]
    across: Sequence[tuple[float, str]]  # ticks: place and label
    up: Sequence[tuple[float, str]]
    label: str  # in words: first and last value of each run
    values: Sequence[Series]  # as shown, of each run


@dataclass(frozen=True)
class Theme:
    """Diagrams that belong together; the page folds `more`."""

    title: str
    main: Sequence[Drawing]
    more: Sequence[Drawing]


@dataclass(frozen=True)
class Mark:
    """Something that happened at a step of a run: an alarm, or a continuation."""

    run: int
    kind: str
    x: float
    text: str


def themes(trainings: Sequence[Training]) -> list[Theme]:
    """All numbers that these runs logged; themes without any are left out."""
    logs = {training.name: training.log for training in trainings}
    titled = {panel.key: panel for panel in panels(logs)}
    bounds = {key for panel in titled.values() for key in panel.between or ()}
    keys = [*titled, *sorted(_keys(logs.values()) - set(titled) - bounds)]
    last = last_step(trainings)
    by_theme: dict[str, tuple[list[Drawing], list[Drawing]]] = {title: ([], []) for title, _ in THEMES}
    for key in keys:
        title = titled[key].title if key in titled else _NAMES.get(key, key.replace("_", " "))
        drawing = _drawing(title, key, titled[key].between if key in titled else None, list(logs.values()), last)
        theme = next(name for name, pattern in THEMES if re.fullmatch(pattern, key))
        by_theme[theme][key not in titled and not _MAIN.fullmatch(key)].append(drawing)
    return [Theme(title, main, more) for title, (main, more) in by_theme.items() if main or more]


def _keys(logs: Iterable[Log]) -> set[str]:
    """Names of entries of which a run has a number; those on evaluation questions are drawn with their like."""
    names = {key.removeprefix("eval_") for log in logs for entry in log for key in entry}
    return {
        key
        for key in names
        if not _NO_CURVE.fullmatch(key) and any(series(log, k)[0] for log in logs for k in (key, f"eval_{key}"))
    }


def last_step(trainings: Sequence[Training]) -> int:
    """The last step that any of the runs logged."""
    return max(entry["step"] for training in trainings for entry in training.log)


def marks(trainings: Sequence[Training]) -> list[Mark]:
    """Alarms and continuations of all runs."""
    last, events = last_step(trainings), []
    for run, training in enumerate(trainings):
        events += [(run, "continued", part["at_step"], "continued") for part in continuations(training)]
        events += [(run, "alarm", step, ": ".join(filter(None, text))) for step, *text in training.alarms]
    return [
        Mark(run, kind, _across(step, last), f"{trainings[run].name}, step {step}: {text}")
        for run, kind, step, text in events
        if step <= last  # not of a part that is done again
    ]


def continuations(training: Training) -> list[Mapping]:
    """The parts of the run record about where the run was continued."""
    parts = training.record.get("continued")
    return [part for part in parts if isinstance(part, dict) and isinstance(part.get("at_step"), int)] if parts else []


def _drawing(title: str, key: str, between: tuple[str, str] | None, logs: Sequence[Log], last: int) -> Drawing:
    lines: list[tuple[int, str, Series]] = []
    values: list[Series] = []
    bands: list[tuple[int, Series, Series]] = []
    for run, log in enumerate(logs):
        raw = series(log, key)
        means, extremes = thinned(raw)
        if between is not None:
            low, high = (thinned(series(log, bound))[0] for bound in between)
            if len(low[0]) == len(high[0]):
                bands.append((run, low, high))
        if len(raw[0]) >= SMOOTHED_FROM:
            lines.append((run, "raw", extremes))
            means = means[0], smoothed(means[1])
        values.append(means)
        lines.append((run, "smooth", means))
        if (evaluated := series(log, f"eval_{key}"))[0]:
            lines.append((run, "evaluated", thinned(evaluated)[0]))
    heights = [value for _, _, (_, shown) in lines for value in shown]
    heights += [value for _, low, high in bands for value in (*low[1], *high[1])]
    ticks = _ticks(min(heights), max(heights))
    low, high = min(ticks[0], *heights), max(ticks[-1], *heights)

    def place(points: Series) -> list[str]:
        steps, numbers = points
        return [
            f"{_across(step, last):.1f},{BOTTOM - (value - low) / (high - low) * (BOTTOM - TOP):.1f}"
            for step, value in zip(steps, numbers, strict=True)
        ]

    paths = [Line(run, "band", f"M{'L'.join([*place(a), *reversed(place(b))])}Z") for run, a, b in bands if a[0]]
    for run, kind, points in lines:
        if points[0]:
            path = place(points)
            paths.append(Line(run, kind, f"M{'L'.join(path)}"))
            if len(path) < 12 and kind != "raw":
                paths.append(Line(run, "dots", "".join(f"M{at}h0" for at in path)))
    return Drawing(
        *(title, key, paths),
        across=[(_across(step, last), f"{step:g}") for step in _ticks(1, last) if 1 <= step <= last and step % 1 == 0],
        up=[(BOTTOM - (tick - low) / (high - low) * (BOTTOM - TOP), short_number(tick)) for tick in ticks],
        label="; ".join(f"{short_number(v[0])} to {short_number(v[-1])}" for _, v in values if v),
        values=values,
    )


def _across(step: float, last: int) -> float:
    return LEFT + (step - 1) / max(1, last - 1) * (RIGHT - LEFT)


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers that cover low to high; none below zero if low is not."""
    at_least = 0.0 if low >= 0 else -math.inf
    if high - low <= 1e-6 * max(abs(low), abs(high)):
        low, high = low - max(0.5, abs(low)) / 2, high + max(0.5, abs(high)) / 2
    ticks = MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    return [float(tick) for tick in ticks if tick >= at_least]


def thinned(points: Series) -> tuple[Series, Series]:
    """At most MOST_POINTS means of neighbours, and the least and the largest value of each; few points as they are."""
    steps, values = points
    size = -(-len(steps) // MOST_POINTS)
    if size <= 1:
        return points, points
    means: Series = [], []
    extremes: Series = [], []
    for at in range(0, len(steps), size):
        part = values[at : at + size]
        middle = steps[at : at + size][len(part) // 2]
        means[0].append(middle)
        means[1].append(sum(part) / len(part))
        extremes[0].extend((middle, middle))
        extremes[1].extend((min(part), max(part)))
    return means, extremes


def short_number(value: float) -> str:
    """A number of at most three or four digits: `0.0312`, `12`, `3.2 M`."""
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e4, " k")):
        if abs(value) >= size:
            return f"{value / (1e3 if unit == ' k' else size):.3g}{unit}"
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.4g}"
