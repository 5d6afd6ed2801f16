"""How sure an accuracy is: standard errors that know about shared pictures, intervals, paired differences.

Several questions about one picture stand or fall together, so they are no independent trials: every standard error
here is clustered by picture. Plain Python; accuracies are shares between 0 and 1.
"""

import math
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

Z95 = 1.959963984540054  # 97.5 % point of the standard normal distribution


@dataclass(frozen=True)
class Estimate:
    """An accuracy with its uncertainty."""

    mean: float  # share of right answers, 0 to 1
    n: int  # questions
    clusters: int  # pictures
    stderr: float | None  # None where a single picture leaves no spread to measure
    low: float  # 95 % interval
    high: float


@dataclass(frozen=True)
class Difference:
    """Accuracy of a second run minus that of a first one, on the same questions."""

    mean: float  # -1 to 1
    n: int
    stderr: float | None
    lost: int  # right in the first run only
    won: int  # right in the second run only
    p: float  # exact McNemar test, two-sided


def accuracy(correct: Sequence[bool], clusters: Sequence[Hashable]) -> Estimate:
    """The mean of `correct`, with a clustered standard error and a 95 % Wilson interval.

    The interval is Wilson's for n / d questions, where the design effect d >= 1 is the clustered variance over the
    one that independent questions would have; where every question has a picture of its own, d = 1. Where all
    answers are right (or wrong) d cannot be measured, and pictures are counted instead of questions.

    Args:
        correct: one entry per question.
        clusters: the picture of each question, in the same order.

    Raises:
        ValueError: no question, or lists of unequal length.
    """
    if not correct:
        raise ValueError("an accuracy of no questions does not exist")
    n, groups = len(correct), len(set(clusters))
    mean = sum(correct) / n
    stderr = clustered_stderr([float(one) for one in correct], clusters)
    if mean in (0.0, 1.0) or stderr is None:
        effective = float(groups)
    else:
        effective = n / max(1.0, stderr**2 / (mean * (1 - mean) / (n - 1)))
    return Estimate(mean, n, groups, stderr, *wilson(mean, effective))


def clustered_stderr(values: Sequence[float], clusters: Sequence[Hashable]) -> float | None:
    """Cluster-robust standard error of a mean; None for a single cluster.

    With n values, G clusters and residuals e_i = y_i - mean:
    SE^2 = G / (G - 1) * sum over clusters g of (sum over i in g of e_i)^2 / n^2
    (Cameron and Miller 2015, section II, for an intercept alone). With clusters of one it is s^2 / n.
    """
    n, mean = len(values), sum(values) / len(values)
    sums: dict[Hashable, float] = defaultdict(float)
    for value, cluster in zip(values, clusters, strict=True):
        sums[cluster] += value - mean
    count = len(sums)
    if count < 2:
        return None
    return math.sqrt(count / (count - 1) * sum(total**2 for total in sums.values())) / n


def wilson(mean: float, n: float, z: float = Z95) -> tuple[float, float]:
    """Wilson's score interval for a share (Wilson 1927); `n` may be an effective, fractional number."""
    scale = 1 + z**2 / n
    centre = (mean + z**2 / (2 * n)) / scale
    half = z / scale * math.sqrt(mean * (1 - mean) / n + z**2 / (4 * n**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def difference(first: Sequence[bool], second: Sequence[bool], clusters: Sequence[Hashable]) -> Difference:
    """Second minus first on the same questions, question by question.

    The standard error is that of the mean of the paired differences, clustered by picture. The exact McNemar test
    looks at the questions that only one run got right; it takes them as independent, so where questions share
    pictures trust the standard error more.

    Raises:
        ValueError: no question, or lists of unequal length.
    """
    if not first:
        raise ValueError("a difference over no questions does not exist")
    pairs = list(zip(first, second, strict=True))
    changes = [float(after) - float(before) for before, after in pairs]
    lost = sum(before and not after for before, after in pairs)
    won = sum(after and not before for before, after in pairs)
    stderr = clustered_stderr(changes, clusters)
    return Difference(sum(changes) / len(changes), len(changes), stderr, lost, won, mcnemar(lost, won))


def mcnemar(lost: int, won: int) -> float:
    """Two-sided p of `lost` against `won` under a fair coin: min(1, 2 P(X <= min)), X ~ Bin(lost + won, 1/2)."""
    tosses, term, total = lost + won, 1, 0
    for k in range(min(lost, won) + 1):
        total += term
        term = term * (tosses - k) // (k + 1)  # the next binomial coefficient
    return min(1.0, 2 * total / 2**tosses)


def mean_of_means(estimates: Sequence[Estimate]) -> tuple[float, float | None]:
    """The unweighted mean of groups, as the papers average, and its standard error for independent groups.

    SE = sqrt(sum of SE_k^2) / K; None if a group has none.
    """
    count = len(estimates)
    squares = [estimate.stderr**2 for estimate in estimates if estimate.stderr is not None]
    stderr = math.sqrt(sum(squares)) / count if len(squares) == count else None
    return sum(estimate.mean for estimate in estimates) / count, stderr
