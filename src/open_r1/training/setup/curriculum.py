"""The order in which questions are trained on: easy ones first, or a steady share of hard ones.

An order is a pure function of the seed and the epoch, so it is known before training, the same on every process, and
a run that is continued in any epoch meets the questions it would have met. An epoch is made of whole windows, the
questions of one generation batch each; which questions of a rest that fills no window sit out is drawn anew in every
epoch, so it is never always the hardest.
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
    """How pass rates decide the order."""

    NONE = "none"
    EASY_TO_HARD = "easy_to_hard"
    MIXED = "mixed"


@dataclass(frozen=True)
class Order:
    """Calling it with an epoch, counted from 0, gives that epoch's places in the data set."""

    curriculum: Curriculum
    rates: tuple[float, ...]
    """Pass rate of each question, 0 to 1, by its place."""
    hard: tuple[bool, ...]
    """Whether each question counts as hard, by its place."""
    window: int
    """Questions of one generation batch."""
    seed: int
    hard_fraction: float = 0.0
    """Share of hard questions in each window of `mixed`."""

    def __post_init__(self) -> None:
        assert self.curriculum is not Curriculum.NONE, "without a curriculum the sampler shuffles"
        if not 0 <= self.hard_fraction <= 1:
            raise UserError(f"--hard_fraction {self.hard_fraction} is no share; give a number from 0 to 1")
        if not self(0):
            raise UserError(
                f"{sum(self.hard)} hard and {len(self.hard) - sum(self.hard)} other questions do not fill one "
                f"generation batch of {self.window} with {self.hard_in(0)} hard ones, so not one step would be made; "
                "give another --hard_fraction, other thresholds to scripts/grade_difficulty.py, or a smaller batch"
            )

    def __call__(self, epoch: int) -> list[int]:
        """Places of the questions of an epoch, each at most once; a whole number of windows, the same in any epoch."""
        rng = random.Random(f"{self.seed} {epoch}")  # seeded by a text: the same numbers on every machine
        return self._easy_to_hard(rng) if self.curriculum is Curriculum.EASY_TO_HARD else self._mixed(rng)

    def _easy_to_hard(self, rng: random.Random) -> list[int]:
        count = len(self.rates)
        taken = rng.sample(range(count), count - count % self.window)
        return sorted(taken, key=lambda place: -self.rates[place])  # stable: equal rates stay as drawn

    def _mixed(self, rng: random.Random) -> list[int]:
        places = rng.sample(range(len(self.hard)), len(self.hard))
        hard = [place for place in places if self.hard[place]]
        other = [place for place in places if not self.hard[place]]
        order: list[int] = []
        while True:
            wanted = self.hard_in(len(order) // self.window)
            if wanted > len(hard) or self.window - wanted > len(other):
                return order
            window = [hard.pop() for _ in range(wanted)] + [other.pop() for _ in range(self.window - wanted)]
            rng.shuffle(window)
            order += window

    def hard_in(self, window: int) -> int:
        """Hard questions in a window of `mixed`, counted from 0.

        Where share times window is no whole number, windows take turns so that their sum is never off by one.
        """
        each = Fraction(str(self.hard_fraction)) * self.window  # of 0.3, not of its binary neighbour
        return math.floor((window + 1) * each) - math.floor(window * each)

    def line(self) -> str:
        """One line for people: what comes when, and what sits out."""
        used, count = len(self(0)), len(self.rates)
        out = f"; {count - used} of {count} sit out in each epoch, drawn anew" if used < count else ""
        if self.curriculum is Curriculum.EASY_TO_HARD:
            return f"curriculum easy_to_hard: every epoch from the highest pass rate to the lowest{out}"
        each = sorted({self.hard_in(window) for window in range(used // self.window)})
        return (
            f"curriculum mixed: {sum(self.hard)} of {count} questions are hard, "
            f"{' or '.join(map(str, each))} in every generation batch of {self.window}{out}"
        )


_SHOWN = 3  # questions that an error names


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
