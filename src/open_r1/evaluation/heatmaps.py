"""Modality x task as a picture: accuracy or difference in colour, the value and n in every cell, blanks left blank."""

import io
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from open_r1.evaluation.statistics import Difference
from open_r1.evaluation.tables import ALL, Cell, Table, modalities, tasks

CELL_WIDTH, CELL_HEIGHT = 1.25, 0.62  # inches
GAP = 0.18  # between the cells and their margins, in cells


@dataclass(frozen=True)
class Entry:
    """What one cell shows: a value in per cent or points, and two lines of text."""

    value: float
    label: str
    small: str


def accuracy_heatmap(table: Table, title: str, note: str = "") -> Figure:
    """Accuracy in per cent with n, sequential colours from 0 to 100, margins over all questions."""
    entries = {
        cell: Entry(100 * tally.estimate.mean, f"{100 * tally.estimate.mean:.1f}", f"n = {tally.n:,}")
        for cell, tally in table.items()
        if tally.estimate is not None
    }
    return _heatmap(entries, title, note, "accuracy (%)", "YlGnBu", (0, 100))


def difference_heatmap(differences: Mapping[Cell, Difference], title: str, note: str = "") -> Figure:
    """Difference in points with n, red for gains and blue for losses as in the published maps."""
    entries = {
        cell: Entry(100 * found.mean, f"{100 * found.mean:+.1f}", f"n = {found.n:,}")
        for cell, found in differences.items()
    }
    reach = max([5.0, *(abs(entry.value) for entry in entries.values())])
    return _heatmap(entries, title, note, "difference (points)", "coolwarm", (-reach, reach))


def _heatmap(
    entries: Mapping[Cell, Entry], title: str, note: str, legend: str, colours: str, span: tuple[float, float]
) -> Figure:
    rows, columns = [*modalities(entries), ALL], [*tasks(entries), ALL]
    width = 1.75 + CELL_WIDTH * (len(columns) + GAP) + 1.2
    title = textwrap.fill(title, int(width * 8.5))
    note = textwrap.fill(note, int(width * 13))
    top = 0.35 + 0.24 * (title.count("\n") + 1) + (0.19 * (note.count("\n") + 1) if note else 0)
    height = CELL_HEIGHT * (len(rows) + GAP) + top + 0.75
    figure = Figure(figsize=(width, height), dpi=150, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes(
        (
            1.75 / width,
            0.75 / height,
            CELL_WIDTH * (len(columns) + GAP) / width,
            CELL_HEIGHT * (len(rows) + GAP) / height,
        )
    )
    norm, colour_map = Normalize(*span), matplotlib.colormaps[colours]
    for (modality, task), entry in entries.items():
        corner = _place(columns, task), _place(rows, modality)
        _draw_cell(axes, corner, entry, colour_map(norm(entry.value)))
    _label_axes(axes, rows, columns)
    figure.text(0.2 / width, 1 - 0.2 / height, title, ha="left", va="top", fontsize=13, fontweight="bold")
    if note:
        below = 0.2 + 0.24 * (title.count("\n") + 1)
        figure.text(0.2 / width, 1 - below / height, note, ha="left", va="top", fontsize=9, color="0.3")
    bar = figure.add_axes((1 - 1.0 / width, 0.75 / height, 0.16 / width, axes.get_position().height))
    scale = ScalarMappable(norm, colour_map)
    figure.colorbar(scale, cax=bar).set_label(legend, fontsize=10)
    bar.tick_params(labelsize=9)
    return figure


def _place(names: Sequence[str], name: str) -> float:
    """Where a row or column begins, in cells; the margin stands a little apart."""
    return names.index(name) + (GAP if name == ALL else 0)


def _draw_cell(axes, corner: tuple[float, float], entry: Entry, colour: tuple[float, float, float, float]) -> None:
    red, green, blue, _ = colour
    ink = "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "white"  # Rec. 601 luma
    axes.add_patch(Rectangle(corner, 1, 1, facecolor=colour, edgecolor="white", linewidth=1.5))
    x, y = corner
    axes.text(x + 0.5, y + 0.38, entry.label, ha="center", va="center", fontsize=12, color=ink)
    axes.text(x + 0.5, y + 0.76, entry.small, ha="center", va="center", fontsize=8, color=ink)


def _label_axes(axes, rows: Sequence[str], columns: Sequence[str]) -> None:
    axes.set_xlim(0, len(columns) + GAP)
    axes.set_ylim(len(rows) + GAP, 0)
    axes.set_xticks([_place(columns, name) + 0.5 for name in columns])
    axes.set_xticklabels([name.replace(" ", "\n") for name in columns], fontsize=10)
    axes.set_yticks([_place(rows, name) + 0.5 for name in rows])
    axes.set_yticklabels(rows, fontsize=10)
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)


def picture(figure: Figure, form: str) -> bytes:
    """The figure as `png` or `svg`; the same figure gives the same bytes."""
    stream = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "open_r1", "svg.fonttype": "none"}):
        figure.savefig(stream, format=form, metadata={"Date": None} if form == "svg" else {"Software": None})
    return stream.getvalue()
