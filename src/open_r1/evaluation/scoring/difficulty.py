"""How hard questions are for a checkpoint: the share of right samples, in a file that training can use.

A difficulty file is JSON Lines. Its first line is `{"manifest": {...}}`: the thresholds, the counts, and the manifest
of the result file it was made from, which names checkpoint, prompt, temperature and data. Each further line is one
question: id, correct, samples, pass_rate, label.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from open_r1.common.atomic_files import write_atomically
from open_r1.common.errors import UserError
from open_r1.data.difficulty_file import LABELS, Graded
from open_r1.evaluation.scoring.results import read_results
from open_r1.grading.grader import Outcome


@dataclass(frozen=True)
class Thresholds:
    """Pass rates at which a question is called easy or hard, both included."""

    easy_from: float = 0.75
    hard_to: float = 0.25

    def __post_init__(self) -> None:
        if not 0 <= self.hard_to < self.easy_from <= 1:
            raise UserError(
                f"--hard_to {self.hard_to} and --easy_from {self.easy_from} are not in order: "
                "give 0 <= hard_to < easy_from <= 1"
            )

    def label(self, rate: float) -> str:
        """easy, medium or hard."""
        return "hard" if rate <= self.hard_to else "easy" if rate >= self.easy_from else "medium"


def grade_answers(answers: Path, output: Path, thresholds: Thresholds) -> list[Graded]:
    """Make the difficulty file `output` of the result file `answers`, whose questions have several samples each.

    Raises:
        UserError: the answers cannot be read, hold no samples, or the output cannot be written.
    """
    file = read_results(answers)
    answered = [result for result in file.results if result.outcome is not None]
    if not answered or any(result.samples is None for result in answered):
        raise UserError(f"{answers} holds no samples to count; make it with --samples 2 or more")
    graded = []
    for result in answered:
        samples = result.samples or []
        correct = sum(sample.outcome is Outcome.CORRECT for sample in samples)
        rate = correct / len(samples)
        graded.append(Graded(result.id, correct, len(samples), rate, thresholds.label(rate)))
    manifest = {
        "thresholds": asdict(thresholds),
        "counts": counts(graded),
        "not_asked": len(file.results) - len(answered),
        "answers": file.manifest,
    }
    lines = [json.dumps({"manifest": manifest}), *(json.dumps(asdict(question)) for question in graded)]
    write_atomically(output, "".join(line + "\n" for line in lines))
    return graded


def counts(graded: Sequence[Graded]) -> dict[str, int]:
    """How many questions have each label; every label is listed."""
    by_label = Counter(question.label for question in graded)
    return {label: by_label[label] for label in LABELS}
