"""Standard errors, intervals and paired tests against hand arithmetic."""

import math
import random
from statistics import stdev

import pytest

from open_r1.evaluation.statistics import (
    Estimate,
    accuracy,
    clustered_stderr,
    difference,
    mcnemar,
    mean_of_means,
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
    assert (apart.mean, apart.n, apart.lost, apart.won) == (0.25, 4, 1, 2)
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
    one = Estimate(0.9, 1000, 1000, 0.03, 0, 1)
    other = Estimate(0.5, 10, 10, 0.04, 0, 1)
    mean, stderr = mean_of_means([one, other])
    assert mean == pytest.approx(0.7)  # not 905 / 1010
    assert stderr == pytest.approx(0.025)  # sqrt(.0009 + .0016) / 2
    assert mean_of_means([one, Estimate(1.0, 1, 1, None, 0, 1)]) == (pytest.approx(0.95), None)


def test_no_questions_is_an_error():
    with pytest.raises(ValueError, match="no questions"):
        accuracy([], [])
    with pytest.raises(ValueError, match="no questions"):
        difference([], [], [])
    with pytest.raises(ValueError, match="zip"):
        accuracy([True, False], ["a"])
