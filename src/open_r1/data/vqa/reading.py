"""Read the files of a set: usable questions by part and split, dropped rows with reasons.

The texts of the questions and the paths of their images wait in files, so that memory grows by tens of bytes each.
"""

import json
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import BinaryIO

from tqdm import tqdm

from open_r1.common.errors import UnusableInput, UserError
from open_r1.data.key_table import References
from open_r1.data.rows import Dropped, RowError
from open_r1.data.vqa.forms import SPLITS, InputFile
from open_r1.data.vqa.questions import LeftOut, ReaderContext, VqaQuestion
from open_r1.vocabulary.labels import Modality

_NAMED = 3  # dropped rows that an error names


@dataclass
class Members:
    """The questions of one split of one part: where their texts stand in the file."""

    places: array = field(default_factory=lambda: array("Q"))
    beyond_limit: int = 0
    """Rows that were not read because the split has as many questions as asked for."""


@dataclass
class Part:
    """What the files hold of one set that gets a folder of its own."""

    splits: dict[str, Members] = field(default_factory=dict)
    dropped: list[Dropped] = field(default_factory=list)


class SetReading:
    """The questions of a set's files.

    Args:
        files: all of one form.
        context: of the readers.
        spool: file for the texts, which is written anew.
        wanted: parts that are read; () for all.
        limit: most questions of a split; None for all.
    """

    def __init__(
        self, files: Sequence[InputFile], context: ReaderContext, spool: Path, wanted: Sequence[str], limit: int | None
    ):
        self.files, self.form, self.context, self.spool = files, files[0].form, context, spool
        self.wanted, self.limit = tuple(wanted), limit
        self.parts: dict[str, Part] = {}
        self.left_out: Counter[str] = Counter()
        """Why rows that are not asked for were left out -> how many."""
        self.references = References(spool.with_name("references.txt"))
        """The paths of all images."""

    def read(self) -> None:
        """Read all files.

        Raises:
            UserError: a file is no file of questions, is longer than its set, or no question can be used.
        """
        with self.spool.open("wb") as spool:
            for file in self.files:
                self._read_file(file, spool)
        self._refuse_nothing()

    def questions(self, places: Iterable[int]) -> Iterator[VqaQuestion]:
        """The questions at these places."""
        with self.spool.open("rb") as spool:
            for place in places:
                spool.seek(place)
                values = json.loads(spool.readline())
                modality = Modality(values["modality"]) if values["modality"] else None
                lists = {"images": tuple(values["images"]), "aliases": tuple(values["aliases"])}
                yield VqaQuestion(**{**values, **lists, "modality": modality})

    def images_of(self, part: str) -> array:
        """The numbers of a part's images, in the order of their first use, the last split first."""
        splits = self.parts[part].splits
        places = (place for split in reversed(SPLITS) if split in splits for place in splits[split].places)
        numbers, visited = array("I"), bytearray(len(self.references))
        for question in self.questions(places):
            for number in map(self.references.number, question.images):
                if not visited[number]:
                    visited[number] = 1
                    numbers.append(number)
        return numbers

    def _read_file(self, file: InputFile, spool: BinaryIO) -> None:
        bar = tqdm(self.form.rows(file.path), desc=file.path.name, unit="", disable=None)
        for number, (where, row) in enumerate(bar):
            if number == self.form.most_rows:
                raise UserError(
                    f"{file.path} holds more than the {number:,} rows of {self.form.name}, so it is another set with "
                    "the same columns; name that one as SOURCE"
                )
            part, split = "", file.split
            try:
                if isinstance(row, RowError):
                    raise row
                part = self.form.set_of(row) if self.form.set_of else ""
                if self.wanted and part not in self.wanted:
                    raise LeftOut(f"of {part}")
                split = self.form.split_of(row) if self.form.split_of else split
                if not self._is_full(part, split):
                    self._keep(self.form.read(row, self.context), part, split, spool)
            except LeftOut as reason:
                self.left_out[str(reason)] += 1
            except UnusableInput as error:
                self.parts.setdefault(part, Part()).dropped.append(Dropped(where, error.reason, str(error)))

    def _is_full(self, part: str, split: str) -> bool:
        """Whether a split has as many questions as the limit allows; counts the row if so."""
        members = self.parts[part].splits.get(split) if part in self.parts else None
        is_full = members is not None and len(members.places) == self.limit
        if members is not None and is_full:
            members.beyond_limit += 1
        return is_full

    def _keep(self, question: VqaQuestion, part: str, split: str, spool: BinaryIO) -> None:
        members = self.parts.setdefault(part, Part()).splits.setdefault(split, Members())
        for reference in question.images:
            self.references.add(reference)
        members.places.append(spool.tell())
        spool.write(json.dumps(asdict(question)).encode() + b"\n")

    def _refuse_nothing(self) -> None:
        """Refuse files without a usable question, and parts that are not there."""
        strays = []  # dropped rows of parts without a usable question
        for part in [part for part, reading in self.parts.items() if not reading.splits]:
            strays += self.parts.pop(part).dropped
        missing = [part for part in self.wanted if part not in self.parts]
        others = sorted({*self.parts, *(reason.removeprefix("of ") for reason in self.left_out)})
        if missing and others:
            raise UserError(f"there is no usable question of {', '.join(missing)}; --only can be {', '.join(others)}")
        if not self.parts:
            examples = [f"{row.where}: {row.detail}" for row in strays[:_NAMED]]
            examples += [f"{count} rows {reason} were left out" for reason, count in self.left_out.items()]
            raise UserError(
                f"no question of {self.form.name} can be used ({len(strays)} were dropped): "
                f"{'; '.join(examples) or 'there are no rows'}"
            )
        next(iter(self.parts.values())).dropped.extend(strays)
