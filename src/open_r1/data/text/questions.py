"""Text questions, and how they are made from the rows of a published file."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from open_r1.common.errors import UnusableInput
from open_r1.data.answer_texts import bare_letter, letter_by_name, letter_by_text, without_marks
from open_r1.data.rows import Dropped, RowError, row_id
from open_r1.data.text.files import Row
from open_r1.grading.problems import LETTERS, render_lines


@dataclass(frozen=True)
class TextQuestion:
    """One multiple-choice question without an image."""

    question: str
    options: tuple[str, ...]
    """Texts in order of their letters, A first."""
    letter: str
    """Of the correct option."""
    source: str
    """Its set: MedQA, MedXpertQA, ..."""
    question_type: str | None = None
    """What MedXpertQA calls it (Reasoning, Understanding), a subject, or None."""
    origin: str | None = None
    """Its id in the published file."""

    @property
    def problem(self) -> str:
        """Question and options as the models see them."""
        return render_lines(self.question, self.options)

    @property
    def solution(self) -> str:
        """`<answer> C </answer>`."""
        return f"<answer> {self.letter} </answer>"

    @property
    def id(self) -> str:
        """A hash of the content, so that a question has one id wherever it is prepared."""
        return row_id("", self.problem, self.solution)


@dataclass
class Reading:
    """The result of reading a file."""

    questions: list[TextQuestion] = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)
    other_subjects: int = 0
    """The number of rows whose subject in the set is not medical; they are not counted as dropped."""
    notes: list[str] = field(default_factory=list)
    """What was inferred about the file."""


class OtherSubject(Exception):
    """The subject of the row is not medical."""


# A reader turns one row into a question, or raises RowError or OtherSubject.
Reader = Callable[[Row], TextQuestion]


def read_set(rows: Iterable[tuple[str, Row | RowError]], reader: Reader) -> Reading:
    """Read every row; an invalid row, and a question or id that repeats in its source, is dropped with its reason."""
    reading = Reading()
    ids: set[tuple[str, str]] = set()
    answers: dict[tuple[str, str], str] = {}
    for where, row in rows:
        try:
            if isinstance(row, RowError):
                raise row
            _refuse_images(row)
            question = reader(row)
            _refuse_known(question, ids, answers)
        except OtherSubject:
            reading.other_subjects += 1
        except UnusableInput as error:
            reading.dropped.append(Dropped(where, error.reason, str(error)))
        else:
            reading.questions.append(question)
    return reading


_IMAGES = re.compile(
    r"(?:image|img|picture|pic|figure|photo|video|audio)s?(?:_?\d{1,3}|_?(?:path|url|file|name|id|bytes|data)s?)?",
    re.IGNORECASE,
)

_PLACEHOLDER = re.compile(r"<(?:image|img|video|audio)[ _]?\d{0,3}\s?/?>", re.IGNORECASE)


def _refuse_images(row: Row) -> None:
    """Refuse a question with images, because it cannot be answered without them."""
    image_keys = [key for key, value in row.items() if _IMAGES.fullmatch(str(key)) and value]
    texts = " ".join(str(row.get(key)) for key in ("question", "QUESTION", "Question", "options") if row.get(key))
    if image_keys:
        raise RowError(
            "has-images", f"the question shows images ({image_keys[0]}: {row[image_keys[0]]!r:.60}); text is read"
        )
    if placeholder := _PLACEHOLDER.search(texts):
        raise RowError("has-images", f"the question has a place for an image ({placeholder[0]}); only text is read")


def _refuse_known(question: TextQuestion, ids: set[tuple[str, str]], answers: dict[tuple[str, str], str]) -> None:
    question_key, id_key = (question.source, question.problem), (question.source, question.origin or "")
    known_answer = answers.get(question_key)
    if known_answer is not None:
        reason = "repeated-question" if known_answer == question.letter else "two-solutions"
        raise RowError(reason, f"the same question was there before, with the answer {known_answer}")
    if question.origin is not None and id_key in ids:
        raise RowError("repeated-id", f"the id {question.origin!r} was there before, with another question")
    answers[question_key] = question.letter
    ids.add(id_key)


def make_question(
    question: str, options: Sequence[str], gold: int, source: str, kind: str | None = None, origin: Any = None
) -> TextQuestion:
    """A question from checked parts; `gold` is the index of the correct option.

    Raises:
        RowError: the question is empty, there are fewer than 2 or more than 26 options, an option is empty or
            repeated, or `gold` is out of range.
    """
    texts = [" ".join(text.split()) for text in options]
    if not question.strip():
        raise RowError("empty-question", "the question is empty")
    if len(texts) < 2:
        raise RowError("too-few-options", f"{len(texts)} option is offered; nothing can be chosen")
    if len(texts) > len(LETTERS):
        raise RowError("too-many-options", f"{len(texts)} options are offered; letters end at {len(LETTERS)}")
    if not all(texts):
        raise RowError("empty-option", f"option {LETTERS[texts.index('')]} is empty")
    if len(set(texts)) < len(texts):
        raise RowError("repeated-option", f"an option is offered twice: {texts!r:.200}")
    if not 0 <= gold < len(texts):
        raise RowError("answer-not-offered", f"the answer is option {gold + 1} of {len(texts)}")
    origin_id = None if origin in (None, "") else str(origin)
    return TextQuestion(question.strip(), tuple(texts), LETTERS[gold], source, kind, origin_id)


def text_of(row: Row, key: str) -> str:
    value = row.get(key)
    if value is None:
        raise RowError("missing-key", f"the key {key!r} is missing; the row has {', '.join(map(str, row))[:120]}")
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise RowError("not-text", f"{key!r} must be a text, not {value!r:.80}")
    text = str(value)
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair: valid JSON, no text
        raise RowError("not-text", f"{key!r} holds half a character: {text!r:.80}") from None
    return text


def optional_text(row: Row, *keys: str) -> str | None:
    value = next((row[key] for key in keys if row.get(key) not in (None, "")), None)
    return None if value is None else str(value)


def options_by_letter(value: Any) -> dict[str, str]:
    """Options written as {letter: text}, [{letter, content}] or [text], by letter."""
    if isinstance(value, dict):
        pairs = [(key, text) for key, text in value.items() if text is not None]  # Parquet fills absent letters
    elif isinstance(value, list | tuple) and all(isinstance(option, dict) for option in value):
        pairs = [(option.get("letter"), option.get("content")) for option in value]
    elif isinstance(value, list | tuple):
        pairs = list(zip(LETTERS, value, strict=False))
        if len(value) > len(LETTERS):
            raise RowError("too-many-options", f"{len(value)} options are offered; letters end at {len(LETTERS)}")
    else:
        raise RowError("no-options", f"options are expected, not {value!r:.80}")
    options: dict[str, str] = {}
    for letter, text in pairs:
        name = bare_letter(str(letter))
        if name is None:
            raise RowError("bad-letter", f"an option is named {letter!r}; a letter from A to Z is expected")
        if name in options:
            raise RowError("repeated-letter", f"two options are named {name}")
        options[name] = text_of({name: text}, name)
    return without_marks(dict(sorted(options.items())))


def gold_index(letter: Any, options: Mapping[str, str]) -> int:
    """The index of the correct option, given by letter or text; evaluation files give a list with one letter."""
    if isinstance(letter, list | tuple):
        if len(letter) != 1:
            raise RowError("not-one-answer", f"one answer is expected, not {list(letter)!r:.80}")
        letter = letter[0]
    try:
        return list(options).index(letter_by_name(str(letter), options))
    except UnusableInput as error:
        reason = "answer-not-offered" if error.reason == "solution-not-offered" else error.reason
        raise RowError(reason, str(error)) from None


def names_gold(answer: str, gold: int, options: Mapping[str, str]) -> bool:
    """Whether an answer's text is that of the correct option."""
    if " ".join(answer.split()) == " ".join(list(options.values())[gold].split()):
        return True  # also if another option is equal, which is refused later
    try:
        return list(options).index(letter_by_text(answer, options)) == gold
    except UnusableInput:
        return False
