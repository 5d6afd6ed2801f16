"""The sections about the result files of a whole study: one table, a map per mode, and every possible comparison.

The manifests say method (GRPO, SFT, zero-shot), mode, training set and test set of each file.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import combinations
from statistics import fmean

from open_r1.evaluation.comparing.matrices import FAMILIES, accuracy_matrices, difference_matrices
from open_r1.evaluation.comparing.pairs import Comparison, pair_up
from open_r1.evaluation.comparing.run_names import run_names
from open_r1.evaluation.comparing.scored_runs import UNTRAINED, Label, Scored, all_marks
from open_r1.evaluation.reporting.sections.differences import comparison_section, improvement_section, stem_of
from open_r1.evaluation.reporting.sections.matrices import matrix_section
from open_r1.evaluation.reporting.sections.section import Section, drawn_maps
from open_r1.evaluation.reporting.table_formats import BLANK, Sheet, percent, with_error
from open_r1.evaluation.scoring.statistics import mean_of_means
from open_r1.evaluation.scoring.tallies import Tally
from open_r1.vocabulary.labels import Family, Modality, Task, family_of
from open_r1.vocabulary.modes import Mode

Condition = tuple[str, str]
"""Method of training and mode of a checkpoint."""

TalliesByLabel = dict[Label, list[tuple[Scored, Tally]]]

_METHODS = (UNTRAINED, "sft", "grpo")
_MODES = (Mode.NOTHINK, Mode.THINK_AFTER, Mode.THINK)  # a difference is an earlier mode minus a later one


def study_sections(scored: Sequence[Scored]) -> tuple[list[Comparison], list[Section]]:
    """The comparisons of a study, the main one first, and the sections of its report without the training curves.

    Files whose images or options were changed are left out.

    Args:
        scored: several runs.

    Raises:
        UserError: two files could be the counterpart of a third.
    """
    unperturbed = [run for run in scored if not run.perturbed]
    conditions = _ordered({_condition(run) for run in unperturbed})
    by_family: dict[Family, TalliesByLabel] = {family: _tallies_by_label(unperturbed, family) for family in FAMILIES}
    sections = [_table(by_label, conditions, family) for family, by_label in by_family.items() if by_label]
    runs_of = {condition: [run for run in unperturbed if _condition(run) == condition] for condition in conditions}
    comparisons: list[Comparison] = []
    for minuend, subtrahend in _condition_pairs(conditions):
        pairs, _ = pair_up(runs_of[subtrahend], runs_of[minuend])
        sections += _differences(pairs, f"{_name(minuend, subtrahend)} minus {_name(subtrahend, minuend)}")
        comparisons += pairs
    for mode in dict.fromkeys(mode for _, mode in conditions):
        runs = [run for run in unperturbed if _condition(run)[1] == mode]
        names = run_names([run.file.manifest for run in runs])  # of these alone: none has to say the mode
        runs = [replace(run, run=name) for run, name in zip(runs, names, strict=True)]
        sections += [matrix_section(matrix, all_marks(runs), mode) for matrix in accuracy_matrices(runs)]
    return comparisons, sections


def _condition(run: Scored) -> Condition:
    manifest = run.file.manifest
    return str(manifest.get("method") or UNTRAINED), str(manifest.get("mode") or Mode.NOTHINK)


def _ordered(conditions: Iterable[Condition]) -> list[Condition]:
    def place(order: Sequence[str], name: str) -> int:
        return order.index(name) if name in order else len(order)

    return sorted(conditions, key=lambda pair: (place(_METHODS, pair[0]), place(_MODES, pair[1]), pair))


def _condition_pairs(conditions: Sequence[Condition]) -> list[tuple[Condition, Condition]]:
    """Pairs (minuend, subtrahend) to compare: modes of one method, then methods of one mode."""
    modes = [(a, b) for a, b in combinations(conditions, 2) if a[0] == b[0] != UNTRAINED]
    methods = [(b, a) for a, b in combinations(conditions, 2) if a[1] == b[1]]
    return modes + sorted(methods, key=lambda pair: -_METHODS.index(pair[0][0]) if pair[0][0] in _METHODS else 0)


def _name(condition: Condition, other: Condition) -> str:
    """A short name that distinguishes a condition from the other: `nothink`, or `grpo (think)` if methods differ."""
    return condition[1] if condition[0] == other[0] == "grpo" else f"{condition[0]} ({condition[1]})"


def _differences(pairs: Sequence[Comparison], name: str) -> Iterable[Section]:
    marks = all_marks(run for pair in pairs for run in (pair.first, pair.second))
    matrices = difference_matrices(pairs)
    for matrix in matrices:
        cells = len(matrix.cells)
        subtraction = f"{name}, on the same questions ({cells} cells)"
        yield improvement_section(matrix, subtraction, marks, name)
    mapped = {matrix.family for matrix in matrices}
    for number, pair in enumerate(pairs, 1):
        trained = pair.second.trained_on
        if trained is None or family_of(trained) not in mapped:
            stem = f"difference_{stem_of(name)}"
            stem = stem if len(pairs) == 1 else f"{stem}_{number}"
            yield comparison_section(pair, stem, has_map=number <= drawn_maps(len(pairs)))


# ---------------------------------------------------------------------------------------------------- the table


def _tallies_by_label(scored: Sequence[Scored], family: Family) -> TalliesByLabel:
    """By label of a split family, in the published order: the runs with answers about it, and their tallies."""
    groups = [(run, run.parts(family)) for run in scored if family in run.families]
    labels = [*Modality] if family == "modality" else [*Task]
    tallies_of = {label: [(run, Tally(group[label])) for run, group in groups if label in group] for label in labels}
    return {label: tallies for label, tallies in tallies_of.items() if tallies}


BASE, SAME, OTHER, UNNAMED = "", "same set", "other sets", "mixture or unnamed set"
"""The training set relative to a test set: none, the same, another, or not named in the manifest."""


def _table(by_label: TalliesByLabel, conditions: Sequence[Condition], family: Family) -> Section:
    """A row per test set, a column per condition and training set relative to the test set."""
    nonempty = {(_condition(run), _relation(run, label)) for label, tallies in by_label.items() for run, _ in tallies}
    columns = [(condition, relation) for condition in conditions for relation in (BASE, SAME, OTHER, UNNAMED)]
    columns = [column for column in columns if column in nonempty]
    rows, groups = [], {column: [] for column in columns}
    for label, tallies in by_label.items():
        row = [label, _blind_floor(label, tallies)]
        for column in columns:
            in_column = [t for run, t in tallies if (_condition(run), _relation(run, label)) == column and t.answered]
            answers = [*map(_answers, in_column)]
            groups[column] += answers
            row.append(with_error(*mean_of_means(answers)) if answers else BLANK)
        rows.append(row)
    means = [with_error(*mean_of_means(group)) if group else BLANK for group in groups.values()]
    rows.append(["unweighted mean", BLANK, *means])
    notes = [
        "Accuracy ± standard error clustered by image, in per cent. Zero-shot: the base under the same prompt. "
        f"{SAME.capitalize()}: trained on what is tested; {OTHER}: mean over the runs that were trained on another one."
    ]
    if any(relation == UNNAMED for _, relation in columns):
        notes.append(f"{UNNAMED.capitalize()}: no result file names one modality or task that the run was trained on.")
    sheet = Sheet("Accuracy by test set", ["tested on", "blind floor", *map(_heading, columns)], rows, notes)
    return Section(f"All methods and modes, by {family}", sheets=[sheet])


def _relation(run: Scored, tested_on: Label) -> str:
    if run.trained_on is None:
        return BASE if run.is_untrained else UNNAMED
    return SAME if run.trained_on == tested_on else OTHER


def _heading(column: tuple[Condition, str]) -> str:
    (method, mode), relation = column
    return ", ".join(filter(None, [f"{method} ({mode})", relation]))


def _answers(tally: Tally) -> tuple[list[bool], list[str]]:
    return [result.correct for result in tally.answered], [result.image for result in tally.answered]


def _blind_floor(label: Label, tallies: Sequence[tuple[Scored, Tally]]) -> str:
    """The mean blind floor from the training questions of the test set itself."""
    floors = [tally.blind for run, tally in tallies if _relation(run, label) in (BASE, SAME)]
    available = [floor for floor in floors if floor is not None]
    return percent(fmean(available), 1) if available else BLANK
