"""Accuracies and differences as heatmaps: the value as colour and number, n below it; cells without data stay blank.

The difference of two sets of runs has the layout of Med-R1's figure: a row per training set, a column per test set, red
is better and blue is worse. It adds a star where the 95 % interval excludes zero, another star and a frame where
p < 0.05 after correction for the number of cells, and hatching where a cell has few questions. The colour scale of
differences is that of the cells with enough questions, since a cell with two of them easily has the largest value.
"""

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from open_r1.drawing.rendering import NO_FORMULAS
from open_r1.evaluation.comparing.matrices import Matrix
from open_r1.evaluation.comparing.pairs import Pairs
from open_r1.evaluation.comparing.scored_runs import short
from open_r1.evaluation.scoring.statistics import LEVEL, Difference, Estimate
from open_r1.evaluation.scoring.tallies import ALL, FEW, Cell, Table, Tally, columns, modalities

CELL_WIDTH, CELL_HEIGHT = 1.25, 0.62  # inches
NARROW = 0.86  # width of a cell without long column names
GAP = 0.18  # between the cells and their margins, in cells
MOST, LONGEST = 60, 40  # rows or columns, and characters of a name, that remain readable
HATCHED = f"hatched: fewer than {FEW} questions"
CLIPPED = "their colours may be clipped: the scale is that of the other cells"
STAR, HOLM_STAR = "*", "\u2605"
"""Marks of a cell whose interval excludes zero, and of one where also p < 0.05 after Holm's correction."""
STARS_MEAN = {
    STAR: f"{STAR} the 95 % interval excludes zero",
    HOLM_STAR: f"{HOLM_STAR} also, framed: after Holm's correction for the number of cells of its kind",
}


@dataclass(frozen=True)
class Entry:
    """What one cell shows: a value in per cent or points, and two lines of text."""

    value: float
    label: str
    small: str = ""
    has_few: bool = False
    star: str = ""


@dataclass(frozen=True)
class Drawing:
    """A heatmap before it is drawn: its cells, the texts around them, and its scale."""

    title: str
    rows: Sequence[str]
    columns: Sequence[str]
    entries: Mapping[Cell, Entry]
    legend: str  # of the colour bar
    colours: str
    span: tuple[float, float]
    note: str = ""
    axes: tuple[str, str] = ("", "")  # what rows and columns are
    narrow: bool = False

    @property
    def clipped(self) -> bool:
        """Whether a value is outside the colour scale."""
        low, high = self.span
        return any(not low <= entry.value <= high for entry in self.entries.values())

    @property
    def footnote(self) -> str:
        """What hatching and stars mean, if the heatmap has any."""
        entries = self.entries.values()
        stars = {entry.star for entry in entries} - {""}
        explanations = [HATCHED] * any(entry.has_few for entry in entries) + [CLIPPED] * self.clipped
        return "; ".join(explanations + [text for text in STARS_MEAN.values() if stars])


def accuracy_heatmap(table: Table, title: str, note: str = "") -> Figure:
    """Modality x task: accuracy in per cent with n, sequential colours from 0 to 100, margins over all questions."""
    estimates = {cell: tally.estimate for cell, tally in table.items() if tally.estimate is not None}
    return share_heatmap(estimates, title, note, "accuracy (%)")


def share_heatmap(estimates: Mapping[Cell, Estimate], title: str, note: str, legend: str) -> Figure:
    """Modality x task: a share in per cent with n, sequential colours from 0 to 100, margins over all questions."""
    entries = {cell: _accuracy(estimate) for cell, estimate in estimates.items()}
    rows, across = [*modalities(entries), ALL], [*columns(entries), ALL]
    return draw(Drawing(title, rows, across, entries, legend, "YlGnBu", (0, 100), note))


def star(difference: Difference, p_holm: float | None) -> str:
    """STAR, HOLM_STAR or nothing for a difference and its adjusted p, if it is one of several."""
    return (HOLM_STAR if p_holm is not None and p_holm < LEVEL else STAR) if difference.excludes_zero else ""


def difference_heatmap(
    differences: Mapping[Cell, Difference],
    p_holm: Mapping[Cell, float | None],
    title: str,
    note: str = "",
    span: tuple[float, float] | None = None,
) -> Figure:
    """Modality x task: difference in points with error and n, red for gains and blue for losses as in Med-R1's figure.

    Args:
        differences: by modality and task, margins included.
        p_holm: the adjusted p of each.
        title: of the figure.
        note: a line below the title.
        span: the colour scale in points, where several maps share one; otherwise `span_of` these differences.
    """
    entries = {
        cell: _difference(difference, p_holm[cell], f"{100 * difference.mean:+.1f}", with_error=True)
        for cell, difference in differences.items()
    }
    rows, across = [*modalities(entries), ALL], [*columns(entries), ALL]
    span = span or span_of([differences])
    return draw(Drawing(title, rows, across, entries, "difference (points)", "coolwarm", span, note))


def span_of(groups: Iterable[Mapping[Cell, Difference]]) -> tuple[float, float]:
    """The colour scale in points that several maps of differences can share, see `_reach`."""
    return _reach([(100 * d.mean, d.n < FEW) for differences in groups for d in differences.values()])


def accuracy_matrix(matrix: Matrix[Tally], title: str, note: str = "") -> Figure:
    """Trained on x tested on: accuracy in per cent."""
    entries = {
        (short(row), short(column)): _accuracy(tally.estimate)
        for (row, column), tally in matrix.cells.items()
        if tally.estimate is not None
    }
    return draw(_matrix(matrix, entries, title, "accuracy (%)", "YlGnBu", (0, 100), note))


def improvement_matrix(
    matrix: Matrix[Pairs],
    differences: Mapping[Cell, Difference],
    p_holm: Mapping[Cell, float | None],
    title: str,
    note: str = "",
) -> Figure:
    """Trained on x tested on: the difference of two sets of runs in points, in the layout of Med-R1's figure."""
    entries = {
        (short(cell[0]), short(cell[1])): _difference(difference, p_holm[cell], f"{100 * difference.mean:.2f}")
        for cell, difference in differences.items()
    }
    return draw(_matrix(matrix, entries, title, "points", "coolwarm", _span(entries), note))


def improvement_figure(values: Mapping[Cell, float], title: str) -> Figure:
    """Med-R1's figure from numbers alone: points by (trained on, tested on), in the order of the mapping."""
    entries = {cell: Entry(value, f"{value:.2f}") for cell, value in values.items()}
    rows, columns = (list(dict.fromkeys(cell[axis] for cell in values)) for axis in (0, 1))
    return draw(
        Drawing(
            title,
            rows,
            columns,
            entries,
            "points",
            "coolwarm",
            _span(entries),
            axes=("trained on", "tested on"),
            narrow=True,
        )
    )


def _accuracy(estimate: Estimate) -> Entry:
    value = 100 * estimate.mean
    return Entry(value, f"{value:.1f}", f"n = {estimate.n:,}", estimate.n < FEW)


def _difference(difference: Difference, p_holm: float | None, label: str, with_error: bool = False) -> Entry:
    error = f"± {100 * difference.stderr:.1f}, " if with_error and difference.stderr else ""
    small = f"{error}n = {difference.n:,}"
    return Entry(100 * difference.mean, label, small, difference.n < FEW, star(difference, p_holm))


def _span(entries: Mapping[Cell, Entry]) -> tuple[float, float]:
    return _reach([(entry.value, entry.has_few) for entry in entries.values()])


def _reach(values: Sequence[tuple[float, bool]]) -> tuple[float, float]:
    """A colour scale that is symmetric around zero and reaches at least 5 points.

    Args:
        values: points, and whether they are of few questions. Those need not be on the scale, unless all are such.
    """
    counted = [abs(value) for value, has_few in values if not has_few] or [abs(value) for value, _ in values]
    reach = max([5.0, *counted])
    return (-reach, reach)


def _matrix(
    matrix: Matrix,
    entries: Mapping[Cell, Entry],
    title: str,
    legend: str,
    colours: str,
    span: tuple[float, float],
    note: str,
) -> Drawing:
    rows, columns = ([short(name) for name in names] for names in (matrix.rows, matrix.columns))
    return Drawing(title, rows, columns, entries, legend, colours, span, note, ("trained on", "tested on"), True)


# ---------------------------------------------------------------------------------------------------- drawing


@matplotlib.rc_context(NO_FORMULAS)
def draw(drawing: Drawing) -> Figure:
    """The figure, as large as its cells and texts need. Of more than MOST rows or columns the first are drawn."""
    rows, columns = _first_names(drawing.rows), _first_names(drawing.columns)
    left_out = f"{len(rows)} of {len(drawing.rows)} rows and {len(columns)} of {len(drawing.columns)} columns are drawn"
    all_drawn = len(rows) == len(drawing.rows) and len(columns) == len(drawing.columns)
    explained = drawing.note if all_drawn else f"{drawing.note} {left_out}; the table has all.".strip()
    cell = NARROW if drawing.narrow else CELL_WIDTH
    left_margin = 0.5 + 0.085 * max(len(_shown(name)) for name in rows) + (0.3 if drawing.axes[0] else 0)
    wide, high = cell * _extent(columns), CELL_HEIGHT * _extent(rows)
    width = max(left_margin + wide + 1.2, 4.2)
    title = textwrap.fill(drawing.title, int(width * 8.5))
    note = textwrap.fill(explained, int(width * 13))
    foot = textwrap.fill(drawing.footnote, int(width * 13))
    top = 0.35 + 0.24 * (title.count("\n") + 1) + (0.19 * (note.count("\n") + 1) if note else 0)
    names = max(_broken(name).count("\n") + 1 for name in columns)
    bottom = 0.25 + 0.17 * names + (0.3 if drawing.axes[1] else 0) + (0.19 * (foot.count("\n") + 1) if foot else 0)
    height = high + top + bottom
    figure = Figure(figsize=(width, height), dpi=150, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((left_margin / width, bottom / height, wide / width, high / height))
    norm, colour_map = Normalize(*drawing.span), matplotlib.colormaps[drawing.colours]
    for (row, column), entry in drawing.entries.items():
        if row not in rows or column not in columns:
            continue
        _draw_cell(axes, (_place(columns, column), _place(rows, row)), entry, colour_map(norm(entry.value)))
    _label_axes(axes, rows, columns, drawing.axes)
    figure.text(0.2 / width, 1 - 0.2 / height, title, ha="left", va="top", fontsize=13, fontweight="bold")
    below = 0.2 + 0.24 * (title.count("\n") + 1)
    figure.text(0.2 / width, 1 - below / height, note, ha="left", va="top", fontsize=9, color="0.3")
    figure.text(0.2 / width, 0.1 / height, foot, ha="left", va="bottom", fontsize=8, color="0.3")
    bar = figure.add_axes(((left_margin + wide + 0.2) / width, bottom / height, 0.16 / width, high / height))
    extend = "both" if drawing.clipped else "neither"
    figure.colorbar(ScalarMappable(norm, colour_map), cax=bar, extend=extend).set_label(drawing.legend, fontsize=10)
    bar.tick_params(labelsize=9)
    return figure


def _extent(names: Sequence[str]) -> float:
    """The length of a side in cells, with the gap before the margin."""
    return len(names) + (GAP if ALL in names else 0)


def _place(names: Sequence[str], name: str) -> float:
    """Where a row or column begins, in cells."""
    return names.index(name) + (GAP if name == ALL else 0)


def _draw_cell(axes: Axes, corner: tuple[float, float], entry: Entry, colour: tuple[float, ...]) -> None:
    ink = ink_on(colour)
    axes.add_artist(Rectangle(corner, 1, 1, facecolor=colour, edgecolor="white", linewidth=1.5))
    x, y = corner
    behind = None
    if entry.has_few:
        inside = Rectangle((x + 0.03, y + 0.03), 0.94, 0.94, fill=False, hatch="///", edgecolor=ink, alpha=0.32)
        inside.set_linewidth(0)
        axes.add_artist(inside)
        behind = {"facecolor": colour, "edgecolor": "none", "pad": 1.2}  # no line of the hatching crosses the text
    if entry.star == HOLM_STAR:
        axes.add_artist(Rectangle((x + 0.04, y + 0.06), 0.92, 0.88, fill=False, edgecolor=ink, linewidth=1.4))
    weight = "bold" if entry.star == HOLM_STAR else "normal"
    middle = y + (0.38 if entry.small else 0.5)
    texts: list[tuple[float, str, dict[str, Any]]] = [
        (middle, entry.label + entry.star, {"fontsize": 12, "fontweight": weight})
    ]
    texts += [(y + 0.76, entry.small, {"fontsize": 8})] if entry.small else []
    for height, text, font in texts:
        axes.text(x + 0.5, height, text, ha="center", va="center", color=ink, bbox=behind, **font)


def ink_on(colour: tuple[float, ...]) -> str:
    """Black or white, whichever has the larger contrast (WCAG 2) on a colour; the larger is at least 4.58."""
    return "black" if contrast(colour, (0, 0, 0)) >= contrast(colour, (1, 1, 1)) else "white"


def contrast(colour: tuple[float, ...], other_colour: tuple[float, ...]) -> float:
    """The contrast of two sRGB colours (0 to 1 each) by WCAG 2, 1 to 21."""
    lighter, darker = sorted(map(_luminance, (colour, other_colour)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: tuple[float, ...]) -> float:
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in colour[:3]]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _label_axes(axes: Axes, rows: Sequence[str], columns: Sequence[str], names: tuple[str, str]) -> None:
    axes.set_xlim(0, _extent(columns))
    axes.set_ylim(_extent(rows), 0)
    axes.set_xticks([_place(columns, name) + 0.5 for name in columns])
    axes.set_xticklabels([_broken(name) for name in columns], fontsize=10)
    axes.set_yticks([_place(rows, name) + 0.5 for name in rows])
    axes.set_yticklabels([_shown(name) for name in rows], fontsize=10)
    axes.set_ylabel(names[0], fontsize=10)
    axes.set_xlabel(names[1], fontsize=10)
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)


def _broken(name: str) -> str:
    """A column name with one word per line."""
    return _shown(name).replace(" ", "\n")


def _shown(name: str) -> str:
    return name if len(name) <= LONGEST else name[: LONGEST - 1] + "…"


def _first_names(names: Sequence[str]) -> Sequence[str]:
    """The first MOST of the names; the margin, which is the last name, is always among them."""
    return names if len(names) <= MOST else [*names[: MOST - 1], names[-1]]
