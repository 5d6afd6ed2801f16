"""Whether the texts of a row make a question of one of the three answer types, and which.

A question is one of choice if it says so, if its problem offers options, or if its solution is a letter: such a
question is dropped if its options or its solution cannot be read. Any other question is a closed one if its solution
says yes or no, else an open one. A row that says `closed` or `open` of a problem with options and a letter among them
is one of choice all the same: published sets call every question closed that leaves a choice.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from open_r1.common.errors import UnusableInput, UserError
from open_r1.data.answer_texts import bare_letter, published_form
from open_r1.data.images import shown
from open_r1.data.rows import RowError, check_texts, text_of
from open_r1.grading.problems import options_in, solution_letter
from open_r1.vocabulary.answer_types import AnswerType, parse_answer_type, yes_or_no
from open_r1.vocabulary.prompts import IMAGE_MARK, number_marks, plain_marks

MAX_IMAGES = 16
"""Most images of one question; a question with more is dropped. Published sets show at most 7."""

LONGEST_ANSWER = 10_000
"""Characters of the longest answer of an open question, and of an alias."""

MAX_ALIASES = 100
"""Most aliases of one answer."""

_TAGGED = re.compile(r"\s*<answer>(.*)</answer>\s*", re.DOTALL)
_WORD = re.compile(r"\w+")
_DENIALS = frozenset({"no", "not", "non", "without", "never"})
_OPPOSITES = {
    frozenset(pair.split("/"))
    for pair in (
        *("yes/no", "left/right", "upper/lower", "superior/inferior", "anterior/posterior", "medial/lateral"),
        *("proximal/distal", "bilateral/unilateral", "positive/negative", "present/absent", "normal/abnormal"),
        *("benign/malignant", "true/false", "male/female", "with/without", "increased/decreased"),
    )
}


@dataclass(frozen=True, slots=True)
class QuestionTexts:
    """The texts of a usable question."""

    problem: str
    solution: str
    answer_type: AnswerType
    aliases: tuple[str, ...] = ()


def check_question(
    problem: str, solution: str, answer_type: Any = None, aliases: Any = None, images: int = 0
) -> QuestionTexts:
    """Check the texts of a row.

    Args:
        problem: with its options, if it is a question of choice.
        solution: a letter, or the answer as text; `<answer> ... </answer>` may stand around it.
        answer_type: as the data spells it; None or "" where it does not say.
        aliases: further answers that count as right; None for none.
        images: how many images the question shows.

    Raises:
        UnusableInput: `unknown-answer-type`, `too-many-images`, `image-marks`, `bad-aliases`, `alias-contradicts`,
            `answer-too-long`, or for a question of choice as `check_texts`.
    """
    stated = _stated_type(answer_type)
    if images > MAX_IMAGES:
        raise RowError("too-many-images", f"the question shows {images} images; at most {MAX_IMAGES} are taken")
    marks = problem.count(IMAGE_MARK)
    if marks not in (0, images):
        raise RowError(
            "image-marks", f"{IMAGE_MARK} stands {marks} times in the problem of {images} images: {shown(problem)}"
        )
    if stated in (None, AnswerType.CHOICE) or _is_choice(problem, solution):
        try:
            return _choice(problem, solution, aliases)
        except UnusableInput:
            if stated is AnswerType.CHOICE or _is_letter(solution) or _offers_options(problem):
                raise
    answer = answer_in(solution)
    text_of("problem", problem)
    text_of("solution", answer)
    if len(answer) > LONGEST_ANSWER:
        raise RowError("answer-too-long", f"the solution has {len(answer):,} characters, more than {LONGEST_ANSWER:,}")
    texts = _alias_texts(aliases)
    for alias in texts:
        if contradicts(alias, answer):
            raise RowError(
                "alias-contradicts", f"the alias {shown(alias)} is the opposite of the answer {shown(answer)}"
            )
    inferred = AnswerType.OPEN if yes_or_no(answer) is None else AnswerType.CLOSED
    return QuestionTexts(problem, solution, stated or inferred, texts)


def _choice(problem: str, solution: str, aliases: Any) -> QuestionTexts:
    """The texts of a question of choice, as published."""
    # Options that are images are told apart by their numbers: as texts they are equal.
    problem, solution = check_texts(number_marks(problem), solution)
    texts, letter = _alias_texts(aliases), solution_letter(solution)
    others = {text.casefold() for name, text in options_in(problem).items() if name != letter} if texts else set()
    for alias in texts:
        if alias.strip().casefold() in others:
            raise RowError("alias-contradicts", f"the alias {shown(alias)} is the text of another option")
    return QuestionTexts(plain_marks(problem), solution, AnswerType.CHOICE, texts)


def answer_in(solution: str) -> str:
    """The answer of a closed or open question: its solution without the tags that may stand around it."""
    tagged = _TAGGED.fullmatch(solution)
    return (tagged[1] if tagged else solution).strip()


def _stated_type(value: Any) -> AnswerType | None:
    if value is None or value == "":
        return None
    answer_type = parse_answer_type(value) if isinstance(value, str) else None
    if answer_type is None:
        raise RowError("unknown-answer-type", f"the answer type {shown(value)} is none of {', '.join(AnswerType)}")
    return answer_type


def _is_letter(solution: str) -> bool:
    """Whether a solution is a letter, or a letter in tags or brackets."""
    return bare_letter(answer_in(solution)) is not None


def _offers_options(problem: str) -> bool:
    """Whether options can be read from a problem, whatever its solution is worth."""
    try:
        published_form(problem, "A")
        return True
    except UserError:
        return False


def _is_choice(problem: str, solution: str) -> bool:
    """Whether a problem offers options and the solution is the letter of one of them."""
    try:
        return solution_letter(solution) in options_in(problem)
    except UserError:
        return False


# ------------------------------------------------------------------------------------------------ aliases


def _alias_texts(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) > MAX_ALIASES:
        raise RowError("bad-aliases", f"aliases must be a list of at most {MAX_ALIASES} texts, not {shown(value)}")
    for alias in value:
        try:
            text_of("aliases", alias)
        except RowError as error:
            raise RowError("bad-aliases", str(error)) from None
        if len(alias) > LONGEST_ANSWER:
            raise RowError("bad-aliases", f"an alias has {len(alias):,} characters, more than {LONGEST_ANSWER:,}")
    return tuple(value)


def contradicts(alias: str, answer: str) -> bool:
    """Whether two answers are opposites: yes and no, or texts that differ in opposite words or in a denial."""
    if None not in (yes_or_no(alias), yes_or_no(answer)):
        return yes_or_no(alias) != yes_or_no(answer)
    words, others = _WORD.findall(alias.casefold()), _WORD.findall(answer.casefold())
    if len(words) == len(others):
        pairs = [frozenset(pair) for pair in zip(words, others, strict=True) if pair[0] != pair[1]]
        return bool(pairs) and all(pair in _OPPOSITES for pair in pairs)
    shorter, longer = sorted((words, others), key=len)
    return bool(shorter) and not _DENIALS & {*shorter} and shorter == [w for w in longer if w not in _DENIALS]
