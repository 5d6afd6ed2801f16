"""Which images and questions two splits share, within a set and between prepared sets.

An image has two keys: of the published file, and of the stored bytes. Two sets that were prepared with other sizes
still share the first; two published files of the same pixels still share the second.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import datasets

from open_r1.common.atomic_files import parse_json, read_manifest
from open_r1.common.errors import UserError
from open_r1.data.answer_texts import as_read
from open_r1.grading.problems import options_in, solution_letter

KEYS_FILE = "keys.json"
"""In the folder of a set: the keys of its images and questions by split, for later comparisons."""

_PAIRS = ("images", "questions")
_WORD = re.compile(r"\w+")
_MARK = re.compile(r"(?<![^\s,])[A-Z]\)")  # of an option


@dataclass
class SplitKeys:
    """Keys of the images and questions of one split; a key is 16 hexadecimal digits of a SHA-256."""

    images: set[tuple[str, str]] = field(default_factory=set)
    """(key of the published file, "" where it is not known; key of the stored bytes) of every image."""
    questions: list[tuple[str, str]] = field(default_factory=list)
    """For every row the key of its images, question and answer, by either key of the images."""
    shown: list[tuple[str, ...]] = field(default_factory=list)
    """For every row the stored keys of its images."""

    def add(self, images: Sequence[tuple[str, str]], problem: str, solution: str) -> None:
        """Count one row."""
        self.images.update(images)
        originals, stored = [key for key, _ in images], [key for _, key in images]
        question_key = question_text_key(problem, solution)
        self.questions.append(
            (_joined(originals, question_key) if all(originals) else "", _joined(stored, question_key))
        )
        self.shown.append(tuple(stored))

    def as_json(self) -> dict[str, Any]:
        """What is kept of them in KEYS_FILE."""
        return {"images": sorted(self.images), "questions": self.questions, "shown": self.shown}

    @classmethod
    def of_json(cls, value: Mapping[str, Any]) -> "SplitKeys":
        """The keys that `as_json` wrote."""
        images, questions = ([(str(file), str(stored)) for file, stored in value[name]] for name in _PAIRS)
        return cls(set(images), questions, [tuple(keys) for keys in value["shown"]])


@dataclass
class HeldOut:
    """Images that something is tested on, so that training must not show them."""

    files: set[str] = field(default_factory=set)
    stored: set[str] = field(default_factory=set)

    def add(self, keys: SplitKeys) -> None:
        """Hold out the images of a split."""
        self.files.update(original for original, _ in keys.images if original)
        self.stored.update(stored for _, stored in keys.images)

    def holds_any(self, images: Iterable[tuple[str, str]]) -> bool:
        """Whether one of these images, by either key, is held out."""
        return any(original in self.files or stored in self.stored for original, stored in images)

    def lines(self) -> list[str]:
        """All keys, in order."""
        return [*sorted(self.files), "", *sorted(self.stored)]


@dataclass(frozen=True)
class Overlap:
    """How much of one split is in another."""

    images: int
    """Images of the one that are in the other, by either key."""
    of_images: int
    by_file: int
    """Of these, the ones whose published files are equal; the stored bytes of the rest are."""
    questions: int
    """Questions of the one that show at least one such image."""
    of_questions: int
    same_question: int
    """Questions of the one that are in the other with the same images, question and answer."""


def question_text_key(problem: str, solution: str) -> str:
    """A key for question and answer, whatever the case, the order and the marks of options.

    The right option counts by its text, so that a question in the published form and on lines is one question.
    """
    with suppress(UserError, KeyError):  # raised where the question is not one of choice
        options = options_in(problem)
        solution = options[solution_letter(solution)]
    words = sorted(_WORD.findall(_MARK.sub(" ", problem).casefold()))
    return "\n".join([" ".join(words), as_read(solution).casefold()])


def _joined(image_keys: Sequence[str], question_key: str) -> str:
    return hashlib.sha256("\n".join([*image_keys, question_key]).encode()).hexdigest()[:16]


def overlap(tested: SplitKeys, trained: SplitKeys) -> Overlap:
    """How much of `tested` is in `trained`."""
    originals = {original for original, _ in trained.images if original}
    stored_keys = {stored for _, stored in trained.images}
    by_file = {pair for pair in tested.images if pair[0] in originals}
    shared = by_file | {pair for pair in tested.images if pair[1] in stored_keys}
    shared_stored = {stored for _, stored in shared}
    questions_by_file = {key for key, _ in trained.questions if key}
    questions_stored = {key for _, key in trained.questions}
    return Overlap(
        images=len(shared),
        of_images=len(tested.images),
        by_file=len(by_file),
        questions=sum(any(key in shared_stored for key in keys) for keys in tested.shown),
        of_questions=len(tested.shown),
        same_question=sum(
            original in questions_by_file or stored in questions_stored for original, stored in tested.questions
        ),
    )


def overlaps_within(splits: Mapping[str, SplitKeys]) -> dict[str, dict[str, int]]:
    """`train -> test` and so on for every pair of splits, in their order."""
    names = list(splits)
    pairs = [(first, second) for place, first in enumerate(names) for second in names[place + 1 :]]
    return {f"{first} -> {second}": asdict(overlap(splits[second], splits[first])) for first, second in pairs}


def overlaps_between(splits: Mapping[str, SplitKeys], folder: Path) -> dict[str, dict[str, int]]:
    """How much of each split is in each split of another prepared set.

    Raises:
        UserError: the folder holds no prepared set.
    """
    others = keys_in(folder)
    return {
        f"{other} -> {name}": asdict(overlap(keys, other_keys))
        for name, keys in splits.items()
        for other, other_keys in others.items()
    }


def keys_in(folder: Path) -> dict[str, SplitKeys]:
    """The keys of a prepared set by split; of one that has no KEYS_FILE only the stored images are compared.

    Raises:
        UserError: the folder holds no prepared set, or one that cannot be read.
    """
    if read_manifest(folder) is None and not (folder / "dataset_dict.json").is_file():
        raise UserError(f"--against {folder} is no prepared set; give a folder such as data/VQA/vqa_rad")
    try:
        if (folder / KEYS_FILE).is_file():
            value = parse_json((folder / KEYS_FILE).read_text(encoding="utf-8"))
            return {str(name): SplitKeys.of_json(keys) for name, keys in value.items()}
        saved = datasets.load_from_disk(str(folder))
        splits = saved if isinstance(saved, datasets.DatasetDict) else {"": saved}
        return {str(name): _stored_keys(rows) for name, rows in splits.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(
            f"--against {folder} cannot be read: {str(error).splitlines()[0] if str(error) else error}"
        ) from None


def _stored_keys(rows: datasets.Dataset) -> SplitKeys:
    keys = SplitKeys()
    column = "images" if "images" in rows.column_names else "image"
    if column not in rows.column_names:
        return keys
    undecoded = datasets.Image(decode=False)
    rows = rows.cast_column(column, datasets.List(undecoded) if column == "images" else undecoded)
    texts = [name for name in ("problem", "solution") if name in rows.column_names]
    for row in rows.select_columns([column, *texts]):
        assert isinstance(row, dict)
        images = row[column] if column == "images" else [row[column]]
        stored = [("", stored_key(image["bytes"])) for image in images or () if image and image["bytes"]]
        keys.add(stored, str(row.get("problem")), str(row.get("solution")))
    return keys


def stored_key(data: bytes) -> str:
    """The key of an image's stored bytes."""
    return hashlib.sha256(data).hexdigest()[:16]


def total(splits: Iterable[SplitKeys]) -> int:
    """Different images of several splits."""
    return len({stored for keys in splits for _, stored in keys.images})
