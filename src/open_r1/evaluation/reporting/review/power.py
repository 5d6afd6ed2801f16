"""The smallest difference that a comparison could have detected, cell by cell."""

from collections.abc import Sequence

from open_r1.evaluation.comparing.pairs import Comparison
from open_r1.evaluation.comparing.scored_runs import all_marks
from open_r1.evaluation.reporting.sections.section import Section, marked
from open_r1.evaluation.reporting.table_formats import BLANK, Sheet, csv_text, percent
from open_r1.evaluation.scoring.statistics import detectable
from open_r1.evaluation.scoring.tallies import ALL, Cell, columns, modalities

COLUMNS = ("second", "first", "modality", "task", "n", "pictures", "stderr", "detectable", "tests", "detectable_holm")
MOST_GRIDS = 3  # comparisons that the page shows; the CSV file has all


def power_section(comparisons: Sequence[Comparison]) -> Section | None:
    """For each comparison a table of modality x task; None without comparisons."""
    if not comparisons:
        return None
    marks = all_marks([run for comparison in comparisons for run in (comparison.first, comparison.second)])
    section = Section(marked("Smallest detectable difference", marks))
    section.texts = [
        "The true difference in points that the paired test at p < 0.05 would detect in 80 of 100 repetitions, from "
        "the standard error of the paired difference seen here. A cell without a star says little about differences "
        "smaller than this. The CSV file has it also for the first step of Holm's correction (0.05 / number of cells)."
    ]
    section.sheets = [_grid(comparison) for comparison in comparisons[:MOST_GRIDS]]
    lines = [[*values] for comparison in comparisons for values in _csv_rows(comparison)]
    section.files["detectable.csv"] = csv_text(COLUMNS, lines)
    return section


def _smallest(comparison: Comparison, cell: Cell, tests: int = 1) -> float | None:
    difference = comparison.differences.get(cell)
    return None if difference is None else detectable(difference, tests)


def _grid(comparison: Comparison) -> Sheet:
    names = [*columns(comparison.differences), ALL]
    rows = [
        [row, *(percent(_smallest(comparison, (row, name)), 1) or BLANK for name in names)]
        for row in [*modalities(comparison.differences), ALL]
    ]
    return Sheet(marked(comparison.name, comparison.marks), ["", *names], rows)


def tests_of(comparison: Comparison, cell: Cell) -> int:
    """How many cells of its kind (single cells, or margins of one side) are tested with a cell."""
    kind = (cell[0] == ALL, cell[1] == ALL)
    return sum((row == ALL, column == ALL) == kind for row, column in comparison.differences)


def _csv_rows(comparison: Comparison) -> list[list[str]]:
    rows = []
    for cell, difference in comparison.differences.items():
        tests = tests_of(comparison, cell)
        values = [comparison.second.name, comparison.first.name, *cell, str(difference.n), str(difference.clusters)]
        values += [percent(difference.stderr), percent(detectable(difference)), str(tests)]
        rows.append([*values, percent(detectable(difference, tests))])
    return rows
