"""Clusters of questions that show nearly the same image: such questions are no independent trials of a model."""

import csv
import io
from collections.abc import Mapping, Sequence
from itertools import combinations_with_replacement
from pathlib import Path

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from open_r1.common.atomic_files import write_atomically
from open_r1.common.errors import UserError
from open_r1.data.overlap.comparison import shared_images
from open_r1.data.overlap.hashed_sets import HashedSplit
from open_r1.data.overlap.near_images import NEAR

_COLUMNS = ["id", "cluster"]


def near_clusters(splits: Sequence[HashedSplit], least: float = NEAR) -> dict[str, str]:
    """The cluster of every question with an image: the key of one of its images.

    Questions are together if they show the same image or nearly the same, or are linked by others that do.
    """
    starts = np.cumsum([0, *(len(split.keys) for split in splits)])
    links: list[tuple[int, int]] = []  # images, numbered through all splits
    for number, other in combinations_with_replacement(range(len(splits)), 2):
        for place, other_place in shared_images(splits[number], splits[other], least).pairs:
            links.append((starts[number] + place, starts[other] + other_place))
    for start, split in zip(starts, splits, strict=False):
        links += [(start + shown[0], start + place) for _, shown in split.questions for place in shown[1:]]
    rows, columns = np.array(links, dtype=np.intp).reshape(-1, 2).T
    graph = coo_array((np.ones(len(rows)), (rows, columns)), shape=(starts[-1], starts[-1]))
    component = connected_components(graph, directed=False)[1]
    first_images = np.unique(component, return_index=True)[1]
    keys = [key for split in splits for key in split.keys]
    return {
        name: keys[first_images[component[start + shown[0]]]]
        for start, split in zip(starts, splits, strict=False)
        for name, shown in split.questions
        if shown
    }


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
