"""Scores of open answers against values worked out by hand and against the formulas."""

import math
import random
from collections import Counter

import pytest

from open_r1.grading.free.text_metrics import rouge_l, token_f1, word_scores, words

VOCABULARY = ["left", "right", "lung", "opacity", "in", "lobe", "upper", "no", "effusion", "5", "mm"]


def longest_common(first: list[str], second: list[str]) -> int:
    row = [0] * (len(second) + 1)
    for word in first:
        before = 0
        for place, other in enumerate(second, 1):
            before, row[place] = row[place], before + 1 if word == other else max(row[place], row[place - 1])
    return row[-1]


def test_words_are_what_is_compared() -> None:
    assert words("The **left** lung, 2.5 cm. An X-ray") == ["left", "lung", "2.5", "cm", "x", "ray"]
    assert words("左肺有积液") == list("左肺有积液")


def test_scores_worked_out_by_hand() -> None:
    # left lung shows opacity | opacity in left lung: 3 of 4 words on both sides, the common subsequence is "left lung"
    scores = word_scores("The left lung shows an opacity", ["opacity in the left lung"])
    assert scores == pytest.approx((0.75, 0.75, 0.75, 0.5))
    # lung | left lung: precision 1, recall 1/2, brevity exp(1 - 2)
    assert word_scores("lung", ["left lung"]) == pytest.approx((0.5, 2 / 3, math.exp(-1), 2 / 3))


def test_the_best_reference_counts_and_nothing_scores_nothing() -> None:
    assert word_scores("CT", ["computed tomography", "ct"]) == pytest.approx((1, 1, 1, 1))
    assert word_scores("", ["ct"]) == (0, 0, 0, 0)
    assert word_scores("the", ["ct"]) == (0, 0, 0, 0)


def test_scores_follow_their_formulas() -> None:
    draw = random.Random(0)
    for _ in range(300):
        answer, reference = (draw.choices(VOCABULARY, k=draw.randint(1, 9)) for _ in range(2))
        shared = (Counter(answer) & Counter(reference)).total()
        precision, recall = shared / len(answer), shared / len(reference)
        f1 = 2 * precision * recall / (precision + recall) if shared else 0.0
        bleu = precision * min(1.0, math.exp(1 - len(reference) / len(answer)))
        common = longest_common(answer, reference)
        by_rouge = 2 * common / (len(answer) + len(reference))
        texts = " ".join(answer), [" ".join(reference)]
        assert word_scores(*texts) == pytest.approx((recall, f1, bleu, by_rouge))
        assert (token_f1(*texts), rouge_l(*texts)) == pytest.approx((f1, by_rouge))
