"""A text question, and how the rows of a publisher's file become questions."""

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
    """The right one."""
    source: str
    """The set it is from: MedQA, MedXpertQA, ..."""
    question_type: str | None = None
    """What MedXpertQA calls it (Reasoning, Understanding), a subject, or None."""
    origin: str | None = None
    """The id that the set itself gives."""

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
    """What a file came to."""

    questions: list[TextQuestion] = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)
    other_subjects: int = 0
    """Rows that are not medical by the set's own label; no fault of theirs."""
    notes: list[str] = field(default_factory=list)
    """What had to be found out about the file."""


class OtherSubject(Exception):
    """The row is of a subject that is not asked for."""


# A reader turns one row into a question, or raises RowError or OtherSubject.
Reader = Callable[[Row], TextQuestion]


def read_set(rows: Iterable[tuple[str, Row | RowError]], reader: Reader) -> Reading:
    """Read every row; a bad one, and a question or an id that its source had before, is dropped with its reason."""
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
    r"(?:image|img|image|pic|figure|photo|video|audio)s?(?:_?\d{1,3}|_?(?:path|url|file|name|id|bytes|data)s?)?",
    re.IGNORECASE,
)

_PLACEHOLDER = re.compile(r"<(?:image|img|video|audio)[ _]?\d{0,3}\s?/?>", re.IGNORECASE)


def _refuse_images(row: Row) -> None:
    """Refuse a question that shows images: without them it is another question."""
    named = [key for key, value in row.items() if _IMAGES.fullmatch(str(key)) and value]
    texts = " ".join(str(row.get(key)) for key in ("question", "QUESTION", "Question", "options") if row.get(key))
    if named:
        raise RowError("has-images", f"the question shows images ({named[0]}: {row[named[0]]!r:.60}); text is read")
    if found := _PLACEHOLDER.search(texts):
        raise RowError("has-images", f"the question has a place for an image ({found[0]}); only text is read")


def _refuse_known(question: TextQuestion, ids: set[tuple[str, str]], answers: dict[tuple[str, str], str]) -> None:
    asked, named = (question.source, question.problem), (question.source, question.origin or "")
    known = answers.get(asked)
    if known is not None:
        reason = "repeated-question" if known == question.letter else "two-solutions"
        raise RowError(reason, f"the same question was there before, with the answer {known}")
    if question.origin is not None and named in ids:
        raise RowError("repeated-id", f"the id {question.origin!r} was there before, with another question")
    answers[asked] = question.letter
    ids.add(named)


def make_question(
    question: str, options: Sequence[str], gold: int, source: str, kind: str | None = None, origin: Any = None
) -> TextQuestion:
    """A question whose parts have been checked; `gold` is the right option's index.

    Raises:
        RowError: an empty question, fewer than 2 or more than 26 options, an empty or repeated one, or no such gold.
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
    named = None if origin in (None, "") else str(origin)
    return TextQuestion(question.strip(), tuple(texts), LETTERS[gold], source, kind, named)


def _text(row: Row, key: str) -> str:
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


def _optional(row: Row, *keys: str) -> str | None:
    value = next((row[key] for key in keys if row.get(key) not in (None, "")), None)
    return None if value is None else str(value)


def _lettered(value: Any) -> dict[str, str]:
    """Options written as {letter: text}, [{letter, content}] or [text], by letter."""
    if isinstance(value, dict):
        pairs = [(key, text) for key, text in value.items() if text is not None]  # Parquet fills absent letters
    elif isinstance(value, list | tuple) and all(isinstance(each, dict) for each in value):
        pairs = [(each.get("letter"), each.get("content")) for each in value]
    elif isinstance(value, list | tuple):
        pairs = list(zip(LETTERS, value, strict=False))
        if len(value) > len(LETTERS):
            raise RowError("too-many-options", f"{len(value)} options are offered; letters end at {len(LETTERS)}")
    else:
        raise RowError("no-options", f"options are expected, not {value!r:.80}")
    found: dict[str, str] = {}
    for letter, text in pairs:
        name = bare_letter(str(letter))
        if name is None:
            raise RowError("bad-letter", f"an option is named {letter!r}; a letter from A to Z is expected")
        if name in found:
            raise RowError("repeated-letter", f"two options are named {name}")
        found[name] = _text({name: text}, name)
    return without_marks(dict(sorted(found.items())))


def _gold(letter: Any, options: Mapping[str, str]) -> int:
    """The place of the right option, which its letter or its text names; evaluation files write a list of one."""
    if isinstance(letter, list | tuple):
        if len(letter) != 1:
            raise RowError("not-one-answer", f"one answer is expected, not {list(letter)!r:.80}")
        letter = letter[0]
    try:
        return list(options).index(letter_by_name(str(letter), options))
    except UnusableInput as error:
        reason = "answer-not-offered" if error.reason == "solution-not-offered" else error.reason
        raise RowError(reason, str(error)) from None


def _means(answer: str, gold: int, options: Mapping[str, str]) -> bool:
    """Whether an answer's text is that of the right option, as a reader sees it."""
    if " ".join(answer.split()) == " ".join(list(options.values())[gold].split()):
        return True  # also where another option is the same, which is said later
    try:
        return list(options).index(letter_by_text(answer, options)) == gold
    except UnusableInput:
        return False
