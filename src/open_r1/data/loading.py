"""Load questions for training and evaluation, whatever form they are in, as rows with the same columns.

A loaded set has the columns of QUESTION_FEATURES: `images` (undecoded, none to many), problem, solution, answer_type,
aliases, id, source, modality, task, subject. Images stay encoded until `row_images` opens them. docs/data.md says which
forms are read.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets

from open_r1.common.errors import UserError
from open_r1.data.images import ImageError, read_file
from open_r1.data.missing_sets import hub_name, missing_data
from open_r1.data.readers.arrow_rows import arrow_rows
from open_r1.data.readers.file_layout import PARQUET, files_in, files_of_split
from open_r1.data.readers.hub_sets import fetch_split
from open_r1.data.readers.json_rows import label_of, read_json
from open_r1.data.readers.parquet_files import open_parquet
from open_r1.data.readers.saved_sets import is_saved_set, open_saved_set
from open_r1.data.rows import Dropped, row_id
from open_r1.vocabulary.answer_types import AnswerType
from open_r1.vocabulary.column_names import ColumnNames

_NAMED_IN_LINE = 3  # dropped rows that the one-line summary names


def load_rows(
    path: str | os.PathLike,
    split: str | None = None,
    image_root: str | os.PathLike | None = None,
    columns: ColumnNames | None = None,
) -> tuple[datasets.Dataset, list[Dropped]]:
    """Load one split of a data set with its images undecoded.

    Args:
        path: a saved DatasetDict or Dataset, a JSON list, JSON Lines or Parquet file, a folder of such files, or a set
            of the hub: org/name, org/name:folder, org/name@revision.
        split: which split of a set that has several; a single Dataset or file is one split already.
        image_root: folder that image paths are relative to and may not leave; a folder of JSON Lines is its own.
        columns: our name -> the data's name of a column, where they differ.

    Returns:
        The usable rows, and the dropped ones with their reasons: a bad row never ends a run. `images` is a list of
        {"bytes", "path"}; for an image that is a file bytes is None and path is an absolute, checked path.
        An image that cannot be decoded is noticed only when `row_images` opens it.

    Raises:
        UserError: the path, the file, the split or the columns are not there, or no row can be used.
    """
    name, names = os.fspath(path), columns or {}
    path = Path(path)
    if os.path.isdir(path):  # which raises for no name, however long
        rows, dropped = _from_folder(path, split, image_root, names)
    elif os.path.isfile(path):
        rows, dropped = _from_files(path, [path], path.name, image_root, names)
    elif (wanted := hub_name(name)) is not None:
        fetched = fetch_split(name, wanted, split)
        rows, dropped = _from_files(path, fetched.files, f"{path.name} {fetched.split}", image_root, names)
    else:
        raise UserError(missing_data(path))
    if not len(rows):
        raise UserError(f"{path} has no row that can be used. {summary(dropped) or 'It is empty.'}")
    return rows, dropped


def _from_folder(
    path: Path, split: str | None, image_root: str | os.PathLike | None, names: ColumnNames
) -> tuple[datasets.Dataset, list[Dropped]]:
    files = [] if is_saved_set(path) else files_in(path)
    if not files:
        rows, name = open_saved_set(path, split)
        return arrow_rows(rows, str(path), name, label_of(path.name), image_root, names)
    split_name, of_split = files_of_split(path, files, split)
    paths = [path / file for file in of_split]
    root = image_root if paths[0].suffix == PARQUET else image_root or path
    return _from_files(path, paths, f"{path.name} {split_name}", root, names)


def _from_files(
    path: Path, files: Sequence[Path], name: str, image_root: str | os.PathLike | None, names: ColumnNames
) -> tuple[datasets.Dataset, list[Dropped]]:
    """The rows of files of one kind: `path` is the set that they are of, `name` says it with the split."""
    if files[0].suffix == PARQUET:
        return arrow_rows(open_parquet(files, names), str(path), name, label_of(path.name), image_root, names)
    return read_json(files, image_root, names)


# ------------------------------------------------------------------------------------------------ digests


def image_digest(image: Mapping[str, Any]) -> str:
    """SHA-256 of every byte of an undecoded image; the reason of one that cannot be read."""
    try:
        data = read_file(image["path"], resolved=True) if image["bytes"] is None else image["bytes"]
    except ImageError as error:
        return error.reason
    return hashlib.sha256(data).hexdigest()


def content_digest(row: Mapping[str, Any], images: Sequence[Mapping[str, Any]]) -> str:
    """A hash of the complete question, images included, as 16 hexadecimal digits; an id may leave out the images.

    Args:
        row: a loaded row.
        images: the undecoded images that are shown; none if the question is asked without.
    """
    return digest_of(row, [image_digest(image) for image in images])


def digest_of(row: Mapping[str, Any], image_digests: Sequence[str]) -> str:
    """As `content_digest`, of the digests of the images.

    The digest of a question of choice about one image or none is that of its three published columns.
    """
    solution = row["solution"]
    if row["answer_type"] != AnswerType.CHOICE:
        solution = "\0".join([solution, row["answer_type"], *row["aliases"]])
    return row_id("\n".join(image_digests), row["problem"], solution)


def data_fingerprint(lines: Iterable[str]) -> str:
    """SHA-256 over one line per question of a set, in any order; 64 hexadecimal digits."""
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


def summary(dropped: Sequence[Dropped]) -> str:
    """One line for the user: the number of dropped rows, the reasons and examples; '' if there are none."""
    if not dropped:
        return ""
    counts = ", ".join(f"{count} {reason}" for reason, count in Counter(d.reason for d in dropped).most_common())
    examples = "; ".join(f"{d.where}: {d.detail}" for d in dropped[:_NAMED_IN_LINE])
    remainder = f"; and {len(dropped) - _NAMED_IN_LINE} more" if len(dropped) > _NAMED_IN_LINE else ""
    return f"{len(dropped)} rows dropped ({counts}): {examples}{remainder}"
