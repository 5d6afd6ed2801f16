"""The sections about differences: two runs on the same questions, and sets of runs by training and test set."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from open_r1.evaluation.comparing.matrices import Matrix
from open_r1.evaluation.comparing.pairs import Comparison, Pairs, adjusted, of_pairs
from open_r1.evaluation.comparing.scored_runs import Marks
from open_r1.evaluation.reporting.heatmaps import HOLM_STAR, STAR, difference_heatmap, improvement_matrix, star
from open_r1.evaluation.reporting.sections.headline import named_sets
from open_r1.evaluation.reporting.sections.section import NOT_DRAWN, Section, marked, warned
from open_r1.evaluation.reporting.sections.single_run import question_groupings
from open_r1.evaluation.reporting.table_formats import BLANK, Sheet, csv_text, percent, points
from open_r1.evaluation.scoring.statistics import LEVEL, Difference, mean_of_means
from open_r1.evaluation.scoring.tallies import ALL, TEXT, Cell, columns, grid, modalities, only_text, sources

TOO_FEW = "too few"
"""Shown instead of a p-value where fewer than statistics.FEWEST_CHANGED images changed."""

DIFFERENCE_COLUMNS = (
    *("n", "pictures", "changed_pictures", "difference", "stderr", "low", "high", "won", "lost"),
    *("p", "p_holm", "test", "excludes_zero", "survives_holm"),
)


def comparison_section(
    comparison: Comparison,
    stem: str,
    name: str = "",
    span: tuple[float, float] | None = None,
    has_map: bool = True,
) -> Section:
    """Two runs on the same questions, by modality, task and both, or by source.

    Args:
        comparison: the runs.
        stem: how its files are called.
        name: what the difference is of, if its runs do not say that by their names.
        span: the colour scale of the map, where several maps share one.
        has_map: whether the map is drawn; otherwise the section says that it is not.
    """
    differences = comparison.differences
    overall = differences[ALL, ALL]
    name = name or comparison.name
    title = marked(name, comparison.marks)
    alone = [len(run.file.results) - overall.n for run in (comparison.first, comparison.second)]
    left_out = f" Left out, in one file only or not asked: {alone[0]:,} and {alone[1]:,}." if any(alone) else ""
    section = Section(title, warned(comparison.marks))
    section.texts = [
        f"{points(overall.mean, overall.stderr)} points{interval(overall)} over {overall.n:,} questions: "
        f"{overall.won:,} won, {overall.lost:,} lost, {tested(overall)}.{left_out}"
    ]
    cells = [cell for cell in differences if ALL not in cell]
    section.texts += by_chance([differences[cell] for cell in cells], [comparison.adjusted[cell] for cell in cells])
    section.sheets = [_difference_sheet(comparison)]
    if only_text(differences):
        named = [([name], (TEXT, name)) for name in sources(differences)] + [([ALL], (ALL, ALL))]
        section.files[f"{stem}.csv"] = _csv_of_differences(comparison, ["source"], named)
        return section
    note = (
        f"{named_sets(comparison.second)}, {overall.n:,} questions that both answered; {_tests(differences.values())}"
    )
    heading = marked(f"Difference: {name}", comparison.marks)
    if has_map:
        section.figures[stem] = difference_heatmap(differences, comparison.adjusted, heading, note, span)
    else:
        section.texts.append(NOT_DRAWN)
    cells = [*grid(differences), *((name, ALL) for name in modalities(differences))]
    cells += [*((ALL, name) for name in columns(differences)), (ALL, ALL)]
    named = [(list(cell), cell) for cell in cells]
    section.files[f"{stem}.csv"] = _csv_of_differences(comparison, ["modality", "task"], named)
    return section


def _csv_of_differences(comparison: Comparison, head: list[str], named: Iterable[tuple[list[str], Cell]]) -> str:
    rows = [
        [*name, *difference_values(comparison.differences[cell], comparison.adjusted[cell])] for name, cell in named
    ]
    return csv_text([*head, *DIFFERENCE_COLUMNS], rows)


def interval(difference: Difference) -> str:
    """` [-1.2, 3.4]` in points; blank on a single image."""
    return "" if difference.low is None else f" [{percent(difference.low, 1)}, {percent(difference.high, 1)}]"


def tested(difference: Difference) -> str:
    """The result of the paired test in words."""
    if difference.too_few:
        return f"{difference.changed} images changed: too few for a p-value"
    return f"{difference.test} p = {p_value(difference, difference.p)}"


def p_value(difference: Difference, p: float | None) -> str:
    """`p`, raw or adjusted, as text; blank for None."""
    if p is None:
        return BLANK
    if difference.too_few:
        return TOO_FEW
    return f"{p:.2g}" if p >= 1e-300 else "< 1e-300"


def starred(difference: Difference, p_holm: float | None) -> str:
    """`+3.1 ± 0.9 *`: the difference with its error and star."""
    return f"{points(difference.mean, difference.stderr)} {star(difference, p_holm)}".rstrip()


def _difference_sheet(comparison: Comparison) -> Sheet:
    names = [named for grouping in question_groupings(comparison.differences) for named in grouping.cells] + [
        ("all questions", (ALL, ALL))
    ]
    rows = []
    for name, cell in names:
        here, p_holm = comparison.differences[cell], comparison.adjusted[cell]
        limits = interval(here).strip(" []").replace(", ", " to ") or BLANK
        changes = [f"{here.won:,}", f"{here.lost:,}", p_value(here, here.p), p_value(here, p_holm), here.test]
        rows.append([name, f"{here.n:,}", starred(here, p_holm), limits, *changes])
    head = ["", "questions", "difference", "95 % interval", "won", "lost", "p", "p (Holm)", "paired test"]
    return Sheet(marked("Difference on the same questions", comparison.marks), head, rows)


def _tests(differences: Iterable[Difference]) -> str:
    """The paired tests that were used, and in how many cells each."""
    counts = Counter(difference.test for difference in differences)
    return ", ".join(f"{test}" if len(counts) == 1 else f"{test} in {n} cells" for test, n in sorted(counts.items()))


def by_chance(differences: Sequence[Difference], adjusted_p: Sequence[float | None]) -> list[str]:
    """One line on how many differences remain significant after correction; none for a single test.

    Args:
        differences: one per cell of a table, without margins.
        adjusted_p: the p of each after Holm's correction for these cells.
    """
    count = len(differences)
    if count < 2:
        return []
    stars = sum(difference.excludes_zero for difference in differences)
    remaining = sum(p is not None and p < LEVEL for p in adjusted_p)
    return [
        f"The 95 % interval excludes zero in {stars} of {count} cells ({STAR}); were there no difference anywhere, "
        f"it would in up to about {LEVEL * count:.1f}. Corrected for {count} tests (Holm), p < 0.05 in {remaining} "
        f"({HOLM_STAR})."
    ]


def difference_values(difference: Difference, p_holm: float | None) -> list[str]:
    """The values of DIFFERENCE_COLUMNS in points; unknown ones are blank, as is p where too few images changed."""
    return [
        str(difference.n),
        str(difference.clusters),
        str(difference.changed),
        *map(percent, (difference.mean, difference.stderr, difference.low, difference.high)),
        str(difference.won),
        str(difference.lost),
        *("" if p is None or difference.too_few else f"{p:.3g}" for p in (difference.p, p_holm)),
        difference.test,
        "yes" if difference.excludes_zero else "no",
        "" if p_holm is None else ("yes" if star(difference, p_holm) == HOLM_STAR else "no"),
    ]


def stem_of(name: str) -> str:
    """A name in the form for a file name: `grpo_nothink_minus_zero-shot_nothink`."""
    return re.sub(r"[^\w-]+", "_", name).strip("_")


def improvement_section(matrix: Matrix[Pairs], subtraction: str, marks: Marks, name: str = "") -> Section:
    """The difference of two sets of runs by training set and test set, in the layout of Med-R1's figure.

    Args:
        matrix: pairs of results.
        subtraction: what is subtracted from what, for the reader.
        marks: of all runs.
        name: short name of the subtraction, if a report has several such maps of a family.
    """
    title = marked(f"Improvement on each {matrix.family}{name and f': {name}'}", marks)
    stem = f"improvement_{matrix.family}{name and f'_{stem_of(name)}'}"
    differences = {cell: of_pairs(pairs) for cell, pairs in matrix.cells.items()}
    p_holm = adjusted(differences)
    texts = {cell: starred(differences[cell], p_holm[cell]) for cell in differences}
    section = Section(title, warned(marks), [_mean_improvement(matrix)])
    section.texts += by_chance(list(differences.values()), list(p_holm.values()))
    rows = [[row, *(texts.get((row, column), BLANK) for column in matrix.columns)] for row in matrix.rows]
    section.sheets = [
        Sheet(
            marked(f"{subtraction}; rows: trained on", marks),
            ["", *matrix.columns],
            rows,
            [f"Paired test: {_tests(differences.values())}."],
        )
    ]
    section.figures[stem] = improvement_matrix(
        matrix, differences, p_holm, title, f"{subtraction}; {_tests(differences.values())}"
    )
    section.files[f"{stem}.csv"] = csv_text(
        ["trained_on", "tested_on", *DIFFERENCE_COLUMNS],
        [
            [row, column, *difference_values(differences[row, column], p_holm[row, column])]
            for row in matrix.rows
            for column in matrix.columns
            if (row, column) in differences
        ],
    )
    return section


def _mean_improvement(matrix: Matrix[Pairs]) -> str:
    """The unweighted means over all cells, those on the diagonal, and those off it."""
    groups: dict[str, list[Any]] = {"all cells": [], "trained and tested on the same": [], "on another": []}
    for (row, column), pairs in matrix.cells.items():
        group = ([int(new.correct) - int(old.correct) for old, new in pairs], [new.image for _, new in pairs])
        on_own_set = row.partition(" (")[0] == column
        for name in ("all cells", "trained and tested on the same" if on_own_set else "on another"):
            groups[name].append(group)
    means = [f"{name} {points(*mean_of_means(cells))} ({len(cells)})" for name, cells in groups.items() if cells]
    return f"Unweighted mean difference in points (cells): {', '.join(means)}."
