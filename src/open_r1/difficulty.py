"""How hard questions are for a checkpoint: the share of its samples that are right, written down once and trained by.

A difficulty file is JSON Lines. Its first line is `{"manifest": {...}}`: the thresholds, the counts, and the manifest
of the answers it was made from, which names checkpoint, prompt, temperature and data. Each further line is one
question: id, correct, samples, pass_rate, label.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from open_r1.answers import Outcome
from open_r1.curriculum import Curriculum, Order
from open_r1.errors import UserError
from open_r1.evaluation.score import read_results
from open_r1.files import parse_json, write_atomically

LABELS = ("easy", "medium", "hard")
_SHOWN = 3  # questions that an error names


@dataclass(frozen=True)
class Thresholds:
    """Pass rates at which a question is called easy or hard, both included."""

    easy_from: float = 0.75
    hard_to: float = 0.25

    def __post_init__(self) -> None:
        if not 0 <= self.hard_to < self.easy_from <= 1:
            raise UserError(
                f"--hard_to {self.hard_to} and --easy_from {self.easy_from} leave no order: "
                "give 0 <= hard_to < easy_from <= 1"
            )

    def label(self, rate: float) -> str:
        """easy, medium or hard."""
        return "hard" if rate <= self.hard_to else "easy" if rate >= self.easy_from else "medium"


@dataclass(frozen=True)
class Graded:
    """One question and how often it was answered rightly."""

    id: str
    correct: int
    samples: int
    pass_rate: float
    label: str


def grade_answers(answers: Path, output: Path, thresholds: Thresholds) -> list[Graded]:
    """Make the difficulty file `output` of the result file `answers`, whose questions have several samples each.

    Raises:
        UserError: the answers cannot be read, hold no samples, or the output cannot be written.
    """
    found = read_results(answers)
    asked = [result for result in found.results if result.outcome is not None]
    if not asked or any(result.samples is None for result in asked):
        raise UserError(f"{answers} holds no samples to count; make it with --samples 2 or more")
    graded = []
    for result in asked:
        samples = result.samples or []
        correct = sum(sample.outcome is Outcome.CORRECT for sample in samples)
        rate = correct / len(samples)
        graded.append(Graded(result.id, correct, len(samples), rate, thresholds.label(rate)))
    manifest = {
        "thresholds": asdict(thresholds),
        "counts": counts(graded),
        "not_asked": len(found.results) - len(asked),
        "answers": found.manifest,
    }
    lines = [json.dumps({"manifest": manifest}), *(json.dumps(asdict(each)) for each in graded)]
    write_atomically(output, "".join(line + "\n" for line in lines))
    return graded


def counts(graded: Sequence[Graded]) -> dict[str, int]:
    """Questions by label, every label named."""
    found = Counter(each.label for each in graded)
    return {label: found[label] for label in LABELS}


def read_difficulty(path: Path) -> dict[str, Graded]:
    """The questions of a difficulty file by id.

    Raises:
        UserError: it is not there, or no difficulty file.
    """
    try:
        first, *lines = path.read_text(encoding="utf-8").splitlines()
        parse_json(first)["manifest"]["thresholds"]
        graded = [Graded(**parse_json(line)) for line in lines]
        return {each.id: each for each in graded}
    except FileNotFoundError:
        raise UserError(f"--difficulty {path} is not there; make it with scripts/grade_difficulty.py") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"--difficulty {path} is no file of scripts/grade_difficulty.py ({reason}); name the one it wrote"
        ) from None


def training_order(
    path: Path, curriculum: Curriculum, hard_fraction: float | None, ids: Sequence[str], window: int, seed: int
) -> Order:
    """The order of a training run.

    Args:
        path: the difficulty file.
        curriculum: easy_to_hard or mixed.
        hard_fraction: share of hard questions in a window of `mixed`.
        ids: of the questions to train on, by place.
        window: questions of one generation batch.
        seed: of the run.

    Raises:
        UserError: the file cannot be read, lacks a question, or the questions do not fill one window.
    """
    graded = read_difficulty(path)
    absent = [name for name in ids if name not in graded]
    if absent:
        raise UserError(
            f"--difficulty {path} has no pass rate for {len(absent)} of {len(ids)} training questions "
            f"({', '.join(absent[:_SHOWN])}{', ...' if len(absent) > _SHOWN else ''}), which would have no place; "
            "grade the data set that is trained on"
        )
    rates = tuple(graded[name].pass_rate for name in ids)
    hard = tuple(graded[name].label == "hard" for name in ids)
    return Order(curriculum, rates, hard, window, seed, hard_fraction or 0.0)
