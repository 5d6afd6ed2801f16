"""The text sets side by side: rows are runs, columns sets, in the layout of the published table of open-medical-r1.

What that table lacks stands in ours: the number of questions, errors, what could not be read, guessing, and paired
differences. A run may have a result file per set or one with all of them; files are put together by what they say.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from open_r1.common.errors import UserError
from open_r1.evaluation.comparing.pairs import Pairs, corrected, matched, of_pairs
from open_r1.evaluation.comparing.scored_runs import LENIENT, Marks, Scored, all_marks, by_run
from open_r1.evaluation.reporting.heatmaps import HOLM_STAR, STAR, star
from open_r1.evaluation.reporting.sections.csv_columns import COLUMNS, figures
from open_r1.evaluation.reporting.sections.differences import (
    DIFFERENCE_COLUMNS,
    by_chance,
    difference_figures,
    interval,
)
from open_r1.evaluation.reporting.sections.section import Section, marked, warned
from open_r1.evaluation.reporting.table_formats import BLANK, Sheet, csv_text, percent, points, with_error
from open_r1.evaluation.scoring.results import Result
from open_r1.evaluation.scoring.statistics import Difference, mean_of_means
from open_r1.evaluation.scoring.tallies import ALL, TEXT, Tally, is_text, sources, tabulate

MEAN = "unweighted mean"
_TIE = "\u00a0"  # a space where a line must not end


@dataclass(frozen=True)
class Contender:
    """One run's answers to the text questions."""

    name: str
    members: Sequence[Scored]

    @cached_property
    def results(self) -> list[Result]:
        """The text questions of all its files."""
        return [result for one in self.members for result in one.file.results if is_text(result)]

    @cached_property
    def ids(self) -> set[str]:
        """Those of the questions."""
        return {result.id for result in self.results}

    @cached_property
    def tallies(self) -> dict[str, Tally]:
        """By source."""
        return {name: tally for (row, name), tally in tabulate(self.results).items() if row == TEXT and name != ALL}


@dataclass(frozen=True)
class Gap:
    """Second minus first run, question by question."""

    first: Contender
    second: Contender

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

    runs: Sequence[Contender]
    gaps: Sequence[Gap]

    @property
    def names(self) -> list[str]:
        """The sources, in the order of the published table."""
        return sources((TEXT, name) for run in self.runs for name in run.tallies)

    @cached_property
    def differences(self) -> dict[tuple[str, str], tuple[Difference, float | None]]:
        """Of each gap (by its name) and source the difference, and its p after Holm's correction for all of these."""
        cells = {(gap.name, name): of_pairs(pairs) for gap in self.gaps for name, pairs in gap.pairs.items()}
        p_values = corrected([*cells.values()])
        return {cell: (found, p) for (cell, found), p in zip(cells.items(), p_values, strict=True)}

    @property
    def marks(self) -> Marks:
        """Those of all files."""
        return all_marks(one for run in self.runs for one in run.members)


def line_up(scored: Sequence[Scored], own: int) -> Benchmarks | None:
    """The runs that answered text questions; None where nothing would stand side by side.

    Args:
        scored: all files; those after the first `own` are what the others are compared with. Where there are none and
            the files are of two runs, the second is compared with the first.

    Raises:
        UserError: a run could be compared with several.
    """
    everything = [Contender(name, members) for name, members in by_run(scored).items()]
    runs = [run for run in everything if run.results]
    before = {one.name for one in scored[own:]}
    first = [run for run in runs if run.members[0].name in before]
    second = [run for run in runs if run not in first]
    if first:
        gaps = [Gap(found, run) for run in second if (found := _counterpart(run, first)) is not None]
    else:
        gaps = [Gap(*runs)] if len(runs) == 2 and runs[0].ids & runs[1].ids else []
    found = Benchmarks([*first, *second], gaps)
    return found if len(runs) > 1 or len(found.names) > 1 else None


def _counterpart(run: Contender, others: Sequence[Contender]) -> Contender | None:
    """The one of `others` with the same questions; among several the one of the same mode."""
    fitting = [other for other in others if other.ids & run.ids]
    if len(fitting) > 1:
        fitting = [other for other in fitting if _shown_as(other) == _shown_as(run)] or fitting
    if len(fitting) > 1:
        raise UserError(
            f"{run.name} could be compared with {fitting[0].name} and with {fitting[1].name}; "
            "leave one of them out, or report in two calls"
        )
    return fitting[0] if fitting else None


def _shown_as(run: Contender) -> tuple:
    one = run.members[0]
    return (*one.shown_as, one.file.manifest.get("mode"), one.file.manifest.get("prompt_name"))


def benchmark_section(found: Benchmarks) -> Section:
    """The table of all runs, with the differences between those that are compared."""
    section = Section(marked("Text benchmarks", found.marks), warned(found.marks))
    section.sheets = [_sheet(found)]
    if LENIENT in found.marks:
        section.sheets.append(_matching_sheet(found))
    section.files["benchmarks.csv"] = _csv(found)
    if found.gaps:
        section.files["difference_by_source.csv"] = _csv_of_gaps(found)
    return section


def _sheet(found: Benchmarks) -> Sheet:
    counts = {name: [run.tallies[name].n for run in found.runs if name in run.tallies] for name in found.names}
    same = {name: len(set(numbers)) == 1 for name, numbers in counts.items()}
    head = [name + f" (n{_TIE}={_TIE}{counts[name][0]:,})" * same[name] for name in found.names]
    rows = [[run.name, *_accuracies(run, same), _mean(run, found.names)] for run in found.runs]
    rows += [[gap.name, *_differences(found, gap), _mean_difference(gap, found.names)] for gap in found.gaps]
    if LENIENT not in found.marks:  # it reads an answer into everything
        rows += [[f"unparsed: {run.name}", *(_share(run, name) for name in found.names), BLANK] for run in found.runs]
    rows.append(["guessing", *(_guessing(found.runs, name) for name in found.names), BLANK])
    notes = (
        [
            "Accuracy ± standard error in per cent; differences in points with their 95 % interval, on the questions "
            f"that both runs answered. {STAR} The interval leaves zero out; {HOLM_STAR} also after Holm's correction."
        ]
        if found.gaps
        else ["Accuracy ± standard error in per cent."]
    )
    notes += by_chance(*map(list, zip(*found.differences.values(), strict=True))) if found.gaps else []
    if not all(same.values()):
        notes.append("Where runs answered different numbers of questions, the number stands in brackets.")
    return Sheet(marked("Accuracy by checkpoint and benchmark", found.marks), ["", *head, MEAN], rows, notes)


def _accuracies(run: Contender, same: Mapping[str, bool]) -> list[str]:
    cells = []
    for name, alike in same.items():
        tally = run.tallies.get(name)
        if tally is None or tally.estimate is None:
            cells.append(BLANK)
        else:
            count = "" if alike else f" ({tally.n:,})"
            cells.append(with_error(tally.estimate.mean, tally.estimate.stderr) + count)
    return cells


def _mean(run: Contender, names: Sequence[str]) -> str:
    """The plain mean over all sources; blank for a run that lacks one."""
    asked = [run.tallies[name].asked for name in names if name in run.tallies]
    if len(asked) < len(names) or not all(asked):
        return BLANK
    return with_error(*mean_of_means([([r.correct for r in group], [r.image for r in group]) for group in asked]))


def _differences(found: Benchmarks, gap: Gap) -> list[str]:
    cells = []
    for name in found.names:
        if (gap.name, name) not in found.differences:
            cells.append(BLANK)
            continue
        here, p_holm = found.differences[gap.name, name]
        parts = points(here.mean, here.stderr), f"{interval(here).strip()} {star(here, p_holm)}".strip()
        cells.append(" ".join(part.replace(" ", _TIE) for part in parts).strip())
    return cells


def _mean_difference(gap: Gap, names: Sequence[str]) -> str:
    if len(gap.pairs) < len(names):
        return BLANK
    groups = [
        ([int(new.correct) - int(old.correct) for old, new in pairs], [new.image for _, new in pairs])
        for pairs in gap.pairs.values()
    ]
    return points(*mean_of_means(groups))


def _share(run: Contender, name: str) -> str:
    tally = run.tallies.get(name)
    return percent(tally.unparsed, 1) if tally and tally.n else BLANK


def _guessing(runs: Sequence[Contender], name: str) -> str:
    """Of the run that answered most questions."""
    most = max((run.tallies[name] for run in runs if name in run.tallies), key=lambda tally: tally.n)
    return percent(most.chance, 1) or BLANK


def _matching_sheet(found: Benchmarks) -> Sheet:
    """What the lenient matching made of each source, and what our judge had said."""
    head = ["", "source", "questions", "first match", "last match", "counted", "guessed", "our judge"]
    rows = [
        [
            run.name,
            each.source,
            f"{each.score.n:,}",
            percent(each.score.first / each.score.n, 1),
            percent(each.score.last / each.score.n, 1),
            each.score.counted,
            percent(each.score.guessed / each.score.n, 1),
            percent(each.stored / each.score.n, 1),
        ]
        for run in found.runs
        for one in run.members
        for each in one.regraded
    ]
    note = (
        "Right answers in per cent by the first and by the last match; the better one is counted. Guessed: answers "
        "found by the text of an option or its likeness alone. Our judge: as eval/infer.py stored it."
    )
    return Sheet(marked("How the answers were matched", found.marks), head, rows, [note])


def _csv(found: Benchmarks) -> str:
    rows = [
        [run.name, name, *figures(run.tallies[name])]
        for run in found.runs
        for name in found.names
        if name in run.tallies
    ]
    return csv_text(["run", "source", *COLUMNS], rows)


def _csv_of_gaps(found: Benchmarks) -> str:
    rows = [
        [gap.second.name, gap.first.name, name, *difference_figures(*found.differences[gap.name, name])]
        for gap in found.gaps
        for name in found.names
        if name in gap.pairs
    ]
    return csv_text(["run", "minus", "source", *DIFFERENCE_COLUMNS], rows)
