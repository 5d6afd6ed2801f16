"""Which rows are questions of choice, closed or open, and why a row is none of them."""

import pytest

from open_r1.common.errors import UnusableInput
from open_r1.data.question_checks import LONGEST_ANSWER, MAX_IMAGES, check_question, contradicts
from open_r1.vocabulary.answer_types import AnswerType, parse_answer_type

CHOICE, CLOSED, OPEN = AnswerType


@pytest.mark.parametrize(
    ("problem", "solution", "stated", "expected"),
    [
        ("Which? A)CT, B)MRI", "<answer> B </answer>", None, CHOICE),
        ("Which? A)CT, B)MRI", "B", "", CHOICE),
        ("Which? A. CT, B. MRI", "B", None, CHOICE),
        ("Is it so?\nA) yes\nB) no", "A", "CLOSED ", CHOICE),  # a closed question of SLAKE that leaves a choice
        ("Is it so? A)yes, B)no", "A", "multiple-choice", CHOICE),
        ("Is there a pleural effusion?", "yes", None, CLOSED),
        ("Is there a pleural effusion?", "<answer> No. </answer>", None, CLOSED),
        ("肺部有病变吗?", "没有", None, CLOSED),
        ("Which organ is abnormal, heart or lung?", "lung", "CLOSED", CLOSED),
        ("Where is the lesion?", "left lung", None, OPEN),
        ("Is there an effusion, and where?", "yes", "open-ended", OPEN),
        ("Which letter is marked?", "B", "open", OPEN),
        ("What is seen in (A) and (B)?", "two nodules", None, OPEN),
        ("Why?", "A long reason. A. B.", None, OPEN),
    ],
)
def test_the_answer_type(problem, solution, stated, expected):
    assert check_question(problem, solution, stated).answer_type is expected


def test_texts_of_closed_and_open_questions_stay_as_they_are():
    question = check_question("Where?", "<answer> left lung </answer>", None, ["the left lung"])
    assert (question.problem, question.solution) == ("Where?", "<answer> left lung </answer>")
    assert question.aliases == ("the left lung",)


@pytest.mark.parametrize(
    ("problem", "solution", "stated", "reason"),
    [
        ("How many cells?", "A", None, "no-options"),
        ("How many cells?", "<answer> C </answer>", None, "no-options"),
        ("How many cells?", "many", "choice", "no-options"),
        ("How many? A)1, B)2, C)1", "A", None, "repeated-option"),
        ("How many? A)1, B)2", "three", None, "bad-solution"),
        ("How many? A)1, B)2", "D", None, "solution-not-offered"),
        ("How many? A)1, B)1", "A", "closed", "repeated-option"),
        ("How many?", "3", "number", "unknown-answer-type"),
        ("How many?", "3", 7, "unknown-answer-type"),
        ("How many?", "<answer>  </answer>", None, "not-text"),
        (" ", "many", None, "not-text"),
        ("How many?", "x" * (LONGEST_ANSWER + 1), None, "answer-too-long"),
    ],
)
def test_why_a_row_is_no_question(problem, solution, stated, reason):
    with pytest.raises(UnusableInput) as caught:
        check_question(problem, solution, stated)
    assert caught.value.reason == reason


def test_the_longest_answer_is_taken():
    assert check_question("Why?", "x" * LONGEST_ANSWER).answer_type is OPEN


# ---------------------------------------------------------------------------------------------- images


@pytest.mark.parametrize(("marks", "images"), [(0, 0), (0, 1), (1, 1), (0, 6), (6, 6), (0, MAX_IMAGES)])
def test_marks_that_fit(marks, images):
    problem = "<image>" * marks + " Which? A)CT, B)MRI"
    assert check_question(problem, "A", images=images).problem == problem


@pytest.mark.parametrize(
    ("marks", "images", "reason"),
    [
        (1, 0, "image-marks"),
        (1, 2, "image-marks"),
        (3, 2, "image-marks"),
        (0, MAX_IMAGES + 1, "too-many-images"),
        (100, 100, "too-many-images"),
    ],
)
def test_marks_and_images_that_do_not_fit(marks, images, reason):
    for problem, solution in (("Which? A)CT, B)MRI", "A"), ("Is it so?", "yes")):
        with pytest.raises(UnusableInput) as caught:
            check_question("<image>" * marks + problem, solution, images=images)
        assert caught.value.reason == reason


def test_options_that_are_images_are_different_options():
    problem = "Which shows a fracture? A) <image>, B) <image>, C) <image>"
    assert check_question(problem, "B", images=3).problem == problem
    with pytest.raises(UnusableInput, match="repeated"):
        check_question("Which? A) <image>, B)x, C)x", "B", images=1)


# ---------------------------------------------------------------------------------------------- aliases


@pytest.mark.parametrize(
    ("alias", "answer"),
    [
        ("no", "yes"),
        ("Yes.", "no"),
        ("是的", "没有"),
        ("right lung", "left lung"),
        ("left upper lobe", "left lower lobe"),
        ("no effusion", "effusion"),
        ("effusion", "no effusion"),
        ("with contrast", "without contrast"),
        ("malignant", "Benign"),
    ],
)
def test_aliases_that_contradict(alias, answer):
    assert contradicts(alias, answer)
    with pytest.raises(UnusableInput) as caught:
        check_question("What is it?", answer, "open", ["something", alias])
    assert caught.value.reason == "alias-contradicts"


@pytest.mark.parametrize(
    ("alias", "answer"),
    [
        ("yeah", "yes"),
        ("是的", "yes"),
        ("the left lung", "left lung"),
        ("left lung", "left lung"),
        ("CT", "computed tomography"),
        ("cholelithiasis", "gallstones"),
        ("nodule", "no nodule or mass"),
        ("left and right", "right and left lung"),
        ("不是", "not at all"),
        ("", "yes"),
    ],
)
def test_aliases_that_do_not(alias, answer):
    assert not contradicts(alias, answer)


@pytest.mark.parametrize("aliases", ["yes", [""], [None], [3], ["x"] * 101, ["y" * (LONGEST_ANSWER + 1)], 5, {"a": 1}])
def test_aliases_that_are_no_list_of_texts(aliases):
    for problem, solution in (("Which? A)CT, B)MRI", "A"), ("Where?", "left")):
        with pytest.raises(UnusableInput) as caught:
            check_question(problem, solution, None, aliases)
        assert caught.value.reason == "bad-aliases"


def test_an_alias_of_a_letter_may_not_be_another_option():
    assert check_question("Which? A)CT, B)MRI", "A", None, ["computed tomography"]).aliases == ("computed tomography",)
    with pytest.raises(UnusableInput, match="text of another option"):
        check_question("Which? A)CT, B)MRI", "A", None, ["mri"])


# ---------------------------------------------------------------------------------------------- spellings


@pytest.mark.parametrize("text", ["CLOSED", "CLOSED ", "closed", "close_ended", "Close-ended"])
def test_spellings_of_closed(text):
    assert parse_answer_type(text) is CLOSED


@pytest.mark.parametrize("text", ["OPEN", "open", "short-answer", "open-ended"])
def test_spellings_of_open(text):
    assert parse_answer_type(text) is OPEN


@pytest.mark.parametrize("text", ["", "A-D", "other", "NULL"])
def test_other_words_are_no_answer_type(text):
    assert parse_answer_type(text) is None
