"""Rewards for the right answer."""

from collections.abc import Mapping, Sequence
from typing import Any

from open_r1.grading.answer_places import answer_block
from open_r1.grading.choice.option_texts import fold_text
from open_r1.grading.expected import Expected, grade_answer
from open_r1.grading.grader import Outcome
from open_r1.grading.problems import solution_letter
from open_r1.rewards.answers import expected_answers
from open_r1.rewards.settings import Completion, completion_text
from open_r1.vocabulary.answer_types import AnswerType


def accuracy_reward(
    completions: Sequence[Completion], problem: Sequence[str], solution: Sequence[str], **columns: Any
) -> list[float]:
    """1.0 for a completion that the grader finds correct by the row's answer type, else 0.0."""
    rows = zip(completions, expected_answers(problem, solution, **columns), strict=True)
    outcomes = [grade_answer(completion_text(text), expected).outcome for text, expected in rows]
    return [float(outcome is Outcome.CORRECT) for outcome in outcomes]


LETTER, OPTION_TEXT = 2.0, 1.0
"""Reward of an answer that gives the correct letter, and of one that begins with the correct option's text."""


def medical_accuracy_reward(
    completions: Sequence[Completion], problem: Sequence[str], solution: Sequence[str], **columns: Any
) -> list[float | None]:
    """2 if the answer block gives the correct letter, `C` or `(C)`; 1 if it begins with that option's text; else 0.

    None for closed and open questions.
    """
    rows = zip(completions, expected_answers(problem, solution, **columns), strict=True)
    return [
        _medical_accuracy(completion_text(text), expected) if expected.answer_type is AnswerType.CHOICE else None
        for text, expected in rows
    ]


def _medical_accuracy(text: str, expected: Expected) -> float:
    block = answer_block(text)
    if not block:
        return 0.0
    graded, gold = grade_answer(text, expected), solution_letter(expected.solution)
    letters = _letters_at_start(block, expected.options)
    if graded.outcome is Outcome.CORRECT:
        return OPTION_TEXT if gold in letters else LETTER
    return OPTION_TEXT if graded.outcome is Outcome.UNPARSED and letters == [gold] else 0.0


def _letters_at_start(block: str, options: Mapping[str, str]) -> list[str]:
    """Letters of the longest option text that the block begins with, up to the end of a word."""
    written = fold_text(block)
    letters: dict[str, list[str]] = {}
    for letter, option in options.items():
        text = fold_text(option)
        if len(text) > 1 and written.startswith(text) and not written[len(text) :][:1].isalnum():
            letters.setdefault(text, []).append(letter)
    return letters.get(max(letters, key=len, default=""), [])
