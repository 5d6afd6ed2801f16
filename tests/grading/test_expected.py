"""Closed and open questions: what a question expects, and how completions are graded by it."""

import random

import pytest
from free_completions import CLOSED, OPEN
from growth import assert_linear

from open_r1.common.errors import UserError
from open_r1.grading.expected import Expected, grade_answer
from open_r1.grading.grader import Outcome, grade
from open_r1.vocabulary.answer_types import AnswerType


def expected(solution: str, answer_type: str | None = None, aliases: tuple[str, ...] = ()) -> Expected:
    row = {"problem": "What is it?", "solution": solution, "answer_type": answer_type, "aliases": list(aliases)}
    return Expected.of(row)


@pytest.mark.parametrize(("solution", "text", "outcome", "answer"), CLOSED)
def test_a_closed_answer_is_graded_as_labelled(solution: str, text: str, outcome: str, answer: str | None) -> None:
    assert grade_answer(text, expected(solution, "closed")) == (Outcome(outcome), answer)


@pytest.mark.parametrize(("solution", "text", "outcome", "answer"), OPEN)
def test_an_open_answer_is_graded_as_labelled(solution: str, text: str, outcome: str, answer: str | None) -> None:
    assert grade_answer(text, expected(solution, "open")) == (Outcome(outcome), answer)


def test_an_answer_of_ten_thousand_characters_is_compared_in_whole() -> None:
    long = "the left lung shows an opacity of 5 mm, " * 250
    question = expected(long, "open")
    assert grade_answer(f"<answer>{long}</answer>", question).outcome is Outcome.CORRECT
    assert grade_answer(f"<answer>{long.replace('5 mm', '5 cm', 1)}</answer>", question).outcome is Outcome.WRONG
    assert grade_answer(f"<answer>{long[:-40]}</answer>", question).outcome is Outcome.WRONG


def test_an_alias_counts() -> None:
    question = expected("computed tomography", "open", ("CT", "CT scan"))
    assert grade_answer("<answer>CT</answer>", question).outcome is Outcome.CORRECT
    assert grade_answer("<answer>MRI</answer>", question).outcome is Outcome.WRONG


@pytest.mark.parametrize(
    ("problem", "solution", "kind"),
    [
        ("What? A)CT, B)MRI", "<answer> A </answer>", AnswerType.CHOICE),
        ("Is it?", "yes", AnswerType.CLOSED),
        ("Is it?", "没有", AnswerType.CLOSED),
        ("Where?", "left lung", AnswerType.OPEN),
    ],
)
def test_the_answer_type_follows_from_the_question(problem: str, solution: str, kind: AnswerType) -> None:
    assert Expected.of({"problem": problem, "solution": solution}).answer_type is kind


@pytest.mark.parametrize("spelling", ["CLOSED ", "closed", "Close-ended"])
def test_published_spellings_of_answer_types_are_read(spelling: str) -> None:
    assert expected("yes", spelling).answer_type is AnswerType.CLOSED


def test_a_choice_is_graded_as_ever() -> None:
    row = {"problem": "What? A)CT, B)MRI", "solution": "<answer> B </answer>"}
    question = Expected.of(row)
    for text in ("B", "<answer>A</answer>", "The answer is B. Edit: A", "MRI", ""):
        assert grade_answer(text, question) == grade(text, row["solution"], question.options)


def test_an_answer_type_that_does_not_exist_is_refused() -> None:
    with pytest.raises(UserError, match="no answer type 'essay'"):
        expected("x", "essay")
    with pytest.raises(UserError, match="no options"):
        expected("A", "choice")


@pytest.mark.slow
def test_any_string_is_graded_and_none_raises() -> None:
    draw = random.Random(0)
    pieces = (
        "yes",
        "no",
        "<answer>",
        "</answer>",
        "<think>",
        "The answer is ",
        "5 mm",
        "\\boxed{",
        "}",
        ",",
        "1,2",
        "\n",
    )
    for _ in range(4000):
        text = "".join(
            draw.choices([*pieces, "left", ".", "\ud800", "٣", "²", "是", "-", "9" * 50], k=draw.randint(0, 12))
        )
        for solution, kind in (("yes", "closed"), ("left", "closed"), ("5 mm", "open")):
            outcome, answer = grade_answer(text, expected(solution, kind))
            assert (answer is None) == (outcome is Outcome.UNPARSED)


@pytest.mark.slow
@pytest.mark.parametrize(
    "piece", ["yes ", "no, ", "the answer is ", "answer: x\n", "\\boxed{", "5 mm ", "1,", "<answer>", "是"]
)
def test_a_hostile_megabyte_costs_linear_time(piece: str) -> None:
    for solution, kind in (("yes", "closed"), ("left lung", "open")):
        question = expected(solution, kind)
        assert_linear(
            lambda text, question=question: grade_answer(text, question),
            lambda size: piece * (size // len(piece)),
            2**20,
        )
