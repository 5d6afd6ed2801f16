"""Accuracy by modality, by task and by both, from result lines alone: tallies, averages, CSV and Markdown."""

import csv
import io
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

from open_r1.answers import Outcome, options_in
from open_r1.errors import UserError
from open_r1.evaluation.score import Result
from open_r1.evaluation.statistics import Difference, Estimate, accuracy, difference, mean_of_means
from open_r1.runs import Modality, Task

ALL = "all"
UNLABELLED = "unlabelled"

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
        if not self.asked:
            return None
        return accuracy([result.correct for result in self.asked], [result.image for result in self.asked])

    @cached_property
    def chance(self) -> float | None:
        """Accuracy of uniform guessing on these questions."""
        if not self.asked:
            return None
        return sum(1 / _options_offered(result.problem) for result in self.asked) / self.n


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
    groups: int


def averages(table: Table) -> list[Average]:
    """The weighted mean (every question counts the same) and the unweighted means over modalities and tasks.

    The papers quote the unweighted ones. Questions without a label are in the weighted mean alone.
    """
    found = []
    whole = table[ALL, ALL].estimate
    if whole is not None:
        found.append(Average("all questions, weighted by their number", whole.mean, whole.stderr, whole.n))
    margins = {
        ("modality", "modalities"): [(name, ALL) for name in modalities(table)],
        ("task", "tasks"): [(ALL, name) for name in tasks(table)],
    }
    for (one, many), cells in margins.items():
        estimates = [table[cell].estimate for cell in cells if UNLABELLED not in cell]
        known = [estimate for estimate in estimates if estimate is not None]
        if known:
            mean, stderr = mean_of_means(known)
            kind = one if len(known) == 1 else many
            found.append(Average(f"unweighted mean over {len(known)} {kind}", mean, stderr, len(known)))
    return found


# ------------------------------------------------------------------------------------------------ differences


def compare(first: Sequence[Result], second: Sequence[Result]) -> dict[Cell, Difference]:
    """Second minus first, cell by cell, over the questions that both runs answered.

    Raises:
        UserError: they have no question in common, or an id stands for different questions.
    """
    before = {result.id: result for result in first if result.outcome is not None}
    cells: dict[Cell, list[tuple[Result, Result]]] = defaultdict(list)
    for result in second:
        other = before.get(result.id)
        if other is None or result.outcome is None:
            continue
        if (other.problem, other.solution) != (result.problem, result.solution):
            raise UserError(f"id {result.id!r} is another question in the two files: they cannot be compared")
        modality, task = result.modality or UNLABELLED, result.task or UNLABELLED
        for cell in ((modality, task), (modality, ALL), (ALL, task), (ALL, ALL)):
            cells[cell].append((other, result))
    if not cells:
        raise UserError("the two files have no question in common: they cannot be compared; report each on its own")
    return {
        cell: difference(
            [old.correct for old, _ in pairs], [new.correct for _, new in pairs], [new.image for _, new in pairs]
        )
        for cell, pairs in cells.items()
    }


# ----------------------------------------------------------------------------------------------------- output

COLUMNS = ("n", "pictures", "accuracy", "stderr", "low", "high", "chance", "correct", "wrong", "unparsed", "unreadable")


def _figures(tally: Tally) -> list[str]:
    """The values of COLUMNS; accuracies in per cent, blank where there is none."""
    estimate = tally.estimate
    spread = (
        [None] * 5
        if estimate is None or tally.chance is None
        else [
            estimate.mean,
            estimate.stderr,
            estimate.low,
            estimate.high,
            tally.chance,
        ]
    )
    counts = [tally.count(outcome) for outcome in (Outcome.CORRECT, Outcome.WRONG, Outcome.UNPARSED)]
    pictures = 0 if estimate is None else estimate.clusters
    return [str(tally.n), str(pictures), *map(percent, spread), *map(str, counts), str(tally.unreadable)]


def percent(share: float | None, digits: int = 2) -> str:
    """A share as per cent, without the sign; blank for None."""
    return "" if share is None else f"{100 * share:.{digits}f}"


def csv_by_modality(table: Table) -> str:
    """One line per modality, and one for all questions."""
    return _csv(["modality", *COLUMNS], [[name, *_figures(table[name, ALL])] for name in [*modalities(table), ALL]])


def csv_by_task(table: Table) -> str:
    """One line per task, and one for all questions."""
    return _csv(["task", *COLUMNS], [[name, *_figures(table[ALL, name])] for name in [*tasks(table), ALL]])


def csv_by_both(table: Table) -> str:
    """One line per modality and task that occur together."""
    return _csv(["modality", "task", *COLUMNS], [[*cell, *_figures(table[cell])] for cell in grid(table)])


def csv_of_differences(differences: Mapping[Cell, Difference]) -> str:
    """One line per cell, margins included; differences in points of accuracy."""
    rows = [list(cell) for cell in grid(differences)]
    rows += [[name, ALL] for name in modalities(differences)] + [[ALL, name] for name in tasks(differences)]
    rows.append([ALL, ALL])
    for row in rows:
        found = differences[row[0], row[1]]
        row += [
            str(found.n),
            percent(found.mean),
            percent(found.stderr),
            str(found.won),
            str(found.lost),
            f"{found.p:.3g}",
        ]
    return _csv(["modality", "task", "n", "difference", "stderr", "won", "lost", "mcnemar_p"], rows)


def _csv(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([head, *rows])
    return text.getvalue()


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"


def with_error(mean: float | None, stderr: float | None) -> str:
    """`61.2 ± 1.9` in per cent; blank for None.

    The error is left out where none can be measured: on a single picture, or where all answers are alike.
    """
    if mean is None:
        return ""
    return percent(mean, 1) + (f" ± {percent(stderr, 1)}" if stderr else "")


def markdown_by_both(table: Table) -> str:
    """Modalities down, tasks across, margins last; each cell `accuracy ± stderr (n)`."""
    columns = [*tasks(table), ALL]

    def cell(modality: str, task: str) -> str:
        tally = table.get((modality, task))
        estimate = tally.estimate if tally else None
        return "" if estimate is None else f"{with_error(estimate.mean, estimate.stderr)} ({estimate.n:,})"

    rows = [[name, *(cell(name, task) for task in columns)] for name in [*modalities(table), ALL]]
    return markdown_table(["", *columns], rows)


def named_apart(paths: Sequence[Path]) -> list[str]:
    """A short name per file, its own or with its folder's before it, no two the same."""
    names = [path.stem for path in paths]
    if len(set(names)) < len(names):
        names = [f"{path.resolve().parent.name}-{path.stem}" for path in paths]
    if len(set(names)) < len(names):
        names = [f"{number}-{path.stem}" for number, path in enumerate(paths, 1)]
    return names
