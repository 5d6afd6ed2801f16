"""Clusters of questions that show nearly the same image: such questions are no independent trials of a model."""

import csv
import io
from collections.abc import Mapping, Sequence
from itertools import combinations_with_replacement
from pathlib import Path

from open_r1.common.atomic_files import write_atomically
from open_r1.common.errors import UserError
from open_r1.data.overlap.comparison import shared_images
from open_r1.data.overlap.hashed_sets import HashedSplit
from open_r1.data.overlap.near_images import NEAR

_COLUMNS = ["id", "cluster"]

_Image = tuple[int, int]  # place of its split, place within it


def near_clusters(splits: Sequence[HashedSplit], least: float = NEAR) -> dict[str, str]:
    """The cluster of every question with an image: the key of one of its images.

    Questions are together if they show the same image or nearly the same, or are linked by others that do.
    """
    parents: dict[_Image, _Image] = {}

    def root(image: _Image) -> _Image:
        while parents.setdefault(image, image) != image:
            parents[image] = image = parents[parents[image]]
        return image

    def join(image: _Image, other: _Image) -> None:
        first, second = sorted((root(image), root(other)))
        parents[second] = first

    for number, other in combinations_with_replacement(range(len(splits)), 2):
        for place, other_place in shared_images(splits[number], splits[other], least).pairs:
            join((number, place), (other, other_place))
    for number, split in enumerate(splits):
        for _, shown in split.questions:
            for place in shown[1:]:
                join((number, shown[0]), (number, place))
    clusters = {}
    for number, split in enumerate(splits):
        for name, shown in split.questions:
            if shown:
                of_split, place = root((number, shown[0]))
                clusters[name] = splits[of_split].keys[place]
    return clusters


def write_clusters(path: Path, clusters: Mapping[str, str]) -> None:
    """Write a CSV file of ids and clusters."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([_COLUMNS, *clusters.items()])
    write_atomically(path, text.getvalue())


def read_clusters(path: Path) -> dict[str, str]:
    """The clusters that `write_clusters` wrote.

    Raises:
        UserError: the file cannot be read or holds something else.
    """
    try:
        rows = [*csv.reader(io.StringIO(path.read_text(encoding="utf-8")), strict=True)]
        if rows[0] != _COLUMNS or not all(len(row) == 2 for row in rows):
            raise ValueError("its columns are not id and cluster")
    except (OSError, ValueError, IndexError, csv.Error) as error:
        raise UserError(
            f"--clusters {path} cannot be used: {error}; write it with eval/overlap.py --write_clusters"
        ) from None
    return {row[0]: row[1] for row in rows[1:]}
