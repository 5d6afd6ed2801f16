"""Sets that can often be answered without looking: the usual answer is right in the share that is asked for."""

from collections import Counter
from typing import Any

from open_r1.grading.problems import options_in, render_problem
from open_r1_testbed.shortcuts import answer_text, usual_answers, with_fixed_letters, with_usual_answers

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
    offered = rows()
    first, again, other = (with_usual_answers(offered, 0.6, seed) for seed in (1, 1, 2))
    assert first == again != other
    assert all(row in offered for row in first)
    numbers = [(row["modality"], row["number"]) for row in first]
    assert numbers == sorted(numbers)


def test_options_stand_in_one_order_per_cell_and_answers_stay_the_same() -> None:
    shuffled = [
        {
            **row,
            "problem": render_problem("Which stain?", [STAINS[place] for place in order]),
            "answer": answer_text(row),
        }
        for row, order in zip(rows()[::50], [(2, 0, 1, 3), (0, 1, 2, 3)] * 8, strict=True)
    ]
    for row in shuffled:
        place = list(options_in(row["problem"]).values()).index(row["answer"])
        row["solution"] = f"<answer> {'ABCD'[place]} </answer>"
    fixed = with_fixed_letters(shuffled)
    assert [answer_text(row) for row in fixed] == [row["answer"] for row in shuffled]
    assert {(row["modality"], row["problem"]) for row in fixed} == {
        ("CT", "Which stain? A)amber, B)olive, C)teal, D)violet"),
        ("Fundus Photography", "Which stain? A)olive, B)teal, C)violet, D)amber"),
    }
