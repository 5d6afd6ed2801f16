"""The grader on outputs that were labelled before it read them; docs/rewards.md says how each set was read when new."""

import pytest
from blind_outputs import QUESTIONS, choice_outputs, free_outputs

from open_r1.grading.expected import grade_answer
from open_r1.grading.grader import Outcome, extract_answer

# set -> outputs, those with an answer, and how many of these are read at least
CHOICE = {
    "first": (328, 229, 218),
    "second": (108, 80, 78),
    "third": (103, 77, 70),
    "fourth": (101, 70, 66),
    "fifth": (70, 48, 42),
    "attack": (120, 2, 1),
}
FREE = {"first": (126, 57, 57), "second": (38, 17, 17), "third": (36, 17, 17), "fourth": (37, 17, 16)}


@pytest.mark.slow
@pytest.mark.parametrize("name", CHOICE)
def test_no_letter_is_read_that_a_reader_does_not_read_and_most_are_read(name: str) -> None:
    outputs = list(choice_outputs(name))
    letters = [
        extract_answer(text, QUESTIONS[question]["options"], QUESTIONS[question]["question"])
        for question, _, text in outputs
    ]
    labels = [label for _, label, _ in outputs]
    pairs = zip(outputs, letters, strict=True)
    assert [output for output, letter in pairs if letter and letter != output[1].rstrip("?")] == []
    readable = [letter for letter, label in zip(letters, labels, strict=True) if len(label) == 1 and label != "-"]
    read = sum(letter is not None for letter in readable)
    assert (len(outputs), len(readable)) == CHOICE[name][:2]
    assert read >= CHOICE[name][2]


@pytest.mark.parametrize("name", FREE)
def test_no_closed_or_open_answer_is_right_that_a_reader_calls_wrong(name: str) -> None:
    outputs = list(free_outputs(name))
    right = [grade_answer(text, expected).outcome is Outcome.CORRECT for expected, _, text in outputs]
    assert [text for (_, label, text), correct in zip(outputs, right, strict=True) if correct and label != "+"] == []
    answered = sum(label == "+" for _, label, _ in outputs)
    assert (len(outputs), answered) == FREE[name][:2]
    assert sum(right) >= FREE[name][2]


@pytest.mark.slow
def test_a_question_whose_words_are_unknown_is_read_less_and_never_otherwise() -> None:
    for question, _, text in choice_outputs("fourth"):
        options = QUESTIONS[question]["options"]
        without = extract_answer(text, options)
        assert without in (None, extract_answer(text, options, QUESTIONS[question]["question"]))
