"""Training curves from logs, several runs overlaid: rewards, completion length, KL, entropy, gradient norm by step.

Dashed lines: measured on the evaluation questions during training (`--eval_strategy`).
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from open_r1.common.atomic_files import parse_json
from open_r1.common.errors import UserError
from open_r1.common.metrics_log import METRICS, read_metrics
from open_r1.drawing.rendering import NO_FORMULAS

STATE = "trainer_state.json"
ACROSS = 3  # panels in a row
SMOOTHED_FROM = 40  # points; fewer are drawn as they are
COLOURS = matplotlib.colormaps["tab10"].colors  # pyright: ignore[reportAttributeAccessIssue]

_EVALUATED = "eval_"

Log = Sequence[Mapping[str, Any]]
Series = tuple[list[int], list[float]]  # steps, values


@dataclass(frozen=True)
class Panel:
    """One small diagram: the log entry that it shows, and optionally two entries that are its lower and upper bound."""

    title: str
    key: str
    between: tuple[str, str] | None = None


_REWARD = (Panel("reward", "reward"),)
_LENGTH = ("completions/min_length", "completions/max_length")
_OTHER_PANELS = (
    Panel("completion length (tokens): mean, least to most", "completions/mean_length", _LENGTH),
    Panel("share of completions cut off", "completions/clipped_ratio"),
    Panel("KL to the start (nats per token)", "kl"),
    Panel("entropy (nats per token)", "entropy"),
    Panel("gradient norm", "grad_norm"),
    Panel("loss", "loss"),
)


def read_log(run_dir: str | Path) -> list[dict[str, Any]]:
    """What a training run has logged so far: metrics.jsonl in its folder.

    Without that file (older runs, checkpoints): `log_history` of trainer_state.json in the folder or its newest
    checkpoint.

    Raises:
        UserError: neither file is there, or it cannot be read.
    """
    if entries := read_metrics(run_dir):
        return entries
    path = Path(run_dir)
    try:
        path = _state_file(path)
        history = parse_json(path.read_text(encoding="utf-8"))["log_history"]
        return [entry for entry in history if isinstance(entry, dict) and isinstance(entry.get("step"), int)]
    except UserError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path!s:.300} cannot be read ({error!s:.300}), so no training curve can be drawn from it"
        ) from None


def _state_file(folder: Path) -> Path:
    checkpoints = [path for path in folder.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name)]
    newest = sorted(checkpoints, key=lambda path: int(path.name.partition("-")[2]), reverse=True)
    state_files = [path / STATE for path in (folder, *newest) if (path / STATE).is_file()]
    if not state_files:
        raise UserError(
            f"{folder} holds no {METRICS} or {STATE}, nor does a checkpoint in it: name the output folder of a training"
        )
    return state_files[0]


def series(log: Log, key: str) -> Series:
    """The steps at which an entry was logged, and its values; values that are no finite numbers are left out."""
    points = [(entry["step"], entry[key]) for entry in log if _is_number(entry.get(key))]
    return [step for step, _ in points], [float(value) for _, value in points]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def smoothed(values: Sequence[float]) -> list[float]:
    """The centred running mean over a twentieth of the points; at both ends over the points within reach."""
    reach = max(1, len(values) // 40)
    windows = [values[max(0, at - reach) : at + reach + 1] for at in range(len(values))]
    return [sum(window) / len(window) for window in windows]


def panels(logs: Mapping[str, Log]) -> list[Panel]:
    """The panels for which the logs have values, with one for each reward function."""
    keys = {key.removeprefix(_EVALUATED) for log in logs.values() for entry in log for key in entry}
    rewards = sorted(key for key in keys if re.fullmatch(r"rewards/.+/mean", key))
    candidates = [*_REWARD, *map(_reward_panel, rewards), *_OTHER_PANELS]
    return [panel for panel in candidates if any(_shows(log, panel.key) for log in logs.values())]


def _reward_panel(key: str) -> Panel:
    name = key.split("/")[1].removesuffix("_reward").replace("_", " ")
    return Panel(f"reward: {name}", key)


def _shows(log: Log, key: str) -> bool:
    return bool(series(log, key)[0] or series(log, _EVALUATED + key)[0])


@matplotlib.rc_context(NO_FORMULAS)
def curves_figure(logs: Mapping[str, Log], title: str = "") -> Figure | None:
    """All curves of one or several runs, the runs overlaid; None if the logs hold no value for any panel.

    A curve of many points is drawn faintly, with its running mean on top.

    Args:
        logs: by the name of the run; there are ten colours.
        title: what these runs have in common.
    """
    visible_panels = panels(logs)
    if not visible_panels:
        return None
    columns = min(ACROSS, len(visible_panels))
    rows = -(-len(visible_panels) // columns)
    handles = {name: Line2D([], [], color=_colour(place), linewidth=2) for place, name in enumerate(logs)}
    if any(series(log, _EVALUATED + panel.key)[0] for log in logs.values() for panel in visible_panels):
        dashed = Line2D([], [], color="0.35", linestyle="--", linewidth=1.4)
        handles["on evaluation questions during training"] = dashed
    legend = 0.25 * -(-len(handles) // columns) + 0.15
    height = 2.3 * rows + legend + (0.3 if title else 0)
    figure = Figure(figsize=(4.0 * columns, height), dpi=120, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    figure.get_layout_engine().set(rect=(0, legend / height, 1, 1 - legend / height))  # pyright: ignore
    grid = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes, panel in zip(grid, visible_panels, strict=False):
        _draw(axes, panel, logs)
    for axes in grid[len(visible_panels) :]:
        axes.set_visible(False)
    if title:
        figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
    figure.legend(list(handles.values()), list(handles), loc="lower center", ncols=columns, fontsize=9, frameon=False)
    return figure


def _colour(place: int) -> Any:
    return COLOURS[place % len(COLOURS)]


def _draw(axes: Axes, panel: Panel, logs: Mapping[str, Log]) -> None:
    for place, log in enumerate(logs.values()):
        steps, values = series(log, panel.key)
        if panel.between is not None:
            (at, low), (_, high) = series(log, panel.between[0]), series(log, panel.between[1])
            if len(low) == len(high):
                axes.fill_between(at, low, high, color=_colour(place), alpha=0.36 / max(3, len(logs)), linewidth=0)
        if len(values) >= SMOOTHED_FROM:
            axes.plot(steps, values, color=_colour(place), alpha=0.25, linewidth=0.8)
            values = smoothed(values)
        axes.plot(steps, values, color=_colour(place), linewidth=1.6, marker="." if len(values) < 12 else "")
        steps, values = series(log, _EVALUATED + panel.key)
        if values:
            axes.plot(steps, values, color=_colour(place), linewidth=1.4, linestyle="--", marker="o", markersize=3)
    axes.set_title(panel.title, fontsize=9, loc="left")
    axes.set_xlabel("step", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.25, linewidth=0.6)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
