"""What a report says: for each run, each matrix and each comparison its tables, pictures, files and warnings."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from matplotlib.figure import Figure

from open_r1.answers import Outcome
from open_r1.evaluation.heatmaps import HOLM_STAR, STAR, accuracy_heatmap, accuracy_matrix
from open_r1.evaluation.lineup import FORCED, LENIENT, Marks, Scored
from open_r1.evaluation.matrices import Matrix
from open_r1.evaluation.sheets import BLANK, Sheet, csv_text, percent, with_error
from open_r1.evaluation.statistics import FEWEST_CHANGED, MCNEMAR, SIGN_FLIP, mean_of_means
from open_r1.evaluation.tables import (
    ALL,
    SET,
    TEXT,
    Average,
    Cell,
    Table,
    Tally,
    averages,
    columns,
    grid,
    mean,
    modalities,
    only_text,
    sources,
    tasks,
)

DIFFERENCES = ("difference", "improvement")  # what the files about differences begin with
WARNINGS = {
    FORCED: f"{FORCED}: a checkpoint was scored on questions of the split family that it was not trained on. About "
    "80 % of them were in its training set, so these accuracies mostly measure memory.",
    LENIENT: f"{LENIENT}, not our judge: it always finds an answer, by likeness of texts where nothing is said, and "
    "takes per source the better of its first and its last match. Compare these accuracies with such ones alone.",
}
"""What a mark before a title means."""


@dataclass
class Section:
    """One part of the report; texts are plain."""

    title: str
    warnings: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    sheets: list[Sheet] = field(default_factory=list)
    figures: dict[str, Figure] = field(default_factory=dict)  # path below the report, without ending -> picture
    files: dict[str, str] = field(default_factory=dict)  # path below the report -> content
    single: bool = False  # about one result file; the page folds it where there are many


def marked(title: str, marks: Marks) -> str:
    """The title of a picture or part, with what must not be overlooked before it."""
    return ": ".join([*marks, title])


def warned(marks: Marks) -> list[str]:
    """What these marks mean."""
    return [WARNINGS[mark] for mark in marks]


# ---------------------------------------------------------------------------------------------------- one run


def run_section(scored: Scored, folder: str) -> Section:
    """Accuracy of one result file, with all that stands beside it."""
    table, title = scored.table, marked(scored.name, scored.marks)
    means = averages(table)
    section = Section(title, _warnings(scored), single=True)
    parts = parts_of(table)
    section.sheets = [_run_sheet(scored, part) for part in parts]
    section.files = {
        f"{folder}by_{part.name}.csv": _csv(
            scored, [part.name], [([name], cell) for name, cell in [*part.cells, (ALL, (ALL, ALL))]]
        )
        for part in parts
    }
    section.files[f"{folder}averages.csv"] = _csv_of_averages(scored, means)
    if only_text(table):
        return section
    section.sheets.append(_both_sheet(table, scored.marks))
    lines = "; ".join(f"{average.name} {with_error(average.mean, average.stderr)}" for average in means)
    heading = marked(f"Accuracy: {scored.name}", scored.marks)
    section.figures[f"{folder}heatmap"] = accuracy_heatmap(table, heading, lines)
    both = [(list(cell), cell) for cell in grid(table)]
    section.files[f"{folder}by_modality_and_task.csv"] = _csv(scored, ["modality", "task"], both)
    return section


class Part(NamedTuple):
    """One way to divide the questions: what its groups are, and their names and cells."""

    name: str
    cells: list[tuple[str, Cell]]


def parts_of(cells: Iterable[Cell]) -> list[Part]:
    """By modality and by task where there are pictures, by source where there are text questions, by set if asked."""
    present = list(cells)
    parts = []
    if not only_text(present):
        parts.append(Part("modality", [(name, (name, ALL)) for name in modalities(present)]))
        parts.append(Part("task", [(name, (ALL, name)) for name in tasks(present)]))
    if names := sources(present):
        parts.append(Part("source", [(name, (TEXT, name)) for name in names]))
    if sets := [cell for cell in present if cell[0] == SET]:
        parts.append(Part("set", [(cell[1], cell) for cell in sets]))
    return parts


def _warnings(scored: Scored) -> list[str]:
    whole, file = scored.table[ALL, ALL], scored.file
    found = warned(scored.marks)
    if not whole.n:
        found.append("No question could be asked.")
    if whole.unreadable:
        found.append(
            f"{whole.unreadable:,} questions were not asked (unreadable picture or the like) and count nowhere."
        )
    if file.missing:
        found.append(f"{file.missing:,} questions have no result yet: the run is not finished.")
    if file.torn:
        found.append("The last line is unfinished and was left out: the run was stopped while writing it.")
    return found


_HEAD = ("", "questions", "accuracy", "95 % interval", "guessing", "blind floor")
LENIENT_ACCURACY = "accuracy, lenient"
UNKNOWN = "unknown"
_PICTURED = ("without picture", "pictures not in training")


def _run_sheet(scored: Scored, part: Part) -> Sheet:
    """Accuracies of some cells, then the averages: weighted, and unweighted over these groups."""
    table, pictured = scored.table, part.name != "source"
    k = table[ALL, ALL].samples
    drawn = (f"one of {k} samples", f"best of {k}") if k > 1 else ()
    names = [LENIENT_ACCURACY if name == "accuracy" and LENIENT in scored.marks else name for name in _HEAD]
    head = [*names, *(_PICTURED if pictured else ()), *drawn, "unparsed", "cut off"]
    rows = [[name, *_row(scored, [cell], pictured)] for name, cell in part.cells]
    for average in averages(table):
        if average.over in ("questions", f"{part.name.removesuffix('y')}ies", f"{part.name}s"):  # modalities, tasks
            rows.append([average.name, *_row(scored, average.cells, pictured, average)])
    return Sheet(marked(f"Accuracy by {part.name}", scored.marks), head, rows, _notes(scored, k, pictured))


def _row(scored: Scored, cells: Sequence[Cell], pictured: bool, average: Average | None = None) -> list[str]:
    """The columns after the name: of one cell, or the plain mean over several."""
    tallies = [scored.table[cell] for cell in cells]
    own = tallies[0].estimate if len(tallies) == 1 else None
    if average is not None:
        accuracy = with_error(average.mean, average.stderr)
    else:
        accuracy = "" if own is None else with_error(own.mean, own.stderr)
    hidden = [_hidden(scored, cell) for cell in cells] if pictured else []
    k = scored.table[ALL, ALL].samples
    shares = [[tally.pass_at(number) for tally in tallies] for number in ((1, k) if k > 1 else ())]
    values = [
        f"{sum(tally.n for tally in tallies):,}",
        accuracy,
        "" if own is None else f"{percent(own.low, 1)} to {percent(own.high, 1)}",
        _mean_of([tally.chance for tally in tallies]),
        _mean_of([tally.blind for tally in tallies]),
        *([_mean_of(hidden), _unseen(tallies)] if pictured else []),
        *map(_mean_of, shares),
        _mean_of([tally.unparsed for tally in tallies]),
        cut_off(tallies),
    ]
    return [value or BLANK for value in values]


def cut_off(tallies: Sequence[Tally]) -> str:
    """The plain mean of their shares of completions that the token limit ended, in per cent; blank without any."""
    shares = [tally.cut_off for tally in tallies if tally.n]
    return (_mean_of(shares) or UNKNOWN) if shares else ""


def _mean_of(shares: Sequence[float | None]) -> str:
    """Their plain mean in per cent; blank where one is not known, or there is none."""
    known = [share for share in shares if share is not None]
    return percent(mean(known), 1) if len(known) == len(shares) else ""


def _hidden(scored: Scored, cell: Cell) -> float | None:
    """Accuracy without the picture, on the questions of this cell that both runs answered."""
    if scored.without_picture is None or cell not in scored.without_picture:
        return None
    ids = {result.id for result in scored.table[cell].asked}
    return mean([float(result.correct) for result in scored.without_picture[cell].asked if result.id in ids])


def _unseen(tallies: Sequence[Tally]) -> str:
    """Accuracy on the questions whose picture is not in training, with error and number."""
    groups = [tally.unseen for tally in tallies]
    known = [group for group in groups if group]
    if not known or any(group is None for group in groups):
        return ""
    average, stderr = mean_of_means([([r.correct for r in group], [r.image for r in group]) for group in known])
    return f"{with_error(average, stderr)} ({sum(map(len, known)):,})"


def _notes(scored: Scored, k: int, pictured: bool) -> list[str]:
    """What is particular to this run; what holds for all is in `guide`."""
    whole = scored.table[ALL, ALL]
    notes = []
    if whole.blind is None and whole.unseen is None:
        blank = "the blind floor and the pictures not in training are" if pictured else "the blind floor is"
        notes.append(f"No training split was known, so {blank} blank.")
    if pictured and scored.without_picture is None and scored.shown_as[0] == "shown":
        notes.append("No result file of this checkpoint without pictures is among those given.")
    if k > 1:
        notes.append(f"Accuracy is that of the majority vote of {k} samples; best of {k} is pass@{k}, one is pass@1.")
    return notes


ACCURACY_NOTE = (
    "Accuracies are in per cent. ± is the standard error clustered by picture, of text questions by question; the "
    "interval is Wilson's with the t quantile of pictures - 1, wider where questions share pictures. Guessing: uniform "
    "over the options. Blind floor: the option that was most often right in training, no picture and no question "
    "looked at. Unparsed: answers that could not be read, which count as wrong. Cut off: completions that the token "
    "limit (max_new_tokens) ended; unknown where older result files do not say. Weighted: every question counts the "
    "same; unweighted: every modality, task, source or set does, as in the published averages."
)
DIFFERENCE_NOTE = (
    f"Differences are in points of accuracy on the same questions. {STAR} the 95 % interval leaves zero out, which it "
    f"does just when p < 0.05. The paired test is the {MCNEMAR} test where every picture has one question, and the "
    f"{SIGN_FLIP} test over pictures where questions share pictures. Where fewer than {FEWEST_CHANGED} pictures "
    "changed, too few stands instead of a p-value: none could be below 0.05. Of many cells some bear a star by chance "
    "alone; p (Holm) is corrected for the number of cells of a kind (single cells, modalities, tasks; Holm 1979), and "
    f"{HOLM_STAR} marks where it is below 0.05."
)


def guide(sections: Sequence[Section]) -> Section:
    """How to read the tables that these sections hold."""
    compared = any(leaf.startswith(DIFFERENCES) for section in sections for leaf in section.files)
    return Section("How to read this", texts=[ACCURACY_NOTE] + [DIFFERENCE_NOTE] * compared)


def _both_sheet(table: Table, marks: Marks) -> Sheet:
    """Modalities down, tasks across, margins last; each cell `accuracy ± stderr (n)`."""
    names = [*columns(table), ALL]

    def cell(modality: str, task: str) -> str:
        tally = table.get((modality, task))
        estimate = tally.estimate if tally else None
        return "" if estimate is None else f"{with_error(estimate.mean, estimate.stderr)} ({estimate.n:,})"

    rows = [[name, *(cell(name, column) for column in names)] for name in [*modalities(table), ALL]]
    note = "Accuracy ± standard error clustered by picture, in per cent (number of questions)."
    return Sheet(marked("Accuracy by modality and task", marks), ["", *names], rows, [note])


# ------------------------------------------------------------------------------------------------ CSV of tallies

COLUMNS = (
    *("n", "pictures", "accuracy", "stderr", "low", "high", "chance", "blind_floor", "without_picture"),
    *("unseen_n", "unseen_accuracy", "unseen_stderr", "correct", "wrong", "unparsed", "unparsed_share", "unreadable"),
    *("samples", "pass_at_1", "pass_at_k", "cut_off_share"),
)


def figures(tally: Tally, without_picture: float | None = None) -> list[str]:
    """The values of COLUMNS; accuracies in per cent, blank where there is none."""
    own, unseen, k = tally.estimate, tally.unseen_estimate, tally.samples
    spread = [None] * 4 if own is None else [own.mean, own.stderr, own.low, own.high]
    return [
        str(tally.n),
        str(0 if own is None else own.clusters),
        *map(percent, (*spread, tally.chance, tally.blind, without_picture)),
        "" if tally.unseen is None else str(len(tally.unseen)),
        *map(percent, (None, None) if unseen is None else (unseen.mean, unseen.stderr)),
        *(str(tally.count(outcome)) for outcome in (Outcome.CORRECT, Outcome.WRONG, Outcome.UNPARSED)),
        percent(tally.unparsed if tally.n else None),
        str(tally.unreadable),
        str(k),
        *map(percent, (tally.pass_at(1), tally.pass_at(k), tally.cut_off)),
    ]


def _csv(scored: Scored, head: list[str], named: Iterable[tuple[list[str], Cell]]) -> str:
    rows = [[*name, *figures(scored.table[cell], _hidden(scored, cell))] for name, cell in named]
    return csv_text([*head, *COLUMNS], rows)


def _csv_of_averages(scored: Scored, means: Sequence[Average]) -> str:
    """One line per way to average; the floors are averaged in the same way."""
    rows = []
    for average in means:
        tallies = [scored.table[cell] for cell in average.cells]
        beside = [[tally.chance for tally in tallies], [tally.blind for tally in tallies]]
        beside += [[_hidden(scored, cell) for cell in average.cells], [tally.unparsed for tally in tallies]]
        beside.append([tally.cut_off for tally in tallies])
        known = [
            None if None in shares else mean([share for share in shares if share is not None]) for shares in beside
        ]
        counts = [str(len(tallies)), str(sum(tally.n for tally in tallies))]
        rows.append([average.name, *counts, *map(percent, (average.mean, average.stderr, *known))])
    head = ["average", "groups", "n", "accuracy", "stderr", "chance", "blind_floor", "without_picture"]
    head += ["unparsed_share", "cut_off_share"]
    return csv_text(head, rows)


# --------------------------------------------------------------------------------------------------- matrices


def matrix_section(matrix: Matrix[Tally], marks: Marks, name: str = "") -> Section:
    """Trained on x tested on, within a split family; `name` tells one from others of the family in a report."""
    title = marked(f"Trained on x tested on, by {matrix.family}{name and f': {name}'}", marks)
    stem = f"trained_on_x_tested_on_{matrix.family}{name and f'_{name}'}"
    note = f"{len(matrix.rows)} runs (rows), tested on {len(matrix.columns)} sets (columns)"
    section = Section(title, warned(marks))
    section.sheets = [_matrix_sheet(matrix, marks)]
    if any(tally.blind is not None for tally in matrix.cells.values()):
        section.sheets.append(_blind_sheet(matrix))
    section.figures[stem] = accuracy_matrix(matrix, title, note)
    section.files[f"{stem}.csv"] = csv_text(
        ["trained_on", "tested_on", *COLUMNS],
        [
            [row, column, *figures(matrix.cells[row, column])]
            for row in matrix.rows
            for column in matrix.columns
            if (row, column) in matrix.cells
        ],
    )
    return section


def _matrix_sheet(matrix: Matrix[Tally], marks: Marks) -> Sheet:
    rows = []
    for row in matrix.rows:
        tallies = [matrix.cells.get((row, column)) for column in matrix.columns]
        shown = [
            f"{with_error(t.estimate.mean, t.estimate.stderr)} ({t.n:,})" if t and t.estimate else BLANK
            for t in tallies
        ]
        asked = [tally.asked for tally in tallies if tally and tally.asked]
        average = (
            with_error(*mean_of_means([([r.correct for r in group], [r.image for r in group]) for group in asked]))
            if asked
            else BLANK
        )
        rows.append([row, *shown, average])
    note = "Accuracy ± standard error clustered by picture, in per cent (number of questions). Rows: trained on."
    return Sheet(marked("Accuracy", marks), ["", *matrix.columns, "unweighted mean"], rows, [note])


def _blind_sheet(matrix: Matrix[Tally]) -> Sheet:
    def shown(cell: Cell) -> str:
        tally = matrix.cells.get(cell)
        return (percent(tally.blind, 1) if tally else "") or BLANK

    rows = [[row, *(shown((row, column)) for column in matrix.columns)] for row in matrix.rows]
    return Sheet(
        "Blind floor", ["", *matrix.columns], rows, ["Guessing by option text from each row's training split."]
    )
