"""The first section of a report: a row per run; runs on the same questions share a table with their differences."""

from collections.abc import Mapping, Sequence

from open_r1.evaluation.comparing.changed_runs import Change
from open_r1.evaluation.comparing.pairs import Comparison, corrected
from open_r1.evaluation.comparing.run_names import set_names
from open_r1.evaluation.comparing.scored_runs import LENIENT, Scored, all_marks
from open_r1.evaluation.reporting.heatmaps import HOLM_STAR, STAR
from open_r1.evaluation.reporting.sections.csv_columns import COLUMNS, accuracy_without_image, tally_values
from open_r1.evaluation.reporting.sections.differences import (
    DIFFERENCE_COLUMNS,
    difference_values,
    interval,
    p_value,
    starred,
)
from open_r1.evaluation.reporting.sections.headline import (
    by_questions,
    described,
    headline,
    named_sets,
    ranked,
    ranking_chart,
    report_title,
    so_far,
)
from open_r1.evaluation.reporting.sections.section import Section, marked, warned
from open_r1.evaluation.reporting.sections.single_run import LENIENT_ACCURACY, UNKNOWN, cut_off, question_groupings
from open_r1.evaluation.reporting.table_formats import BLANK, Sheet, csv_text, percent, points, with_error
from open_r1.evaluation.scoring.statistics import Difference, Estimate
from open_r1.evaluation.scoring.tallies import ALL, Average, Cell, only_text

WithoutLooking = Mapping[str, Mapping[Cell, Estimate]]
NOT_LOOKING = "not looking"
MEANS = ("modalities", "tasks", "sources", "sets")


def ranking_section(
    scored: Sequence[Scored],
    comparisons: Sequence[Comparison],
    changes: Sequence[Change] = (),
    without_looking: WithoutLooking | None = None,
) -> Section:
    """The beginning of a report: one sentence, one chart, and a row per run with its floors and paired difference.

    Args:
        scored: all runs, including the references.
        comparisons: of each run the first one is shown.
        changes: the runs to which something else was shown, which have a table of their own.
        without_looking: by run and cell the share that is right without looking, where it is known.
    """
    without_looking = without_looking or {}
    changed = {change.changed.name for change in changes}
    ordinary = sorted((run for run in scored if run.name not in changed), key=lambda run: not run.is_reference)
    groups = by_questions(ordinary)
    together = [runs for runs in groups if len(runs) > 1]
    apart = [runs[0] for runs in groups if len(runs) == 1]
    marks = all_marks(scored)
    section = Section(marked("Runs", marks), warned(marks))
    compared_runs = {comparison.second.name: comparison for comparison in reversed(comparisons)}
    section.texts = [*so_far(scored), *headline(groups, compared_runs)]
    charted = max(groups, key=len)
    if len(charted) > 1 or only_text(charted[0].table):
        title = described(charted[0]) if len(charted) == 1 else report_title(charted).removeprefix("Accuracy of ")
        figure = ranking_chart(charted, marked(f"Accuracy: {title}", marks))
        section.figures |= {} if figure is None else {"accuracy": figure}
    rows: list[list[str]] = []
    for runs in [*together, *([apart] if apart else [])]:
        count = max(run.table[ALL, ALL].n for run in runs)
        title = f"{len(runs)} runs on the same {count:,} questions: {named_sets(runs[0])}"
        if runs is apart:
            title = f"{len(runs)} runs on different questions" if len(runs) > 1 else f"1 run on {named_sets(runs[0])}"
        compared = {run.name: compared_runs[run.name] for run in runs if run.name in compared_runs}
        p_holm = dict(zip(compared, corrected([_overall(comparison) for comparison in compared.values()]), strict=True))
        section.sheets.append(_sheet(runs, compared, p_holm, title, runs is apart, without_looking))
        section.sheets += [] if runs is apart else _by_label(runs)
        rows += [_csv_row(run, compared.get(run.name), p_holm, without_looking.get(run.name)) for run in runs]
    if changes:
        section.sheets.insert(1, _changes_sheet(changes))
        p_holm = _p_of_changes(changes)
        rows += [_csv_row(change.changed, change.comparison, p_holm) for change in changes]
    section.files["runs.csv"] = csv_text([*_HEAD, *COLUMNS, *_OF_MEANS, *_OF_DIFFERENCE], rows)
    return section


def _p_of_changes(changes: Sequence[Change]) -> dict[str, float | None]:
    adjusted = corrected([_overall(change.comparison) for change in changes])
    return dict(zip([change.changed.name for change in changes], adjusted, strict=True))


def _changes_sheet(changes: Sequence[Change]) -> Sheet:
    """A row for each run to which something else was shown: its accuracy, and what that changes."""
    p_holm, rows = _p_of_changes(changes), []
    for change in changes:
        difference = _overall(change.comparison)
        estimate = change.changed.table[ALL, ALL].estimate
        values = [change.changed.name, change.what, change.ordinary.name, *_accuracy(estimate)]
        values += [f"{difference.n:,}", *_difference(change.comparison, p_holm, False)[: 4 if len(changes) > 1 else 3]]
        rows.append([value or BLANK for value in values])
    marks = all_marks([change.changed for change in changes])
    head = ["run", "shown", "as usual", "accuracy", "95 % interval", "n"]
    head += ["minus as usual", "95 % interval", "p", *["p (Holm)"] * (len(changes) > 1)]
    notes = ["The same checkpoint on the questions that both runs answered; a loss is negative."]
    return Sheet(marked("The same checkpoints when something else is shown", marks), head, rows, notes)


def _overall(comparison: Comparison) -> Difference:
    return comparison.differences[ALL, ALL]


def _means(run: Scored) -> dict[str, Average]:
    """The unweighted means over more than one modality, task, source or set."""
    return {mean.over: mean for mean in run.averages if mean.over in MEANS and len(mean.cells) > 1}


def _sheet(
    runs: Sequence[Scored],
    compared: Mapping[str, Comparison],
    p_holm: Mapping[str, float | None],
    title: str,
    with_labels: bool,
    without_looking: WithoutLooking,
) -> Sheet:
    """The table of some runs, the most accurate first.

    Args:
        runs: the rows.
        compared: the comparison of each run, if it has one, by its name.
        p_holm: the adjusted p of each of these.
        title: of the table.
        with_labels: whether it shows the means over modalities and tasks, which otherwise have tables of their own.
        without_looking: by run and cell the share that is right without looking.
    """
    marks = all_marks(runs)
    runs = ranked(runs)
    means = {run.name: _means(run) for run in runs}
    shown_means = MEANS if with_labels else MEANS[2:]
    over = [name for name in shown_means if any(name in means[run.name] for run in runs)]
    baselines = dict.fromkeys(comparison.first.name for comparison in compared.values())
    head = ["run", LENIENT_ACCURACY if LENIENT in marks else "accuracy", "95 % interval", "n"]
    if compared:
        head += [f"minus {next(iter(baselines))}" if len(baselines) == 1 else "minus", "95 % interval", "p"]
        head += ["p (Holm)"] * (len(compared) > 1)
    numbers = {name: {len(of_run[name].cells) for of_run in means.values() if name in of_run} for name in over}
    head += [" ".join(["mean over", *map(str, n if len(n) == 1 else ()), name]) for name, n in numbers.items()]
    looked = any(run.name in without_looking for run in runs)
    # With one column more the heads of others are shorter, so that the table fits a page of 1,400 pixels.
    floors = ["blind", "above it", "no image", NOT_LOOKING] if looked else ["blind floor", "above it", "without image"]
    head += ["guessing", *floors, "unparsed", "cut off"]
    rows = []
    for run in runs:
        tally = run.table[ALL, ALL]
        row = [run.name, *_accuracy(tally.estimate), f"{tally.n:,}"]
        if compared:
            row += _difference(compared.get(run.name), p_holm, len(baselines) > 1)[: 4 if len(compared) > 1 else 3]
        row += [_mean(means[run.name].get(name), len(numbers[name]) > 1) for name in over]
        row += [
            percent(tally.chance, 1),
            percent(tally.blind, 1),
            points(*tally.above_blind) if tally.above_blind else "",
        ]
        unseen = without_looking.get(run.name, {}).get((ALL, ALL))
        row.append(percent(accuracy_without_image(run, (ALL, ALL)), 1))
        row += [with_error(unseen.mean, unseen.stderr) if unseen else ""] * looked
        row += [percent(tally.unparsed, 1), cut_off([tally])]
        rows.append([value or BLANK for value in row])
    notes = _notes(runs, bool(over), rows)
    if looked:
        notes.append(
            "Blind: the blind floor. No image: accuracy without the image. "
            f"{NOT_LOOKING.capitalize()}: right as usual and in every run that was not shown the image."
        )
    if compared:
        holm = f"; {HOLM_STAR} also after Holm's correction for the rows" if len(compared) > 1 else ""
        notes.append(f"{STAR} The 95 % interval excludes zero{holm}.")
    return Sheet(marked(title, marks), head, rows, notes, _best(runs))


def _best(runs: Sequence[Scored]) -> frozenset[tuple[int, int]]:
    """The cells of the highest accuracy among several runs."""
    shares = [run.table[ALL, ALL].estimate for run in runs]
    highest = max((estimate.mean for estimate in shares if estimate is not None), default=None)
    if len(runs) < 2:
        return frozenset()
    return frozenset((y, 1) for y, estimate in enumerate(shares) if estimate is not None and estimate.mean == highest)


def _accuracy(estimate: Estimate | None) -> list[str]:
    if estimate is None:
        return ["", ""]
    return [with_error(estimate.mean, estimate.stderr), f"{percent(estimate.low, 1)} to {percent(estimate.high, 1)}"]


def _by_label(runs: Sequence[Scored]) -> list[Sheet]:
    """The accuracy of each run on each modality and on each task, where there are several, and the mean of these."""
    sheets = []
    for grouping in question_groupings([cell for run in runs for cell in run.table]):
        if grouping.name in ("source", "set") or len(grouping.cells) < 2:  # sources have their own table
            continue
        plural = {"modality": "modalities", "task": "tasks"}[grouping.name]
        rows, best = [], set()
        for run in runs:
            estimates = [run.table[cell].estimate if cell in run.table else None for _, cell in grouping.cells]
            cells = [with_error(estimate.mean, estimate.stderr) if estimate else BLANK for estimate in estimates]
            average = _means(run).get(plural)
            numbered = average is not None and len(average.cells) < len(grouping.cells)
            rows.append([run.name, *cells, _mean(average, numbered) or BLANK])
        for x, (_, cell) in enumerate(grouping.cells, 1):
            shares = [run.table[cell].estimate if cell in run.table else None for run in runs]
            highest = max(estimate.mean for estimate in shares if estimate is not None)
            best |= {(y, x) for y, estimate in enumerate(shares) if estimate is not None and estimate.mean == highest}
        marks = all_marks(runs)
        head = ["run", *(name for name, _ in grouping.cells), "unweighted mean"]
        sheets.append(Sheet(marked(f"By {grouping.name}", marks), head, rows, best=frozenset(best)))
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


def _csv_row(
    run: Scored,
    comparison: Comparison | None,
    p_holm: Mapping[str, float | None],
    without_looking: Mapping[Cell, Estimate] | None = None,
) -> list[str]:
    means = _means(run)
    without_image = accuracy_without_image(run, (ALL, ALL))
    unseen = (without_looking or {}).get((ALL, ALL))
    values = [run.name, " ".join(set_names(run.files)), *tally_values(run.table[ALL, ALL], without_image, unseen)]
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
