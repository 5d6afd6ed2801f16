"""The first section of a report: a row per run; runs on the same questions share a table with their differences."""

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from open_r1.evaluation.comparing.pairs import Comparison, corrected
from open_r1.evaluation.comparing.run_names import set_names
from open_r1.evaluation.comparing.scored_runs import LENIENT, Scored, all_marks
from open_r1.evaluation.reporting.heatmaps import HOLM_STAR, STAR
from open_r1.evaluation.reporting.sections.csv_columns import COLUMNS, tally_values
from open_r1.evaluation.reporting.sections.differences import (
    DIFFERENCE_COLUMNS,
    difference_values,
    interval,
    p_value,
    starred,
)
from open_r1.evaluation.reporting.sections.section import Section, marked, warned
from open_r1.evaluation.reporting.sections.single_run import LENIENT_ACCURACY, UNKNOWN, cut_off, question_groupings
from open_r1.evaluation.reporting.table_formats import BLANK, Sheet, csv_text, percent, with_error
from open_r1.evaluation.scoring.statistics import Difference, Estimate
from open_r1.evaluation.scoring.tallies import ALL, Average, averages

MEANS = ("modalities", "tasks", "sources", "sets")
_MOST_NAMED = 8  # data sets that a title names


def ranking_section(scored: Sequence[Scored], comparisons: Sequence[Comparison]) -> Section:
    """A row per run: accuracy with floors and shares, and the paired difference if the run is compared.

    Args:
        scored: all runs, including the references.
        comparisons: of each run the first one is shown.
    """
    groups: dict[Hashable, list[Scored]] = defaultdict(list)
    for run in sorted(scored, key=lambda run: not run.is_reference):
        groups[_questions(run)].append(run)
    together = [runs for runs in groups.values() if len(runs) > 1]
    apart = [runs[0] for runs in groups.values() if len(runs) == 1]
    section = Section(marked("Runs", all_marks(scored)), warned(all_marks(scored)))
    of_run = {comparison.second.name: comparison for comparison in reversed(comparisons)}
    rows: list[list[str]] = []
    for runs in [*together, *([apart] if apart else [])]:
        count = max(run.table[ALL, ALL].n for run in runs)
        title = f"{len(runs)} runs on the same {count:,} questions: {_sets(runs[0])}"
        if runs is apart:
            title = f"{len(runs)} runs on different questions" if len(runs) > 1 else f"1 run on {_sets(runs[0])}"
        compared = {run.name: of_run[run.name] for run in runs if run.name in of_run}
        p_holm = dict(zip(compared, corrected([_overall(comparison) for comparison in compared.values()]), strict=True))
        section.sheets.append(_sheet(runs, compared, p_holm, title))
        section.sheets += [] if runs is apart else _by_label(runs)
        rows += [_csv_row(run, compared.get(run.name), p_holm) for run in runs]
    section.files["runs.csv"] = csv_text([*_HEAD, *COLUMNS, *_OF_MEANS, *_OF_DIFFERENCE], rows)
    return section


def _questions(run: Scored) -> Hashable:
    """A key that is equal for two runs on the same questions."""

    def data_key(file: Any) -> Hashable:
        manifest = file.manifest
        data = manifest.get("data_sha256") or manifest.get("data") or frozenset(result.id for result in file.results)
        return data, manifest.get("split"), manifest.get("limit")

    return frozenset(map(data_key, run.files))


def _sets(run: Scored) -> str:
    names = set_names(run.files)
    unnamed = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {unnamed} more" if unnamed > 0 else "")


def _overall(comparison: Comparison) -> Difference:
    return comparison.differences[ALL, ALL]


def _means(run: Scored) -> dict[str, Average]:
    """The unweighted means over more than one modality, task, source or set."""
    return {mean.over: mean for mean in averages(run.table) if mean.over in MEANS and len(mean.cells) > 1}


def _sheet(
    runs: Sequence[Scored], compared: Mapping[str, Comparison], p_holm: Mapping[str, float | None], title: str
) -> Sheet:
    marks = all_marks(runs)
    means = {run.name: _means(run) for run in runs}
    over = [name for name in MEANS if any(name in means[run.name] for run in runs)]
    baselines = dict.fromkeys(comparison.first.name for comparison in compared.values())
    head = ["run", LENIENT_ACCURACY if LENIENT in marks else "accuracy", "95 % interval", "questions"]
    if compared:
        head += [f"minus {next(iter(baselines))}" if len(baselines) == 1 else "minus", "95 % interval", "p", "p (Holm)"]
    numbers = {name: {len(of_run[name].cells) for of_run in means.values() if name in of_run} for name in over}
    head += [" ".join(["mean over", *map(str, n if len(n) == 1 else ()), name]) for name, n in numbers.items()]
    head += ["guessing", "blind floor", "unparsed", "cut off"]
    rows = []
    for run in runs:
        tally = run.table[ALL, ALL]
        row = [run.name, *_accuracy(tally.estimate), f"{tally.n:,}"]
        if compared:
            row += _difference(compared.get(run.name), p_holm, len(baselines) > 1)
        row += [_mean(means[run.name].get(name), len(numbers[name]) > 1) for name in over]
        row += [percent(tally.chance, 1), percent(tally.blind, 1), percent(tally.unparsed, 1), cut_off([tally])]
        rows.append([value or BLANK for value in row])
    notes = _notes(runs, bool(over), rows)
    if compared:
        notes.append(f"{STAR} The 95 % interval excludes zero; {HOLM_STAR} also after Holm's correction for the rows.")
    return Sheet(marked(title, marks), head, rows, notes)


def _accuracy(estimate: Estimate | None) -> list[str]:
    if estimate is None:
        return ["", ""]
    return [with_error(estimate.mean, estimate.stderr), f"{percent(estimate.low, 1)} to {percent(estimate.high, 1)}"]


def _by_label(runs: Sequence[Scored]) -> list[Sheet]:
    """The accuracy of each run on each modality and on each task, where there are several."""
    sheets = []
    for grouping in question_groupings([cell for run in runs for cell in run.table]):
        if grouping.name in ("source", "set") or len(grouping.cells) < 2:  # sources have their own table
            continue
        rows = []
        for run in runs:
            estimates = [run.table[cell].estimate if cell in run.table else None for _, cell in grouping.cells]
            rows.append(
                [
                    run.name,
                    *(with_error(estimate.mean, estimate.stderr) if estimate else BLANK for estimate in estimates),
                ]
            )
        marks = all_marks(runs)
        sheets.append(Sheet(marked(f"By {grouping.name}", marks), ["run", *(name for name, _ in grouping.cells)], rows))
    return sheets


def _mean(average: Average | None, numbered: bool) -> str:
    if average is None:
        return ""
    return with_error(average.mean, average.stderr) + (f" ({len(average.cells)})" if numbered else "")


def _difference(comparison: Comparison | None, p_holm: Mapping[str, float | None], named: bool) -> list[str]:
    if comparison is None:
        return [""] * 4
    overall, corrected = _overall(comparison), p_holm[comparison.second.name]
    name = f"{comparison.first.name}: " if named else ""
    limits = interval(overall).strip(" []").replace(", ", " to ")
    return [name + starred(overall, corrected), limits, p_value(overall, overall.p), p_value(overall, corrected)]


def _notes(runs: Sequence[Scored], averaged: bool, rows: Sequence[Sequence[str]]) -> list[str]:
    notes = []
    if averaged:
        notes.append(
            "Accuracy is weighted: every question counts the same. In the mean over tasks every task does, and so on."
        )
    if any(run.file.missing for run in runs):
        unfinished = ", ".join(f"{run.name} ({run.file.missing:,})" for run in runs if run.file.missing)
        notes.append(f"Not finished, questions without a result: {unfinished}.")
    if any(UNKNOWN in row for row in rows):
        notes.append("Cut off is unknown where a result file does not say which completions the token limit ended.")
    return notes


# --------------------------------------------------------------------------------------------------------- CSV

_HEAD = ("run", "data")
_OF_MEANS = tuple(f"{statistic}_{name}" for name in MEANS for statistic in ("number_of", "mean_over", "stderr_over"))
_OF_DIFFERENCE = ("minus", *(name if name == "difference" else f"difference_{name}" for name in DIFFERENCE_COLUMNS))


def _csv_row(run: Scored, comparison: Comparison | None, p_holm: Mapping[str, float | None]) -> list[str]:
    means = _means(run)
    values = [run.name, " ".join(set_names(run.files)), *tally_values(run.table[ALL, ALL])]
    for name in MEANS:
        average = means.get(name)
        values += (
            [""] * 3
            if average is None
            else [
                str(len(average.cells)),
                percent(average.mean),
                percent(average.stderr),
            ]
        )
    if comparison is None:
        return [*values, *[""] * len(_OF_DIFFERENCE)]
    return [*values, comparison.first.name, *difference_values(_overall(comparison), p_holm[run.name])]
