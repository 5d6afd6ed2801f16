"""The section of a matrix: accuracy by training set and test set."""

from open_r1.evaluation.comparing.matrices import Matrix
from open_r1.evaluation.comparing.scored_runs import Marks
from open_r1.evaluation.reporting.heatmaps import accuracy_matrix
from open_r1.evaluation.reporting.sections.csv_columns import COLUMNS, tally_values
from open_r1.evaluation.reporting.sections.section import Section, marked, warned
from open_r1.evaluation.reporting.table_formats import BLANK, Sheet, csv_text, percent, with_error
from open_r1.evaluation.scoring.statistics import mean_of_means
from open_r1.evaluation.scoring.tallies import Cell, Tally


def matrix_section(matrix: Matrix[Tally], marks: Marks, name: str = "") -> Section:
    """Trained on x tested on, within a split family; `name` distinguishes several of a family in a report."""
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
            [row, column, *tally_values(matrix.cells[row, column])]
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
        accuracies = [
            f"{with_error(t.estimate.mean, t.estimate.stderr)} ({t.n:,})" if t and t.estimate else BLANK
            for t in tallies
        ]
        groups = [tally.answered for tally in tallies if tally and tally.answered]
        average = (
            with_error(*mean_of_means([([r.correct for r in group], [r.image for r in group]) for group in groups]))
            if groups
            else BLANK
        )
        rows.append([row, *accuracies, average])
    note = "Accuracy ± standard error clustered by image, in per cent (number of questions). Rows: trained on."
    return Sheet(marked("Accuracy", marks), ["", *matrix.columns, "unweighted mean"], rows, [note])


def _blind_sheet(matrix: Matrix[Tally]) -> Sheet:
    def shown(cell: Cell) -> str:
        tally = matrix.cells.get(cell)
        return (percent(tally.blind, 1) if tally else "") or BLANK

    rows = [[row, *(shown((row, column)) for column in matrix.columns)] for row in matrix.rows]
    return Sheet(
        "Blind floor", ["", *matrix.columns], rows, ["Guessing by option text from each row's training split."]
    )
