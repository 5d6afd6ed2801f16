"""All questions of a release or of the split files: labels in memory, texts on disk.

A question takes some sixty bytes of memory, whatever its text. The two split families hold the same questions,
each with one of the two labels; they are joined on (image, problem).
"""

import json
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, NamedTuple

from open_r1.data.key_table import KeyTable, References
from open_r1.data.omnimedvqa.source import Question, question_key, read_release, read_split_file, split_files
from open_r1.data.rows import Dropped, row_id
from open_r1.vocabulary.labels import Family, Modality, Split, Task, family_of

Label = Modality | Task
Members = dict[Split, array]
"""Indices of the questions on each side of one set."""

SIDES: tuple[Split, Split] = ("train", "test")
_LABELS: tuple[Label, ...] = (*Modality, *Task)
_NONE = 255  # code of a label that a question does not have


class Texts(NamedTuple):
    """The part of a question that is stored on disk."""

    image: str
    problem: str
    solution: str
    source: str


@dataclass
class Questions:
    """Questions by index, in the order in which they were first read."""

    spool: Path  # file for the texts, written by `read`
    image_index: array = field(default_factory=lambda: array("I"))  # each question's index in images
    number: array = field(default_factory=lambda: array("Q"))  # each question's id as a number
    images: References = field(init=False)  # paths below the image root
    dropped: list[Dropped] = field(default_factory=list)
    _codes: dict[Family, bytearray] = field(default_factory=lambda: {"modality": bytearray(), "task": bytearray()})
    _published: dict[tuple[Label | None, Split], array] = field(default_factory=dict)
    _asked: dict[Family, bytearray] = field(default_factory=lambda: {"modality": bytearray(), "task": bytearray()})
    _known: KeyTable = field(default_factory=KeyTable)  # question_key -> index
    _place: array = field(default_factory=lambda: array("Q"))  # byte offset in the spool

    def __post_init__(self) -> None:
        self.images = References(self.spool.with_name("images.txt"))

    def __len__(self) -> int:
        return len(self.number)

    # ---- reading

    def read_release(self, release: Path) -> None:
        """Read a release folder. Raises `UserError` where a file is no list of questions."""
        with self.spool.open("wb") as spool:
            for row in read_release(release):
                self._take(row, None, spool)
        self._known = KeyTable()  # needed no longer

    def read_splits(self, splits_dir: Path) -> None:
        """Read a folder of split files. Raises `UserError` where a file is no list of questions."""
        with self.spool.open("wb") as spool:
            for path, split in split_files(splits_dir):
                members = self._published.setdefault((split.label, split.split), array("I"))
                for row in read_split_file(path, split):
                    index = self._take(row, split.family, spool)
                    if index is not None:
                        members.append(index)
        self._known = KeyTable()  # needed no longer

    def _take(self, row: Question | Dropped, family: Family | None, spool: BinaryIO) -> int | None:
        """Add a row; returns its index, or None if it is dropped."""
        if isinstance(row, Dropped):
            self.dropped.append(row)
            return None
        key, number = question_key(row.image, row.problem), int(row_id(row.image, row.problem, row.solution), 16)
        index = self._known.add(key)
        if index == len(self):  # a new one
            self._add(row, number, spool)
        elif number != self.number[index]:
            self._drop(row, "two-solutions", "the same question has another solution elsewhere")
            return None
        elif family is None or self._asked[family][index]:
            self._drop(row, "repeated-question", "the same question was read before")
            return None
        for label in (row.modality, row.task):
            if label is not None:
                self._codes[family_of(label)][index] = _LABELS.index(label)
        if family is not None:
            self._asked[family][index] = 1
        return index

    def _add(self, row: Question, number: int, spool: BinaryIO) -> None:
        self.number.append(number)
        self.image_index.append(self.images.add(row.image))
        self._place.append(spool.tell())
        spool.write(json.dumps(Texts(row.image, row.problem, row.solution, row.source)).encode() + b"\n")
        for name in self._codes:
            self._codes[name].append(_NONE)
            self._asked[name].append(0)

    def _drop(self, row: Question, reason: str, detail: str) -> None:
        where = f"{row.image}: {row.problem}"
        self.dropped.append(Dropped(where, reason, detail, row.modality, row.task))

    # ---- what was read

    def texts(self, indices: array) -> Iterator[Texts]:
        """The texts of the questions at these indices."""
        with self.spool.open("rb") as spool:
            for index in indices:
                spool.seek(self._place[index])
                yield Texts(*json.loads(spool.readline()))

    def modality(self, index: int) -> Modality | None:
        """The modality of a question."""
        code = self._codes["modality"][index]
        return None if code == _NONE else Modality(_LABELS[code])

    def task(self, index: int) -> Task | None:
        """The task of a question."""
        code = self._codes["task"][index]
        return None if code == _NONE else Task(_LABELS[code])

    def cells(self) -> list[tuple[int, int]]:
        """Each question's modality and task as numbers."""
        return list(zip(self._codes["modality"], self._codes["task"], strict=True))

    def unlabelled(self, family: Family) -> int:
        """How many questions have no modality, or no task."""
        return self._codes[family].count(_NONE)

    def asking(self, label: Label) -> array:
        """The indices of the questions with a label."""
        code = _LABELS.index(label)
        codes = self._codes[family_of(label)]
        return array("I", (index for index, question_code in enumerate(codes) if question_code == code))

    def published(self, label: Label) -> Members:
        """The published split of a label, in the order of its files."""
        return {side: self._published.get((label, side), array("I")) for side in SIDES}

    def drawn(self, label: Label, sides: bytearray) -> Members:
        """A drawn split of a label; `sides` holds 1 for each question of test."""
        indices = self.asking(label)
        return {side: array("I", (i for i in indices if sides[i] == (side == "test"))) for side in SIDES}
