"""Sets that can often be answered without looking: the usual answer is right in the share that is asked for."""

from collections import Counter
from typing import Any

from open_r1.grading.problems import render_problem
from open_r1_testbed.shortcuts import answer_text, usual_answers, with_usual_answers

STAINS = ["amber", "olive", "teal", "violet"]


def rows() -> list[dict[str, Any]]:
    """100 questions for each of four answers, in two cells."""
    return [
        {
            "problem": render_problem("Which stain? ", STAINS),
            "solution": f"<answer> {'ABCD'[number % 4]} </answer>",
            "modality": modality,
            "task": "Other Biological Attributes",
            "number": number,
        }
        for modality in ("CT", "Fundus Photography")
        for number in range(400)
    ]


def test_the_usual_answer_is_right_in_its_share_and_the_others_are_equally_frequent() -> None:
    chosen = with_usual_answers(rows(), 0.6, seed=3)
    for modality in ("CT", "Fundus Photography"):
        counts = Counter(answer_text(row) for row in chosen if row["modality"] == modality)
        assert counts == {"amber": 100, "olive": 22, "teal": 22, "violet": 22}
    assert set(usual_answers(rows()).values()) == {"amber"}


def test_rows_keep_their_order_and_the_seed_decides_which_are_taken() -> None:
    first, again, other = (with_usual_answers(rows(), 0.6, seed) for seed in (1, 1, 2))
    assert first == again != other
    assert all(row in rows() for row in first)
    numbers = [(row["modality"], row["number"]) for row in first]
    assert numbers == sorted(numbers)
