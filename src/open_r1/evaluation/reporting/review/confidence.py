"""How far the probability of the chosen letter says whether it is right: calibration error, Brier score, abstaining.

The confidence of an answer is the probability of its letter divided by that of all offered letters. Shares are between
0 and 1. Intervals resample images with all their questions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from open_r1.evaluation.scoring.results import Result
from open_r1.evaluation.scoring.statistics import Estimate, accuracy, clustered_stderr
from open_r1.grading.problems import solution_letter

BINS = 10
PER_BIN = 20
"""Fewest questions that a bin should hold; fewer questions than BINS times that make fewer bins."""
RESAMPLES = 500
SHARES = tuple(share / 20 for share in range(20, 0, -1))
"""The shares of the questions answered at which accuracies are given."""


@dataclass(frozen=True)
class Bin:
    """Answers of similar confidence."""

    least: float
    most: float
    confidence: float  # the mean
    accuracy: Estimate


@dataclass(frozen=True)
class Answered:
    """Accuracy where only the most confident answers are given."""

    share: float  # of the questions; more than wanted where answers are equally confident
    least: float  # confidence of the least confident answer that is given
    accuracy: Estimate


@dataclass(frozen=True)
class Interval:
    """A number with its 95 % interval."""

    value: float
    low: float
    high: float


class Confidences:
    """The answers of a run that have probabilities, at least one.

    Args:
        results: those with `letter_probs` and a letter that was read.
    """

    def __init__(self, results: Sequence[Result]) -> None:
        self.images = [result.image for result in results]
        self.correct = np.array([result.correct for result in results], dtype=float)
        self.mass = np.array([sum((result.letter_probs or {}).values()) for result in results])
        self.confidence = np.array([(result.letter_probs or {})[result.letter or ""] for result in results]) / self.mass
        self._squares = [
            sum(
                (share / mass - (letter == solution_letter(result.solution))) ** 2
                for letter, share in (result.letter_probs or {}).items()
            )
            for result, mass in zip(results, self.mass, strict=True)
        ]
        self._bin_of = self._bins()
        places: dict[str, int] = {}
        self._image = np.array([places.setdefault(image, len(places)) for image in self.images])
        rng = np.random.default_rng(0)
        drawn = (rng.integers(len(places), size=len(places)) for _ in range(RESAMPLES))
        self._weights = np.stack([np.bincount(draw, minlength=len(places)).astype(np.float32) for draw in drawn])

    def _bins(self) -> np.ndarray:
        """The bin of each answer, from 0: as many answers in each as equal confidences allow."""
        count = max(1, min(BINS, len(self.confidence) // PER_BIN))
        edges = np.quantile(self.confidence, np.arange(1, count) / count)
        return np.unique(np.searchsorted(edges, self.confidence, side="right"), return_inverse=True)[1]

    @cached_property
    def bins(self) -> list[Bin]:
        """From the least confident answers to the most confident."""
        return [
            Bin(
                float(self.confidence[members].min()),
                float(self.confidence[members].max()),
                float(self.confidence[members].mean()),
                self._accuracy(members),
            )
            for members in (np.flatnonzero(self._bin_of == number) for number in range(self._bin_of.max() + 1))
        ]

    def _accuracy(self, members: np.ndarray) -> Estimate:
        return accuracy([bool(self.correct[index]) for index in members], [self.images[index] for index in members])

    def calibration_error(self) -> tuple[Interval, float]:
        """The expected calibration error with bins of equal size, and what noise alone gives a calibrated model.

        ECE = sum over bins b of n_b / n |accuracy_b - mean confidence_b| (Naeini et al. 2015; Guo et al. 2017), with
        bins of equal size as in Nguyen and O'Connor 2015. Noise makes it larger, in resamples once more, so the
        interval is the basic one, [2 ECE - q(0.975), 2 ECE - q(0.025)] (Davison and Hinkley 1997, section 5.2). What a
        calibrated model has comes from the same resamples with the gap of each bin taken away; where 2.5 % of them or
        more reach the ECE, the interval begins at 0.
        """
        count, bins = len(self.correct), self._bin_of.max() + 1
        gaps, sizes = np.zeros((self._weights.shape[1], bins)), np.zeros((self._weights.shape[1], bins))
        np.add.at(gaps, (self._image, self._bin_of), self.correct - self.confidence)
        np.add.at(sizes, (self._image, self._bin_of), 1)
        value = float(np.abs(gaps.sum(0)).sum() / count)
        drawn = (self._weights @ sizes).sum(1)
        resampled = np.abs(self._weights @ gaps).sum(1) / drawn
        calibrated = np.abs(self._weights @ (gaps - sizes * (gaps.sum(0) / sizes.sum(0)))).sum(1) / drawn
        low, high = (float(np.clip(2 * value - end, 0, 1)) for end in np.quantile(resampled, (0.975, 0.025)))
        if value <= np.quantile(calibrated, 0.975):
            low = 0.0
        return Interval(value, low, max(high, value)), float(calibrated.mean())

    def brier(self) -> tuple[float, float | None]:
        """The Brier score over the offered letters, 0 to 2, and its standard error clustered by image.

        The mean of the sum over the letters of (p - [letter is right])^2 (Brier 1950).
        """
        return float(np.mean(self._squares)), clustered_stderr(self._squares, self.images)

    @cached_property
    def answered(self) -> list[Answered]:
        """Accuracy of the most confident answers, at SHARES of the questions."""
        ordered, count = np.sort(self.confidence)[::-1], len(self.confidence)
        thresholds = [float(ordered[max(1, round(share * count)) - 1]) for share in SHARES]
        return [
            Answered(len(members) / count, least, self._accuracy(members))
            for least in sorted(set(thresholds))
            for members in [np.flatnonzero(self.confidence >= least)]
        ]

    def risk_area(self) -> Interval:
        """The area under the curve of the share of wrong answers against the share answered (AURC).

        The mean over k of the errors among the k most confident answers (Geifman and El-Yaniv 2017; Ding et al. 2020);
        equally confident answers count as their mean. The interval holds 95 % of the resamples.
        """
        order = np.argsort(-self.confidence, kind="stable")
        ranked = np.unique(-self.confidence[order], return_inverse=True)[1]
        wrong, image = 1 - self.correct[order], self._image[order]

        def area(weights: np.ndarray) -> float:
            counts = np.bincount(ranked, weights)
            shares = np.bincount(ranked, weights * wrong) / np.maximum(counts, 1e-12)
            risks = np.cumsum(weights * shares[ranked]) / np.maximum(np.cumsum(weights), 1e-12)
            return float(weights @ risks / weights.sum())

        resampled = [area(weights[image].astype(float)) for weights in self._weights]
        low, high = np.quantile(resampled, (0.025, 0.975))
        return Interval(area(np.ones(len(order))), float(low), float(high))
