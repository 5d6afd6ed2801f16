"""Standard errors, intervals and paired tests against hand arithmetic."""

import math
import random
from statistics import stdev

import numpy as np
import pytest

from open_r1.evaluation.statistics import (
    accuracy,
    bootstrap_means,
    clopper_pearson,
    clustered_stderr,
    difference,
    holm,
    mcnemar,
    mean_of_means,
    pass_at_k,
    wilson,
)


def test_stderr_of_independent_questions_is_the_textbook_one():
    # e = .5 .5 -.5 -.5; s^2 = 4 * .25 / 3 = 1/3; SE = sqrt(1/3 / 4)
    assert clustered_stderr([1, 1, 0, 0], "abcd") == pytest.approx(math.sqrt(1 / 12))


def test_stderr_grows_where_questions_share_a_picture():
    # sums per picture: +1, -1; SE^2 = 2/1 * (1 + 1) / 16 = .25
    assert clustered_stderr([1, 1, 0, 0], "aabb") == pytest.approx(0.5)
    # pictures that hold one right and one wrong answer each: sums 0, 0
    assert clustered_stderr([1, 0, 1, 0], "aabb") == 0.0


def test_stderr_with_pictures_of_unequal_size():
    # mean .6; e = .4 .4 .4 -.6 -.6; sums: a = 1.2 - .6 = .6, b = -.6; SE^2 = 2 * (.36 + .36) / 25
    assert clustered_stderr([1, 1, 1, 0, 0], "aaaab") == pytest.approx(math.sqrt(1.44 / 25))


def test_a_single_picture_has_no_stderr():
    assert clustered_stderr([1, 0, 1], "aaa") is None
    assert accuracy([True], ["a"]).stderr is None


def test_wilson_by_hand():
    # p = .5, n = 4, z^2 = 3.8415: centre .5; half = 1.95996 / 1.96036 * sqrt(.0625 + 3.8415 / 64) = .34996
    assert wilson(0.5, 4) == pytest.approx((0.15004, 0.84996), abs=1e-4)
    assert wilson(0.8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)  # the textbook's 8 of 10
    assert wilson(0.0, 10) == pytest.approx((0.0, 3.84146 / 13.84146), abs=1e-5)
    assert wilson(1.0, 10) == pytest.approx((10 / 13.84146, 1.0), abs=1e-5)


def test_accuracy_of_independent_questions_has_the_plain_interval():
    correct = [True] * 8 + [False] * 2
    got = accuracy(correct, range(10))
    # s^2 = 10 * .16 / 9; SE = sqrt(.17778 / 10) = .13333
    assert (got.mean, got.n, got.clusters) == (0.8, 10, 10)
    assert got.stderr == pytest.approx(0.133333, abs=1e-6)
    assert (got.low, got.high) == pytest.approx(wilson(0.8, 10))


def test_accuracy_on_shared_pictures_has_a_wider_interval():
    # SE^2 = .25 against .5 * .5 / 3 for independent questions: design effect 3, as if there were 4/3 questions
    got = accuracy([True, True, False, False], "aabb")
    assert (got.mean, got.n, got.clusters, got.stderr) == (0.5, 4, 2, pytest.approx(0.5))
    assert (got.low, got.high) == pytest.approx(wilson(0.5, 4 / 3))


def test_interval_is_never_narrower_than_for_independent_questions():
    got = accuracy([True, False, True, False], "aabb")  # SE 0
    assert (got.low, got.high) == pytest.approx(wilson(0.5, 4))


def test_all_right_counts_pictures_not_questions():
    got = accuracy([True] * 12, [number // 4 for number in range(12)])
    assert (got.mean, got.stderr) == (1.0, 0.0)
    assert (got.low, got.high) == pytest.approx(wilson(1.0, 3))


def test_clustered_stderr_is_the_spread_that_repeated_draws_show():
    """300 data sets of 60 pictures with 5 questions that share their picture's fate nine times in ten."""
    draw = random.Random(0)

    def data_set() -> tuple[list[bool], list[int]]:
        correct, pictures = [], []
        for picture in range(60):
            fate = draw.random() < 0.7
            correct += [fate if draw.random() < 0.9 else draw.random() < 0.7 for _ in range(5)]
            pictures += [picture] * 5
        return correct, pictures

    estimates = [accuracy(*data_set()) for _ in range(300)]
    spread = stdev(estimate.mean for estimate in estimates)
    claimed = sum(estimate.stderr or 0 for estimate in estimates) / 300
    covered = sum(estimate.low <= 0.7 <= estimate.high for estimate in estimates) / 300
    print(f"spread {spread:.4f}, claimed {claimed:.4f}, 95 % intervals cover {covered:.3f}")
    assert claimed == pytest.approx(spread, rel=0.12)  # 0.03 seen
    assert math.sqrt(0.7 * 0.3 / 300) < 0.6 * spread  # what ignoring the pictures would claim
    assert 0.91 <= covered <= 0.99  # 0.95 seen


def test_paired_difference_by_hand():
    first, second = [True, False, False, True], [True, True, True, False]
    # d = 0 1 1 -1, mean .25; e = -.25 .75 .75 -1.25, squares 2.75; SE^2 = 4/3 * 2.75 / 16
    apart = difference(first, second, "abcd")
    assert (apart.mean, apart.n, apart.clusters, apart.lost, apart.won) == (0.25, 4, 4, 1, 2)
    assert apart.stderr == pytest.approx(math.sqrt(4 / 3 * 2.75 / 16))
    # sums per picture .5, -.5; SE^2 = 2 * .5 / 16
    assert difference(first, second, "aabb").stderr == pytest.approx(0.25)
    assert apart.p == 1.0  # 2 * (1 + 3) / 8
    back = difference(second, first, "abcd")
    assert (back.mean, back.lost, back.won, back.p) == (-0.25, 2, 1, 1.0)


@pytest.mark.parametrize(
    ("lost", "won", "p"),
    [(0, 0, 1.0), (0, 5, 2 / 32), (5, 0, 2 / 32), (1, 9, 2 * (1 + 10) / 1024), (5, 5, 1.0), (2, 3, 1.0)],
)
def test_mcnemar_by_hand(lost, won, p):
    assert mcnemar(lost, won) == pytest.approx(p)


def test_mcnemar_of_a_whole_test_set_is_exact_and_finite():
    assert mcnemar(8000, 8200) == pytest.approx(0.1179, abs=2e-4)  # normal approximation: z = 199 / 127.3 -> 0.118
    assert mcnemar(0, 17_662) == 0.0


def test_unweighted_mean_by_hand():
    one, other = [1, 1, 0, 0], [1, 0]
    # groups on pictures of their own: SE_1^2 = 1/12, SE_2^2 = 2 * .5 / 4 = 1/4; SE^2 = (1/12 + 1/4) / 4 = 1/12
    mean, stderr = mean_of_means([(one, "abcd"), (other, "ef")])
    assert (mean, stderr) == (pytest.approx(0.5), pytest.approx(math.sqrt(1 / 12)))
    assert mean_of_means([([1] * 99 + [0], range(100)), ([0, 1], "xy")])[0] == pytest.approx(0.745)  # not 100 / 102
    assert mean_of_means([(one, "abcd"), ([1], "e")]) == (pytest.approx(0.75), None)  # one picture has no spread


def test_pictures_that_several_groups_share_are_not_counted_as_independent():
    # two tasks asked about the same two pictures, with the same fate: as sure as one task alone, SE^2 = 2 * .5 / 4
    assert mean_of_means([([1, 0], "ab"), ([1, 0], "ab")])[1] == pytest.approx(0.5)
    # opposite fates cancel: the mean over the tasks is .5 whatever pictures are drawn
    assert mean_of_means([([1, 0], "ab"), ([0, 1], "ab")])[1] == pytest.approx(0)


@pytest.mark.parametrize(
    ("gain", "loss"), [(0.28, 0.0), (0.28, 0.01), (0.3, 0.1), (0.15, 0.05), (0.2, 0.2), (0.02, 0.28)]
)
def test_paired_interval_covers_and_agrees_with_its_test(gain, loss):
    """Over all outcomes of 60 questions, each with its chance; of the exact interval alone it is 0.5 at the first."""
    n, covered, told = 60, 0.0, 0.0
    for won in range(n + 1):
        for lost in range(n + 1 - won):
            ways = math.comb(n, won) * math.comb(n - won, lost)
            chance = ways * gain**won * loss**lost * (1 - gain - loss) ** (n - won - lost)
            if chance < 1e-9:
                continue
            first = [False] * won + [True] * (n - won)
            found = difference(first, [True] * (n - lost) + [False] * lost, range(n))
            if found.low is None or found.high is None:
                continue
            told += chance
            covered += chance * (found.low <= gain - loss <= found.high)
            assert found.excludes_zero == (found.p < 0.05)
            assert found.low <= found.mean <= found.high
    assert covered / told > 0.94


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.4]) == [0.8, 0.8]
    assert holm([]) == []


def test_holm_keeps_the_chance_of_one_wrong_finding_below_the_level():
    draw = random.Random(0)
    tests = [[draw.random() for _ in range(64)] for _ in range(2000)]  # of true null hypotheses
    wrong = sum(min(holm(each)) < 0.05 for each in tests) / 2000
    plain = sum(min(each) < 0.05 for each in tests) / 2000
    assert 0.03 < wrong < 0.07  # 1 - (1 - 0.05 / 64) ** 64 = 0.0488
    assert plain > 0.9


def test_pass_at_k_by_hand():
    assert pass_at_k(4, 1, 1) == pytest.approx(1 / 4)
    assert pass_at_k(4, 2, 2) == pytest.approx(1 - 1 / 6)  # of the 6 pairs one holds no right sample
    assert pass_at_k(4, 0, 4) == 0
    assert pass_at_k(4, 1, 4) == 1


# ------------------------------------------------------------------------- held against scipy and statsmodels


def random_answers(seed: int, shared: bool) -> tuple[list[bool], list[bool], list[int]]:
    """Answers of two runs and the picture of each; with `shared`, pictures have one to five questions."""
    draw = random.Random(seed)
    pictures = [p for p in range(draw.randint(8, 80)) for _ in range(draw.randint(1, 5) if shared else 1)]
    ease = {picture: draw.random() for picture in pictures}
    lift = draw.uniform(-0.3, 0.3)
    first = [draw.random() < ease[picture] for picture in pictures]
    second = [draw.random() < min(1, max(0, ease[picture] + lift)) for picture in pictures]
    return first, second, pictures


def oracle(module: str):
    return pytest.importorskip(module, reason=f"{module} is an oracle of these tests; pip install -e '.[dev]'")


@pytest.mark.parametrize("seed", range(20))
def test_wilson_equals_statsmodels(seed):
    proportion = oracle("statsmodels.stats.proportion")
    draw = random.Random(seed)
    n = draw.randint(1, 20_000)
    for right in (0, draw.randint(0, n), n):
        expected = proportion.proportion_confint(right, n, alpha=0.05, method="wilson")
        assert wilson(right / n, n) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("seed", range(20))
def test_mcnemar_and_its_interval_equal_scipy(seed):
    stats, tables = oracle("scipy.stats"), oracle("statsmodels.stats.contingency_tables")
    draw = random.Random(seed)
    lost, won = draw.randint(0, 10 ** draw.randint(1, 3)), draw.randint(0, 10 ** draw.randint(1, 3)) + 1
    test = stats.binomtest(won, lost + won, 0.5)
    assert mcnemar(lost, won) == pytest.approx(test.pvalue, rel=1e-9)
    assert mcnemar(lost, won) == pytest.approx(tables.mcnemar([[5, lost], [won, 5]], exact=True).pvalue, rel=1e-9)
    low, high = clopper_pearson(won, lost + won)
    expected = test.proportion_ci(confidence_level=0.95, method="exact")
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-9)
    assert (mcnemar(lost, won) < 0.05) == (low > 0.5 or high < 0.5)  # the mark and the test never contradict


@pytest.mark.parametrize("seed", range(20))
def test_clustered_stderr_equals_statsmodels(seed):
    api = oracle("statsmodels.api")
    first, second, pictures = random_answers(seed, shared=True)
    for values in (first, [int(b) - int(a) for a, b in zip(first, second, strict=True)]):
        model = api.OLS([float(value) for value in values], [[1.0]] * len(values))
        # use_correction scales by G / (G - 1) * (n - 1) / (n - 1): one parameter
        fitted = model.fit(cov_type="cluster", cov_kwds={"groups": pictures, "use_correction": True})
        assert clustered_stderr(values, pictures) == pytest.approx(float(fitted.bse[0]), rel=1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_bootstrap_spreads_as_the_analytic_error_says_and_as_a_plain_one_does(seed):
    first, second, _ = random_answers(seed, shared=True)
    pictures = [place // 3 for place in range(len(first))]  # equal sizes: mean of cluster means, spread known exactly
    changes = [int(b) - int(a) for a, b in zip(first, second, strict=True)]
    means = bootstrap_means(changes, pictures, draws=20_000)
    groups = len(set(pictures))
    analytic = (clustered_stderr(changes, pictures) or 0) * math.sqrt((groups - 1) / groups)
    print(f"bootstrap {means.std():.5f}, analytic {analytic:.5f}")
    assert means.std() == pytest.approx(analytic, rel=0.05)  # 0.03 seen: the last picture may have fewer questions
    assert means.mean() == pytest.approx(sum(changes) / len(changes), abs=4 * analytic / math.sqrt(20_000))
    sums = [[changes[k] for k in range(len(changes)) if pictures[k] == picture] for picture in range(groups)]
    draw = random.Random(seed)
    plain = []
    for _ in range(2000):
        drawn = [value for cluster in draw.choices(sums, k=groups) for value in cluster]
        plain.append(sum(drawn) / len(drawn))
    plain.sort()
    assert np.quantile(means, [0.025, 0.975]) == pytest.approx([plain[50], plain[1949]], abs=0.25 * analytic)


def test_bootstrap_repeats_itself():
    first, second, pictures = random_answers(1, shared=True)
    assert difference(first, second, pictures) == difference(first, second, pictures)


@pytest.mark.parametrize("shared", [False, True])
def test_intervals_of_differences_cover_the_truth(shared):
    """300 data sets without any difference: the interval leaves zero out about once in twenty."""
    draw = random.Random(7)
    wrong = 0
    for _ in range(300):
        pictures = [place // (3 if shared else 1) for place in range(150)]
        ease = [draw.random() for _ in range(150)]
        first, second = ([draw.random() < ease[picture] for picture in pictures] for _ in range(2))
        wrong += difference(first, second, pictures).excludes_zero
    print(f"zero was left out {wrong} times in 300")
    assert wrong <= 27  # 300 * 0.05 + 3 * sqrt(300 * .05 * .95) = 26.3


def test_a_handful_of_changes_is_no_evidence():
    # five pictures won, none lost: McNemar's p is 2 / 2^5, so no interval may leave zero out
    assert not difference([False] * 40, [True] * 5 + [False] * 35, range(40)).excludes_zero
    shared = difference([False] * 80, [True] * 10 + [False] * 70, [k // 2 for k in range(80)])
    assert (shared.test, shared.low, shared.excludes_zero) == ("clustered bootstrap", None, False)
    assert difference([False] * 40, [True] * 6 + [False] * 34, range(40)).excludes_zero  # 2 / 2^6 = .03


def test_no_questions_is_an_error():
    with pytest.raises(ValueError, match="no questions"):
        accuracy([], [])
    with pytest.raises(ValueError, match="no questions"):
        difference([], [], [])
    with pytest.raises(ValueError, match="zip"):
        accuracy([True, False], ["a"])
