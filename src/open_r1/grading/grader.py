"""The only grader: which letter a completion gives, and whether it is right.

Rewards and evaluation both use it, so a model is trained on exactly what it is scored on. The rules:

- Text inside `<think>` never counts, closed or not. A `</think>` without an opening ends a thought that began
  before the completion did. "## Thinking" begins a thought that "## Final Response" ends. A thought that was never
  closed counts in one case: a complete answer block at its very end, where there is no block outside.
- If there are answer blocks, the last one decides, also where the length limit cut it off. It must hold one
  offered letter (any case; brackets, punctuation, bold and `\\boxed{}` do not matter), a letter followed by its
  option's text, one option's full text, or a sentence such as "the answer is C".
- Block or text may also be, or end on, a claim ("answer is C", "Answer: C", a boxed letter, "C is correct", "it
  should be C", in several languages) or a line that is a letter; begin with a letter and its reason ("C) Pneumonia,
  because"); end on a letter beside its text ("is most consistent with C) Pneumonia"); be one sentence about the image
  that names one option ("The image shows a CT scan"); or begin with the word of an option "Yes" or "No".
- A sentence in running text that names one option and otherwise repeats the question or leads to an answer is read
  (`choice.prose`), with the question where the caller gives it.
- Readings must agree. A letter that is not offered, two different letters, a letter beside the text of another
  option, a denied claim ("the answer is not C"), a claim after which another option is spoken for in whatever words
  (`later_statements`), or nothing: unparsed. Never a guess.

Everything here runs in linear time: patterns have bounded repeats only, and claims are looked for from the end.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple

from open_r1.grading.answer_places import answer_place
from open_r1.grading.choice.claims import last_claim
from open_r1.grading.choice.option_texts import plain_text
from open_r1.grading.choice.prose import asserted_option
from open_r1.grading.choice.statements import last_line, read_statement
from open_r1.grading.choice.whole_texts import first_words, last_words, plain_sentence, yes_or_no
from open_r1.grading.problems import solution_letter

GRADER_VERSION = 4
"""Raised whenever some completion is read differently than before. Result files record it, and a file graded by one
version is not continued with another. tests/grading/test_grader_version.py compares many readings with this number."""


class Outcome(StrEnum):
    """The grade of a completion, without the letter."""

    CORRECT = "correct"
    WRONG = "wrong"
    UNPARSED = "unparsed"


class Grade(NamedTuple):
    """The outcome, and the letter that was read (None if unparsed)."""

    outcome: Outcome
    letter: str | None


def grade(text: str, solution: str, options: Mapping[str, str], question: str = "") -> Grade:
    """Grade one completion. Never raises on any `text`; takes time linear in its length.

    Args:
        text: the completion as the model wrote it.
        solution: the row's solution, `<answer> C </answer>` or `C`.
        options: the offered options, as `options_in` returns them.
        question: the row's problem; a sentence in the question's own words is read only with it.

    Raises:
        UserError: the solution is malformed (rows are checked when data is loaded).
    """
    gold = solution_letter(solution)
    letter = extract_answer(text, options, question)
    if letter is None:
        return Grade(Outcome.UNPARSED, None)
    return Grade(Outcome.CORRECT if letter == gold else Outcome.WRONG, letter)


def extract_answer(text: str, options: Mapping[str, str], question: str = "") -> str | None:
    """The offered letter that a completion gives by the rules of this module, or None."""
    place = answer_place(text)
    return _read(place.text, place.cut, options, question)


def _read(content: str, cut: bool, options: Mapping[str, str], question: str) -> str | None:
    """The letter that a block or a text without blocks gives by the rules of this module, or None."""
    letter = read_statement(content, options, cut)
    if letter is not None:
        return letter
    claimed, plain = last_claim(content, options), plain_text(content)
    if claimed == "":
        return None
    readings = {claimed, last_line(content, options), first_words(plain, options), last_words(plain, options)}
    readings |= {plain_sentence(plain, options), yes_or_no(plain, options), asserted_option(plain, options, question)}
    readings -= {None}
    return readings.pop() if len(readings) == 1 else None
