"""Accuracies as a chart: a line per run with its 95 % interval, and what is reached without looking beside it."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from open_r1.drawing.rendering import NO_FORMULAS
from open_r1.evaluation.reporting.heatmaps import LONGEST, MOST
from open_r1.evaluation.scoring.statistics import Estimate

BLUE, ORANGE, GREEN = "#1f5fa8", "#c2570c", "#1d7a46"
ROW = 0.36  # inches
FLOORS = (
    ("chance", "guessing", "|", "0.35"),
    ("blind", "blind floor", "D", ORANGE),
    ("without_image", "without the image", "o", GREEN),
)


@dataclass(frozen=True)
class AccuracyLine:
    """What the chart shows of a run; shares between 0 and 1, None where not known."""

    name: str
    estimate: Estimate
    chance: float | None = None
    blind: float | None = None
    without_image: float | None = None


@dataclass(frozen=True)
class Point:
    """A point of a curve with the interval of its height; shares between 0 and 1."""

    x: float
    estimate: Estimate


@matplotlib.rc_context(NO_FORMULAS)
def accuracy_chart(lines: Sequence[AccuracyLine], title: str) -> Figure:
    """A row per run, the first at the top; of more than MOST the first are drawn."""
    lines = lines[:MOST]
    names = [line.name if len(line.name) <= LONGEST else f"{line.name[: LONGEST - 1]}…" for line in lines]
    left = 0.4 + 0.085 * max(map(len, names))
    width = left + 6.4
    heading = textwrap.fill(title, int(width * 8.5))
    top, bottom = 0.45 + 0.24 * (heading.count("\n") + 1), 0.95
    height = top + bottom + ROW * len(lines)
    figure = Figure(figsize=(width, height), dpi=150, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((left / width, bottom / height, 5.2 / width, ROW * len(lines) / height))
    places = range(len(lines))
    for attribute, label, marker, colour in FLOORS:
        values = [(getattr(line, attribute), y) for y, line in zip(places, lines, strict=True)]
        drawn = [(100 * value, y) for value, y in values if value is not None]
        if drawn:
            shape: dict[str, Any] = {"markersize": 5} if marker != "|" else {"markersize": 13, "markeredgewidth": 1.6}
            shape |= {"markerfacecolor": "white"} if marker == "o" else {}
            x, y = zip(*drawn, strict=True)
            axes.plot(x, y, linestyle="", marker=marker, color=colour, label=label, clip_on=False, **shape)
    means = [100 * line.estimate.mean for line in lines]
    ends = [(line.estimate.mean - line.estimate.low, line.estimate.high - line.estimate.mean) for line in lines]
    reach = [[100 * max(0.0, end) for end in side] for side in zip(*ends, strict=True)]  # at 0 and 1 rounding is below
    label = "accuracy with its 95 % interval"
    axes.errorbar(means, places, xerr=reach, fmt="s", color=BLUE, markersize=6, capsize=3, label=label, clip_on=False)
    for y, mean in zip(places, means, strict=True):
        axes.text(102.5, y, f"{mean:.1f} %", va="center", fontsize=10, fontweight="bold", color=BLUE)
    axes.set_xlim(0, 100)
    axes.set_ylim(len(lines) - 0.5, -0.5)
    axes.set_yticks(list(places))
    axes.set_yticklabels(names, fontsize=10)
    axes.set_xlabel("accuracy (%)", fontsize=10)
    axes.grid(axis="x", color="0.9")
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelsize=9.5)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    figure.text(0.2 / width, 1 - 0.2 / height, heading, ha="left", va="top", fontsize=12, fontweight="bold")
    corner = (0.15 / width, 0.05 / height)
    figure.legend(loc="lower left", bbox_to_anchor=corner, ncols=4, fontsize=8.5, frameon=False, handletextpad=0.3)
    return figure


@matplotlib.rc_context(NO_FORMULAS)
def confidence_chart(reliability: Sequence[Point], abstaining: Sequence[Point], title: str) -> Figure:
    """Two curves: accuracy against confidence, and accuracy against the share of questions that is answered.

    Args:
        reliability: a point for each bin of confidences.
        abstaining: from few to all questions.
        title: above both.
    """
    width, height = 9.6, 4.6
    heading = textwrap.fill(title, int(width * 9))
    figure = Figure(figsize=(width, height), dpi=150, facecolor="white")
    FigureCanvasAgg(figure)
    figure.text(0.02, 0.98, heading, ha="left", va="top", fontsize=12, fontweight="bold")
    left, right = figure.add_axes((0.07, 0.12, 0.4, 0.68)), figure.add_axes((0.57, 0.12, 0.4, 0.68))
    left.plot([0, 100], [0, 100], color="0.6", linewidth=1, linestyle="--", label="calibrated")
    for axes, points, label in ((left, reliability, "answers"), (right, abstaining, "most confident answers")):
        x, means = [100 * point.x for point in points], [100 * point.estimate.mean for point in points]
        reach = [[100 * max(0.0, p.estimate.mean - p.estimate.low) for p in points]]
        reach.append([100 * max(0.0, p.estimate.high - p.estimate.mean) for p in points])
        style = {"fmt": "s-", "color": BLUE, "markersize": 4.5, "capsize": 2.5, "linewidth": 1.2, "clip_on": False}
        axes.errorbar(x, means, yerr=reach, label=label, **style)
        axes.set_xlim(0, 100)
        axes.set_ylim(0, 100)
        axes.set_ylabel("accuracy (%)", fontsize=10)
        axes.grid(color="0.92")
        axes.set_axisbelow(True)
        axes.tick_params(length=0, labelsize=9)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    sizes = sorted({point.estimate.n for point in reliability})
    answers_per_bin = f"{sizes[0]:,}" if len(sizes) == 1 else f"{sizes[0]:,} to {sizes[-1]:,}"
    left.set_xlabel(f"confidence (%), bins of {answers_per_bin} answers", fontsize=10)
    right.set_xlabel("share of questions answered (%)", fontsize=10)
    left.legend(loc="upper left", fontsize=8.5, frameon=False)
    right.legend(loc="lower left", fontsize=8.5, frameon=False)
    return figure
