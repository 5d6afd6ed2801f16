"""What the result files of a whole study say together: one table, a map per mode, and every comparison they offer.

All is read from the manifests: method (GRPO, SFT, zero-shot), mode, what was trained on and what was tested on.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from statistics import fmean

from open_r1.evaluation.comparing.matrices import FAMILIES, accuracy_matrices, difference_matrices
from open_r1.evaluation.comparing.pairs import Comparison, pair_up
from open_r1.evaluation.comparing.run_names import run_names
from open_r1.evaluation.comparing.scored_runs import UNTRAINED, Label, Scored, all_marks
from open_r1.evaluation.reporting.sections.differences import comparison_section, improvement_section, stem_of
from open_r1.evaluation.reporting.sections.matrices import matrix_section
from open_r1.evaluation.reporting.sections.section import Section
from open_r1.evaluation.reporting.table_formats import BLANK, Sheet, percent, with_error
from open_r1.evaluation.scoring.statistics import mean_of_means
from open_r1.evaluation.scoring.tallies import Tally
from open_r1.vocabulary.labels import Family, Modality, Task, family_of
from open_r1.vocabulary.modes import Mode

Way = tuple[str, str]
"""How a checkpoint came about and is asked: method, mode."""

_METHODS = (UNTRAINED, "sft", "grpo")
_MODES = (Mode.NOTHINK, Mode.THINK_AFTER, Mode.THINK)  # a difference is an earlier one minus a later one


def overview(scored: Sequence[Scored]) -> tuple[list[Comparison], list[Section]]:
    """The comparisons of a study, the first one first, and the sections of its report but for the curves.

    Files whose images or options were changed are left out.

    Args:
        scored: several runs.

    Raises:
        UserError: two files fit as the counterpart of a third.
    """
    plain = [one for one in scored if not one.perturbed]
    ways = _ordered({_way(one) for one in plain})
    sections = [_table(tested, ways, family) for family in FAMILIES if (tested := _tested(plain, family))]
    found: list[Comparison] = []
    for second, first in _opposites(ways):
        pairs, _ = pair_up([one for one in plain if _way(one) == first], [one for one in plain if _way(one) == second])
        sections += _differences(pairs, f"{_name(second, first)} minus {_name(first, second)}")
        found += pairs
    for mode in dict.fromkeys(mode for _, mode in ways):
        own = [one for one in plain if _way(one)[1] == mode]
        names = run_names([one.file.manifest for one in own])  # of these alone: none has to say the mode
        own = [replace(one, run=name) for one, name in zip(own, names, strict=True)]
        sections += [matrix_section(matrix, all_marks(own), mode) for matrix in accuracy_matrices(own)]
    return found, sections


def _way(one: Scored) -> Way:
    manifest = one.file.manifest
    return str(manifest.get("method") or UNTRAINED), str(manifest.get("mode") or Mode.NOTHINK)


def _ordered(ways: Iterable[Way]) -> list[Way]:
    def place(known: Sequence[str], name: str) -> int:
        return known.index(name) if name in known else len(known)

    return sorted(ways, key=lambda way: (place(_METHODS, way[0]), place(_MODES, way[1]), way))


def _opposites(ways: Sequence[Way]) -> list[tuple[Way, Way]]:
    """What is worth a difference, second and first: modes of one method, then methods of one mode."""
    modes = [(a, b) for a, b in combinations(ways, 2) if a[0] == b[0] != UNTRAINED]
    methods = [(b, a) for a, b in combinations(ways, 2) if a[1] == b[1]]
    return modes + sorted(methods, key=lambda pair: -_METHODS.index(pair[0][0]) if pair[0][0] in _METHODS else 0)


def _name(way: Way, other: Way) -> str:
    """A way by what tells it from the other: `nothink`, or `grpo (think)` where the methods differ."""
    return way[1] if way[0] == other[0] == "grpo" else f"{way[0]} ({way[1]})"


def _differences(pairs: Sequence[Comparison], name: str) -> Iterable[Section]:
    marks = all_marks(one for pair in pairs for one in (pair.first, pair.second))
    matrices = difference_matrices(pairs)
    for matrix in matrices:
        cells = len(matrix.cells)
        what = f"{name}, on the same questions ({cells} cells)"
        yield improvement_section(matrix, what, marks, name)
    mapped = {matrix.family for matrix in matrices}
    for number, pair in enumerate(pairs, 1):
        trained = pair.second.trained_on
        if trained is None or family_of(trained) not in mapped:
            stem = f"difference_{stem_of(name)}"
            yield comparison_section(pair, stem if len(pairs) == 1 else f"{stem}_{number}")


# ---------------------------------------------------------------------------------------------------- the table


def _tested(scored: Sequence[Scored], family: Family) -> dict[Label, list[tuple[Scored, Tally]]]:
    """Runs and their answers by what a set is about, for the sets of a split family, in the published order."""
    parts = [(run, run.parts(family)) for run in scored if family in run.families]
    labels = [*Modality] if family == "modality" else [*Task]
    found = {label: [(run, Tally(part[label])) for run, part in parts if label in part] for label in labels}
    return {label: tallies for label, tallies in found.items() if tallies}


BASE, SAME, OTHER, UNSAID = "", "same set", "other sets", "mixture or unnamed set"
"""What a checkpoint was trained on, seen from a test set: nothing, that set, another, or what no manifest says."""


def _table(tested: Mapping[Label, Sequence[tuple[Scored, Tally]]], ways: Sequence[Way], family: Family) -> Section:
    """A row per test set, a column per way and what was trained on."""
    present = {(_way(run), _relation(run, label)) for label, tallies in tested.items() for run, _ in tallies}
    columns = [(way, relation) for way in ways for relation in (BASE, SAME, OTHER, UNSAID)]
    columns = [column for column in columns if column in present]
    rows, groups = [], {column: [] for column in columns}
    for label, tallies in tested.items():
        row = [label, _blind(label, tallies)]
        for column in columns:
            fitting = [t for run, t in tallies if (_way(run), _relation(run, label)) == column and t.asked]
            groups[column] += map(_answers, fitting)
            row.append(with_error(*mean_of_means([*map(_answers, fitting)])) if fitting else BLANK)
        rows.append(row)
    means = [with_error(*mean_of_means(group)) if group else BLANK for group in groups.values()]
    rows.append(["unweighted mean", BLANK, *means])
    notes = [
        "Accuracy ± standard error clustered by image, in per cent. Zero-shot: the base under the same prompt. "
        f"{SAME.capitalize()}: trained on what is tested; {OTHER}: mean over the runs that were trained on another one."
    ]
    if any(relation == UNSAID for _, relation in columns):
        notes.append(f"{UNSAID.capitalize()}: no result file names one modality or task that the run was trained on.")
    sheet = Sheet("Accuracy by test set", ["tested on", "blind floor", *map(_heading, columns)], rows, notes)
    return Section(f"Every way beside the others, by {family}", sheets=[sheet])


def _relation(run: Scored, tested_on: Label) -> str:
    if run.trained_on is None:
        return BASE if run.is_untrained else UNSAID
    return SAME if run.trained_on == tested_on else OTHER


def _heading(column: tuple[Way, str]) -> str:
    (method, mode), relation = column
    return ", ".join(filter(None, [f"{method} ({mode})", relation]))


def _answers(tally: Tally) -> tuple[list[bool], list[str]]:
    return [result.correct for result in tally.asked], [result.image for result in tally.asked]


def _blind(label: Label, tallies: Sequence[tuple[Scored, Tally]]) -> str:
    """What guessing by option text earns with the set's own training questions."""
    floors = [tally.blind for run, tally in tallies if _relation(run, label) in (BASE, SAME)]
    known = [floor for floor in floors if floor is not None]
    return percent(fmean(known), 1) if known else BLANK
