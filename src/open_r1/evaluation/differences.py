"""What a report says about differences: two runs on the same questions, and sets of runs by training and test set."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from open_r1.evaluation.heatmaps import HOLM_STAR, STAR, difference_heatmap, improvement_matrix, star
from open_r1.evaluation.lineup import Comparison, Marks, Pairs, adjusted, of_pairs
from open_r1.evaluation.matrices import Matrix
from open_r1.evaluation.sections import Section, marked, parts_of, warned
from open_r1.evaluation.sheets import BLANK, Sheet, csv_text, percent, points
from open_r1.evaluation.statistics import LEVEL, Difference, mean_of_means
from open_r1.evaluation.tables import ALL, TEXT, Cell, columns, grid, modalities, only_text, sources

TOO_FEW = "too few"
"""Stands where fewer than statistics.FEWEST_CHANGED pictures changed, for which no p-value says anything."""

DIFFERENCE_COLUMNS = (
    *("n", "pictures", "changed_pictures", "difference", "stderr", "low", "high", "won", "lost"),
    *("p", "p_holm", "test", "excludes_zero"),
)


def comparison_section(found: Comparison, stem: str) -> Section:
    """Two runs on the same questions, by modality, task and both, or by source."""
    differences = found.differences
    whole = differences[ALL, ALL]
    title = marked(found.name, found.marks)
    alone = [len(one.file.results) - whole.n for one in (found.first, found.second)]
    left_out = f" Left out, in one file only or not asked: {alone[0]:,} and {alone[1]:,}." if any(alone) else ""
    section = Section(title, warned(found.marks))
    section.texts = [
        f"{points(whole.mean, whole.stderr)} points{interval(whole)} over {whole.n:,} questions: {whole.won:,} won, "
        f"{whole.lost:,} lost, {tested(whole)}.{left_out}"
    ]
    cells = [cell for cell in differences if ALL not in cell]
    section.texts += by_chance([differences[cell] for cell in cells], [found.adjusted[cell] for cell in cells])
    section.sheets = [_difference_sheet(found)]
    if only_text(differences):
        named = [([name], (TEXT, name)) for name in sources(differences)] + [([ALL], (ALL, ALL))]
        section.files[f"{stem}.csv"] = _csv_of_differences(found, ["source"], named)
        return section
    note = f"{found.name}, {whole.n:,} questions that both answered; {_tests(differences.values())}"
    heading = marked("Improvement on each modality / task", found.marks)
    section.figures[stem] = difference_heatmap(differences, found.adjusted, heading, note)
    cells = [*grid(differences), *((name, ALL) for name in modalities(differences))]
    cells += [*((ALL, name) for name in columns(differences)), (ALL, ALL)]
    named = [(list(cell), cell) for cell in cells]
    section.files[f"{stem}.csv"] = _csv_of_differences(found, ["modality", "task"], named)
    return section


def _csv_of_differences(found: Comparison, head: list[str], named: Iterable[tuple[list[str], Cell]]) -> str:
    rows = [[*name, *difference_figures(found.differences[cell], found.adjusted[cell])] for name, cell in named]
    return csv_text([*head, *DIFFERENCE_COLUMNS], rows)


def interval(found: Difference) -> str:
    """` [-1.2, 3.4]` in points; blank on a single picture."""
    return "" if found.low is None else f" [{percent(found.low, 1)}, {percent(found.high, 1)}]"


def tested(found: Difference) -> str:
    """What the paired test says, in words."""
    if found.too_few:
        return f"{found.changed} pictures changed: too few for a p-value"
    return f"{found.test} p = {p_value(found, found.p)}"


def p_value(found: Difference, p: float | None) -> str:
    """The p of this difference, or its adjusted p, for readers; blank without one."""
    if p is None:
        return BLANK
    if found.too_few:
        return TOO_FEW
    return f"{p:.2g}" if p >= 1e-300 else "< 1e-300"


def starred(found: Difference, p_holm: float | None) -> str:
    """`+3.1 ± 0.9 *`: the difference with its error and star."""
    return f"{points(found.mean, found.stderr)} {star(found, p_holm)}".rstrip()


def _difference_sheet(found: Comparison) -> Sheet:
    names = [named for part in parts_of(found.differences) for named in part.cells] + [("all questions", (ALL, ALL))]
    rows = []
    for name, cell in names:
        here, p_holm = found.differences[cell], found.adjusted[cell]
        limits = interval(here).strip(" []").replace(", ", " to ") or BLANK
        changes = [f"{here.won:,}", f"{here.lost:,}", p_value(here, here.p), p_value(here, p_holm), here.test]
        rows.append([name, f"{here.n:,}", starred(here, p_holm), limits, *changes])
    head = ["", "questions", "difference", "95 % interval", "won", "lost", "p", "p (Holm)", "paired test"]
    return Sheet(marked("Difference on the same questions", found.marks), head, rows)


def _tests(differences: Iterable[Difference]) -> str:
    """Which paired tests were used, and in how many cells."""
    counts = Counter(found.test for found in differences)
    return ", ".join(f"{test}" if len(counts) == 1 else f"{test} in {n} cells" for test, n in sorted(counts.items()))


def by_chance(differences: Sequence[Difference], adjusted_p: Sequence[float | None]) -> list[str]:
    """One line on what the number of tests leaves of their findings; none about a single test.

    Args:
        differences: one per cell of a table, margins left out.
        adjusted_p: of each, after Holm's correction for these cells.
    """
    count = len(differences)
    if count < 2:
        return []
    stars = sum(found.excludes_zero for found in differences)
    remaining = sum(p is not None and p < LEVEL for p in adjusted_p)
    return [
        f"The 95 % interval leaves zero out in {stars} of {count} cells ({STAR}); were there no difference anywhere, "
        f"it would in up to about {LEVEL * count:.1f}. Corrected for {count} tests (Holm), p < 0.05 in {remaining} "
        f"({HOLM_STAR})."
    ]


def difference_figures(found: Difference, p_holm: float | None) -> list[str]:
    """The values of DIFFERENCE_COLUMNS, in points; blank where there is none, as p where too few pictures changed."""
    return [
        str(found.n),
        str(found.clusters),
        str(found.changed),
        *map(percent, (found.mean, found.stderr, found.low, found.high)),
        str(found.won),
        str(found.lost),
        *("" if p is None or found.too_few else f"{p:.3g}" for p in (found.p, p_holm)),
        found.test,
        "yes" if found.excludes_zero else "no",
    ]


def stem_of(name: str) -> str:
    """A name as part of a file name: `grpo_nothink_minus_zero-shot_nothink`."""
    return re.sub(r"[^\w-]+", "_", name).strip("_")


def improvement_section(matrix: Matrix[Pairs], what: str, marks: Marks, name: str = "") -> Section:
    """The difference of two sets of runs by what was trained on and tested on, in the published form.

    `name` says what is subtracted from what, where a report holds several such maps of a family.
    """
    title = marked(f"Improvement on each {matrix.family}{name and f': {name}'}", marks)
    stem = f"improvement_{matrix.family}{name and f'_{stem_of(name)}'}"
    found = {cell: of_pairs(pairs) for cell, pairs in matrix.cells.items()}
    p_holm = adjusted(found)
    shown = {cell: starred(found[cell], p_holm[cell]) for cell in found}
    section = Section(title, warned(marks), [_mean_improvement(matrix)])
    section.texts += by_chance(list(found.values()), list(p_holm.values()))
    rows = [[row, *(shown.get((row, column), BLANK) for column in matrix.columns)] for row in matrix.rows]
    section.sheets = [
        Sheet(
            marked(f"{what}; rows: trained on", marks),
            ["", *matrix.columns],
            rows,
            [f"Paired test: {_tests(found.values())}."],
        )
    ]
    section.figures[stem] = improvement_matrix(matrix, found, p_holm, title, f"{what}; {_tests(found.values())}")
    section.files[f"{stem}.csv"] = csv_text(
        ["trained_on", "tested_on", *DIFFERENCE_COLUMNS],
        [
            [row, column, *difference_figures(found[row, column], p_holm[row, column])]
            for row in matrix.rows
            for column in matrix.columns
            if (row, column) in found
        ],
    )
    return section


def _mean_improvement(matrix: Matrix[Pairs]) -> str:
    """The unweighted means over the cells on the diagonal, off it, and all."""
    groups: dict[str, list[Any]] = {"all cells": [], "trained and tested on the same": [], "on another": []}
    for (row, column), pairs in matrix.cells.items():
        group = ([int(new.correct) - int(old.correct) for old, new in pairs], [new.image for _, new in pairs])
        same = row.partition(" (")[0] == column
        for name in ("all cells", "trained and tested on the same" if same else "on another"):
            groups[name].append(group)
    parts = [f"{name} {points(*mean_of_means(found))} ({len(found)})" for name, found in groups.items() if found]
    return f"Unweighted mean difference in points (cells): {', '.join(parts)}."
