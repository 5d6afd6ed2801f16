"""Two runs on the same questions, question by question, and runs matched with each other."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from open_r1.common.errors import UserError
from open_r1.evaluation.comparing.run_names import set_names
from open_r1.evaluation.comparing.scored_runs import Label, Marks, Scored, all_marks, disjoint, share_a_set
from open_r1.evaluation.scoring.results import Result
from open_r1.evaluation.scoring.statistics import Difference, difference, holm
from open_r1.evaluation.scoring.tallies import ALL, Cell, cells_of
from open_r1.vocabulary.labels import Family

Pairs = list[tuple[Result, Result]]


@dataclass(frozen=True)
class Comparison:
    """Two result files on the same questions; differences are second minus first."""

    first: Scored
    second: Scored

    @property
    def name(self) -> str:
        return f"{self.second.name} minus {self.first.name}"

    @property
    def marks(self) -> Marks:
        """The marks of either run."""
        return all_marks((self.first, self.second))

    @cached_property
    def pairs(self) -> dict[Cell, Pairs]:
        """The questions that both answered, by cell."""
        return matched(self.first.file.results, self.second.file.results)

    @cached_property
    def differences(self) -> dict[Cell, Difference]:
        """The difference in each cell."""
        return {cell: of_pairs(pairs) for cell, pairs in self.pairs.items()}

    @property
    def left_out(self) -> list[str]:
        """The data sets of the second run that the first has no results for."""
        files = zip(set_names(self.second.files), self.second.files, strict=True)
        return [name for name, file in files if not share_a_set(self.first.files, [file])]

    @cached_property
    def adjusted(self) -> dict[Cell, float | None]:
        """The p of each cell after Holm's correction for the cells of its kind."""
        return adjusted(self.differences)

    def parts(self, family: Family) -> dict[str, Pairs]:
        """The pairs by what they test in a split family."""
        labels = {result.id: label for label, results in self.second.parts(family).items() for result in results}
        pairs_by_label: dict[str, Pairs] = defaultdict(list)
        for pair in self.pairs[ALL, ALL]:
            if pair[1].id in labels:
                pairs_by_label[labels[pair[1].id]].append(pair)
        return pairs_by_label


def adjusted(differences: Mapping[Cell, Difference]) -> dict[Cell, float | None]:
    """Holm's adjusted p of each cell, corrected for the number of its kind: single cells, or margins of one side.

    None for a cell that is the only one of its kind: there is nothing to correct for.
    """
    kinds: dict[tuple[bool, bool], list[Cell]] = defaultdict(list)
    for cell in differences:
        kinds[cell[0] == ALL, cell[1] == ALL].append(cell)
    return {
        cell: p
        for cells in kinds.values()
        for cell, p in zip(cells, corrected([differences[cell] for cell in cells]), strict=True)
    }


def corrected(differences: Sequence[Difference]) -> list[float | None]:
    """Holm's adjusted p of each of several differences; None of a single one."""
    return [*holm([difference.p for difference in differences])] if len(differences) > 1 else [None] * len(differences)


def matched(first: Sequence[Result], second: Sequence[Result]) -> dict[Cell, Pairs]:
    """First and second answer to each question that both answered, by cell.

    Raises:
        UserError: they have no question in common, or an id stands for different questions.
    """
    before = {result.id: result for result in first if result.outcome is not None}
    cells: dict[Cell, Pairs] = defaultdict(list)
    for result in second:
        earlier = before.get(result.id)
        if earlier is None or result.outcome is None:
            continue
        if (earlier.problem, earlier.solution) != (result.problem, result.solution):
            raise UserError(f"id {result.id!r} is another question in each of the two files: they cannot be compared")
        for cell in cells_of(result):
            cells[cell].append((earlier, result))
    if not cells:
        raise UserError("the two files have no question in common: they cannot be compared; report each alone")
    return cells


def of_pairs(pairs: Pairs) -> Difference:
    """Second minus first over these questions."""
    return difference(
        [old.correct for old, _ in pairs], [new.correct for _, new in pairs], [new.image for _, new in pairs]
    )


def compare(first: Sequence[Result], second: Sequence[Result]) -> dict[Cell, Difference]:
    """Second minus first, cell by cell, over the questions that both runs answered.

    Raises:
        UserError: see `matched`.
    """
    return {cell: of_pairs(pairs) for cell, pairs in matched(first, second).items()}


def pair_up(first: Sequence[Scored], second: Sequence[Scored]) -> tuple[list[Comparison], list[Scored]]:
    """Match each run of `second` with the run of `first` on the same questions; also returns those without a match.

    Of several, the one with the same training data is taken, otherwise the untrained one, so that a base is compared
    with every run after it. Runs without images or with shuffled options are only compared with runs of the same kind,
    unless there is a single run on either side. Several runs without a common question are all compared.

    Raises:
        UserError: several runs of `first` match a run of `second` equally well.
    """
    pairs, unmatched = [], []
    for after in second:
        fitting = [before for before in first if share_a_set(before.files, after.files)]
        if len(first) > 1 or len(second) > 1:
            fitting = [before for before in fitting if before.shown_as == after.shown_as]
        same_training = [before for before in fitting if _trained(before) == _trained(after)]
        apart = len(fitting) > 1 and not disjoint(fitting)
        fitting = same_training or [before for before in fitting if before.is_untrained] or ([] if apart else fitting)
        if len(fitting) > 1 and not disjoint(fitting):
            raise UserError(
                f"{after.name} could be compared with {fitting[0].name} and with {fitting[1].name}; "
                "leave one of them out, or report in two calls"
            )
        pairs += [Comparison(before, after) for before in fitting]
        unmatched += [] if fitting else [after]
    return pairs, unmatched


def pair_with_base(scored: Sequence[Scored]) -> list[Comparison]:
    """Each trained run with the untrained run on the same questions; of several, the one in the same mode."""
    bases = [run for run in scored if run.is_untrained and not run.perturbed]
    pairs = []
    for after in scored:
        if after.is_untrained or after.perturbed:
            continue
        fitting = [base for base in bases if share_a_set(base.files, after.files)]
        alike = [base for base in fitting if base.file.manifest.get("mode") == after.file.manifest.get("mode")]
        if len(alike or fitting) == 1:
            pairs.append(Comparison((alike or fitting)[0], after))
    return pairs


def pair_with_run(baseline: Scored, scored: Sequence[Scored]) -> list[Comparison]:
    """Every other run that answered a question of the baseline, with it."""
    ids = {result.id for result in baseline.file.results if result.outcome is not None}
    return [
        Comparison(baseline, run)
        for run in scored
        if run.name != baseline.name
        and any(result.id in ids and result.outcome is not None for result in run.file.results)
    ]


def _trained(run: Scored) -> tuple[Label | None, bool]:
    return run.trained_on, run.is_untrained
