"""Closed and open questions: what a question expects, and how completions are graded by it."""

import random

import pytest
from growth import assert_linear

from open_r1.common.errors import UserError
from open_r1.grading.expected import Expected, grade_answer
from open_r1.grading.grader import Outcome, grade
from open_r1.vocabulary.answer_types import AnswerType

OK, BAD, NONE = "correct", "wrong", "unparsed"
# Solution, completion, outcome, answer: labelled by hand.
CLOSED = [
    ("yes", "<answer>Yes</answer>", OK, "yes"),
    ("yes", "<answer> yes. </answer>", OK, "yes"),
    ("yes", "Yes, there is.", OK, "yes"),
    ("no", "<think>yes</think>No.", OK, "no"),
    ("no", "The answer is no.", OK, "no"),
    ("no", "<think>It could be yes.</think>\n<answer>no</answer>", OK, "no"),
    ("yes", "No", BAD, "no"),
    ("yes", "There is an effusion.", NONE, None),
    ("是的", "是的", OK, "yes"),
    ("是的", "是的，左肺有积液。", OK, "yes"),  # noqa: RUF001
    ("不是", "不是。", OK, "no"),
    ("没有", "<answer>没有</answer>", OK, "no"),
    ("不包含", "不是", OK, "no"),
    ("包含", "是的", OK, "yes"),
    ("有", "没有，未见积液", BAD, "no"),  # noqa: RUF001
    ("yes", "Yes. No, wait.", NONE, None),
    ("yes", "Yes and no", NONE, None),
    ("yes", "<answer>yes or no</answer>", NONE, None),
    ("yes", "<answer>yes</answer><answer>no</answer>", BAD, "no"),
    ("yes", "The lung is opaque. So, yes.", OK, "yes"),
    ("no", "Therefore, no", OK, "no"),
    ("yes", "<think>yes", NONE, None),
    ("yes", "<think>Opaque. <answer>yes</answer>", OK, "yes"),
    ("yes", "<think><answer>yes</answer></think>", NONE, None),
    ("yes", "Answer: Yes\nExplanation: fluid.", OK, "yes"),
    ("yes", "Answer: yes. Edit: no", NONE, None),
    ("yes", "The answer is yes. Actually no.", NONE, None),
    ("yes", "Yes, at first sight. But on closer look, no.", NONE, None),
    ("no", "No effusion is seen.", NONE, None),
    ("no", "No, no effusion.", OK, "no"),
    ("yes", "**Yes**", OK, "yes"),
    ("yes", "\\boxed{yes}", OK, "yes"),
    ("yes", "I do not think that the answer is yes.", NONE, None),
    ("yes", "", NONE, None),
    ("MRI", "<answer>MRI</answer>", OK, "MRI"),
    ("MRI", "This is an MRI.", OK, "This is an MRI."),
    ("MRI", "The modality is MRI.", OK, "The modality is MRI."),
    ("MRI", "CT", BAD, "CT"),
    ("MRI", "The image could be of any kind. " * 20, NONE, None),
    ("Left", "<answer>left side</answer>", OK, "left side"),
    ("Left", "Right", BAD, "Right"),
    ("Left", "The answer is left. Right is darker.", NONE, None),
    ("heart", "Heart.", OK, "Heart."),
]
OPEN = [
    ("left lung", "<answer>The left lung</answer>", OK, "The left lung"),
    ("left lung", "right lung", BAD, "right lung"),
    ("left lung", "<think>right lung</think>left lung", OK, "left lung"),
    ("left lung", "<think>left lung</think>right lung", BAD, "right lung"),
    ("left lung", "It is in the left lung.", OK, "It is in the left lung."),
    ("left lung", "left lung, because it is opaque", OK, "left lung, because it is opaque"),
    ("left lung", "left lung or right lung", BAD, "left lung or right lung"),
    ("left lung", "The answer is left lung. Make that the right lung.", NONE, None),
    ("5 mm", "<answer>0.5 cm</answer>", OK, "0.5 cm"),
    ("5 mm", "5 cm", BAD, "5 cm"),
    ("2.5 cm", "The answer is 2.5 cm.", OK, "2.5 cm"),
    ("2", "two", OK, "two"),
    ("no effusion", "effusion", BAD, "effusion"),
    ("effusion", "no effusion", BAD, "no effusion"),
    ("effusion", "There is no effusion.", BAD, "There is no effusion."),
    ("effusion", "There is an effusion.", OK, "There is an effusion."),
    ("heart", "<think>a</think><answer>The answer is the heart.</answer>", OK, "the heart"),
    ("heart", "The answer is the heart. I am sure.", OK, "the heart"),
    ("heart", "The answer is not the heart.", BAD, "not the heart"),
    ("heart", "The organ is not the heart.", BAD, "The organ is not the heart."),
    ("heart", "I do not think the answer is heart", NONE, None),
    ("heart", "Answer: heart\nUpdate: lung", NONE, None),
    ("heart", "\\boxed{\\text{heart}}", OK, "heart"),
    ("heart", "## Thinking\n\nlung\n\n## Final Response\n\nheart", OK, "heart"),
    ("<answer>heart</answer>", "heart", OK, "heart"),
    ("heart", "", NONE, None),
    ("heart", "<think>heart</think>", NONE, None),
    ("heart", "<answer></answer>", NONE, None),
    ("heart", "<answer> ... </answer>", NONE, None),
]


def expected(solution: str, answer_type: str | None = None, aliases: tuple[str, ...] = ()) -> Expected:
    row = {"problem": "What is it?", "solution": solution, "answer_type": answer_type, "aliases": list(aliases)}
    return Expected.of(row)


@pytest.mark.parametrize(("solution", "text", "outcome", "answer"), CLOSED)
def test_a_closed_answer_is_graded_as_labelled(solution: str, text: str, outcome: str, answer: str | None) -> None:
    assert grade_answer(text, expected(solution, "closed")) == (Outcome(outcome), answer)


@pytest.mark.parametrize(("solution", "text", "outcome", "answer"), OPEN)
def test_an_open_answer_is_graded_as_labelled(solution: str, text: str, outcome: str, answer: str | None) -> None:
    assert grade_answer(text, expected(solution, "open")) == (Outcome(outcome), answer)


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
