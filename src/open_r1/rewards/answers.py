"""Rewards for closed and open answers. A question that a reward says nothing about gets None, which TRL leaves out."""

from collections.abc import Callable, Sequence
from typing import Any

from open_r1.grading.answer_places import answer_place
from open_r1.grading.expected import Expected, grade_answer
from open_r1.grading.free.answer_texts import statement
from open_r1.grading.free.text_metrics import rouge_l, token_f1
from open_r1.grading.grader import Outcome
from open_r1.rewards.settings import Completion, completion_text
from open_r1.vocabulary.answer_types import AnswerType


def expected_answers(
    problem: Sequence[str],
    solution: Sequence[str],
    answer_type: Sequence[str | None] | None = None,
    aliases: Sequence[Sequence[str] | None] | None = None,
    **_: Any,
) -> list[Expected]:
    """What each row expects, from the columns of the data set; rows without an answer type are of choice."""
    rows = zip(problem, solution, answer_type or [None] * len(problem), aliases or [None] * len(problem), strict=True)
    return [
        Expected.of({"problem": question, "solution": gold, "answer_type": kind or AnswerType.CHOICE, "aliases": more})
        for question, gold, kind, more in rows
    ]


def closed_reward(completions: Sequence[Completion], **columns: Any) -> list[float | None]:
    """1.0 for a right answer to a closed question, else 0.0; None for other questions."""
    return _if_right(completions, columns, {AnswerType.CLOSED})


def exact_reward(completions: Sequence[Completion], **columns: Any) -> list[float | None]:
    """1.0 for a closed or open answer that is the expected one by rule, else 0.0; None for questions of choice."""
    return _if_right(completions, columns, {AnswerType.CLOSED, AnswerType.OPEN})


def token_f1_reward(completions: Sequence[Completion], **columns: Any) -> list[float | None]:
    """F1 of the words of a closed or open answer, 0 to 1; None for questions of choice."""
    return _by_words(completions, columns, token_f1)


def rouge_l_reward(completions: Sequence[Completion], **columns: Any) -> list[float | None]:
    """ROUGE-L of a closed or open answer, 0 to 1; None for questions of choice."""
    return _by_words(completions, columns, rouge_l)


def _if_right(completions: Sequence[Completion], columns: dict[str, Any], kinds: set[AnswerType]) -> list[float | None]:
    rows = zip(completions, expected_answers(**columns), strict=True)
    return [
        float(grade_answer(completion_text(completion), expected).outcome is Outcome.CORRECT)
        if expected.answer_type in kinds
        else None
        for completion, expected in rows
    ]


def _by_words(
    completions: Sequence[Completion], columns: dict[str, Any], score: Callable[[str, Sequence[str]], float]
) -> list[float | None]:
    rows = zip(completions, expected_answers(**columns), strict=True)
    return [
        None if expected.answer_type is AnswerType.CHOICE else score(stated_answer(completion), expected.references)
        for completion, expected in rows
    ]


def stated_answer(completion: Completion) -> str:
    """The answer that a completion states as text; "" if it states none."""
    stated = statement(answer_place(completion_text(completion)))
    return "" if stated is None else stated.text
