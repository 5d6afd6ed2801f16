"""Which images and questions two splits share, within a set and between prepared sets.

An image has two keys: of the published file, and of the stored bytes. Two sets that were prepared with other sizes
still share the first; two published files of the same pixels still share the second.
"""

import hashlib
import re
import zipfile
from array import array
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from numpy.typing import NDArray

from open_r1.common.atomic_files import parse_json, read_manifest
from open_r1.common.errors import UserError
from open_r1.data.answer_texts import as_read
from open_r1.grading.problems import options_in, solution_letter

KEYS_FILE = "keys.npz"
"""In the folder of a set: the keys of its images and questions by split, for later comparisons."""

_OLD_KEYS_FILE = "keys.json"
"""What earlier versions wrote in its place: the same keys as texts."""

_ARRAYS = ("images", "questions", "shown", "counts")
_WORD = re.compile(r"\w+")
_MARK = re.compile(r"(?<![^\s,])[A-Z]\)")  # of an option

Keys = NDArray[np.uint64]


def _empty() -> array:
    return array("Q")


@dataclass
class SplitKeys:
    """Keys of the images and questions of one split, in 48 bytes a row with one image.

    A key is the first 64 bits of a SHA-256; 0 stands for one that is not known.
    """

    images: array = field(default_factory=_empty)
    """Two keys for every image, which may stand there repeatedly: of the published file, and of the stored bytes."""
    questions: array = field(default_factory=_empty)
    """Two keys for every row: of its images, question and answer, by either key of the images."""
    shown: array = field(default_factory=_empty)
    """The stored keys of the images of every row, in order."""
    counts: array = field(default_factory=_empty)
    """For every row the number of its images."""

    def add(self, images: Sequence[tuple[int, int]], problem: str, solution: str) -> None:
        """Count one row; `images` holds the two keys of each of its images."""
        for pair in images:
            self.images.extend(pair)
        originals, stored = [key for key, _ in images], [key for _, key in images]
        question_key = question_text_key(problem, solution)
        self.questions.append(_joined(originals, question_key) if all(originals) else 0)
        self.questions.append(_joined(stored, question_key))
        self.shown.extend(stored)
        self.counts.append(len(images))

    def different_images(self) -> Keys:
        """(n, 2): the two keys of every image, each pair once."""
        return np.unique(_pairs(self.images), axis=0)


def _pairs(keys: array) -> Keys:
    return np.asarray(keys, np.uint64).reshape(-1, 2)


def save_keys(file: Path, splits: Mapping[str, SplitKeys]) -> None:
    """Write KEYS_FILE. Raises OSError if the disk is full."""
    arrays: dict[str, Any] = {}
    for split, keys in splits.items():
        arrays |= {f"{split}/{name}": np.asarray(getattr(keys, name)) for name in _ARRAYS}
        arrays[f"{split}/images"] = keys.different_images().ravel()
    np.savez(file, allow_pickle=False, **arrays)


class HeldOut:
    """Images that something is tested on, so that training must not show them."""

    def __init__(self) -> None:
        self._files = self._stored = np.empty(0, np.uint64)

    def add(self, keys: SplitKeys) -> None:
        """Hold out the images of a split."""
        files, stored = _pairs(keys.images).T
        self._files = np.union1d(self._files, files[files != 0])
        self._stored = np.union1d(self._stored, stored)

    def holds_any(self, images: Iterable[tuple[int, int]]) -> bool:
        """Whether one of these images, by either key, is held out."""
        return any(_holds(self._files, original) or _holds(self._stored, stored) for original, stored in images)

    def lines(self) -> Iterable[str]:
        """All keys, in order."""
        yield from (f"{key:016x}" for key in self._files)
        yield ""
        yield from (f"{key:016x}" for key in self._stored)


def _holds(keys: Keys, key: int) -> bool:
    place = keys.searchsorted(np.uint64(key))
    return bool(place < len(keys) and keys[place] == key)


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


def _joined(image_keys: Sequence[int], question_key: str) -> int:
    return _number("\n".join([*(f"{key:016x}" for key in image_keys), question_key]).encode())


def _number(data: bytes) -> int:
    return int.from_bytes(hashlib.sha256(data).digest()[:8], "big")


def overlap(tested: SplitKeys, trained: SplitKeys) -> Overlap:
    """How much of `tested` is in `trained`."""
    images, trained_images = tested.different_images(), _pairs(trained.images)
    by_file = _known_in(images[:, 0], trained_images[:, 0])
    is_shared = by_file | np.isin(images[:, 1], trained_images[:, 1])
    rows = np.repeat(np.arange(len(tested.counts)), np.asarray(tested.counts, np.intp))
    questions, trained_questions = _pairs(tested.questions), _pairs(trained.questions)
    is_same = _known_in(questions[:, 0], trained_questions[:, 0]) | np.isin(questions[:, 1], trained_questions[:, 1])
    return Overlap(
        images=int(is_shared.sum()),
        of_images=len(images),
        by_file=int(by_file.sum()),
        questions=len(np.unique(rows[np.isin(np.asarray(tested.shown), images[is_shared, 1])])),
        of_questions=len(tested.counts),
        same_question=int(is_same.sum()),
    )


def _known_in(keys: Keys, others: Keys) -> NDArray[np.bool_]:
    """Which keys are known and are among others."""
    return np.isin(keys, others) & (keys != 0)


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
            return _saved_keys(folder / KEYS_FILE)
        if (folder / _OLD_KEYS_FILE).is_file():
            value = parse_json((folder / _OLD_KEYS_FILE).read_text(encoding="utf-8"))
            return {str(name): _old_keys(keys) for name, keys in value.items()}
        saved = datasets.load_from_disk(str(folder))
        splits = saved if isinstance(saved, datasets.DatasetDict) else {"": saved}
        return {str(name): _stored_keys(rows) for name, rows in splits.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, zipfile.BadZipFile) as error:
        raise UserError(
            f"--against {folder} cannot be read: {str(error).splitlines()[0] if str(error) else error}"
        ) from None


def holds_keys(folder: Path) -> bool:
    """Whether a prepared set has its keys beside it."""
    return (folder / KEYS_FILE).is_file() or (folder / _OLD_KEYS_FILE).is_file()


def _saved_keys(file: Path) -> dict[str, SplitKeys]:
    with np.load(file) as arrays:
        names = dict.fromkeys(name.rpartition("/")[0] for name in arrays.files)
        return {name: SplitKeys(*(arrays[f"{name}/{kind}"] for kind in _ARRAYS)) for name in names}


def _old_keys(value: Mapping[str, Any]) -> SplitKeys:
    """The keys of one split as texts, in lists: pairs of images and of questions, and what each row shows."""
    keys = SplitKeys()
    for name in ("images", "questions"):
        for pair in value[name]:
            getattr(keys, name).extend(map(_of_text, pair))
    for shown in value["shown"]:
        keys.shown.extend(map(_of_text, shown))
        keys.counts.append(len(shown))
    return keys


def _of_text(key: str) -> int:
    return int(key, 16) if key else 0


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
        stored = [(0, stored_key(image["bytes"])) for image in images or () if image and image["bytes"]]
        keys.add(stored, str(row.get("problem")), str(row.get("solution")))
    return keys


def stored_key(data: bytes) -> int:
    """The key of an image's stored bytes."""
    return _number(data)


def total(splits: Iterable[SplitKeys]) -> int:
    """Different images of several splits."""
    return len(np.unique(np.concatenate([_pairs(keys.images)[:, 1] for keys in splits])))
