"""Accuracy by modality, by task and by both, from result lines alone: tallies, what stands beside them, averages."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

from open_r1.answers import Outcome, options_in
from open_r1.errors import UserError
from open_r1.evaluation.score import Result
from open_r1.evaluation.statistics import Estimate, accuracy, mean_of_means, pass_at_k
from open_r1.runs import Modality, Task

ALL = "all"
UNLABELLED = "unlabelled"
FEW = 30  # a cell with fewer questions is hatched in the pictures: its error is larger than most differences

Cell = tuple[str, str]  # (modality, task); ALL in either place is a margin


@lru_cache(maxsize=1 << 17)  # each question stands in four cells
def _options_offered(problem: str) -> int:
    return len(options_in(problem))


@dataclass(frozen=True)
class Tally:
    """What became of the questions of one cell."""

    results: Sequence[Result]

    @cached_property
    def asked(self) -> list[Result]:
        """The questions that a model answered or tried to; unreadable pictures are not among them."""
        return [result for result in self.results if result.outcome is not None]

    @property
    def n(self) -> int:
        return len(self.asked)

    @property
    def unreadable(self) -> int:
        return len(self.results) - len(self.asked)

    def count(self, outcome: Outcome) -> int:
        return sum(result.outcome is outcome for result in self.asked)

    @property
    def unparsed(self) -> float:
        """Share of the answers that could not be read; 0 where nothing was asked."""
        return self.count(Outcome.UNPARSED) / self.n if self.n else 0.0

    @cached_property
    def estimate(self) -> Estimate | None:
        """Accuracy with its uncertainty; None where nothing was asked."""
        return estimate(self.asked)

    @cached_property
    def chance(self) -> float | None:
        """Accuracy of uniform guessing on these questions."""
        return mean([1 / _options_offered(result.problem) for result in self.asked])

    @cached_property
    def blind(self) -> float | None:
        """Accuracy of guessing by option text from the training split; None where infer knew none."""
        return mean([result.blind for result in self.asked if result.blind is not None])

    @cached_property
    def unseen(self) -> list[Result] | None:
        """The questions whose picture is not in the training split; None where infer knew none."""
        known = [result for result in self.asked if result.seen is not None]
        return [result for result in known if not result.seen] if known else None

    @cached_property
    def unseen_estimate(self) -> Estimate | None:
        """Accuracy on `unseen`."""
        return estimate(self.unseen or [])

    @cached_property
    def samples(self) -> int:
        """How many completions every question has; then `estimate` is that of their majority vote."""
        return min((len(result.samples or ()) or 1 for result in self.asked), default=1)

    def pass_at(self, k: int) -> float | None:
        """The chance that one of k samples is right; None where there are no samples."""
        if self.samples < max(2, k):
            return None
        drawn = [[sample.outcome for sample in result.samples or ()] for result in self.asked]
        return mean([pass_at_k(len(outcomes), outcomes.count(Outcome.CORRECT), k) for outcomes in drawn])


def estimate(results: Sequence[Result]) -> Estimate | None:
    """Accuracy with its uncertainty; None without a result."""
    if not results:
        return None
    return accuracy([result.correct for result in results], [result.image for result in results])


def mean(values: Sequence[float]) -> float | None:
    """The mean; None of nothing."""
    return sum(values) / len(values) if values else None


Table = Mapping[Cell, Tally]


def tabulate(results: Iterable[Result]) -> Table:
    """All cells that hold a question, with the margins (modality, ALL), (ALL, task) and (ALL, ALL)."""
    cells: dict[Cell, list[Result]] = defaultdict(list)
    for result in results:
        modality, task = result.modality or UNLABELLED, result.task or UNLABELLED
        for cell in ((modality, task), (modality, ALL), (ALL, task), (ALL, ALL)):
            cells[cell].append(result)
    if not cells:
        raise UserError("there is no result line to make a table of; run eval/infer.py first")
    return {cell: Tally(members) for cell, members in cells.items()}


def modalities(cells: Iterable[Cell]) -> list[str]:
    """The modalities that occur, in the published order, then others by name."""
    return _in_order({modality for modality, _ in cells} - {ALL}, [modality.value for modality in Modality])


def tasks(cells: Iterable[Cell]) -> list[str]:
    """The tasks that occur, in the published order, then others by name."""
    return _in_order({task for _, task in cells} - {ALL}, [task.value for task in Task])


def _in_order(names: set[str], known: list[str]) -> list[str]:
    return [name for name in known if name in names] + sorted(names - set(known))


def grid(cells: Iterable[Cell]) -> Iterator[Cell]:
    """The cells that occur, row by row, without margins."""
    present = set(cells)
    for modality in modalities(present):
        yield from ((modality, task) for task in tasks(present) if (modality, task) in present)


# --------------------------------------------------------------------------------------------------- averages


@dataclass(frozen=True)
class Average:
    """One way to average, named."""

    name: str
    mean: float
    stderr: float | None
    cells: tuple[Cell, ...]  # the cells whose plain mean it is


def averages(table: Table) -> list[Average]:
    """The weighted mean (every question counts the same) and the unweighted means over modalities and tasks.

    The papers quote the unweighted ones. Questions without a label are in the weighted mean alone.
    """
    found = []
    whole = table[ALL, ALL].estimate
    if whole is not None:
        name = "all questions, weighted by their number"
        found.append(Average(name, whole.mean, whole.stderr, ((ALL, ALL),)))
    margins = {
        ("modality", "modalities"): [(name, ALL) for name in modalities(table)],
        ("task", "tasks"): [(ALL, name) for name in tasks(table)],
    }
    for (one, many), cells in margins.items():
        known = tuple(cell for cell in cells if UNLABELLED not in cell and table[cell].asked)
        if known:
            mean, stderr = mean_of_means([_answers(table[cell].asked) for cell in known])
            kind = one if len(known) == 1 else many
            found.append(Average(f"unweighted mean over {len(known)} {kind}", mean, stderr, known))
    return found


def _answers(results: Sequence[Result]) -> tuple[list[float], list[str]]:
    return [float(result.correct) for result in results], [result.image for result in results]
