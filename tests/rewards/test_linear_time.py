"""What a model writes cannot keep its judges busy: a megabyte takes about four times as long as a quarter.

Covered are the grader, the form, every reward of the registry and the lenient matching of HuatuoGPT-o1.
"""

from collections.abc import Callable
from functools import partial

import growth
import pytest

from open_r1.grading.formats import follows_format
from open_r1.grading.grader import grade
from open_r1.grading.huatuo import match_choice
from open_r1.grading.problems import options_in
from open_r1.rewards.registry import REWARDS
from open_r1.rewards.settings import RewardSettings
from open_r1.vocabulary.modes import Mode

MEGABYTE = 2**20

PROBLEM = "What is it? A)chest tube, B)Pneumonia (left), C)a, D)C"
OPTIONS = options_in(PROBLEM)

TAGS = (
    "<think>",
    "</think>",
    "<answer>",
    "< / answer ",
    "<think><answer>",
    "</think></answer>",
    "<",
    "<|im_end|",
    "<|a",
)
SIGNS = ("(", "((A", "A)", "{", "\\boxed{", "\\boxed{A}", "$", "_*`", ",", "C, ", " ", "\n", "A\n", " \n\t", "\u3000")
WORDS = (
    *("answer:", "answer is ", "the answer is A. ", "the answer is not ", "correct option ", "final answer ", "is is "),
    *("A or B and ", "not ", "n't if whether ", "wait actually ", "because A ", "chest tube ", "pneumonia (left) (B) "),
)
LETTERS = ("a", "A", "0", "a\u0301", "\u0301", "\u0130", "\ufdfa", "\ud800", "\x00", "答案是", "는", "中A", "\ufb00")
STEPS = ("Step 1", "Step 1:", "1.\n", "\n-", "\n*", "First,", "First")
PIECES = (*TAGS, *SIGNS, *WORDS, *LETTERS, *STEPS)
FRAMES = (("", ""), ("<answer>", ""), ("the answer is A. ", ""), ("", ". answer: A"))

OF_TEXTS = ("closed", "exact", "token_f1", "rouge_l")

Judge = Callable[[str], object]


def assert_linear(judge: Judge, pieces: tuple[str, ...], frames: tuple[tuple[str, str], ...] = FRAMES[:1]) -> None:
    def repeated(piece: str, frame: tuple[str, str], size: int) -> str:
        return frame[0] + (piece * (size // len(piece) + 1))[:size] + frame[1]

    ratios = [
        growth.assert_linear(judge, partial(repeated, piece, frame), MEGABYTE) for piece in pieces for frame in frames
    ]
    print(f"a megabyte takes at most {max(ratios):.2f} times as long as a quarter of it")


@pytest.mark.slow
@pytest.mark.parametrize("frame", FRAMES, ids=["bare", "in a block", "after a claim", "before a claim"])
def test_the_grader_is_linear(frame: tuple[str, str]) -> None:
    # a quarter of the pieces each; tests/grading/test_answers.py takes a megabyte of many more
    assert_linear(lambda text: grade(text, "A", OPTIONS), PIECES[FRAMES.index(frame) :: 4], (frame,))


@pytest.mark.slow
def test_the_form_is_linear() -> None:
    assert_linear(lambda text: [follows_format(text, mode) for mode in Mode], TAGS)


def reward(name: str) -> Judge:
    function = REWARDS[name](Mode.THINK, RewardSettings(), 1000)
    row = {"problem": [PROBLEM], "solution": ["<answer> A </answer>"], "completion_ids": [[1] * 10]}
    row |= {"letters_without_image": [{"A": 0.4, "B": 0.6}]}
    if name in OF_TEXTS:
        row = {"problem": ["Is it?"], "solution": ["yes, a chest tube"], "answer_type": ["closed"]}
    return lambda text: function([text], **row)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(REWARDS.keys() - {"judge"}))  # which asks a server about part of an answer
def test_every_reward_is_linear(name: str) -> None:
    graded = name in ("accuracy", "cosine")  # the grader again, and next to nothing beside it
    assert_linear(reward(name), ("<answer>", "the answer is A. ", "a\u0301") if graded else (*TAGS[:4], *STEPS, "A) "))


@pytest.mark.slow
def test_medical_accuracy_is_linear_in_a_long_answer_block() -> None:
    assert_linear(reward("medical_accuracy"), ("chest tube ", "(", "a\u0301", "\u0130", "$", "<"), (FRAMES[1],))


@pytest.mark.slow
def test_the_lenient_matching_is_linear() -> None:
    pieces = (
        "answer is ",
        "answer is A",
        "(A",
        "A ",
        "chest tube",
        "\u0130",
        "\u3000",
        "中A",
        "chest tub",
        "xy",
        "a b ",
        "\n",
    )
    assert_linear(lambda text: match_choice(text, OPTIONS), pieces)
    assert_linear(lambda text: match_choice(text, {"A": "abab" * 50, "B": "baba" * 50}), ("ab", "abba"))


@pytest.mark.slow
def test_a_judge_that_is_quadratic_would_be_noticed() -> None:
    def slow(text: str) -> object:
        return sum(1 for _ in range((len(text) >> 13) ** 2 * 50))  # 2^20 characters: 128^2 x 50 = 819,200 turns

    with pytest.raises(AssertionError, match="4 times the text took"):
        assert_linear(slow, ("a",))
