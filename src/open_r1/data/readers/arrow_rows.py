"""Rows of an Arrow table (a saved set, Parquet files, a set of the hub): its columns checked, its rows made ours.

Rows are checked some thousands at a time, and only what Arrow holds of them stays: the texts, and where images are.
"""

import hashlib
import os
from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import datasets
import pyarrow as pa
from datasets.table import InMemoryTable
from pyarrow import ArrowInvalid, ArrowNotImplementedError, compute, types

from open_r1.common.errors import UnusableInput, UserError
from open_r1.data.key_table import KeyTable
from open_r1.data.question_checks import check_question
from open_r1.data.readers.image_columns import (
    NO_TEXT,
    ROW_FEATURES,
    FilesOfRows,
    ImageCount,
    as_lists,
    count_images,
    undecoded,
)
from open_r1.data.rows import (
    MORE_IMAGES,
    TEXT_KEYS,
    Dropped,
    RowError,
    images_id,
    refuse_more_images,
    refuse_repeated,
    row_id,
)
from open_r1.vocabulary.column_names import ColumnNames, columns_to_read
from open_r1.vocabulary.labels import Modality, Task

_TEXT_TYPES = ("string", "large_string", "null")
_IMAGE_TYPES = (*_TEXT_TYPES, "binary", "large_binary")
_LIST_TYPES = (datasets.List, datasets.LargeList)
_TEXTS = ("problem", "solution", "id", "source", "modality", "task", "subject", "answer_type")
_BATCH = 64  # rows whose images are in memory at once while ids are made of them
_CHECKED_AT_ONCE = 4096  # rows whose texts are texts of Python at once: some 8 MB


@dataclass
class _Checked:
    """What the check of some rows says."""

    usable: list[int] = field(default_factory=list)
    """Places of rows among those that were checked."""
    dropped: list[Dropped] = field(default_factory=list)
    rewritten: dict[int, tuple[str, str]] = field(default_factory=dict)
    """Place of a row -> problem and solution where they were not in the published form."""
    answer_types: list[str | None] = field(default_factory=list)
    aliases: list[list[str]] = field(default_factory=list)


@dataclass
class _Rows:
    """Some rows of a table that follow each other."""

    first: int
    """The number of the first one in the table."""
    columns: Mapping[str, pa.ChunkedArray]
    """The columns of texts that are there."""
    images: pa.ChunkedArray
    """Lists of images."""
    counts: list[ImageCount] | None
    """Of the images of each row; None if the table has no column of images."""

    def __len__(self) -> int:
        return len(self.images)


def arrow_rows(
    rows: datasets.Dataset,
    where: str,
    name: str,
    label: Modality | Task | None,
    image_root: str | os.PathLike | None,
    names: ColumnNames,
) -> tuple[datasets.Dataset, list[Dropped]]:
    """The usable rows of a table with our columns, and the dropped ones. The bytes of images are not copied.

    Args:
        rows: the table as it is, of which nothing was decoded.
        where: the set, for errors.
        name: the set and its split, for the places of dropped rows.
        label: of rows that have no columns with labels.
        image_root: folder of the images that rows name instead of holding them.
        names: of columns, from `--columns`.

    Raises:
        UserError: columns are missing or of other types.
    """
    read = readable_columns(rows.features, names, where)
    image_column = read.get("image", read.get("images"))
    refused_rows = _with_more_images(rows, image_column)
    rows = rows.select_columns([theirs for ours, theirs in read.items() if ours != "images" or "image" not in read])
    rows = rows.rename_columns({t: ours for ours, t in read.items() if t in rows.column_names and t != ours})
    usable, dropped, parts = array("I"), [], []
    seen_ids, content = KeyTable(), hashlib.sha256()
    for piece in _pieces(rows, where):
        texts = _text_columns(piece, label)
        files = FilesOfRows(piece.images, image_root)
        checked = _check(piece, texts, refused_rows, files, seen_ids, name)
        usable.extend(piece.first + place for place in checked.usable)
        dropped += checked.dropped
        parts.append(_assembled(texts, files, checked, len(rows)))
        content.update("".join(f"\n{key}" for key in texts["id"]).encode()[not piece.first :])
    assembled = _data_set(parts, content.hexdigest()[:16])
    return (assembled if len(usable) == len(assembled) else assembled.select(usable)), dropped


# ------------------------------------------------------------------------------------------------ columns


def readable_columns(features: Mapping[str, Any], names: ColumnNames, where: str) -> dict[str, str]:
    """Our name -> name in the data, of the columns that are read. Decides from their types alone.

    Raises:
        UserError: columns are missing, hold something else, or images would be left out.
    """
    read = columns_to_read([*features], names, where)
    missing = [key for key in TEXT_KEYS if key not in read and not (key == "image" and "images" in read)]
    if missing not in ([], ["image"]):
        raise UserError(
            f"{where} lacks the column {', '.join(missing)}; columns are {', '.join(features)}. "
            "--columns problem=question,solution=answer names those that are called otherwise"
        )
    for ours, theirs in read.items():
        _require_kind(ours, features[theirs], f"the column {theirs} of {where}")
    unread = [name for name, kind in features.items() if missing and _is_of_images(kind)]
    if len(unread) > 1:
        raise UserError(
            f"{where} lacks the column image; {len(unread)} columns hold images ({', '.join(unread)}), without which "
            "these are other questions: scripts/prepare_vqa.py makes one column of those of published sets"
        )
    if unread:
        raise UserError(
            f"{where} lacks the column image; the column {unread[0]} holds images, without which these are other "
            f"questions: give --columns images={unread[0]}"
        )
    return read


def conversion_columns(features: Mapping[str, Any], read: Mapping[str, str]) -> list[str]:
    """The names of the columns in a file that `arrow_rows` needs."""
    return [name for name in features if name in read.values() or MORE_IMAGES.fullmatch(name)]


def _is_of_images(kind: Any) -> bool:
    return isinstance(kind, datasets.Image) or (isinstance(kind, _LIST_TYPES) and _is_of_images(kind.feature))


def _with_more_images(rows: datasets.Dataset, image_column: str | None) -> dict[int, RowError]:
    """The indices of rows with more images than those in the column that is read, with their errors."""
    refused: dict[int, RowError] = {}
    for name in filter(MORE_IMAGES.fullmatch, rows.column_names):
        for number, count in enumerate(_values_in(rows, name) if name != image_column else ()):
            try:
                refuse_more_images(name, ["..."] * count)
            except RowError as error:
                refused[number] = error
    return refused


def _values_in(rows: datasets.Dataset, name: str) -> Iterable[int]:
    """For every row the number of values in a column, 0 or 1 if it is not a list, without reading them."""
    column = rows.data.column(name)
    count: Any = vars(compute)["list_value_length" if types.is_list(column.type) else "is_valid"]
    for chunk in column.chunks:
        yield from (int(length or 0) for length in count(chunk).to_pylist())


def _require_kind(name: str, kind: Any, column: str) -> None:
    """Refuse a column that is declared with another type, before a row is read.

    From a column of images, sounds or documents, datasets would open any URL or file of this machine. The images
    themselves are read undecoded.
    """
    is_list = isinstance(kind, _LIST_TYPES)
    if name in ("image", "images"):
        if not _may_hold_images(kind.feature if is_list else kind):
            raise UserError(
                f"{column} holds no images: it is declared as {_kind(kind)}; the bytes of image files are expected, "
                "not pixels"
            )
    elif name == "aliases":
        if not _is_text(kind.feature if is_list else None) and _kind(kind) != "null":
            raise UserError(f"{column} is declared as {_kind(kind)}, but must hold lists of texts; refused")
    elif not _is_text(kind):
        raise UserError(f"{column} is declared as {_kind(kind)}, but must hold text; refused")


def _is_text(kind: Any) -> bool:
    return isinstance(kind, datasets.Value) and kind.dtype in _TEXT_TYPES


def _may_hold_images(kind: Any) -> bool:
    if isinstance(kind, dict):
        return {*kind} <= {"bytes", "path"} and all(_may_hold_images(inner) for inner in kind.values())
    return isinstance(kind, datasets.Image) or (isinstance(kind, datasets.Value) and kind.dtype in _IMAGE_TYPES)


def _kind(feature: Any) -> str:
    return feature.dtype if isinstance(feature, datasets.Value) else type(feature).__name__


def _pieces(rows: datasets.Dataset, where: str) -> Iterator[_Rows]:
    """The rows, some thousands at a time, with their images as lists."""
    name = next((name for name in ("image", "images") if name in rows.column_names), None)
    columns = {text: rows.data.column(text) for text in (*_TEXTS, "aliases") if text in rows.column_names}
    lists = images = None
    if name is not None:
        try:
            images = undecoded(rows.data.column(name), isinstance(rows.features[name], _LIST_TYPES))
        except (ValueError, TypeError, ArrowNotImplementedError) as error:  # pyarrow's others derive from these two
            raise UserError(f"the column {name} of {where} holds no images: {error}") from None
        lists = as_lists(images)
    for first in range(0, len(rows), _CHECKED_AT_ONCE):
        of_texts = {text: column.slice(first, _CHECKED_AT_ONCE) for text, column in columns.items()}
        if images is None or lists is None:
            count = min(_CHECKED_AT_ONCE, len(rows) - first)
            yield _Rows(first, of_texts, pa.chunked_array([_empty_lists(count)]), None)
        else:
            counts = list(count_images(images.slice(first, _CHECKED_AT_ONCE)))
            if types.is_list(images.type):
                counts = [ImageCount(count.images, count.with_bytes, False) for count in counts]  # empty ones lose none
            yield _Rows(first, of_texts, lists.slice(first, _CHECKED_AT_ONCE), counts)


def _empty_lists(count: int) -> pa.Array:
    return pa.array([[]] * count, ROW_FEATURES.arrow_schema.field("images").type)


def _data_set(parts: list[pa.Table], fingerprint: str) -> datasets.Dataset:
    """A data set of tables. Its fingerprint is given: datasets would read all bytes to make one."""
    table = InMemoryTable(pa.concat_tables(parts) if parts else ROW_FEATURES.arrow_schema.empty_table())
    return datasets.Dataset(table, info=datasets.DatasetInfo(features=ROW_FEATURES), fingerprint=fingerprint)


# ------------------------------------------------------------------------------------------------ texts


def _text_columns(rows: _Rows, label: Modality | Task | None) -> dict[str, list[str | None]]:
    """The values of every column of texts; those that the table lacks are filled in, ids included."""
    defaults: dict[str, str | None] = {
        "source": "",
        "modality": str(label) if isinstance(label, Modality) else None,
        "task": str(label) if isinstance(label, Task) else None,
    }
    texts: dict[str, list[str | None]] = {}
    for name in _TEXTS:
        if name in rows.columns:
            texts[name] = list(_texts_in(rows.columns[name]))
        elif name != "id":
            texts[name] = [defaults.get(name)] * len(rows)
    texts["source"] = [source or "" for source in texts["source"]]
    if "id" not in texts:
        texts["id"] = list(_ids(rows, texts["problem"], texts["solution"]))
    return texts


def _texts_in(column: pa.ChunkedArray) -> Iterator[str | None]:
    for chunk in column.chunks:
        try:
            chunk.validate(full=True)
            yield from chunk.to_pylist()
        except ArrowInvalid as error:
            if NO_TEXT not in str(error):
                raise UserError(f"the set is damaged: {error}; get it again") from None
            yield from map(_text_or_none, chunk)


def _text_or_none(value: Any) -> str | None:
    try:
        return value.as_py()
    except UnicodeDecodeError:
        return None


def _ids(rows: _Rows, problems: list[str | None], solutions: list[str | None]) -> Iterator[str]:
    """Ids of a set without: hashes of the images' bytes, as such a set does not name the image files."""
    for start in range(0, len(rows), _BATCH):
        for number, images in enumerate(rows.images.slice(start, _BATCH).to_pylist(), start):
            data = [(image and (image["bytes"] or image["path"])) or "" for image in images]
            yield row_id(images_id(data), str(problems[number]), str(solutions[number]))


# ------------------------------------------------------------------------------------------------ rows


def _check(
    rows: _Rows,
    texts: Mapping[str, list[str | None]],
    refused: Mapping[int, RowError],
    files: FilesOfRows,
    seen_ids: KeyTable,
    name: str,
) -> _Checked:
    """Check every row: its images as far as they are there, its texts, its id."""
    checked = _Checked()
    aliases = _texts_in(rows.columns["aliases"]) if "aliases" in rows.columns else iter([None] * len(rows))
    for place, alias_texts in enumerate(aliases):
        problem, solution, key = (texts[column][place] for column in ("problem", "solution", "id"))
        count = None if rows.counts is None else rows.counts[place]
        answer_type, row_aliases = None, []
        try:
            if rows.first + place in refused:
                raise refused[rows.first + place]
            if count is not None and count.is_null and not _is_text_question(texts, place):
                raise RowError("no-image", "the row holds no image, at most the name of one")
            images = 0 if count is None else count.images
            if not (isinstance(problem, str) and isinstance(solution, str) and isinstance(key, str)):
                values = {"problem": problem, "solution": solution, "id": key}
                raise RowError("not-text", f"problem, solution and id must be texts, not {values}")
            if count is not None and count.with_bytes < images:
                files.require(place, count)
            question = check_question(problem, solution, texts["answer_type"][place], alias_texts, images)
            refuse_repeated(key, seen_ids)
        except UnusableInput as error:
            checked.dropped.append(Dropped(f"{name} row {rows.first + place}", error.reason, str(error)))
        else:
            checked.usable.append(place)
            answer_type, row_aliases = question.answer_type.value, list(question.aliases)
            if (question.problem, question.solution) != (problem, solution):
                checked.rewritten[place] = question.problem, question.solution
        checked.answer_types.append(answer_type)
        checked.aliases.append(row_aliases)
    return checked


def _is_text_question(texts: Mapping[str, list[str | None]], number: int) -> bool:
    """Whether a row without an image is a text question by its labels: a source, and neither modality nor task."""
    source, modality, task = (texts[column][number] for column in ("source", "modality", "task"))
    return bool(source) and modality is None and task is None


def _assembled(
    texts: Mapping[str, list[str | None]], files: FilesOfRows, checked: _Checked, rows_of_set: int
) -> pa.Table:
    """The rows that were checked, dropped ones included, with exactly our columns."""
    columns: dict[str, Any] = {name: list(texts[name]) for name in _TEXTS}
    for place, (problem, solution) in checked.rewritten.items():
        columns["problem"][place], columns["solution"][place] = problem, solution
    columns |= {"images": files.with_paths(), "answer_type": checked.answer_types, "aliases": checked.aliases}
    schema = ROW_FEATURES.arrow_schema
    try:
        ordered = {
            name: columns[name] if name == "images" else pa.array(columns[name], schema.field(name).type)
            for name in ROW_FEATURES
        }
    except ArrowInvalid as error:  # more text than one array takes: 2 GiB
        raise UserError(f"the texts of {rows_of_set} rows are too large for one set ({error}); divide it") from None
    return pa.table(ordered, schema=schema)
