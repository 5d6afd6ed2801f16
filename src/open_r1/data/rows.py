"""One question as a row: its keys, their valid values, and the reasons for dropping a row."""

import hashlib
import re
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from open_r1.common.errors import UnusableInput, UserError
from open_r1.data.answer_texts import published_form
from open_r1.data.images import check_reference, shown
from open_r1.data.key_table import KeyTable, key_of
from open_r1.grading.problems import options_in, solution_letter
from open_r1.vocabulary.labels import Modality, Task

TEXT_KEYS = ("image", "problem", "solution")
"""The columns of the published form."""


class RowError(UnusableInput):
    """A row that is not a usable question."""


@dataclass(frozen=True, slots=True)
class Dropped:
    """A row that is dropped, and why."""

    where: str  # file and entry, or the row's place in a data set
    reason: str  # short slug for counts
    detail: str
    modality: Modality | None = None
    task: Task | None = None


@dataclass(frozen=True, slots=True)
class Leak:
    """The number of test questions whose image is also in the training set."""

    questions: int
    shared: int

    @property
    def percent(self) -> float:
        """Share of the test questions, 0 to 100; 0 where there are none."""
        return 100 * self.shared / self.questions if self.questions else 0.0


def leak(train: Iterable[Hashable], test: Iterable[Hashable]) -> Leak:
    """Count the test questions whose image is in training; each argument holds one image per question."""
    train_images = set(train)
    shared = questions = 0
    for image in test:
        questions += 1
        shared += image in train_images
    return Leak(questions, shared)


def row_id(image: bytes | str, problem: str, solution: str) -> str:
    """The id of a question, 16 hexadecimal digits of a SHA-256.

    Args:
        image: the image's path below the image root where it is known, so that a question has one id in the
            release, in the split files and in every prepared form; else the image's bytes.
    """
    digest = hashlib.sha256()
    for component in (image, problem, solution):
        data = component.encode() if isinstance(component, str) else component
        digest.update(len(data).to_bytes(8, "big"))  # lengths: ("ab", "c") is not ("a", "bc")
        digest.update(data)
    return digest.hexdigest()[:16]


def images_id(images: Sequence[bytes | str]) -> bytes | str:
    """What stands for the images of a question in its id: the only image itself, "" for none, else a text of all."""
    if len(images) < 2:
        return images[0] if images else ""
    return "\n".join(row_id(image, "", "") for image in images)


def refuse_repeated(key: str, seen_ids: KeyTable) -> None:
    """Add an id to those that were seen.

    Raises:
        RowError: `repeated-question`, if it is there already.
    """
    seen = len(seen_ids)
    if seen_ids.add(key_of(key)) < seen:
        raise RowError("repeated-question", f"the question {key} is there already")


def check_row(entry: Any) -> tuple[str, str, str]:
    """Check one object of the published form; returns its image path, and problem and solution as published.

    Raises:
        RowError: it cannot be used (`not-an-object`, `missing-key`, `not-text` or as `check_texts` says).
        ImageError: the image is no path that may be opened.
    """
    image, problem, solution = required_texts(entry, TEXT_KEYS)
    for key, value in entry.items():
        refuse_more_images(key, value)
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


MORE_IMAGES = re.compile(r"(?:images|pictures|figures|videos?|audios?|(?:image|picture)_?\d{1,3})", re.IGNORECASE)
"""Keys beside `image` that make a question one about several images, or about something else than an image."""


def refuse_more_images(key: Any, value: Any) -> None:
    """Refuse a question about more than its one image: without the others it is another question.

    Raises:
        RowError: `several-images`.
    """
    repeats_the_image = (
        isinstance(value, list | tuple) and len(value) == 1 and str(key).casefold() in ("images", "pictures")
    )
    if value and not repeats_the_image and MORE_IMAGES.fullmatch(str(key)):
        raise RowError("several-images", f"the question shows more than one image ({key}: {shown(value)}); one is read")


def required_texts(entry: Any, keys: Iterable[str]) -> list[str]:
    if isinstance(entry, RowError):
        raise entry
    if not isinstance(entry, dict):
        raise RowError("not-an-object", f"an object is expected, not {shown(entry)}")
    absent = [key for key in keys if key not in entry]
    if absent:
        raise RowError("missing-key", f"the key {', '.join(map(repr, absent))} is missing")
    return [text_of(key, entry[key]) for key in keys]


def text_of(key: str, value: Any) -> str:
    try:
        if isinstance(value, str) and value.strip() and value.encode():
            return value
    except UnicodeEncodeError:  # half of a surrogate pair: valid JSON, no text
        pass
    raise RowError("not-text", f"{key!r} must be a text that is not empty, not {shown(value)}")


def source_of(image: str) -> str:
    """OmniMedVQA's name of the data set in an image path: `Images/PALM2019/T0011.jpg` is of PALM2019."""
    path_parts = image.split("/")
    return path_parts[1] if len(path_parts) > 2 and path_parts[0] == "Images" else ""
