"""Accuracy by modality, by task and by both, from result lines alone: tallies, baselines and averages.

A text question has neither modality nor task: its row is TEXT, its column its source, the data set it is from.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

from open_r1.common.errors import UserError
from open_r1.evaluation.scoring.results import Result
from open_r1.evaluation.scoring.statistics import Estimate, accuracy, clustered_stderr, mean_of_means, pass_at_k
from open_r1.grading.grader import Outcome
from open_r1.grading.problems import options_in
from open_r1.vocabulary.labels import Modality, Task

ALL = "all"
UNLABELLED = "unlabelled"
TEXT = "text"
SET = "set"
UNNAMED = "no source"  # a text question that does not say where it is from
FEW = 30  # a cell with fewer questions is hatched in the images: its error is larger than most differences

Cell = tuple[str, str]  # (modality, task), (TEXT, source) or (SET, name); ALL in either place is a margin

# How the names of text sets begin, in the order of the published table.
_SOURCES = ("MedMCQA", "MedQA", "PubMedQA", "MMLU-Pro", "GPQA", "MedXpertQA")


@lru_cache(maxsize=1 << 17)  # each question counts in four cells
def _options_offered(problem: str) -> int:
    return len(options_in(problem))


@dataclass(frozen=True)
class AnsweredResults:
    """Results, of which those count that a model answered."""

    results: Sequence[Result]

    @cached_property
    def answered(self) -> list[Result]:
        """The questions that a model answered or tried to; unreadable images are not among them."""
        return [result for result in self.results if result.outcome is not None]

    @property
    def n(self) -> int:
        return len(self.answered)


class Tally(AnsweredResults):
    """The results of one cell, and what is computed from them."""

    @property
    def unreadable(self) -> int:
        return len(self.results) - len(self.answered)

    @cached_property
    def _outcomes(self) -> list[Outcome | None]:
        return [result.outcome for result in self.answered]

    def count(self, outcome: Outcome) -> int:
        return self._outcomes.count(outcome)

    @property
    def unparsed(self) -> float:
        """Share of unparsed completions; 0 without results."""
        return self.count(Outcome.UNPARSED) / self.n if self.n else 0.0

    @cached_property
    def cut_off(self) -> float | None:
        """Share of the completions that the token limit ended; None unless it is known of all."""
        counts = [result.cut_off for result in self.answered]
        known_counts = [count for count in counts if count is not None]
        completions = sum(len(result.samples or ()) or 1 for result in self.answered)
        return sum(known_counts) / completions if known_counts and len(known_counts) == len(counts) else None

    @cached_property
    def estimate(self) -> Estimate | None:
        """Accuracy with its uncertainty; None without results."""
        return estimate(self.answered)

    @cached_property
    def chance(self) -> float | None:
        """Accuracy of uniform guessing on these questions."""
        return mean([1 / _options_offered(result.problem) for result in self.answered])

    @cached_property
    def blind(self) -> float | None:
        """Accuracy of guessing by option text from the training split; None if eval/infer.py had none."""
        return mean([result.blind for result in self.answered if result.blind is not None])

    @cached_property
    def above_blind(self) -> tuple[float, float | None] | None:
        """Accuracy minus the blind floor over the same questions, with its standard error; None without a floor.

        The floor of each question is a fixed number, so the error is that of the mean of paired differences.
        """
        floored = [(result, result.blind) for result in self.answered if result.blind is not None]
        if not floored:
            return None
        gains = [result.correct - blind for result, blind in floored]
        return sum(gains) / len(gains), clustered_stderr(gains, [result.image for result, _ in floored])

    @cached_property
    def unseen(self) -> list[Result] | None:
        """The questions whose image is not in the training split; None if eval/infer.py had none."""
        labelled = [result for result in self.answered if result.seen is not None]
        return [result for result in labelled if not result.seen] if labelled else None

    @cached_property
    def unseen_estimate(self) -> Estimate | None:
        """Accuracy on `unseen`."""
        return estimate(self.unseen or [])

    @cached_property
    def samples(self) -> int:
        """How many completions every question has; then `estimate` is that of their majority vote."""
        return min((len(result.samples or ()) or 1 for result in self.answered), default=1)

    def pass_at(self, k: int) -> float | None:
        """The chance that one of k samples is right; None without samples."""
        if self.samples < max(2, k):
            return None
        drawn = [[sample.outcome for sample in result.samples or ()] for result in self.answered]
        return mean([pass_at_k(len(outcomes), outcomes.count(Outcome.CORRECT), k) for outcomes in drawn])


def estimate(results: Sequence[Result]) -> Estimate | None:
    """Accuracy with its uncertainty; None without a result."""
    if not results:
        return None
    return accuracy([result.correct for result in results], [result.image for result in results])


def mean(values: Sequence[float]) -> float | None:
    """The mean; None without values."""
    return sum(values) / len(values) if values else None


Table = Mapping[Cell, Tally]


def tabulate(results: Iterable[Result], sets: Mapping[str, Sequence[Result]] | None = None) -> Table:
    """All cells that hold a question, with the margins (modality, ALL), (ALL, task) and (ALL, ALL).

    Args:
        results: of all questions.
        sets: the results of each data set, which get a cell (SET, name).

    Raises:
        UserError: there is no result.
    """
    cells: dict[Cell, list[Result]] = defaultdict(list)
    for result in results:
        for cell in cells_of(result):
            cells[cell].append(result)
    if not cells:
        raise UserError("there is no result line to make a table of; run eval/infer.py first")
    of_sets = {(SET, name): members for name, members in (sets or {}).items()}
    return {cell: Tally(members) for cell, members in (cells | of_sets).items()}


def cells_of(result: Result) -> list[Cell]:
    """The cells that a result counts in: its own, both margins and the total."""
    row, column = labels(result)
    return [(row, column), (row, ALL), (ALL, column), (ALL, ALL)]


def labels(result: Result) -> Cell:
    """The cell of a result: modality and task, or TEXT and source."""
    if is_text(result):
        return TEXT, result.source or UNNAMED
    return result.modality or UNLABELLED, result.task or UNLABELLED


def is_text(result: Result) -> bool:
    """Whether a question has no image: its image identifier is then its id."""
    return result.modality is None and result.task is None and result.image == result.id


def modalities(cells: Iterable[Cell]) -> list[str]:
    """The modalities that occur, in the published order, then others by name; TEXT is the last."""
    names = {modality for modality, _ in cells} - {ALL, SET}
    return _in_order(names - {TEXT}, [modality.value for modality in Modality]) + [TEXT] * (TEXT in names)


def tasks(cells: Iterable[Cell]) -> list[str]:
    """The tasks that occur, in the published order, then others by name; without sources."""
    present = set(cells)
    names = {task for row, task in present if row != SET}
    return _in_order(names - {ALL, *sources(present)}, [task.value for task in Task])


def sources(cells: Iterable[Cell]) -> list[str]:
    """The sets that text questions are from, in the order of the published table, then others by name."""
    names = {source for row, source in cells if row == TEXT} - {ALL}

    def order(name: str) -> tuple[int, str]:
        return next((index for index, prefix in enumerate(_SOURCES) if name.startswith(prefix)), len(_SOURCES)), name

    return sorted(names, key=order)


def columns(cells: Iterable[Cell]) -> list[str]:
    """Tasks, then sources."""
    present = set(cells)
    return [*tasks(present), *sources(present)]


def only_text(cells: Iterable[Cell]) -> bool:
    """Whether every question is a text question."""
    return set(modalities(cells)) == {TEXT}


def _in_order(names: set[str], published: list[str]) -> list[str]:
    return [name for name in published if name in names] + sorted(names - set(published))


def grid(cells: Iterable[Cell]) -> Iterator[Cell]:
    """The cells that occur, row by row, without margins."""
    present = set(cells)
    for modality in modalities(present):
        yield from ((modality, name) for name in columns(present) if (modality, name) in present)


# --------------------------------------------------------------------------------------------------- averages


@dataclass(frozen=True)
class Average:
    """One way to average, named."""

    name: str
    over: str  # "questions", "modalities", "tasks", "sources" or "sets"
    mean: float
    stderr: float | None
    cells: tuple[Cell, ...]  # the cells whose plain mean it is


def averages(table: Table) -> list[Average]:
    """The weighted mean, where every question counts the same, and unweighted means over modalities, tasks and so on.

    The papers quote the unweighted ones. Questions without a label are in the weighted mean alone.
    """
    rows = []
    overall = table[ALL, ALL].estimate
    if overall is not None:
        name = "all questions, weighted by their number"
        rows.append(Average(name, "questions", overall.mean, overall.stderr, ((ALL, ALL),)))
    margins = {
        ("modality", "modalities"): [(name, ALL) for name in modalities(table)],
        ("task", "tasks"): [(ALL, name) for name in tasks(table)],
        ("source", "sources"): [(TEXT, name) for name in sources(table)],
        ("set", "sets"): [cell for cell in table if cell[0] == SET],
    }
    for (singular, plural), cells in margins.items():
        labelled = tuple(
            cell for cell in cells if UNLABELLED not in cell and cell != (TEXT, ALL) and table[cell].answered
        )
        if labelled:
            mean, stderr = mean_of_means([_answers(table[cell].answered) for cell in labelled])
            kind = singular if len(labelled) == 1 else plural
            rows.append(Average(f"unweighted mean over {len(labelled)} {kind}", plural, mean, stderr, labelled))
    return rows


def _answers(results: Sequence[Result]) -> tuple[list[float], list[str]]:
    return [float(result.correct) for result in results], [result.image for result in results]
