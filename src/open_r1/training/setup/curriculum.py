"""The order of the training questions: easy ones first, or a constant share of hard ones.

An order is a pure function of seed and epoch, so it is the same in every process and in a resumed run. An epoch
consists of complete windows, each the questions of one generation batch; the questions that do not fill a window are
skipped, a new random choice in every epoch, so that not always the hardest are skipped.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from pathlib import Path

from open_r1.common.errors import UserError
from open_r1.data.difficulty_file import read_difficulty


class Curriculum(StrEnum):
    """How pass rates determine the order."""

    NONE = "none"
    EASY_TO_HARD = "easy_to_hard"
    MIXED = "mixed"


@dataclass(frozen=True)
class Order:
    """Returns the row indices of an epoch, when called with its number from 0."""

    curriculum: Curriculum
    rates: tuple[float, ...]
    """Pass rate of each row, 0 to 1."""
    hard: tuple[bool, ...]
    """Whether each row is labelled hard."""
    window: int
    """Questions of one generation batch."""
    seed: int
    hard_fraction: float = 0.0
    """Share of hard questions in every window of `mixed`."""

    def __post_init__(self) -> None:
        assert self.curriculum is not Curriculum.NONE, "without a curriculum the sampler shuffles"
        if not 0 <= self.hard_fraction <= 1:
            raise UserError(f"--hard_fraction {self.hard_fraction} is not a share; give a number from 0 to 1")
        if not self(0):
            raise UserError(
                f"{sum(self.hard)} hard and {len(self.hard) - sum(self.hard)} other questions do not fill one "
                f"generation batch of {self.window} with {self.hard_in(0)} hard ones, so no step would be made; "
                "change --hard_fraction, the thresholds of scripts/grade_difficulty.py, or the batch size"
            )

    def __call__(self, epoch: int) -> list[int]:
        """Row indices of an epoch, each at most once; a whole number of windows, the same in every epoch."""
        rng = random.Random(f"{self.seed} {epoch}")  # a string as seed gives the same numbers on every machine
        return self._easy_to_hard(rng) if self.curriculum is Curriculum.EASY_TO_HARD else self._mixed(rng)

    def _easy_to_hard(self, rng: random.Random) -> list[int]:
        count = len(self.rates)
        chosen = rng.sample(range(count), count - count % self.window)
        return sorted(chosen, key=lambda index: -self.rates[index])  # stable: equal rates stay shuffled

    def _mixed(self, rng: random.Random) -> list[int]:
        indices = rng.sample(range(len(self.hard)), len(self.hard))
        hard = [index for index in indices if self.hard[index]]
        easy = [index for index in indices if not self.hard[index]]
        order: list[int] = []
        while True:
            count = self.hard_in(len(order) // self.window)
            if count > len(hard) or self.window - count > len(easy):
                return order
            window = [hard.pop() for _ in range(count)] + [easy.pop() for _ in range(self.window - count)]
            rng.shuffle(window)
            order += window

    def hard_in(self, window: int) -> int:
        """Number of hard questions in a window of `mixed`, counted from 0.

        If share times window is not an integer, windows differ by one so that the running sum is right.
        """
        per_window = Fraction(str(self.hard_fraction)) * self.window  # exactly 3/10 for 0.3
        return math.floor((window + 1) * per_window) - math.floor(window * per_window)

    def line(self) -> str:
        """A log line: the order, and how many questions each epoch skips."""
        used, count = len(self(0)), len(self.rates)
        skipped = f"; {count - used} of {count} are skipped in each epoch, others each time" if used < count else ""
        if self.curriculum is Curriculum.EASY_TO_HARD:
            return f"curriculum easy_to_hard: every epoch from the highest pass rate to the lowest{skipped}"
        counts = sorted({self.hard_in(window) for window in range(used // self.window)})
        return (
            f"curriculum mixed: {sum(self.hard)} of {count} questions are hard, "
            f"{' or '.join(map(str, counts))} in every generation batch of {self.window}{skipped}"
        )


_MOST_NAMED = 3  # most questions that an error names


def training_order(
    path: Path, curriculum: Curriculum, hard_fraction: float | None, ids: Sequence[str], window: int, seed: int
) -> Order:
    """The order of a training run.

    Args:
        path: the difficulty file.
        curriculum: easy_to_hard or mixed.
        hard_fraction: share of hard questions in a window of `mixed`.
        ids: ids of the training rows.
        window: questions of one generation batch.
        seed: seed of the run.

    Raises:
        UserError: if the file cannot be read or lacks a question, or the questions do not fill one window.
    """
    graded = read_difficulty(path)
    missing = [name for name in ids if name not in graded]
    if missing:
        raise UserError(
            f"--difficulty {path} has no pass rate for {len(missing)} of {len(ids)} training questions "
            f"({', '.join(missing[:_MOST_NAMED])}{', ...' if len(missing) > _MOST_NAMED else ''}), "
            "so they cannot be ordered; grade the data set of this training"
        )
    rates = tuple(graded[name].pass_rate for name in ids)
    hard = tuple(graded[name].label == "hard" for name in ids)
    return Order(curriculum, rates, hard, window, seed, hard_fraction or 0.0)
