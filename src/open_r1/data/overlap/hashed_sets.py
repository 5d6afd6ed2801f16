"""The hashes of all images of a data set, split by split, with the ids of the questions that show them."""

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from open_r1.common.errors import UserError
from open_r1.data.images import ImageError, decode, read_file
from open_r1.data.loading import load_rows
from open_r1.data.missing_sets import hub_name
from open_r1.data.overlap.image_hashes import HASH_BYTES, Grey, grey_of, hash_of, is_blank
from open_r1.data.overlap.near_images import HashTable
from open_r1.data.readers.file_layout import files_in, split_of
from open_r1.data.readers.saved_sets import is_saved_set, splits_of_saved_set
from open_r1.data.row_images import Undecoded
from open_r1.vocabulary.column_names import ColumnNames

_TOGETHER = 64  # images that are opened side by side
_USUAL_SPLITS = ("train", "validation", "test")  # that are looked for in a set of the hub


@dataclass
class HashedSplit:
    """One split of a set: its different images, told apart by their bytes, and the questions that show them."""

    name: str
    keys: list[str] = field(default_factory=list)  # of each image: 16 digits of the SHA-256 of its bytes
    hashes: list[bytes | None] = field(default_factory=list)  # packed; None for a blank image
    questions: list[tuple[str, tuple[int, ...]]] = field(default_factory=list)  # id, places of its images
    unreadable: int = 0  # images that could not be opened
    greys: list[Grey | None] | None = None
    """What the hashes were made of, 4 KB an image; None for a split out of a hash file."""

    @property
    def blank(self) -> int:
        """Images that show nothing, which are compared by their bytes alone."""
        return self.hashes.count(None)

    def table(self) -> tuple[HashTable, NDArray[np.intp]]:
        """The hashes for a search, and the places of the images that they are of."""
        places = np.array([place for place, code in enumerate(self.hashes) if code is not None], dtype=np.intp)
        packed = b"".join(code for code in self.hashes if code is not None)
        return HashTable.of(np.frombuffer(packed, np.uint8).reshape(-1, HASH_BYTES)), places

    def line(self) -> str:
        """Counts, for the user."""
        line = f"{self.name}: {len(self.questions):,} questions, {len(self.keys):,} different images"
        line += f", {self.unreadable:,} images cannot be read" if self.unreadable else ""
        return line + (f", {self.blank:,} show nothing and are compared by their bytes alone" if self.blank else "")


def hash_set(
    path: str,
    splits: Sequence[str] | None = None,
    image_root: str | os.PathLike | None = None,
    columns: ColumnNames | None = None,
) -> list[HashedSplit]:
    """Hash the images of a data set.

    Args:
        path: any data that `load_rows` reads.
        splits: names of splits; None for all.
        image_root: folder of the images that the rows name.
        columns: our name -> the data's name of a column.

    Raises:
        UserError: the data cannot be read, or has none of these splits.
    """
    available = splits_in(path)
    chosen = [name for name in available if splits is None or name is None or name in splits]
    if not chosen:
        names = ", ".join(name for name in available if name)
        raise UserError(f"{path} has none of the splits {', '.join(splits or ())}; it has {names or 'none'}")
    hashed = []
    for split in chosen:
        try:
            rows, _ = load_rows(path, split, image_root, columns)
        except UserError:
            if split is not None and hub_name(path) is not None and splits is None:
                continue
            raise
        hashed.append(hash_rows(rows, f"{Path(path).name} {split}" if split else Path(path).name))
    if not hashed:
        raise UserError(f"{path} has none of the splits {', '.join(_USUAL_SPLITS)}; name them with --splits")
    return hashed


def splits_in(path: str) -> Sequence[str | None]:
    """The names of the splits of a data set; None for one that is a single split.

    Raises:
        UserError: a saved set that cannot be read.
    """
    folder = Path(path)
    if not os.path.isdir(path):
        return [None] if os.path.exists(path) or hub_name(path) is None else [*_USUAL_SPLITS]
    if is_saved_set(folder):
        return splits_of_saved_set(folder) or [None]
    return list(dict.fromkeys(split_of(file) for file in files_in(folder))) or [None]


def hash_rows(rows: Iterable[Any], name: str) -> HashedSplit:
    """Hash the images of rows of `load_rows`."""
    split, places = HashedSplit(name, greys=[]), {}
    assert split.greys is not None
    with ThreadPoolExecutor(max(1, len(os.sched_getaffinity(0)))) as pool:
        for row_name, looks in _looks(rows, pool):
            shown = []
            for look in looks:
                if look is None:
                    split.unreadable += 1
                    continue
                key, grey = look
                if key not in places:
                    places[key] = len(split.keys)
                    split.keys.append(key)
                    split.greys.append(grey)
                    split.hashes.append(None if grey is None else hash_of(grey).packed())
                shown.append(places[key])
            split.questions.append((row_name, tuple(shown)))
    return split


Look = tuple[str, Grey | None]
"""Key of an image, and its grey values; None for a blank one."""


def _looks(rows: Iterable[Any], pool: ThreadPoolExecutor) -> Iterator[tuple[str, list[Look | None]]]:
    """For every row its id and a look at each of its images; None for one that cannot be read."""
    rows = iter(rows)
    while batch := list(islice(rows, _TOGETHER)):
        futures = [[pool.submit(look_at, image) for image in row["images"]] for row in batch]
        for row, of_row in zip(batch, futures, strict=True):
            yield str(row["id"]), [future.result() for future in of_row]


def look_at(image: Undecoded) -> Look | None:
    """The key of an undecoded image and its grey values; None if it cannot be read."""
    try:
        data = read_file(image["path"], resolved=True) if image["bytes"] is None else image["bytes"]
        grey = grey_of(decode(data, None, "the image"))
    except ImageError:
        return None
    return hashlib.sha256(data).hexdigest()[:16], None if is_blank(grey) else grey
