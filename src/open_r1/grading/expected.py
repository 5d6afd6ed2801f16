"""What a question expects, and the grade of a completion by it: choice, closed and open questions."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from open_r1.common.errors import UserError
from open_r1.grading.answer_places import answer_place
from open_r1.grading.free.answer_texts import polarity, statement
from open_r1.grading.free.same_answer import is_any
from open_r1.grading.grader import Grade, Outcome, grade
from open_r1.grading.problems import options_in
from open_r1.vocabulary.answer_types import AnswerType, parse_answer_type, yes_or_no

_TAGGED = re.compile(r"\s*<answer>(.*)</answer>\s*", re.DOTALL)
_PROSE = 300  # characters that a closed answer may have over its longest reference and still be one


@dataclass(frozen=True)
class Expected:
    """What a right answer to one question is."""

    answer_type: AnswerType
    solution: str
    """Choice: `<answer> C </answer>` or `C`, as in the row. Closed and open: the answer's text, without tags."""
    options: Mapping[str, str]
    """Letter -> text; empty for closed and open questions."""
    aliases: tuple[str, ...] = ()
    """Further right answers of a closed or open question."""
    question: str = ""
    """The problem, whose words an answer may repeat."""

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> "Expected":
        """What a row expects.

        Args:
            row: `problem`, `solution`, and if known `answer_type` and `aliases`. Without an answer type a problem with
                options is one of choice, a solution that says yes or no is closed, and any other is open.

        Raises:
            UserError: the answer type does not exist, or a question of choice offers no options.
        """
        return _expected(row["problem"], row["solution"], row.get("answer_type") or "", tuple(row.get("aliases") or ()))

    @property
    def references(self) -> tuple[str, ...]:
        """Every right answer of a closed or open question as text."""
        return (self.solution, *self.aliases)


@lru_cache(maxsize=4096)  # a group repeats its question G times
def _expected(problem: str, solution: str, answer_type: str, aliases: tuple[str, ...]) -> Expected:
    tagged = _TAGGED.fullmatch(solution)
    text = (tagged[1] if tagged else solution).strip()
    kind = _type_of(problem, text, answer_type)
    if kind is AnswerType.CHOICE:
        return Expected(kind, solution, options_in(problem), aliases, problem)
    return Expected(kind, text, {}, aliases, problem)


def _type_of(problem: str, solution: str, answer_type: str) -> AnswerType:
    if answer_type:
        kind = parse_answer_type(answer_type)
        if kind is None:
            raise UserError(
                f"there is no answer type {answer_type!r:.100}, so an answer could not be graded; "
                f"choose one of {', '.join(AnswerType)}"
            )
        return kind
    try:
        options_in(problem)
        return AnswerType.CHOICE
    except UserError:
        return AnswerType.OPEN if yes_or_no(solution) is None else AnswerType.CLOSED


def grade_answer(text: str, expected: Expected) -> Grade:
    """Grade one completion. Never raises on any `text`; takes time linear in its length.

    A closed question whose answer is yes or no is right or wrong by the word that the completion gives; any other
    closed or open answer must be a reference by the rules of `same_answer`. Unparsed is a completion that states
    nothing outside its thoughts, neither yes nor no where that is asked, or prose where a closed answer is.

    Returns:
        The outcome, and the letter; of a closed or open question the answer's text in its place.

    Raises:
        UserError: the solution of a question of choice is malformed (rows are checked when data is loaded).
    """
    if expected.answer_type is AnswerType.CHOICE:
        return grade(text, expected.solution, expected.options, expected.question)
    place = answer_place(text)
    if (right := yes_or_no(expected.solution)) is not None:
        answer = polarity(place)
        if answer is None:
            return Grade(Outcome.UNPARSED, None)
        return Grade(Outcome.CORRECT if answer == right else Outcome.WRONG, "yes" if answer else "no")
    stated = statement(place, expected.question)
    if stated is None:
        return Grade(Outcome.UNPARSED, None)
    if any(is_any(form, expected.references) for form in stated.forms):
        return Grade(Outcome.CORRECT, stated.text)
    longest = max(map(len, expected.references))
    if expected.answer_type is AnswerType.CLOSED and len(stated.text) > longest + _PROSE:
        return Grade(Outcome.UNPARSED, None)
    return Grade(Outcome.WRONG, stated.text)
