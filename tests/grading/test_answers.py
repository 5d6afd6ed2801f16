"""The grader: hand-labelled completions, options of real problems, the format, and its running time."""

import json
import random
from pathlib import Path

import pytest
from completions import SCAN, TABLE
from growth import assert_linear

from open_r1.common.errors import UserError
from open_r1.grading.formats import follows_format
from open_r1.grading.grader import Outcome, extract_answer, grade
from open_r1.grading.problems import LETTERS, options_in, render_problem, solution_letter
from open_r1.vocabulary.modes import Mode

MEGABYTE = 2**20  # characters of an adversarial completion


@pytest.mark.parametrize(("outcome", "letter", "text", "gold", "options"), TABLE)
def test_completion_is_judged_as_labelled_by_hand(outcome, letter, text, gold, options):
    assert grade(text, f"<answer> {gold} </answer>", options) == (Outcome(outcome), letter)


def test_the_table_is_large_and_covers_every_outcome():
    outcomes = [row[0] for row in TABLE]
    assert len(TABLE) >= 350
    assert all(outcomes.count(outcome) >= 40 for outcome in Outcome)
    assert all((letter is None) == (outcome == Outcome.UNPARSED) for outcome, letter, *_ in TABLE)


@pytest.mark.slow
def test_only_letters_that_are_offered_are_ever_read():
    for text in ("<answer>{}</answer>", "The answer is {}.", "Answer: ({})", "\\boxed{{{}}}", "{}"):
        for count in (2, 3, 4, 6, 26):
            offered = {letter: f"finding {letter}{letter}" for letter in LETTERS[:count]}
            read = [extract_answer(text.format(letter), offered) for letter in LETTERS]
            assert read == [letter if letter in offered else None for letter in LETTERS]


def test_a_question_without_options_gives_no_letter():
    assert extract_answer("<answer>A</answer>", {}) is None


# ------------------------------------------------------------------------------------------------- options


@pytest.mark.parametrize(
    ("problem", "texts"),
    [
        ("What is it? A)CT, B)MRI", ["CT", "MRI"]),
        ("What is it? A)CT, B)X-ray, C)PET, D)MRI, E)OCT, F)US", ["CT", "X-ray", "PET", "MRI", "OCT", "US"]),
        ("Is it? A)Yes, certainly, B)No, not at all", ["Yes, certainly", "No, not at all"]),
        ("Which? A)scan (PET), B)MRI (1.5 T, T2)", ["scan (PET)", "MRI (1.5 T, T2)"]),
        ("Which? A)It's good. It is fine., B)It's bad.", ["It's good. It is fine.", "It's bad."]),
        ("Image quality (IQA) is? A)good, B)bad", ["good", "bad"]),
        ("Which type (A or B)? A)type A, B)type B", ["type A", "type B"]),
        ("Which? A)hepatitis (type A), B)hepatitis (type B)", ["hepatitis (type A)", "hepatitis (type B)"]),
        ("Which? A)groups (A, B), B)none", ["groups (A, B)", "none"]),
        ("Which? A)CT, B)MRI, C)both A) and B), D)none", ["CT", "MRI", "both A) and B)", "none"]),
        ("Which? A)open (unclosed, B)closed", ["open (unclosed", "closed"]),
        ("Choose A) or B): A)left, B)right", ["left", "right"]),
        ("Which? A) left , B) right ", ["left", "right"]),
        ("Which?\nA) left\nB) right\nC) both", ["left", "right", "both"]),
        ("What is shown in <image>? A)x, B)y", ["x", "y"]),
    ],
)
def test_options_hold_commas_parentheses_and_sentences(problem, texts):
    assert options_in(problem) == dict(zip(LETTERS, texts, strict=False))


@pytest.mark.parametrize("problem", ["", "What is it?", "What is it? A)CT", "What is it? B)CT, C)MRI", "A), "])
def test_problem_without_options_is_refused_with_the_problem_in_the_message(problem):
    with pytest.raises(UserError, match="no options") as error:
        options_in(problem)
    assert repr(problem) in str(error.value)


@pytest.mark.slow
def test_every_published_question_parses_and_offers_its_solution(real_dir: Path):
    count = 0
    for path in sorted((real_dir / "omnimedvqa_splits").rglob("*.json")):
        for row in json.loads(path.read_text(encoding="utf-8")):
            options = options_in(row["problem"])
            assert list(options) == list(LETTERS[: len(options)])
            assert all(options.values())
            assert solution_letter(row["solution"]) in options
            question = row["problem"][: row["problem"].rindex(f" A){options['A']}")]
            assert render_problem(question, list(options.values())) == row["problem"]
            count += 1
    assert count == 30_973  # sum of the rows of the files that are here, as FACTS.md counts them


def test_rendered_problem_is_the_published_form():
    assert render_problem("What is it? ", ["CT ", "MRI", "X-ray"]) == "What is it? A)CT, B)MRI, C)X-ray"


def test_rendering_26_options_reads_back():
    texts = [f"finding {number}, type ({number})" for number in range(26)]
    assert list(options_in(render_problem("Which?", texts)).values()) == texts


@pytest.mark.parametrize("texts", [["one"], ["one", " "], [str(number) for number in range(27)], ["x", "y, C)z"]])
def test_options_that_could_not_be_judged_are_not_rendered(texts):
    with pytest.raises(UserError):
        render_problem("Which?", texts)


@pytest.mark.parametrize("solution", ["<answer> C </answer>", "<answer>C</answer>", "C", " C\n"])
def test_solution_letter_is_read(solution):
    assert solution_letter(solution) == "C"


@pytest.mark.parametrize(
    "solution", ["", "c", "CD", "<answer></answer>", "<answer>C", "Pneumonia", "<answer>1</answer>"]
)
def test_malformed_solution_is_refused(solution):
    with pytest.raises(UserError, match="solution"):
        solution_letter(solution)


# --------------------------------------------------------------------------------------------------- format


@pytest.mark.parametrize(
    ("text", "modes"),
    [
        ("<think>a</think><answer>B</answer>", {Mode.THINK}),
        ("<think>a</think>\n <answer>B</answer>", {Mode.THINK}),
        ("\n<think>a\nb</think> <answer> B </answer>\n", {Mode.THINK}),
        ("<think></think><answer></answer>", {Mode.THINK}),
        ("<answer>B</answer>", {Mode.NOTHINK}),
        (" <answer>\nB\n</answer> ", {Mode.NOTHINK}),
        ("<answer>B</answer><think>a</think>", {Mode.THINK_AFTER}),
        ("<answer>B</answer>\n\n<think>a</think>", {Mode.THINK_AFTER}),
        ("", set()),
        ("B", {Mode.DIRECT}),
        ("B.", set()),
        ("<answer>B", set()),
        ("B</answer>", set()),
        ("</answer>B<answer>", set()),
        ("<answer>B</answer>.", set()),
        ("So <answer>B</answer>", set()),
        ("<answer>A</answer><answer>B</answer>", set()),
        ("<answer>A<answer>B</answer></answer>", set()),
        ("<answer>A <Answer> B</answer>", set()),
        ("<Answer>B</Answer>", set()),
        ("<answer >B</answer>", set()),
        ("<answer><think>a</think>B</answer>", set()),
        ("<think>a</think>", set()),
        ("<think>a</think> so <answer>B</answer>", set()),
        ("<think>a <answer>A</answer></think><answer>B</answer>", set()),
        ("<think>a</think><answer>B</answer><answer>B</answer>", set()),
        ("<think>a</think><think>b</think><answer>B</answer>", set()),
        ("<think>a<answer>B</answer></think>", set()),
        ("<think>a</think><answer>B</answer><|im_end|>", set()),
    ],
)
def test_format_is_each_tag_of_the_mode_once_and_nothing_outside(text, modes):
    assert {mode for mode in Mode if follows_format(text, mode)} == modes


# ------------------------------------------------------------------------------------------------------ time

HOSTILE = [
    *("A", " ", "\n", "<", "< ", "(", "{", "\\", "*", "C, ", "A\n", "C) Pneumonia\n", "a\u0327\u0301", "ﷺ", "\u0130"),
    *("<answer>", "</answer>", "<think>", "</think>", "<think></think>", "<answer>C", "< / answer ", "<|im_"),
    *(
        "\\boxed{",
        "\\boxed{C} ",
        "answer is ",
        "answer is the ",
        "The answer is C. ",
        "the answer, ",
        "correct option ",
    ),
    *("答案", "答案是", "not ", "the answer is not ", "final ", "wait ", "A) ", " A), B)"),
]


@pytest.mark.slow
@pytest.mark.parametrize("piece", HOSTILE)
@pytest.mark.parametrize("frame", ["{}", "<answer>{}"])
def test_a_hostile_megabyte_costs_linear_time(piece, frame):
    def text(size: int) -> str:
        return frame.format(piece * (size // len(piece)))

    assert_linear(lambda text: grade(text, "C", SCAN), text, MEGABYTE)
    assert_linear(lambda text: [follows_format(text, mode) for mode in Mode], text, MEGABYTE)


@pytest.mark.slow
@pytest.mark.parametrize("piece", ["A)", " A)", " A)x, B)y", "(", ", B)", " A)x, B)("])
def test_a_hostile_problem_costs_linear_time(piece):  # read up to 64 times: 16 starts in two ways, two separators
    assert_linear(options_in, lambda size: "Which? A)x, B)y " + piece * (size // len(piece)), MEGABYTE)


@pytest.mark.slow
def test_any_string_is_judged_and_none_raises():
    draw = random.Random(0)
    pieces = [
        *HOSTILE,
        *"ABCDabcd.,:;)(][}{ \n\t?!*_$",
        "<answer>",
        "</answer>",
        "Pneumonia",
        "CT",
        "\ud800",
        "\U0001f600",
    ]
    for _ in range(4000):
        text = "".join(draw.choices(pieces, k=draw.randint(0, 12)))
        outcome, letter = grade(text, "C", SCAN)
        assert (letter in SCAN) if outcome is not Outcome.UNPARSED else letter is None


@pytest.mark.slow
def test_prose_never_yields_a_letter():
    """Words of a report, capital A included, in any order: nothing there is an answer."""
    draw = random.Random(1)
    report = "A a the I chest film shows an opacity in left lung with no signs of B cells and C fibres , . D dimer"
    words = report.split()
    for _ in range(3000):
        text = " ".join(draw.choices(words, k=draw.randint(5, 30))) + " seen"
        assert extract_answer(text, SCAN) is None, text
