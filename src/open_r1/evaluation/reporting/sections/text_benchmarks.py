"""The table of text benchmarks: a row per run, a column per source, in the layout of open-medical-r1's table.

It adds the number of questions, standard errors, unparsed answers, guessing, and paired differences. A run may have a
result file per set or one with all sets; the manifests tell which files belong together.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from open_r1.common.errors import UserError
from open_r1.evaluation.comparing.pairs import Pairs, corrected, matched, of_pairs
from open_r1.evaluation.comparing.scored_runs import LENIENT, Marks, Scored, all_marks, by_run
from open_r1.evaluation.reporting.heatmaps import HOLM_STAR, STAR, star
from open_r1.evaluation.reporting.sections.csv_columns import COLUMNS, tally_values
from open_r1.evaluation.reporting.sections.differences import (
    DIFFERENCE_COLUMNS,
    by_chance,
    difference_values,
    interval,
)
from open_r1.evaluation.reporting.sections.section import Section, marked, warned
from open_r1.evaluation.reporting.table_formats import BLANK, Sheet, csv_text, percent, points, with_error
from open_r1.evaluation.scoring.results import Result
from open_r1.evaluation.scoring.statistics import Difference, mean_of_means
from open_r1.evaluation.scoring.tallies import ALL, TEXT, Tally, is_text, sources, tabulate

MEAN = "unweighted mean"
_NO_BREAK = "\u00a0"  # no-break space


@dataclass(frozen=True)
class TextRun:
    """One run's answers to the text questions."""

    name: str
    members: Sequence[Scored]

    @cached_property
    def results(self) -> list[Result]:
        """The text questions of all its files."""
        return [result for scored_run in self.members for result in scored_run.file.results if is_text(result)]

    @cached_property
    def ids(self) -> set[str]:
        """The ids of these questions."""
        return {result.id for result in self.results}

    @cached_property
    def tallies(self) -> dict[str, Tally]:
        """The tallies by source."""
        return {name: tally for (row, name), tally in tabulate(self.results).items() if row == TEXT and name != ALL}


@dataclass(frozen=True)
class TextComparison:
    """Second minus first run, question by question."""

    first: TextRun
    second: TextRun

    @property
    def name(self) -> str:
        return f"{self.second.name} minus {self.first.name}"

    @cached_property
    def pairs(self) -> dict[str, Pairs]:
        """The questions that both answered, by source."""
        cells = matched(self.first.results, self.second.results)
        return {name: pairs for (row, name), pairs in cells.items() if row == TEXT and name != ALL}


@dataclass(frozen=True)
class Benchmarks:
    """All runs that answered text questions, and which of them are compared."""

    runs: Sequence[TextRun]
    comparisons: Sequence[TextComparison]

    @property
    def names(self) -> list[str]:
        """The sources, in the order of the published table."""
        return sources((TEXT, name) for run in self.runs for name in run.tallies)

    @cached_property
    def differences(self) -> dict[tuple[str, str], tuple[Difference, float | None]]:
        """By comparison (its name) and source: the difference, and its p after Holm's correction for all of them."""
        cells = {
            (comparison.name, name): of_pairs(pairs)
            for comparison in self.comparisons
            for name, pairs in comparison.pairs.items()
        }
        p_values = corrected([*cells.values()])
        return {cell: (difference, p) for (cell, difference), p in zip(cells.items(), p_values, strict=True)}

    @property
    def marks(self) -> Marks:
        """The marks of all files."""
        return all_marks(scored_run for run in self.runs for scored_run in run.members)


def benchmarks_of(scored: Sequence[Scored], reported: int) -> Benchmarks | None:
    """The runs that answered text questions; None for a single run on a single source.

    Args:
        scored: all files; those after the first `reported` are what the others are compared with. Where there are none
            and the files are of two runs, the second is compared with the first.

    Raises:
        UserError: a run could be compared with several.
    """
    runs = [TextRun(name, members) for name, members in by_run(scored).items()]
    runs = [run for run in runs if run.results]
    reference_names = {run.name for run in scored[reported:]}
    references = [run for run in runs if run.members[0].name in reference_names]
    reported_runs = [run for run in runs if run not in references]
    if references:
        counterparts = [(_counterpart(run, references), run) for run in reported_runs]
        comparisons = [TextComparison(reference, run) for reference, run in counterparts if reference is not None]
    else:
        comparisons = [TextComparison(*runs)] if len(runs) == 2 and runs[0].ids & runs[1].ids else []
    benchmarks = Benchmarks([*references, *reported_runs], comparisons)
    return benchmarks if len(runs) > 1 or len(benchmarks.names) > 1 else None


def _counterpart(run: TextRun, candidates: Sequence[TextRun]) -> TextRun | None:
    """The candidate with the same questions; among several the one asked in the same way (image, options, prompt)."""
    matching = [candidate for candidate in candidates if candidate.ids & run.ids]
    if len(matching) > 1:
        matching = [candidate for candidate in matching if _asked_as(candidate) == _asked_as(run)] or matching
    if len(matching) > 1:
        raise UserError(
            f"{run.name} could be compared with {matching[0].name} and with {matching[1].name}; "
            "leave one of them out, or report in two calls"
        )
    return matching[0] if matching else None


def _asked_as(run: TextRun) -> tuple:
    scored_run = run.members[0]
    return (*scored_run.shown_as, scored_run.file.manifest.get("mode"), scored_run.file.manifest.get("prompt_name"))


def benchmark_section(benchmarks: Benchmarks) -> Section:
    """The table of all runs, with the differences between those that are compared."""
    section = Section(marked("Text benchmarks", benchmarks.marks), warned(benchmarks.marks))
    section.sheets = [_sheet(benchmarks)]
    if LENIENT in benchmarks.marks:
        section.sheets.append(_matching_sheet(benchmarks))
    section.files["benchmarks.csv"] = _csv(benchmarks)
    if benchmarks.comparisons:
        section.files["difference_by_source.csv"] = _differences_csv(benchmarks)
    return section


def _sheet(benchmarks: Benchmarks) -> Sheet:
    counts = {
        name: [run.tallies[name].n for run in benchmarks.runs if name in run.tallies] for name in benchmarks.names
    }
    same_count = {name: len(set(numbers)) == 1 for name, numbers in counts.items()}
    head = [name + f" (n{_NO_BREAK}={_NO_BREAK}{counts[name][0]:,})" * same_count[name] for name in benchmarks.names]
    rows = [[run.name, *_accuracies(run, same_count), _mean(run, benchmarks.names)] for run in benchmarks.runs]
    rows += [
        [comparison.name, *_differences(benchmarks, comparison), _mean_difference(comparison, benchmarks.names)]
        for comparison in benchmarks.comparisons
    ]
    if LENIENT not in benchmarks.marks:  # with it every answer is parsed
        rows += [
            [f"unparsed: {run.name}", *(_share(run, name) for name in benchmarks.names), BLANK]
            for run in benchmarks.runs
        ]
    rows.append(["guessing", *(_guessing(benchmarks.runs, name) for name in benchmarks.names), BLANK])
    notes = (
        [
            "Accuracy ± standard error in per cent; differences in points with their 95 % interval, on the questions "
            f"that both runs answered. {STAR} The interval excludes zero; {HOLM_STAR} also after Holm's correction."
        ]
        if benchmarks.comparisons
        else ["Accuracy ± standard error in per cent."]
    )
    notes += by_chance(*map(list, zip(*benchmarks.differences.values(), strict=True))) if benchmarks.comparisons else []
    if not all(same_count.values()):
        notes.append("Where runs answered different numbers of questions, the number stands in brackets.")
    return Sheet(marked("Accuracy by checkpoint and benchmark", benchmarks.marks), ["", *head, MEAN], rows, notes)


def _accuracies(run: TextRun, same_count: Mapping[str, bool]) -> list[str]:
    cells = []
    for name, is_same in same_count.items():
        tally = run.tallies.get(name)
        if tally is None or tally.estimate is None:
            cells.append(BLANK)
        else:
            count = "" if is_same else f" ({tally.n:,})"
            cells.append(with_error(tally.estimate.mean, tally.estimate.stderr) + count)
    return cells


def _mean(run: TextRun, names: Sequence[str]) -> str:
    """The unweighted mean over all sources; blank for a run that lacks one."""
    groups = [run.tallies[name].answered for name in names if name in run.tallies]
    if len(groups) < len(names) or not all(groups):
        return BLANK
    return with_error(*mean_of_means([([r.correct for r in group], [r.image for r in group]) for group in groups]))


def _differences(benchmarks: Benchmarks, comparison: TextComparison) -> list[str]:
    cells = []
    for name in benchmarks.names:
        if (comparison.name, name) not in benchmarks.differences:
            cells.append(BLANK)
            continue
        here, p_holm = benchmarks.differences[comparison.name, name]
        texts = points(here.mean, here.stderr), f"{interval(here).strip()} {star(here, p_holm)}".strip()
        cells.append(" ".join(text.replace(" ", _NO_BREAK) for text in texts).strip())
    return cells


def _mean_difference(comparison: TextComparison, names: Sequence[str]) -> str:
    if len(comparison.pairs) < len(names):
        return BLANK
    groups = [
        ([int(new.correct) - int(old.correct) for old, new in pairs], [new.image for _, new in pairs])
        for pairs in comparison.pairs.values()
    ]
    return points(*mean_of_means(groups))


def _share(run: TextRun, name: str) -> str:
    tally = run.tallies.get(name)
    return percent(tally.unparsed, 1) if tally and tally.n else BLANK


def _guessing(runs: Sequence[TextRun], name: str) -> str:
    """Uniform guessing on the questions of the run that answered most of them."""
    largest = max((run.tallies[name] for run in runs if name in run.tallies), key=lambda tally: tally.n)
    return percent(largest.chance, 1) or BLANK


def _matching_sheet(benchmarks: Benchmarks) -> Sheet:
    """By source: the accuracy by lenient matching and by our stored grades."""
    head = ["", "source", "questions", "first match", "last match", "counted", "guessed", "stored grade"]
    rows = [
        [
            run.name,
            regraded.source,
            f"{regraded.score.n:,}",
            percent(regraded.score.first / regraded.score.n, 1),
            percent(regraded.score.last / regraded.score.n, 1),
            regraded.score.counted,
            percent(regraded.score.guessed / regraded.score.n, 1),
            percent(regraded.stored / regraded.score.n, 1),
        ]
        for run in benchmarks.runs
        for scored_run in run.members
        for regraded in scored_run.regraded
    ]
    note = (
        "Right answers in per cent by the first and by the last match; the better one is counted. Guessed: answers "
        "found only by the text of an option or its similarity. Stored grade: as eval/infer.py graded."
    )
    return Sheet(marked("How the answers were matched", benchmarks.marks), head, rows, [note])


def _csv(benchmarks: Benchmarks) -> str:
    rows = [
        [run.name, name, *tally_values(run.tallies[name])]
        for run in benchmarks.runs
        for name in benchmarks.names
        if name in run.tallies
    ]
    return csv_text(["run", "source", *COLUMNS], rows)


def _differences_csv(benchmarks: Benchmarks) -> str:
    rows = [
        [
            comparison.second.name,
            comparison.first.name,
            name,
            *difference_values(*benchmarks.differences[comparison.name, name]),
        ]
        for comparison in benchmarks.comparisons
        for name in benchmarks.names
        if name in comparison.pairs
    ]
    return csv_text(["run", "minus", "source", *DIFFERENCE_COLUMNS], rows)
