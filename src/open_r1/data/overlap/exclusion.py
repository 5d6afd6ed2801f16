"""Leave out questions whose images are in other sets, exactly or nearly, before anything is trained on them."""

import os
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

from datasets import Dataset

from open_r1.common.errors import UserError
from open_r1.data.overlap.comparison import questions_near
from open_r1.data.overlap.hash_files import is_hash_file, read_hashes
from open_r1.data.overlap.hashed_sets import HashedSplit, hash_rows, hash_set, splits_in
from open_r1.vocabulary.column_names import ColumnNames

TRAIN = "train"

_AT_ONCE = 1024  # questions whose images are held for the search: 4 KB an image


@dataclass(frozen=True)
class Exclusion:
    """What was left out because of other sets."""

    sets: list[str]  # splits that were compared with, and hash files
    questions: int
    same_bytes: int  # images of these questions that are in the other sets byte by byte
    nearly_same: int
    unreadable: int  # images of either side that cannot be read and were not compared

    def line(self) -> str:
        """One line for the log."""
        line = f"{self.questions:,} questions show an image of {', '.join(self.sets)} and are left out "
        line += f"({self.same_bytes:,} images the same, {self.nearly_same:,} nearly)"
        return line + (f"; {self.unreadable:,} images cannot be read and were not compared" if self.unreadable else "")


def without_overlap(
    rows: Dataset,
    sources: Sequence[str],
    image_root: str | os.PathLike | None = None,
    columns: ColumnNames | None = None,
) -> tuple[Dataset, Exclusion]:
    """The rows that show no image of other sets.

    Args:
        rows: of `load_rows`.
        sources: hash files, of which all splits count, and data sets, of which all splits but `train` do, unless that
            is their only one.
        image_root: folder of the images that rows of these sets name.
        columns: our name -> the data's name of a column.

    Raises:
        UserError: a source cannot be read, or no row is left.
    """
    others = [split for source in sources for split in _splits_of(source, image_root, columns)]
    unreadable, touched = sum(other.unreadable for other in others), bytearray(len(rows))
    same_bytes: set[str] = set()
    nearly_same: set[str] = set()
    images = rows.select_columns(["id", "images"])
    for start in range(0, len(rows), _AT_ONCE):
        split = hash_rows(images.select(range(start, min(start + _AT_ONCE, len(rows)))), "training")
        shared = questions_near(split, others)
        unreadable += split.unreadable
        same_bytes |= shared.same_bytes
        nearly_same |= shared.near
        for place in shared.questions:
            touched[start + place] = 1
    names = [other.name for other in others]
    exclusion = Exclusion(names, touched.count(1), len(same_bytes), len(nearly_same), unreadable)
    if exclusion.questions == len(rows):
        raise UserError(
            f"--exclude_overlap: every training question shows an image of {', '.join(exclusion.sets)}, so nothing is "
            "left to train on; compare the sets with eval/overlap.py"
        )
    return rows.select(array("I", (number for number in range(len(rows)) if not touched[number]))), exclusion


def _splits_of(source: str, image_root: str | os.PathLike | None, columns: ColumnNames | None) -> list[HashedSplit]:
    if is_hash_file(source):
        return read_hashes(source)
    names = [name for name in splits_in(source) if name is not None]
    tested = [name for name in names if name != TRAIN]
    return hash_set(source, tested or None, image_root, columns)
