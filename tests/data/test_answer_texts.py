"""Answers that a reader sees as equal are equal when data is prepared, and two options are never taken for one."""

import json
from pathlib import Path
from typing import Any

import datasets
import pytest
from PIL import Image

from open_r1.common.errors import UnusableInput, UserError
from open_r1.data.answer_texts import as_read, letter_by_name, letter_by_text, published_form, without_marks
from open_r1.data.arrow_sets import FEATURES, QUESTION_FEATURES
from open_r1.data.loading import load_rows
from open_r1.data.omnimedvqa.source import Question, read_release
from open_r1.data.text.sources import read_file
from open_r1.grading.problems import options_in

# what a reader sees as one text, each beside its plain form
ALIKE = [
    ("Spleen.", "Spleen"),
    ("left\u00a0lung", "left lung"),
    ("left  lung ", "left lung"),
    ("\u22125 HU", "-5 HU"),
    ("1\u20135 mm", "1-5 mm"),
    ("&lt;5 mm", "<5 mm"),
    ("&#8722;5&nbsp;HU", "-5 HU"),
    ("Crohn\u2019s disease", "Crohn's disease"),
    ("Sjo\u0308gren", "Sj\u00f6gren"),
    ("sple\u200ben", "spleen"),
]


@pytest.mark.parametrize(("written", "plain"), ALIKE)
def test_what_a_reader_sees_as_one_text_is_one(written, plain):
    assert as_read(written) == as_read(plain)
    assert letter_by_text(written, {"A": "other", "B": plain}) == "B"
    assert letter_by_text(plain, {"A": "other", "B": written}) == "B"


@pytest.mark.parametrize(
    ("first_text", "second_text"),
    [("5", "-5"), ("10\u00b2", "102"), ("<5 mm", ">5 mm"), ("H&E", "H"), ("AT&T", "AT"), ("T1", "T2"), ("IV.", "V.")],
)
def test_what_a_reader_tells_apart_stays_apart(first_text, second_text):
    assert as_read(first_text) != as_read(second_text)


@pytest.mark.parametrize(
    ("answer", "options", "letter"),
    [
        ("Spleen", {"A": "Spleen.", "B": "Spleen"}, "B"),  # to the sign comes first
        ("spleen", {"A": "Spleen", "B": "Liver"}, "A"),
        ("C", {"A": "x", "B": "C", "C": "y"}, "B"),  # answers are texts here, and one is written so
        ("C", {"A": "x", "B": "y", "C": "z"}, "C"),
        ("(c)", {"A": "x", "B": "y", "C": "z"}, "C"),
        ("C) Liver", {"A": "x", "B": "y", "C": "liver."}, "C"),
    ],
)
def test_an_answer_names_one_option(answer, options, letter):
    assert letter_by_text(answer, options) == letter


@pytest.mark.parametrize(
    ("answer", "options", "reason"),
    [
        ("SPLEEN", {"A": "Spleen.", "B": "spleen ."}, "solution-not-offered"),  # both
        ("B.", {"A": "B", "B": "x"}, "solution-not-offered"),  # the text of A and the letter B
        ("kidney", {"A": "Spleen", "B": "Liver"}, "solution-not-offered"),
        ("A) Liver", {"A": "Spleen", "B": "Liver"}, "answer-contradicts"),
    ],
)
def test_an_answer_that_could_be_two_or_none_is_dropped_by_name(answer, options, reason):
    with pytest.raises(UnusableInput) as refused:
        letter_by_text(answer, options)
    assert refused.value.reason == reason


def test_letters_in_front_go_where_every_option_has_its_own():
    for mark in ("{}:", "{}: ", "{}. ", "({}) ", "{}) ", " {}: ", "[{}] "):
        assert without_marks({letter: mark.format(letter) + f"t{letter}" for letter in "ABC"}) == {
            "A": "tA",
            "B": "tB",
            "C": "tC",
        }
    for options in (
        {"A": "A: x", "B": "y"},
        {"A": "B: x", "B": "A: y"},
        {"A": "A.", "B": "B."},
        {"A": "AB", "B": "BC"},
    ):
        assert without_marks(options) == options


PUBLISHED = ("Which? A)x, B)y (z), C)w", "<answer> B </answer>")


@pytest.mark.parametrize(
    "problem", ["Which? A)x, B)y (z), C)w", "Which? A. x, B. y (z), C. w", "Which? A: x, B: y (z), C: w"]
)
@pytest.mark.parametrize(
    "solution", ["<answer> B </answer>", "(B)", "B) y (z)", "B: y (z).", "<answer>(B)</answer>", "b"]
)
def test_other_marks_and_solutions_become_the_published_form(problem, solution):
    assert published_form(problem, solution) == PUBLISHED


def test_options_on_lines_and_with_brackets_are_read_too():
    assert published_form("Which?\n(A) x\n(B) y, z", "(B)")[0] == "Which?\nA) x\nB) y, z"
    assert options_in(published_form("Which? (A) x (B) y (C) z", "C")[0]) == {"A": "x", "B": "y", "C": "z"}
    assert options_in(published_form("Which? A. x, B) or C, B. y", "A")[0]) == {"A": "x, B) or C", "B": "y"}


@pytest.mark.parametrize(
    "written", ["Which? A)x, B)y", "Which?\nA) x\nB) A. y", "Look: A. x\nWhich? A)a, B)b", "A)1, B)2"]
)
def test_what_is_published_stays_to_the_byte(written):
    for solution in ("A", " <answer> A </answer>"):
        assert published_form(written, solution) == (written, solution)


@pytest.mark.parametrize(
    "problem",
    [
        "Staphylococcus A. grew. Which? A. x, B. y",  # the first A is none of the options
        "A. x, B. take vitamin A. daily",
        "Which? A. x, C. y, B. z",
        "Compare (A) and (B). Which? A: x, B: y",
        "Which is larger, (A) or (B)?",
        "Look at panels: (A) and (B).",
    ],
)
def test_options_that_cannot_be_told_for_sure_are_none(problem):
    with pytest.raises(UserError):
        published_form(problem, "A")


# ------------------------------------------------------------------------------------------------ in the readers


def release_question(folder: Path, answer: Any, *options: str) -> Any:
    row = {
        "question": "Which?",
        "gt_answer": answer,
        "image_path": "Images/S/a.png",
        "question_type": "",
        "dataset": "S",
    }
    row |= {f"option_{letter}": text for letter, text in zip("ABCD", options, strict=False)}
    place = folder / "QA_information" / "Open-access"
    place.mkdir(parents=True)
    (place / "S.json").write_text(json.dumps([row]))
    (question_read,) = read_release(folder)
    return question_read


@pytest.mark.parametrize(
    ("answer", "options", "problem"),
    [
        ("left lung.", ("left\u00a0lung", "spleen"), "Which? A)left\u00a0lung, B)spleen"),
        ("<5 mm", ("&lt;5 mm", "&gt;5 mm"), "Which? A)&lt;5 mm, B)&gt;5 mm"),
        ("Green", ("A: Green", "B: Red"), "Which? A)Green, B)Red"),
        ("A", ("Green", "Red"), "Which? A)Green, B)Red"),
        ("A: Green", ("A: Green", "B: Red"), "Which? A)Green, B)Red"),
    ],
)
def test_the_release_reader_sees_equal_answers(tmp_path, answer, options, problem):
    question_read = release_question(tmp_path, answer, *options)
    assert isinstance(question_read, Question)
    assert (question_read.problem, question_read.solution) == (problem, "<answer> A </answer>")


def test_lists_and_saved_sets_are_read_in_other_forms(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    rows = [
        {"image": "a.png", "problem": "Which? A. Liver, B. Lung, C. Spleen", "solution": "C) Spleen"},
        {"image": "a.png", "problem": "Where? A)left, B)right", "solution": "(B)"},
        {"image": "a.png", "problem": "What? A)x, B)y", "solution": "A) y"},
    ]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    wanted = [
        ("Which? A)Liver, B)Lung, C)Spleen", "<answer> C </answer>"),
        ("Where? A)left, B)right", "<answer> B </answer>"),
    ]
    read: list[Any] = [load_rows(tmp_path / "rows.json", None, tmp_path)]
    image = {"bytes": (tmp_path / "a.png").read_bytes(), "path": None}
    labels = {"source": "S", "modality": "CT", "task": None}
    saved = [{**row, **labels, "image": image, "id": str(number)} for number, row in enumerate(rows)]
    datasets.Dataset.from_list(saved, features=FEATURES).save_to_disk(str(tmp_path / "saved"))
    read.append(load_rows(tmp_path / "saved"))
    for usable, dropped in read:
        assert list(zip(usable["problem"], usable["solution"], strict=True)) == wanted
        assert [row.reason for row in dropped] == ["bad-solution"]
        assert "option A is 'x'" in dropped[0].detail
        assert usable.column_names == list(QUESTION_FEATURES)
    assert read[1][0]["id"][:] == ["0", "1"]


TEXT = {"question": "Which?", "options": {"A": "Liver", "B": "Spleen"}}


@pytest.mark.parametrize(
    ("name", "row", "options", "letter"),
    [
        ("medqa", TEXT | {"answer_idx": "(B)", "answer": "Spleen."}, ("Liver", "Spleen"), "B"),
        ("medqa", TEXT | {"answer_idx": "B", "answer": "B"}, ("Liver", "Spleen"), "B"),
        ("medqa", TEXT | {"answer_idx": "B) Spleen", "answer": "B. spleen"}, ("Liver", "Spleen"), "B"),
        (
            "medxpertqa",
            TEXT | {"options": {"A": "A. Liver", "B": "B. Spleen"}, "label": ["B:"]},
            ("Liver", "Spleen"),
            "B",
        ),
        (
            "medmcqa",
            {"question": "Q?", "opa": "A:w", "opb": "B:x", "opc": "C:y", "opd": "D:z", "cop": 0},
            ("w", "x", "y", "z"),
            "A",
        ),
        ("mmlu_medical", {"question": "Q?", "choices": ["p", "q"], "answer": "B."}, ("p", "q"), "B"),
        (
            "pubmedqa",
            {"QUESTION": "Q?", "CONTEXTS": ["c"], "final_decision": "Yes."},
            ("yes", "no", "maybe"),
            "A",
        ),
    ],
)
def test_text_readers_see_equal_answers(tmp_path, name, row, options, letter):
    (tmp_path / "a.jsonl").write_text(json.dumps(row) + "\n")
    (question,) = read_file(name, tmp_path / "a.jsonl").questions
    assert (question.options, question.letter) == (options, letter)


def test_an_answer_beside_its_letter_must_be_that_letters(tmp_path):
    good, bad = TEXT | {"answer_idx": "A"}, TEXT | {"question": "Other?", "answer_idx": "A) Spleen"}
    (tmp_path / "a.jsonl").write_text(json.dumps(good) + "\n" + json.dumps(bad) + "\n")
    reading = read_file("medqa", tmp_path / "a.jsonl")
    assert [row.reason for row in reading.dropped] == ["answer-contradicts"]
    with pytest.raises(UnusableInput, match="is none of A, B"):
        letter_by_name("E", TEXT["options"])
