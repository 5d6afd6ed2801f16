"""The section of one run: its tables, heatmap, CSV files and warnings."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from open_r1.evaluation.comparing.scored_runs import LENIENT, Marks, Scored
from open_r1.evaluation.reporting.heatmaps import accuracy_heatmap
from open_r1.evaluation.reporting.sections.csv_columns import accuracy_without_image, averages_csv, cells_csv
from open_r1.evaluation.reporting.sections.headline import described
from open_r1.evaluation.reporting.sections.section import NOT_DRAWN, Section, marked, warned
from open_r1.evaluation.reporting.table_formats import BLANK, Sheet, percent, with_error
from open_r1.evaluation.scoring.statistics import Estimate, mean_of_means
from open_r1.evaluation.scoring.tallies import (
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


def run_section(
    scored: Scored, folder: str, has_map: bool = True, without_looking: Mapping[Cell, Estimate] | None = None
) -> Section:
    """Accuracy of one run with floors, intervals and shares.

    Args:
        scored: the run.
        folder: where its files go in the report.
        has_map: whether its heatmap is drawn; otherwise the section says that it is not.
        without_looking: the share that is right without looking, by cell; for the CSV files.
    """
    table, title = scored.table, marked(scored.name, scored.marks)
    means = scored.averages
    section = Section(title, _warnings(scored), single=True)
    groupings = question_groupings(table)
    section.sheets = [_run_sheet(scored, grouping) for grouping in groupings]
    section.files = {
        f"{folder}by_{grouping.name}.csv": cells_csv(
            scored,
            [grouping.name],
            [([name], cell) for name, cell in [*grouping.cells, (ALL, (ALL, ALL))]],
            without_looking,
        )
        for grouping in groupings
    }
    section.files[f"{folder}averages.csv"] = averages_csv(scored, means)
    if only_text(table):
        return section
    section.sheets.append(_grid_sheet(table, scored.marks))
    if has_map:
        lines = "; ".join(f"{average.name} {with_error(average.mean, average.stderr)}" for average in means)
        heading = marked(f"Accuracy: {described(scored)}", scored.marks)
        section.figures[f"{folder}heatmap"] = accuracy_heatmap(table, heading, lines)
    else:
        section.texts.append(NOT_DRAWN)
    named_cells = [(list(cell), cell) for cell in grid(table)]
    leaf = f"{folder}by_modality_and_task.csv"
    section.files[leaf] = cells_csv(scored, ["modality", "task"], named_cells, without_looking)
    return section


class Grouping(NamedTuple):
    """One way to group the questions: by what, and the names and cells of the groups."""

    name: str
    cells: list[tuple[str, Cell]]


def question_groupings(cells: Iterable[Cell]) -> list[Grouping]:
    """By modality and task if there are images, by source if there are text questions, by set if there are several."""
    present = list(cells)
    groupings = []
    if not only_text(present):
        groupings.append(Grouping("modality", [(name, (name, ALL)) for name in modalities(present)]))
        groupings.append(Grouping("task", [(name, (ALL, name)) for name in tasks(present)]))
    if names := sources(present):
        groupings.append(Grouping("source", [(name, (TEXT, name)) for name in names]))
    if sets := [cell for cell in present if cell[0] == SET]:
        groupings.append(Grouping("set", [(cell[1], cell) for cell in sets]))
    return groupings


def _warnings(scored: Scored) -> list[str]:
    overall, file = scored.table[ALL, ALL], scored.file
    warnings = warned(scored.marks)
    if not overall.n:
        warnings.append("No question could be asked.")
    if overall.unreadable:
        warnings.append(
            f"{overall.unreadable:,} questions were not asked (unreadable image or the like) and count nowhere."
        )
    if file.missing:
        warnings.append(f"{file.missing:,} questions have no result yet: the run is not finished.")
    if file.torn:
        warnings.append("The last line is unfinished and was left out: the run was stopped while writing it.")
    return warnings


_HEAD = ("", "questions", "accuracy", "95 % interval", "guessing", "blind floor")
LENIENT_ACCURACY = "accuracy, lenient"
UNKNOWN = "unknown"
_IMAGED = ("without image", "images not in training")


def _run_sheet(scored: Scored, grouping: Grouping) -> Sheet:
    """Accuracies of these groups, then the averages: weighted, and unweighted over the groups."""
    table, with_images = scored.table, grouping.name != "source"
    k = table[ALL, ALL].samples
    drawn = (f"one of {k} samples", f"best of {k}") if k > 1 else ()
    names = [LENIENT_ACCURACY if name == "accuracy" and LENIENT in scored.marks else name for name in _HEAD]
    head = [*names, *(_IMAGED if with_images else ()), *drawn, "unparsed", "cut off"]
    rows = [[name, *_row(scored, [cell], with_images)] for name, cell in grouping.cells]
    for average in averages(table):
        if average.over in (
            "questions",
            f"{grouping.name.removesuffix('y')}ies",
            f"{grouping.name}s",
        ):  # modalities, tasks
            rows.append([average.name, *_row(scored, average.cells, with_images, average)])
    return Sheet(marked(f"Accuracy by {grouping.name}", scored.marks), head, rows, _notes(scored, k, with_images))


def _row(scored: Scored, cells: Sequence[Cell], with_images: bool, average: Average | None = None) -> list[str]:
    """The columns after the name: of one cell, or the unweighted mean over several."""
    tallies = [scored.table[cell] for cell in cells]
    estimate = tallies[0].estimate if len(tallies) == 1 else None
    if average is not None:
        accuracy = with_error(average.mean, average.stderr)
    else:
        accuracy = "" if estimate is None else with_error(estimate.mean, estimate.stderr)
    hidden = [accuracy_without_image(scored, cell) for cell in cells] if with_images else []
    k = scored.table[ALL, ALL].samples
    shares = [[tally.pass_at(number) for tally in tallies] for number in ((1, k) if k > 1 else ())]
    values = [
        f"{sum(tally.n for tally in tallies):,}",
        accuracy,
        "" if estimate is None else f"{percent(estimate.low, 1)} to {percent(estimate.high, 1)}",
        _mean_of([tally.chance for tally in tallies]),
        _mean_of([tally.blind for tally in tallies]),
        *([_mean_of(hidden), _unseen(tallies)] if with_images else []),
        *map(_mean_of, shares),
        _mean_of([tally.unparsed for tally in tallies]),
        cut_off(tallies),
    ]
    return [value or BLANK for value in values]


def cut_off(tallies: Sequence[Tally]) -> str:
    """The unweighted mean share of completions that the token limit ended, in per cent; blank without completions."""
    shares = [tally.cut_off for tally in tallies if tally.n]
    return (_mean_of(shares) or UNKNOWN) if shares else ""


def _mean_of(shares: Sequence[float | None]) -> str:
    """The unweighted mean in per cent; blank if a share is unknown or there are none."""
    present = [share for share in shares if share is not None]
    return percent(mean(present), 1) if len(present) == len(shares) else ""


def _unseen(tallies: Sequence[Tally]) -> str:
    """Accuracy on the questions whose image is not in training, with standard error and number."""
    groups = [tally.unseen for tally in tallies]
    nonempty = [group for group in groups if group]
    if not nonempty or any(group is None for group in groups):
        return ""
    average, stderr = mean_of_means([([r.correct for r in group], [r.image for r in group]) for group in nonempty])
    return f"{with_error(average, stderr)} ({sum(map(len, nonempty)):,})"


def _notes(scored: Scored, k: int, with_images: bool) -> list[str]:
    """Notes about this run; those for all runs are in `reading_guide`."""
    overall = scored.table[ALL, ALL]
    notes = []
    if overall.blind is None and overall.unseen is None:
        blank = "the blind floor and the images not in training are" if with_images else "the blind floor is"
        notes.append(f"No training split was known, so {blank} blank.")
    if with_images and scored.without_image is None and scored.shown_as[0] == "shown":
        notes.append("No result file of this checkpoint without images is among those given.")
    if k > 1:
        notes.append(f"Accuracy is that of the majority vote of {k} samples; best of {k} is pass@{k}, one is pass@1.")
    return notes


def _grid_sheet(table: Table, marks: Marks) -> Sheet:
    """Modalities down, tasks across, margins last; each cell `accuracy ± stderr (n)`."""
    names = [*columns(table), ALL]

    def cell(modality: str, task: str) -> str:
        tally = table.get((modality, task))
        estimate = tally.estimate if tally else None
        return "" if estimate is None else f"{with_error(estimate.mean, estimate.stderr)} ({estimate.n:,})"

    rows = [[name, *(cell(name, column) for column in names)] for name in [*modalities(table), ALL]]
    note = "Accuracy ± standard error clustered by image, in per cent (number of questions)."
    return Sheet(marked("Accuracy by modality and task", marks), ["", *names], rows, [note])
