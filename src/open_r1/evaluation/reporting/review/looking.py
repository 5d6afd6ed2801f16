"""Does it look? Which answers stay when the image is taken away, and which when the options stand in another order.

A question is in one of four quadrants. Consistent: the same option is chosen in another order of the options. Relies on
the image: without the image, with noise or with another question's image, another option is chosen at least once.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from open_r1.evaluation.comparing.changed_runs import Change
from open_r1.evaluation.comparing.run_names import TELLING
from open_r1.evaluation.comparing.scored_runs import Scored, all_marks
from open_r1.evaluation.reporting.heatmaps import share_heatmap
from open_r1.evaluation.reporting.sections.headline import described
from open_r1.evaluation.reporting.sections.section import Section, marked
from open_r1.evaluation.reporting.table_formats import BLANK, Sheet, csv_text, percent, with_error
from open_r1.evaluation.scoring.results import Result
from open_r1.evaluation.scoring.statistics import Estimate, accuracy
from open_r1.evaluation.scoring.tallies import Cell, cells_of, only_text

QUADRANTS = ((True, True), (True, False), (False, True), (False, False))  # consistent, relies on the image
_NAMES = ("consistent_relies", "consistent_not", "inconsistent_relies", "inconsistent_not")
COLUMNS = (
    *("run", "modality", "task", "n", "pictures", "accuracy", "right_without_looking", "stderr", "low", "high"),
    *("relies", "relies_stderr"),
    *(f"{name}{suffix}" for name in _NAMES for suffix in ("", "_stderr")),
)


@dataclass(frozen=True)
class Look:
    """One question in the ordinary run and what the other runs of the checkpoint say about its answer."""

    result: Result  # of the ordinary run
    relies: bool
    right_without: bool  # right as usual and in every run that did not show the image
    consistent: bool | None  # None without a run with shuffled options


def looks(ordinary: Scored, changes: Sequence[Change]) -> list[Look]:
    """The questions that the ordinary run and all runs of `changes` answered; none without a run that hides the image.

    Args:
        ordinary: the run.
        changes: those of this run.
    """
    hiding = [_by_id(change.changed) for change in changes if _hides(change)]
    reordered = [_by_id(change.changed) for change in changes if change.changed.shown_as == ("shown", "shuffled")]
    if not hiding:
        return []
    measured = []
    for result in ordinary.file.results:
        if result.outcome is None or any(result.id not in run for run in [*hiding, *reordered]):
            continue
        hidden = [run[result.id] for run in hiding]
        consistent = all(_same(result, run[result.id]) for run in reordered) if reordered else None
        relies = not all(_same(result, other) for other in hidden)
        measured.append(Look(result, relies, result.correct and all(other.correct for other in hidden), consistent))
    return measured


def _hides(change: Change) -> bool:
    """Whether a run was not shown the image of the question, and the options as usual."""
    image, options = change.changed.shown_as
    return image != TELLING["image"] and options == TELLING["options"]


def _by_id(run: Scored) -> Mapping[str, Result]:
    return {result.id: result for result in run.file.results if result.outcome is not None}


def _same(result: Result, other: Result) -> bool:
    """Whether both chose the same option; an answer that could not be read is the same as none."""
    return result.letter is not None and result.letter == other.letter


def share(members: Sequence[Look], values: Sequence[bool]) -> Estimate:
    """The share of questions of which this is true, clustered by image."""
    return accuracy(values, [look.result.image for look in members])


def right_without_looking(changes: Sequence[Change]) -> dict[str, dict[Cell, Estimate]]:
    """The share that is right without looking in every cell, by the name of each run that has views without the image.

    Args:
        changes: of all runs.
    """
    return {run.name: _shares_of(_by_cell(measured)) for run, _, measured in _measured(changes)}


def _measured(changes: Sequence[Change]) -> list[tuple[Scored, list[Change], list[Look]]]:
    """Each ordinary run with its views and the questions of which they tell whether it looks, if there are any."""
    of_runs: dict[str, list[Change]] = defaultdict(list)
    for change in changes:
        of_runs[change.ordinary.name].append(change)
    runs = [(members[0].ordinary, members) for members in of_runs.values()]
    return [(run, members, measured) for run, members in runs if (measured := looks(run, members))]


def _by_cell(measured: Sequence[Look]) -> dict[Cell, list[Look]]:
    by_cell: dict[Cell, list[Look]] = defaultdict(list)
    for look in measured:
        for cell in cells_of(look.result):
            by_cell[cell].append(look)
    return by_cell


def _shares_of(by_cell: Mapping[Cell, Sequence[Look]]) -> dict[Cell, Estimate]:
    return {cell: share(members, [look.right_without for look in members]) for cell, members in by_cell.items()}


def looking_section(changes: Sequence[Change]) -> Section | None:
    """A row per run and a map each: what is right without looking; None if no run hid the image."""
    rows, lines, figures, runs = [], [], {}, []
    for number, (run, members, measured) in enumerate(_measured(changes), 1):
        runs.append(run)
        by_cell = _by_cell(measured)
        rows.append([run.name, *_texts(measured)])
        lines += [[run.name, *cell, *_values(cell_members)] for cell, cell_members in by_cell.items()]
        if not only_text(by_cell):
            title = marked(f"Right without looking: {described(run)}", run.marks)
            hidden = " and ".join(change.what for change in members if _hides(change))
            note = f"right as usual and with {hidden}"
            figures[f"right_without_looking_{number}"] = share_heatmap(
                _shares_of(by_cell), title, note, "right without looking (%)"
            )
    if not rows:
        return None
    marks = all_marks(runs)
    section = Section(marked("Does it look?", marks), figures=figures)
    head = ["run", "n", "accuracy", "right without looking", "relies on the image"]
    head += ["consistent, relies", "consistent, does not", "inconsistent, relies", "inconsistent, does not"]
    notes = [
        "In per cent of the questions that all runs of the checkpoint answered. Right without looking: right as usual "
        "and in every run without the image; a part of it is chance. Relies on the image: another option is chosen "
        "without it. Consistent: the same option in another order, or the order could not change."
    ]
    section.sheets = [Sheet(marked("Looking and consistency", marks), head, rows, notes)]
    section.files["does_it_look.csv"] = csv_text(COLUMNS, lines)
    return section


def _shares(members: Sequence[Look]) -> tuple[Estimate, Estimate, Estimate, list[Estimate | None]]:
    """Accuracy, right without looking, relies on the image, and the four quadrants."""
    are_reordered = all(look.consistent is not None for look in members)
    quadrants = [
        share(members, [(look.consistent, look.relies) == quadrant for look in members]) if are_reordered else None
        for quadrant in QUADRANTS
    ]
    right = share(members, [look.result.correct for look in members])
    without = share(members, [look.right_without for look in members])
    return right, without, share(members, [look.relies for look in members]), quadrants


def _texts(members: Sequence[Look]) -> list[str]:
    *shares, quadrants = _shares(members)
    texts = [BLANK if s is None else with_error(s.mean, s.stderr) for s in [*shares, *quadrants]]
    return [f"{len(members):,}", *texts]


def _values(members: Sequence[Look]) -> list[str]:
    right, without, relies, quadrants = _shares(members)
    shares = [right.mean, without.mean, without.stderr, without.low, without.high, relies.mean, relies.stderr]
    for quadrant in quadrants:
        shares += [None, None] if quadrant is None else [quadrant.mean, quadrant.stderr]
    return [str(right.n), str(right.clusters), *map(percent, shares)]
