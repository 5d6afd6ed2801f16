"""Trained on x tested on: accuracies and differences by what runs were trained and what they were tested on."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from open_r1.evaluation.comparing.joined_sets import label_of
from open_r1.evaluation.comparing.pairs import Comparison, Pairs
from open_r1.evaluation.comparing.scored_runs import Scored
from open_r1.evaluation.scoring.results import Result
from open_r1.evaluation.scoring.tallies import Tally
from open_r1.vocabulary.labels import Family, Modality, Task, family_of

T = TypeVar("T")
FAMILIES: tuple[Family, ...] = ("modality", "task")


@dataclass(frozen=True)
class Matrix(Generic[T]):
    """Trained on (rows, by run name) x tested on (columns, by label), within one split family."""

    family: Family
    cells: Mapping[tuple[str, str], T]

    @property
    def rows(self) -> list[str]:
        """Run names: those of a modality or task in the published order, then the others."""
        return _ordered({row for row, _ in self.cells})

    @property
    def columns(self) -> list[str]:
        """Labels in the published order."""
        return _ordered({column for _, column in self.cells})


def _ordered(names: Iterable[str]) -> list[str]:
    order = [*Modality, *Task]

    def key(name: str) -> tuple[int, str]:
        label = label_of(name.partition(" (")[0])
        return (len(order) if label is None else order.index(label), name)

    return sorted(names, key=key)


def accuracy_matrices(scored: Sequence[Scored]) -> list[Matrix[Tally]]:
    """Accuracy by what runs were trained and tested on, for each split family that holds at least two cells."""
    matrices = []
    for family in FAMILIES:
        cells: dict[tuple[str, str], list[Result]] = {}
        for run in scored:
            if run.perturbed or not _belongs(run, family):
                continue
            for label, results in run.parts(family).items():
                if len(results) > len(cells.get((run.run, label), ())):
                    cells[run.run, label] = results
        if len(cells) > 1 and any(run.trained_on for run in scored if any(run.run == row for row, _ in cells)):
            matrices.append(Matrix(family, {cell: Tally(results) for cell, results in cells.items()}))
    return matrices


def difference_matrices(comparisons: Sequence[Comparison]) -> list[Matrix[Pairs]]:
    """The pairs of answers by what the second run was trained and tested on, for each family with two cells."""
    matrices = []
    trained = [
        (comparison, comparison.second.trained_on)
        for comparison in comparisons
        if comparison.second.trained_on is not None
    ]
    several = len({comparison.second.run for comparison, _ in trained}) > len({label for _, label in trained})
    for family in FAMILIES:
        cells: dict[tuple[str, str], Pairs] = {}
        for comparison, label in trained:
            if family_of(label) == family:
                row = comparison.second.run if several else label
                cells |= {(row, column): pairs for column, pairs in comparison.parts(family).items()}
        if len(cells) > 1:
            matrices.append(Matrix(family, cells))
    return matrices


def _belongs(run: Scored, family: Family) -> bool:
    return run.trained_on is None or family_of(run.trained_on) == family
