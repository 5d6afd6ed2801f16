"""The uncertainty of an accuracy: standard errors clustered by image, intervals, paired differences.

Several questions about one image are correlated, so they are no independent trials: every standard error,
interval and test here counts images. Accuracies are shares between 0 and 1. `benchmarks/coverage.py` measures how
often the intervals cover and the tests err.
"""

import math
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.special import gammaln, stdtrit, xlog1py, xlogy

Z95 = 1.959963984540054  # 97.5 % point of the standard normal distribution
TAIL = 0.025  # what a 95 % interval leaves out on either side
LEVEL = 2 * TAIL  # of the tests
POWER = 0.8  # of the smallest difference that counts as detectable

MCNEMAR = "exact McNemar"
SIGN_FLIP = "exact sign flip"
FEWEST_CHANGED = 6
"""Images that must have changed for a p-value: five that all changed one way are no evidence yet, 2 / 2^5 > 0.05."""

PRIOR_IMAGES = 0.5
"""How much an image whose questions all stand or fall together weighs where the spread is measured on few images."""


@dataclass(frozen=True)
class Estimate:
    """An accuracy with its uncertainty."""

    mean: float  # share of right answers, 0 to 1
    n: int  # questions
    clusters: int  # images
    stderr: float | None  # None with a single image, which has no spread
    low: float  # 95 % interval
    high: float


@dataclass(frozen=True)
class Difference:
    """Accuracy of a second run minus that of a first one, on the same questions."""

    mean: float  # -1 to 1
    n: int
    clusters: int  # images
    stderr: float | None
    low: float | None  # 95 % interval; None with a single image, which has no spread
    high: float | None
    lost: int  # right in the first run only
    won: int  # right in the second run only
    changed: int  # images on which the two runs have different numbers of right answers
    p: float  # two-sided, of `test`
    test: str  # MCNEMAR or SIGN_FLIP

    @property
    def excludes_zero(self) -> bool:
        """Whether the 95 % interval leaves zero out, which it does just when p < 0.05."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)

    @property
    def too_few(self) -> bool:
        """Whether so few images changed that p could not have come out below 0.05."""
        return self.changed < FEWEST_CHANGED


def accuracy(correct: Sequence[bool], clusters: Sequence[Hashable]) -> Estimate:
    """The mean of `correct`, with a clustered standard error and a 95 % Wilson interval.

    The interval is Wilson's with the t quantile of images - 1, for n / d questions. The design effect d >= 1 is the
    clustered variance over the one that independent questions would have. It is measured on the k images that have
    an answer of the rarer kind (right or wrong), which may be few, so PRIOR_IMAGES more count whose questions all
    stand or fall together, for which it is sum(m_i^2) / n with m_i questions about image i. Where every question has
    an image of its own, d = 1.

    Args:
        correct: one entry per question.
        clusters: the image of each question, in the same order.

    Raises:
        ValueError: no question, or lists of unequal length.
    """
    if not correct:
        raise ValueError("an accuracy of no questions does not exist")
    values = [float(right) for right in correct]
    right, sizes = _by_image(values, clusters)
    n, images, mean = len(values), len(sizes), sum(values) / len(values)
    stderr = _stderr_of_sums(right, sizes)
    if stderr is None:
        return Estimate(mean, n, images, None, 0.0, 1.0)
    informative = int(((right if mean <= 0.5 else sizes - right) > 0).sum())
    measured = stderr**2 / (mean * (1 - mean) / (n - 1)) if 0 < mean < 1 else 0.0
    together = float((sizes**2).sum()) / n
    effect = (informative * measured + PRIOR_IMAGES * together) / (informative + PRIOR_IMAGES)
    return Estimate(mean, n, images, stderr, *wilson(mean, n / max(1.0, effect), t_quantile(images - 1)))


def _by_image(values: Sequence[float], clusters: Sequence[Hashable]) -> tuple[np.ndarray, np.ndarray]:
    """Sum of the values and number of questions of each image, in order of first appearance."""
    if len(values) != len(clusters):
        raise ValueError("every question needs a value and an image")
    places = {cluster: place for place, cluster in enumerate(dict.fromkeys(clusters))}
    image = np.array([places[cluster] for cluster in clusters], dtype=np.int64)
    return np.bincount(image, weights=values), np.bincount(image)


def clustered_stderr(values: Sequence[float], clusters: Sequence[Hashable]) -> float | None:
    """Cluster-robust standard error of a mean; None for a single cluster.

    With n values, G clusters and residuals e_i = y_i - mean:
    SE^2 = G / (G - 1) * sum over clusters g of (sum over i in g of e_i)^2 / n^2
    (Cameron and Miller 2015, section II, for an intercept alone). With clusters of one it is s^2 / n.
    """
    return _stderr_of_sums(*_by_image(values, clusters))


def _stderr_of_sums(sums: np.ndarray, sizes: np.ndarray) -> float | None:
    """`clustered_stderr` from the sum of the values and the number of questions of each image."""
    n, count = int(sizes.sum()), len(sizes)
    if count < 2:
        return None
    residuals = sums - sums.sum() / n * sizes
    return math.sqrt(count / (count - 1) * float(residuals @ residuals)) / n


def t_quantile(freedom: int) -> float:
    """The 97.5 % point of Student's t distribution with so many degrees of freedom, at least 1."""
    return float(stdtrit(freedom, 1 - TAIL))


def wilson(mean: float, n: float, z: float = Z95) -> tuple[float, float]:
    """Wilson's score interval for a share (Wilson 1927); `n` may be an effective, fractional number."""
    scale = 1 + z**2 / n
    centre = (mean + z**2 / (2 * n)) / scale
    half = z / scale * math.sqrt(mean * (1 - mean) / n + z**2 / (4 * n**2))
    return max(0.0, centre - half), min(1.0, centre + half)


# ------------------------------------------------------------------------------------------- paired differences


def difference(first: Sequence[bool], second: Sequence[bool], clusters: Sequence[Hashable]) -> Difference:
    """Second minus first on the same questions, question by question.

    The test is `sign_flip` over the images, which is McNemar's exact test where every question has an image of its
    own; the interval leaves zero out just when p < 0.05. The standard error is that of the mean paired difference,
    clustered by image.

    Raises:
        ValueError: no question, or lists of unequal length.
    """
    if not first:
        raise ValueError("a difference over no questions does not exist")
    changes = [int(after) - int(before) for before, after in zip(first, second, strict=True)]
    sums, sizes = _by_image(changes, clusters)
    n, images, stderr = len(changes), len(sizes), _stderr_of_sums(sums, sizes)
    sums = np.rint(sums).astype(int)
    p = sign_flip(sums)
    low, high = (None, None) if stderr is None else _paired_interval(sums, sizes, p)
    return Difference(
        mean=float(sums.sum()) / n,
        n=n,
        clusters=images,
        stderr=stderr,
        low=low,
        high=high,
        lost=changes.count(-1),
        won=changes.count(1),
        changed=int((sums != 0).sum()),
        p=p,
        test=MCNEMAR if images == n else SIGN_FLIP,
    )


def sign_flip(sums: np.ndarray) -> float:
    """Two-sided p of the sum of whole numbers, one per image, if each had either sign with the same chance.

    Without a difference between two runs an image's sum of changes is as likely s as -s, and images do not depend
    on each other: p is the share of all 2^G ways to set the signs whose sum is at least as far from zero (Fisher 1935,
    The Design of Experiments, section 21). It is counted, not drawn.
    """
    sizes = np.abs(sums)
    far = (int(sizes.sum()) + abs(int(sums.sum()))) // 2  # what the larger side has won
    return float(f"{min(1.0, 2 * _sum_of_wins(_counted(sizes), 0.5)[far:].sum()):.12g}")  # the digits that are certain


def _counted(sizes: np.ndarray) -> list[tuple[int, int]]:
    """Each size above 0, and how many images have it."""
    counts = np.bincount(sizes)
    return [(size, count) for size, count in enumerate(counts.tolist()) if size and count]


def _sum_of_wins(counted: Sequence[tuple[int, int]], share: float) -> np.ndarray:
    """The distribution of the sum of those sizes that win, each with the chance `share`; (sum of all sizes + 1,).

    Images of one size win a binomial number of times; the sums of different sizes are convolved.
    """
    law = np.ones(1)
    for size, count in counted:
        k = np.arange(count + 1)
        step = np.zeros(size * count + 1)
        step[::size] = np.exp(_log_ways(count) + xlogy(k, share) + xlog1py(count - k, -share))
        law = np.convolve(law, step)
    return law


@lru_cache(maxsize=1 << 10)
def _log_ways(count: int) -> np.ndarray:
    """The logarithm of the number of ways to choose 0, 1, ... of `count`; (count + 1,)."""
    k = np.arange(count + 1)
    return gammaln(count + 1) - gammaln(k + 1) - gammaln(count - k + 1)


def _paired_interval(sums: np.ndarray, sizes: np.ndarray, p: float) -> tuple[float, float]:
    """95 % interval of a paired difference that agrees with its test, from each image's sum of changes and size.

    With d = S / n, residuals r_i = s_i - d m_i and mean size m: d ± t s, s^2 = (sum of r_i^2 + 2 a^2) / (n + 2 m)^2,
    t with images - 1 degrees of freedom. As in Bonett and Price (2012), whose variance it has where all m_i are 1,
    there are two images more than were seen, one that won and one that lost, of size m. Their a^2 is the mean square
    of the sums of those that changed, among which PRIOR_IMAGES count that changed in all their questions.

    An end that contradicts the test is replaced by the one that `exact_low` gives.
    """
    n, images, changed = int(sizes.sum()), len(sizes), int((sums != 0).sum())
    mean = float(sums.sum()) / n
    residuals = sums - mean * sizes
    prior = PRIOR_IMAGES * float((sizes**2).mean())
    added = (float((sums**2).sum()) + prior) / (changed + PRIOR_IMAGES)
    error = math.sqrt(float(residuals @ residuals) + 2 * added) / (n + 2 * n / images)
    low, high = (mean + sign * t_quantile(images - 1) * error for sign in (-1, 1))
    if (low > 0) != (mean > 0 and p < LEVEL):
        low = exact_low(sums, n)
    if (high < 0) != (mean < 0 and p < LEVEL):
        high = -exact_low(-sums, n)
    return max(-1.0, low), min(1.0, high)


def exact_low(sums: np.ndarray, n: int) -> float:
    """The lower end of the interval of a paired difference that takes as given by how much each image changed.

    Each change is a win with the same chance q; the end is where as many wins as were seen, or more, have a probability
    of 2.5 %. It is above zero just where q is above 1/2 there, which is where the sign-flip test has p < 0.05. With
    sums of one it is the exact interval of a share (Clopper and Pearson 1934).
    """
    sizes = np.abs(sums)
    total = int(sizes.sum())
    won = (total + int(sums.sum())) // 2
    low, high, counted = 0.0, 1.0, _counted(sizes)
    for _ in range(40):  # halvings
        share = (low + high) / 2
        if _sum_of_wins(counted, share)[won:].sum() < TAIL:
            low = share
        else:
            high = share
    return (2 * low - 1) * total / n


def kappa(
    first: Sequence[bool], second: Sequence[bool], clusters: Sequence[Hashable]
) -> tuple[float, float | None] | None:
    """Cohen's kappa of two runs' right answers and its standard error clustered by image; None where it is undefined.

    kappa = (a - e) / (1 - e) with the share a of equal outcomes and e = p q + (1 - p)(1 - q) of accuracies p and q. The
    error is that of the mean of its linear form (Fleiss, Cohen and Everitt 1969 by the delta method): question i adds
    a_i / (1 - e) - (1 - a) / (1 - e)^2 * ((2 q - 1) x_i + (2 p - 1) y_i).

    Raises:
        ValueError: no question, or lists of unequal length.
    """
    x, y = np.array(first, dtype=float), np.array(second, dtype=float)
    if not len(x) or len(x) != len(y):
        raise ValueError("kappa needs the same questions of both runs, at least one")
    p, q = x.mean(), y.mean()
    equal = (x == y).astype(float)
    by_chance = p * q + (1 - p) * (1 - q)
    if by_chance > 1 - 1e-12:  # both always right, or both never
        return None
    linear = equal / (1 - by_chance)
    linear -= (1 - equal.mean()) / (1 - by_chance) ** 2 * ((2 * q - 1) * x + (2 * p - 1) * y)
    return float((equal.mean() - by_chance) / (1 - by_chance)), clustered_stderr(linear.tolist(), clusters)


def detectable(measured: Difference, tests: int = 1) -> float | None:
    """The smallest true difference that a paired test like this one detects with POWER, 0 to 1.

    (t(1 - level / 2) + t(POWER)) standard errors with images - 1 degrees of freedom, and no less than the difference of
    as many questions as images must change for p below the level.

    Args:
        measured: the difference of which the error is taken.
        tests: how many tests share the level of 5 % (the first step of Holm's correction).

    Returns:
        None where even the largest difference could not be detected, or on a single image.
    """
    level = LEVEL / tests
    fewest = math.floor(math.log2(2 / level)) + 1
    if measured.stderr is None or fewest > measured.clusters:
        return None
    quantiles = stdtrit(measured.clusters - 1, 1 - level / 2) + stdtrit(measured.clusters - 1, POWER)
    smallest = max(float(quantiles) * measured.stderr, fewest / measured.n)
    return smallest if smallest <= 1 else None


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p of each of several tests: below a level, the chance of one wrong finding among all stays below it.

    Of the p sorted upwards the k-th is multiplied by m - k + 1, and none is less than one before it (Holm 1979).
    """
    adjusted, highest, count = [0.0] * len(p_values), 0.0, len(p_values)
    for rank, place in enumerate(sorted(range(count), key=lambda index: p_values[index])):
        highest = max(highest, min(1.0, p_values[place] * (count - rank)))
        adjusted[place] = highest
    return adjusted


def mean_of_means(groups: Sequence[tuple[Sequence[float], Sequence[Hashable]]]) -> tuple[float, float | None]:
    """The unweighted mean of group means, as the papers average, and its standard error clustered by image.

    With K groups, n_k values and G_k clusters in group k, and residuals e_i within the group, a cluster contributes
    r_g = sum over its values of e_i * sqrt(G_k / (G_k - 1)) / (K n_k), and SE^2 is the sum of r_g^2 over all clusters.
    An image that several groups (tasks) ask about is one cluster; where none is, SE^2 = sum of SE_k^2 / K^2.

    Args:
        groups: values and clusters of each group; none is empty.

    Returns:
        The mean, and its standard error; None if a group has a single cluster.
    """
    means = [sum(values) / len(values) for values, _ in groups]
    counts = [len(set(clusters)) for _, clusters in groups]
    mean = sum(means) / len(groups)
    if min(counts) < 2:
        return mean, None
    sums: dict[Hashable, float] = defaultdict(float)
    for (values, clusters), group_mean, count in zip(groups, means, counts, strict=True):
        scale = math.sqrt(count / (count - 1)) / (len(groups) * len(values))
        for value, cluster in zip(values, clusters, strict=True):
            sums[cluster] += scale * (value - group_mean)
    return mean, math.sqrt(sum(total**2 for total in sums.values()))


def pass_at_k(count: int, correct: int, k: int) -> float:
    """The chance that at least one of `k` samples is right, where `correct` of `count` are.

    1 - C(count - correct, k) / C(count, k), which is unbiased (Chen et al. 2021, arXiv 2107.03374, equation 1).
    """
    return 1 - math.comb(count - correct, k) / math.comb(count, k)
