"""Read OmniMedVQA's questions: the release (`QA_information/`) or Med-R1's split files, one question at a time.

Nothing here opens a picture. A question that cannot be used becomes a `Dropped` with its reason and the reading
goes on; a file that is no list of questions at all is an error. Files are parsed entry by entry, so that memory
does not grow with them.
"""

import hashlib
import json
import math
import os
import re
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from open_r1.answer_texts import letter_by_text, published_form, without_marks
from open_r1.answers import LETTERS, options_in, render_problem, solution_letter
from open_r1.errors import UnusableInput, UserError
from open_r1.files import object_of, repeated_key
from open_r1.images import check_reference, shown
from open_r1.runs import Modality, SplitFile, Task, parse_modality, parse_split_file, parse_task

TEXT_KEYS = ("image", "problem", "solution")
"""The columns of the published form."""

_LONGEST_NUMBER = 4300  # digits; Python turns no longer text into a whole number
_CHUNK = 2**20  # characters read at once
LONGEST_ENTRY = 2**24
"""Characters of the longest row that is read; a longer one is damage, not a question."""
_TOKEN = 64  # characters before the end of a piece in which an entry that goes on may look wrong
_PLAIN = re.compile(r'[^"\[\]{},]*+')
_QUOTED = re.compile(r'(?>[^"\\]+|\\.)*+', re.DOTALL)


class RowError(UnusableInput):
    """A row that is no usable question."""


@dataclass(frozen=True, slots=True)
class Question:
    """One question in the published form, with what the data says about it."""

    image: str  # path below the image root, as the data writes it
    problem: str  # "Question? A)x, B)y"
    solution: str  # "<answer> B </answer>"
    source: str  # OmniMedVQA's name of the data set
    modality: Modality | None
    task: Task | None


@dataclass(frozen=True, slots=True)
class Dropped:
    """A row that is left out, and why."""

    where: str  # file and entry, or the row's place in a data set
    reason: str  # short slug to count by
    detail: str
    modality: Modality | None = None
    task: Task | None = None


@dataclass(frozen=True, slots=True)
class Leak:
    """Test questions whose picture is also asked about in training."""

    questions: int
    shared: int

    @property
    def percent(self) -> float:
        """Share of the test questions, 0 to 100; 0 where there are none."""
        return 100 * self.shared / self.questions if self.questions else 0.0


def leak(train: Iterable[Hashable], test: Iterable[Hashable]) -> Leak:
    """Count the test questions whose picture is in training; each item is one question's picture."""
    seen = set(train)
    shared = questions = 0
    for picture in test:
        questions += 1
        shared += picture in seen
    return Leak(questions, shared)


def row_id(image: bytes | str, problem: str, solution: str) -> str:
    """The id of a question, 16 hexadecimal digits of a SHA-256.

    Args:
        image: the picture's path below the image root where it is known, so that a question has one id in the
            release, in the split files and in every prepared form; else the picture's bytes.
    """
    digest = hashlib.sha256()
    for part in (image, problem, solution):
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "big"))  # lengths: ("ab", "c") is not ("a", "bc")
        digest.update(data)
    return digest.hexdigest()[:16]


# ------------------------------------------------------------------------------------------------ JSON lists


def json_entries(path: str | os.PathLike) -> Iterator[Any]:
    """The entries of a JSON file that holds one list, in order, in constant memory.

    An entry with a key twice, or longer than LONGEST_ENTRY, comes as the `RowError` that says so: whoever reads counts
    it, and the others come through.

    Raises:
        UserError: the file is missing, not UTF-8, not JSON, or not a list (possibly after some entries).
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path} is not there or is no file; a JSON list of questions is expected")
    try:
        with open(path, encoding="utf-8-sig") as file:
            yield from _entries(file, path)
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 ({error.reason}); save it as UTF-8") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except RecursionError:
        raise UserError(f"{path} is nested too deeply to be a list of questions") from None


def _entries(file: Any, path: Path) -> Iterator[Any]:
    decode = json.JSONDecoder(parse_int=_whole, object_pairs_hook=object_of).raw_decode
    text, at = "", 0

    def next_sign() -> str:
        """The next character that is not white space, '' at the end; `at` stands on it."""
        nonlocal text, at
        while True:
            while at < len(text) and text[at] in " \t\r\n":
                at += 1
            if at < len(text):
                return text[at]
            text, at = file.read(_CHUNK), 0
            if not text:
                return ""

    if next_sign() != "[":
        raise UserError(f"{path} holds no JSON list; a list of objects with {', '.join(TEXT_KEYS)} is expected")
    at += 1
    entry = 0
    if next_sign() == "]":
        return
    while True:
        next_sign()
        while True:
            try:
                value, end = decode(text, at)
                if end < len(text) and text[end] in " \t\r\n,]":
                    value = value if end - at <= LONGEST_ENTRY else too_long()
                    break
                problem, goes_on = "the file ends, or the entry is followed by something else", True  # a number may
            except json.JSONDecodeError as error:
                goes_on = error.msg.startswith("Unterminated string") or error.pos >= len(text) - _TOKEN
                problem = error.msg
            if len(text) - at > LONGEST_ENTRY and goes_on and (rest := _after_entry(file, text, at)):
                (text, end), value = rest, too_long()
                break
            more = file.read(_CHUNK) if len(text) - at <= LONGEST_ENTRY else ""
            if not more:
                raise UserError(f"{path} is no valid JSON at entry {entry}: {problem}; is the file complete?")
            text, at = text[at:] + more, 0
        key = repeated_key(value)
        yield value if key is None else key_twice(key)
        entry, at = entry + 1, end
        sign = next_sign()
        at += 1
        if sign == "]":
            break
        if sign != ",":
            raise UserError(f"{path} is no valid JSON after entry {entry - 1}: expected ',' or ']'")
    if next_sign():
        raise UserError(f"{path} is no valid JSON: there is more text after the list")


def _after_entry(file: Any, text: str, at: int) -> tuple[str, int] | None:
    """A piece of text and the place in it of the sign after the entry that begins at `at`; None if the file ends."""
    depth, quoted = 0, False
    while True:
        while at < len(text):
            jump = (_QUOTED if quoted else _PLAIN).match(text, at)
            assert jump is not None
            at = jump.end()
            if at == len(text) or (text[at] == "\\" and quoted):  # an escape goes on in the next piece
                break
            sign = text[at]
            if not quoted and depth == 0 and sign in ",]":
                return text, at
            depth += 0 if quoted else (sign in "[{") - (sign in "]}")
            quoted = sign == '"' and not quoted
            at += 1
        more = file.read(_CHUNK)
        if not more:
            return None
        text, at = text[at:] + more, 0


def too_long() -> RowError:
    """What is wrong with a row of more than LONGEST_ENTRY characters."""
    return RowError("too-long", f"it has more than {LONGEST_ENTRY:,} characters")


def key_twice(key: str) -> RowError:
    """What is wrong with a row in which a key stands twice."""
    return RowError("repeated-key", f"the key {shown(key)} stands twice in it, and which value is meant nobody can say")


def _whole(digits: str) -> int | float:
    """A whole number of JSON; one of thousands of digits, for which `int` raises, becomes infinite."""
    return int(digits) if len(digits) <= _LONGEST_NUMBER else float(digits)


# ------------------------------------------------------------------------------------------------- one row


def check_row(entry: Any) -> tuple[str, str, str]:
    """Check one object of the published form; returns its image path, and problem and solution as published.

    Raises:
        RowError: it cannot be used (`not-an-object`, `missing-key`, `not-text` or as `check_texts` says).
        ImageError: the image is no path that may be opened.
    """
    image, problem, solution = _texts(entry, TEXT_KEYS)
    for key, value in entry.items():
        refuse_more_pictures(key, value)
    problem, solution = check_texts(problem, solution)
    return check_reference(image), problem, solution


def check_texts(problem: str, solution: str) -> tuple[str, str]:
    """Check that a problem offers distinct options and the solution is one of them; returns both as published.

    Raises:
        UnusableInput: `no-options`, `ambiguous-options`, `repeated-option`, `bad-solution` or `solution-not-offered`.
    """
    try:
        problem, solution = published_form(problem, solution)
        options = options_in(problem)
    except UnusableInput:
        raise
    except UserError as error:
        raise RowError("no-options", str(error)) from None
    if len(set(options.values())) < len(options):
        raise RowError("repeated-option", f"an option is repeated in {shown(problem)}")
    letter = solution_letter(solution)
    if letter not in options:
        raise RowError("solution-not-offered", f"the solution {letter} is not offered in {shown(problem)}")
    return problem, solution


MORE_PICTURES = re.compile(r"(?:images|pictures|figures|videos?|audios?|(?:image|picture)_?\d{1,3})", re.IGNORECASE)
"""Keys beside `image` that make a question one about several pictures, or about something else than a picture."""


def refuse_more_pictures(key: Any, value: Any) -> None:
    """Refuse a question about more than its one picture: without the others it is another question.

    Raises:
        RowError: `several-pictures`.
    """
    one_again = isinstance(value, list | tuple) and len(value) == 1 and str(key).casefold() in ("images", "pictures")
    if value and not one_again and MORE_PICTURES.fullmatch(str(key)):
        raise RowError(
            "several-pictures", f"the question shows more than one picture ({key}: {shown(value)}); one is read"
        )


def _texts(entry: Any, keys: Iterable[str]) -> list[str]:
    if isinstance(entry, RowError):
        raise entry
    if not isinstance(entry, dict):
        raise RowError("not-an-object", f"an object is expected, not {shown(entry)}")
    absent = [key for key in keys if key not in entry]
    if absent:
        raise RowError("missing-key", f"the key {', '.join(map(repr, absent))} is missing")
    return [_text(key, entry[key]) for key in keys]


def _text(key: str, value: Any) -> str:
    try:
        if isinstance(value, str) and value.strip() and value.encode():
            return value
    except UnicodeEncodeError:  # half of a surrogate pair: valid JSON, no text
        pass
    raise RowError("not-text", f"{key!r} must be a text that is not empty, not {shown(value)}")


def source_of(image: str) -> str:
    """OmniMedVQA's name of the data set in a picture path: `Images/PALM2019/T0011.jpg` is of PALM2019."""
    parts = image.split("/")
    return parts[1] if len(parts) > 2 and parts[0] == "Images" else ""


# -------------------------------------------------------------------------------------------------- release


def release_files(release: str | os.PathLike) -> list[Path]:
    """The question files of a release folder, in a fixed order.

    Raises:
        UserError: the folder does not have the release's layout.
    """
    files = sorted(Path(release).glob("QA_information/*/*.json"))
    if not files:
        raise UserError(
            f"{release} is no OmniMedVQA release: QA_information/Open-access/<dataset>.json is not there; "
            "unpack OmniMedVQA.zip and give the folder that holds Images and QA_information"
        )
    return files


def read_release(release: str | os.PathLike) -> Iterator[Question | Dropped]:
    """Every question of a release folder, file after file.

    Raises:
        UserError: the layout is not the release's, or a file is no list.
    """
    for file in release_files(release):
        for number, entry in enumerate(json_entries(file)):
            yield _release_row(entry, f"{file.parent.name}/{file.name} entry {number}", file.stem)


def _release_row(entry: Any, where: str, stem: str) -> Question | Dropped:
    modality = task = None
    try:
        if isinstance(entry, RowError):
            raise entry
        if not isinstance(entry, dict):
            raise RowError("not-an-object", f"an object is expected, not {shown(entry)}")
        try:
            modality = parse_modality(str(entry.get("modality_type") or ""), "modality")
            task = parse_task(str(entry.get("question_type") or ""), "task")
        except UserError as error:
            raise RowError("unknown-label", str(error)) from None
        # Grades are numbers in places: they are meant as texts.
        entry = {key: str(value) if _is_number(value) else value for key, value in entry.items()}
        question, answer, image = _texts(entry, ("question", "gt_answer", "image_path"))
        for key, value in entry.items():
            refuse_more_pictures(key, value)
        problem, solution = _published_form(question, answer.strip(), _release_options(entry))
        source = _text("dataset", entry["dataset"]) if entry.get("dataset") else stem
        return Question(check_reference(image), problem, solution, source, modality, task)
    except UnusableInput as error:
        return Dropped(where, error.reason, str(error), modality, task)


def _is_number(value: Any) -> bool:
    """Whether a value is a finite number. `json` also reads NaN and Infinity, which answer nothing."""
    return isinstance(value, int | float) and value == value and value not in (math.inf, -math.inf)


def _release_options(entry: dict[str, Any]) -> list[str]:
    keys = sorted(key for key in entry if re.fullmatch(r"option_[A-Z]", key))
    texts = [_text(key, entry[key]).strip() for key in keys if entry[key] not in (None, "")]
    if len(texts) < 2:
        raise RowError("no-options", f"{len(texts)} options are offered; option_A and option_B are expected")
    texts = list(without_marks(dict(zip(LETTERS, texts, strict=False))).values())
    if len(set(texts)) < len(texts):
        raise RowError("repeated-option", f"an option is repeated in {shown(texts)}")
    return texts


def _published_form(question: str, answer: str, options: list[str]) -> tuple[str, str]:
    try:
        problem = render_problem(question, options)
    except UserError as error:
        raise RowError("no-options", str(error)) from None
    letter = letter_by_text(answer, dict(zip(LETTERS, options, strict=False)))
    return check_texts(problem, f"<answer> {letter} </answer>")


# ---------------------------------------------------------------------------------------------- split files


def split_files(splits_dir: str | os.PathLike) -> list[tuple[Path, SplitFile]]:
    """The published split files below a folder: modalities first, labels in order, train before test.

    Raises:
        UserError: there are none, or a name cannot be read.
    """
    order = {label: place for place, label in enumerate([*Modality, *Task])}
    found = [
        (path, parse_split_file(path.relative_to(splits_dir)))
        for path in sorted(Path(splits_dir).rglob("*.json"))
        if path.stem.endswith(("_train", "_test"))
    ]
    if not found:
        raise UserError(
            f"{splits_dir} holds no split files; modality/train/<name>_train.json, modality/test/..., "
            "question_type/train/... are expected"
        )
    return sorted(
        found,
        key=lambda item: (
            item[1].family,
            order.get(item[1].label, 99) if item[1].label else 99,
            item[1].split != "train",
            str(item[0]),
        ),
    )


def read_split_file(path: Path, split: SplitFile) -> Iterator[Question | Dropped]:
    """The questions of one split file; only the label that the file's name gives is filled in.

    Raises:
        UserError: the file is no list.
    """
    modality = split.label if isinstance(split.label, Modality) else None
    task = split.label if isinstance(split.label, Task) else None
    for number, entry in enumerate(json_entries(path)):
        try:
            image, problem, solution = check_row(entry)
        except UnusableInput as error:
            yield Dropped(f"{path.name} entry {number}", error.reason, str(error), modality, task)
        else:
            yield Question(image, problem, solution, source_of(image), modality, task)


def question_key(image: str, problem: str) -> int:
    """What the two split families are joined on: image path and problem, as 64 bits of a SHA-256."""
    return int(row_id(image, problem, ""), 16)


def labels_beside(path: Path) -> dict[int, Modality | Task]:
    """For one split file, the labels that the other family's files beside it give: `question_key` -> label.

    Empty where the file does not lie in the published folders or the other family is not there to be read.
    """
    side, family = path.resolve().parents[:2] if len(path.resolve().parents) > 2 else (path, path)
    labels: dict[int, Modality | Task] = {}
    if side.name not in ("train", "test") or family.name not in ("modality", "question_type"):
        return labels
    try:
        for other, split in split_files(family.parent):
            if split.label is not None and not other.is_relative_to(family):
                for row in read_split_file(other, split):
                    if isinstance(row, Question):
                        labels[question_key(row.image, row.problem)] = split.label
    except UserError:
        return {}
    return labels
