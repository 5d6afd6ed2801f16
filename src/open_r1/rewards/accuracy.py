"""Rewards for the right answer."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from open_r1.grading.answer_phrases import fold_text
from open_r1.grading.grader import Outcome, answer_block, grade
from open_r1.grading.problems import options_in, solution_letter
from open_r1.rewards.settings import Completion, completion_text

_options = lru_cache(maxsize=4096)(options_in)  # a group repeats its problem G times


def accuracy_reward(
    completions: Sequence[Completion], problem: Sequence[str], solution: Sequence[str], **_: Any
) -> list[float]:
    """1.0 where `answers.grade` says CORRECT, else 0.0."""
    rows = zip(completions, problem, solution, strict=True)
    graded = [grade(completion_text(text), gold, _options(question)) for text, question, gold in rows]
    return [float(one.outcome is Outcome.CORRECT) for one in graded]


LETTER, OPTION_TEXT = 2.0, 1.0
"""What an answer earns that gives the letter, and one that begins with the right option's text."""


def medical_accuracy_reward(
    completions: Sequence[Completion], problem: Sequence[str], solution: Sequence[str], **_: Any
) -> list[float]:
    """2 where the answer block gives the right letter, `C` or `(C)`; 1 where it begins with that option's text."""
    rows = zip(completions, problem, solution, strict=True)
    return [_medical_accuracy(completion_text(text), question, gold) for text, question, gold in rows]


def _medical_accuracy(text: str, problem: str, solution: str) -> float:
    options = options_in(problem)
    block = answer_block(text)
    if not block:
        return 0.0
    graded, gold = grade(text, solution, options), solution_letter(solution)
    begun = _options_begun(block, options)
    if graded.outcome is Outcome.CORRECT:
        return OPTION_TEXT if gold in begun else LETTER
    return OPTION_TEXT if graded.outcome is Outcome.UNPARSED and begun == [gold] else 0.0


def _options_begun(block: str, options: dict[str, str]) -> list[str]:
    """The letters of the longest option text that the block begins with, up to the end of a word."""
    written = fold_text(block)
    begun: dict[str, list[str]] = {}
    for letter, option in options.items():
        text = fold_text(option)
        if len(text) > 1 and written.startswith(text) and not written[len(text) :][:1].isalnum():
            begun.setdefault(text, []).append(letter)
    return begun.get(max(begun, key=len, default=""), [])
