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
    found = []
    for family in FAMILIES:
        cells: dict[tuple[str, str], list[Result]] = {}
        for one in scored:
            if one.perturbed or not _belongs(one, family):
                continue
            for label, results in one.parts(family).items():
                if len(results) > len(cells.get((one.run, label), ())):
                    cells[one.run, label] = results
        if len(cells) > 1 and any(one.trained_on for one in scored if any(one.run == row for row, _ in cells)):
            found.append(Matrix(family, {cell: Tally(results) for cell, results in cells.items()}))
    return found


def difference_matrices(comparisons: Sequence[Comparison]) -> list[Matrix[Pairs]]:
    """The pairs of answers by what the second run was trained and tested on, for each family with two cells."""
    found = []
    trained = [(one, one.second.trained_on) for one in comparisons if one.second.trained_on is not None]
    several = len({one.second.run for one, _ in trained}) > len({label for _, label in trained})
    for family in FAMILIES:
        cells: dict[tuple[str, str], Pairs] = {}
        for one, label in trained:
            if family_of(label) == family:
                row = one.second.run if several else label
                cells |= {(row, column): pairs for column, pairs in one.parts(family).items()}
        if len(cells) > 1:
            found.append(Matrix(family, cells))
    return found


def _belongs(one: Scored, family: Family) -> bool:
    return one.trained_on is None or family_of(one.trained_on) == family
