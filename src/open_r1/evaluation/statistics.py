"""How sure an accuracy is: standard errors that know about shared pictures, intervals, paired differences.

Several questions about one picture stand or fall together, so they are no independent trials: every standard error
here is clustered by picture. Accuracies are shares between 0 and 1.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

Z95 = 1.959963984540054  # 97.5 % point of the standard normal distribution
TAIL = 0.025  # what a 95 % interval leaves out on either side

MCNEMAR = "exact McNemar"
BOOTSTRAP = "clustered bootstrap"
DRAWS = 5000  # of the bootstrap: a tail of 2.5 % is met to 0.2 points
FEWEST_CHANGED = 6  # pictures; five that all changed one way are no evidence yet (2 / 2^5 > 0.05)


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
    clusters: int  # pictures
    stderr: float | None
    low: float | None  # 95 % interval; None where too few pictures changed to tell
    high: float | None
    lost: int  # right in the first run only
    won: int  # right in the second run only
    p: float  # two-sided, of `test`
    test: str  # MCNEMAR or BOOTSTRAP

    @property
    def excludes_zero(self) -> bool:
        """Whether the 95 % interval leaves zero out."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


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

    Where every question has a picture of its own, the test is McNemar's, exact, and the interval is
    `_paired_interval`: it leaves zero out just when p < 0.05. Otherwise pictures are drawn again, with all their
    questions (`bootstrap_means`, seed 0), and the interval holds the middle 95 % of the means. The standard error is
    that of the mean paired difference, clustered by picture.

    Raises:
        ValueError: no question, or lists of unequal length.
    """
    if not first:
        raise ValueError("a difference over no questions does not exist")
    changes = [int(after) - int(before) for before, after in zip(first, second, strict=True)]
    n, lost, won = len(changes), changes.count(-1), changes.count(1)
    stderr, groups = clustered_stderr(changes, clusters), len(set(clusters))
    if groups == n:
        low, high = _paired_interval(lost, won, n) if lost + won >= FEWEST_CHANGED else (None, None)
        return Difference((won - lost) / n, n, groups, stderr, low, high, lost, won, mcnemar(lost, won), MCNEMAR)
    means = bootstrap_means(changes, clusters)
    low = high = None
    if _changed(changes, clusters) >= FEWEST_CHANGED:
        low, high = (float(end) for end in np.quantile(means, (TAIL, 1 - TAIL)))
    tail = min(int((means <= 0).sum()), int((means >= 0).sum()))
    p = min(1.0, (2 * tail + 1) / (len(means) + 1))
    return Difference((won - lost) / n, n, groups, stderr, low, high, lost, won, p, BOOTSTRAP)


def _paired_interval(lost: int, won: int, n: int) -> tuple[float, float]:
    """95 % interval of a paired difference that never contradicts the exact test.

    Given how many answers changed, the exact interval of the share of wins among them decides about zero. It knows
    nothing of how that number varies (with no losses it ends at the estimate, and covers the truth half of the time),
    so it is widened, on the side of zero that it leaves open, to d ± 1.96 s with d = (won - lost) / (n + 2) and
    s^2 = ((won + lost + 2) / (n + 2) - d^2) / (n + 2) (Bonett and Price 2012).
    """
    low, high = ((2 * share - 1) * (lost + won) / n for share in clopper_pearson(won, lost + won))
    centre = (won - lost) / (n + 2)
    reach = Z95 * math.sqrt(((won + lost + 2) / (n + 2) - centre**2) / (n + 2))
    wider_low, wider_high = max(-1.0, min(low, centre - reach)), min(1.0, max(high, centre + reach))
    return (low if low > 0 >= wider_low else wider_low, high if high < 0 <= wider_high else wider_high)


def _changed(changes: Sequence[int], clusters: Sequence[Hashable]) -> int:
    """Pictures whose questions did better or worse on the whole."""
    sums: Counter[Hashable] = Counter()
    for change, cluster in zip(changes, clusters, strict=True):
        sums[cluster] += change
    return sum(total != 0 for total in sums.values())


def bootstrap_means(
    values: Sequence[float], clusters: Sequence[Hashable], draws: int = DRAWS, seed: int = 0
) -> np.ndarray:
    """Means of `values` over clusters that are drawn with replacement; shape (draws,).

    Clusters of one size and one sum are interchangeable, so only how often each kind is drawn is drawn, from a
    multinomial distribution: the same law as drawing 18,000 clusters one by one, in a thousandth of the time.
    """
    size: Counter[Hashable] = Counter()
    total: dict[Hashable, float] = defaultdict(float)
    for value, cluster in zip(values, clusters, strict=True):
        size[cluster] += 1
        total[cluster] += value
    kinds = Counter((size[cluster], total[cluster]) for cluster in size)
    drawn = np.random.default_rng(seed).multinomial(
        len(size), [count / len(size) for _, count in sorted(kinds.items())], size=draws
    )  # (draws, kinds)
    sizes, sums = np.array(sorted(kinds), dtype=float).T
    return drawn @ sums / (drawn @ sizes)


def clopper_pearson(successes: int, n: int) -> tuple[float, float]:
    """The exact 95 % interval of a share (Clopper and Pearson 1934); (0, 1) without a trial."""
    if n == 0:
        return 0.0, 1.0
    high = 1.0 if successes == n else _share_where_few(successes, n)
    low = 0.0 if successes == 0 else 1 - _share_where_few(n - successes, n)
    return low, high


def _share_where_few(most: int, n: int) -> float:
    """The share at which at most `most` successes in n trials have a probability of 2.5 %."""
    factorials = np.concatenate(([0.0], np.cumsum(np.log(np.arange(1, n + 1)))))  # of 0 to n, as logarithms
    k = np.arange(most + 1)
    ways = factorials[n] - factorials[k] - factorials[n - k]
    low, high = most / n, 1.0
    for _ in range(60):  # halvings: to the last bit
        share = (low + high) / 2
        if np.exp(ways + k * math.log(share) + (n - k) * math.log1p(-share)).sum() > TAIL:
            low = share
        else:
            high = share
    return (low + high) / 2


def mcnemar(lost: int, won: int) -> float:
    """Two-sided p of `lost` against `won` under a fair coin: min(1, 2 P(X <= min)), X ~ Bin(lost + won, 1/2)."""
    tosses, term, total = lost + won, 1, 0
    for k in range(min(lost, won) + 1):
        total += term
        term = term * (tosses - k) // (k + 1)  # the next binomial coefficient
    return min(1.0, 2 * total / 2**tosses)


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
    """The unweighted mean of group means, as the papers average, and its standard error clustered by picture.

    With K groups, n_k values and G_k clusters in group k, and residuals e_i within the group, a cluster contributes
    r_g = sum over its values of e_i * sqrt(G_k / (G_k - 1)) / (K n_k), and SE^2 is the sum of r_g^2 over all clusters.
    A picture that several groups (tasks) ask about is one cluster; where none is, SE^2 = sum of SE_k^2 / K^2.

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
    for (values, clusters), own, count in zip(groups, means, counts, strict=True):
        scale = math.sqrt(count / (count - 1)) / (len(groups) * len(values))
        for value, cluster in zip(values, clusters, strict=True):
            sums[cluster] += scale * (value - own)
    return mean, math.sqrt(sum(total**2 for total in sums.values()))


def pass_at_k(count: int, correct: int, k: int) -> float:
    """The chance that at least one of `k` samples is right, where `correct` of `count` are.

    1 - C(count - correct, k) / C(count, k), which is unbiased (Chen et al. 2021, arXiv 2107.03374, equation 1).
    """
    return 1 - math.comb(count - correct, k) / math.comb(count, k)
