"""One question of a medical VQA set, and how it is made from the parts of a published row.

Dirty spellings are folded here, and every kind of folding is counted: numbers as answers, blanks around texts, marks
such as `'CLOSED '`.
"""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from open_r1.common.errors import UserError
from open_r1.data.images import shown
from open_r1.data.question_checks import check_question
from open_r1.data.rows import RowError
from open_r1.data.text.files import Row
from open_r1.data.text.questions import make_question, text_of
from open_r1.data.vqa.image_files import ImageFiles
from open_r1.vocabulary.answer_types import AnswerType, parse_answer_type, yes_or_no
from open_r1.vocabulary.labels import Modality, parse_modality
from open_r1.vocabulary.prompts import IMAGE_MARK

_LONGEST_TOPIC = 200  # characters; what is longer is a text, not the name of a topic
_MARKER = re.compile(r"<image[ _]?(\d{1,3})>", re.IGNORECASE)
_REPLACEMENT = "\ufffd"  # stands where a publisher lost a character


class LeftOut(Exception):
    """A row that is not part of what was asked for, such as one in another language; it is counted, not dropped."""


@dataclass(frozen=True, slots=True)
class VqaQuestion:
    """One question with the references of its images, in the order in which they are shown."""

    problem: str
    solution: str
    images: tuple[str, ...]
    source: str  # name of the data set, as papers write it
    is_choice: bool = False
    marked_closed: bool | None = None  # what the set itself says; None where it says nothing
    aliases: tuple[str, ...] = ()
    modality: Modality | None = None
    subject: str | None = None

    @property
    def is_yes_no(self) -> bool:
        """Whether the answer is a yes or a no."""
        return not self.is_choice and yes_or_no(self.solution) is not None

    def answer_type(self, closed_by_mark: bool) -> AnswerType:
        """The type of the answer; `closed_by_mark` prefers what the set says to what the answer looks like."""
        if self.is_choice:
            return AnswerType.CHOICE
        is_closed = self.marked_closed if closed_by_mark and self.marked_closed is not None else self.is_yes_no
        return AnswerType.CLOSED if is_closed else AnswerType.OPEN


@dataclass
class ReaderContext:
    """What a reader needs beside the row: where images lie, and a place to count what was folded."""

    images: ImageFiles
    folded: Counter[str] = field(default_factory=Counter)
    """What was folded -> in how many rows."""

    def text(self, row: Row, key: str, what: str | None = None) -> str:
        """A text of a row on one line, with single spaces; `what` is what the counts call it, by default the key.

        Raises:
            RowError: it is missing, no text and no number, or empty.
        """
        value, what = text_of(row, key), what or key
        if isinstance(row.get(key), float) and not math.isfinite(row[key]):
            raise RowError("not-text", f"{key!r} is {value}, which is no number that answers anything")
        if not isinstance(row.get(key), str):
            self.folded[f"{what} is a number"] += 1
        text = " ".join(value.split())
        if not text:
            raise RowError("empty-text", f"{key!r} is empty")
        if text != value:
            self.folded[f"white space in {what}"] += 1
        if _REPLACEMENT in text:
            self.folded[f"a lost character (U+FFFD) in {what}, left as it is"] += 1
        return text

    def marked_closed(self, row: Row, key: str) -> bool | None:
        """What the set says about the answer: True for closed, False for open, None if it says nothing.

        Raises:
            RowError: the mark is neither.
        """
        value = row.get(key)
        if value is None or value == "":
            return None
        answer_type = parse_answer_type(str(value))
        if answer_type not in (AnswerType.CLOSED, AnswerType.OPEN):
            raise RowError("unknown-answer-type", f"{key} is {shown(value)}; CLOSED or OPEN is expected")
        if value not in ("CLOSED", "OPEN"):
            self.folded[f"{key} spelled {value!r}"] += 1
        return answer_type is AnswerType.CLOSED


def answer_question(
    question: str,
    answer: str,
    images: Mapping[int, str],
    source: str,
    *,
    marked_closed: bool | None = None,
    aliases: Sequence[str] = (),
    modality: Modality | None = None,
    subject: str | None = None,
) -> VqaQuestion:
    """A closed or open question.

    Args:
        question: the text, with or without `<image 2>` or `<image>`.
        answer: on one line.
        images: references by the number that the text calls them by, from 1.
        aliases: further right answers; what repeats the answer is left out.

    Raises:
        UnusableInput: the answer is too long, an alias is its opposite, or markers and images do not belong together.
    """
    problem, placed = place_images(question, images)
    further = tuple(dict.fromkeys(alias for alias in aliases if alias and alias != answer))
    made = VqaQuestion(problem, answer, placed, source, False, marked_closed, further, modality, subject)
    return _loadable(made)


def choice_question(
    question: str,
    options: Sequence[str],
    gold: int,
    images: Mapping[int, str],
    source: str,
    *,
    modality: Modality | None = None,
    subject: str | None = None,
) -> VqaQuestion:
    """A multiple-choice question, every option on a line of its own; `gold` is the index of the right one.

    Raises:
        UnusableInput: the options are too few, too many, empty or repeated, or markers and images do not fit.
    """
    text = make_question(question, options, gold, source)
    problem, placed = place_images(text.problem, images)
    return _loadable(VqaQuestion(problem, text.solution, placed, source, True, None, (), modality, subject))


def _loadable(question: VqaQuestion) -> VqaQuestion:
    """The question, if `load_rows` will take it.

    Raises:
        UnusableInput: it will not.
    """
    answer_type = question.answer_type(closed_by_mark=True)
    check_question(question.problem, question.solution, answer_type, question.aliases, len(question.images))
    return question


def place_images(text: str, images: Mapping[int, str]) -> tuple[str, tuple[str, ...]]:
    """The text with `<image>` where an image stands, and the references in that order.

    `<image 3>` becomes `<image>` and brings the third image to its place; an image that is named twice is shown twice.
    Images that the text does not name come first. A text without numbers stays as it is.

    Raises:
        RowError: `no-image`, or `image-marks` where the text names an image that is not there.
    """
    if not images:
        raise RowError("no-image", "the question has no image")
    numbers = image_numbers(text)
    missing = [number for number in numbers if number not in images]
    if missing:
        raise RowError("image-marks", f"the text names image {missing[0]}, and there are {len(images)}")
    unnamed = [number for number in images if number not in numbers]
    if numbers:
        text = _MARKER.sub(IMAGE_MARK, text)
        text = IMAGE_MARK * len(unnamed) + ("\n" if unnamed else "") + text
    return text, tuple(images[number] for number in [*unnamed, *numbers])


def image_numbers(text: str) -> list[int]:
    """The numbers of the images that a text names as `<image 3>`, in the order in which they stand."""
    return [int(number) for number in _MARKER.findall(text)]


def numbered(references: Sequence[str]) -> dict[int, str]:
    """References by number, from 1."""
    return dict(enumerate(references, start=1))


def topic_of(row: Row, *keys: str) -> str | None:
    """The first short text under one of the keys, on one line: a subject, an organ, a task. None if there is none."""
    for key in keys:
        value = row.get(key)
        text = " ".join(str(value).split()) if isinstance(value, str | int) and not isinstance(value, bool) else ""
        if text and len(text) <= _LONGEST_TOPIC and text.isprintable():
            return text
    return None


def data_set_in(row: Row, key: str) -> str:
    """The data set that a row is from, for files that hold several.

    Raises:
        RowError: the row does not say it under the key.
    """
    name = topic_of(row, key)
    if name is None:
        raise RowError("missing-key", f"the row does not name its data set: {row.get(key)!r:.80}")
    return name


def known_modality(value: Any) -> Modality | None:
    """The modality that a set names, if it is one of ours."""
    try:
        return parse_modality(str(value or ""), "modality")
    except UserError:
        return None
