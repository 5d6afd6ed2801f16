"""The images of an Arrow table as one column of lists, without reading or copying the bytes of an image."""

import os
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
from datasets.table import cast_array_to_feature

from open_r1.common.errors import UnusableInput
from open_r1.data.arrow_sets import QUESTION_FEATURES
from open_r1.data.images import resolve
from open_r1.data.rows import RowError

UNDECODED = datasets.Image(decode=False)
ROW_FEATURES = datasets.Features({**QUESTION_FEATURES, "images": datasets.List(UNDECODED)})
"""The columns of a loaded set: those of QUESTION_FEATURES, with images as {"bytes", "path"}."""

NO_TEXT = "UTF8"
"""Stands in what Arrow says of a text that is none."""

_LISTS = ROW_FEATURES.arrow_schema.field("images").type
_IMAGE = _LISTS.value_type


@dataclass(frozen=True, slots=True)
class ImageCount:
    """The images of one row, as far as their cells say; nothing is opened."""

    images: int
    with_bytes: int
    is_null: bool
    """Whether the cell of the row was empty, which in a column of single images may be a loss."""


def undecoded(column: pa.ChunkedArray, is_list: bool) -> pa.ChunkedArray:
    """A column of images, or of lists of them, as structs of bytes and path; bytes that are so already are not copied.

    `cast_column` of datasets does the same for single images, but writes a whole new set to the disk for lists.

    Raises:
        ValueError, TypeError, pyarrow.ArrowNotImplementedError: it holds something else.
    """
    kind, feature = (_LISTS, datasets.List(UNDECODED)) if is_list else (_IMAGE, UNDECODED)
    chunks = [chunk if chunk.type == kind else cast_array_to_feature(chunk, feature) for chunk in column.chunks]
    return pa.chunked_array([_sound(chunk) for chunk in chunks], type=kind)


def _sound(chunk: pa.Array) -> pa.Array:
    """A chunk in which every place lies within its buffers, without paths that are no text.

    Raises:
        ValueError: it is damaged.
    """
    try:
        chunk.validate(full=True)  # which does not look at the bytes of images
        return chunk
    except pa.ArrowInvalid as error:
        if NO_TEXT not in str(error):
            raise
    images = chunk.values if pa.types.is_list(chunk.type) else chunk
    columns = [images.field("bytes"), pa.nulls(len(images), pa.string())]
    images = pa.StructArray.from_arrays(columns, fields=[*_IMAGE], mask=images.is_null())
    if pa.types.is_list(chunk.type):
        images = pa.ListArray.from_arrays(chunk.offsets, images, mask=chunk.is_null()).cast(_LISTS)
    images.validate(full=True)
    return images


def as_lists(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column of images, or of lists of images, as lists; an empty cell becomes an empty list.

    The bytes stay where they are, in a file that is mapped into memory as a rule.
    """
    chunks = [piece for chunk in column.chunks for piece in _lists_of(chunk)]
    return pa.chunked_array(chunks, type=_LISTS)


def _lists_of(chunk: pa.Array) -> Iterator[pa.Array]:
    if pa.types.is_list(chunk.type):
        yield _without_nulls(chunk)
        return
    present = _is_present(chunk)
    edges = np.flatnonzero(np.diff(present)) + 1  # where images begin or end
    for start, stop in zip([0, *edges], [*edges, len(chunk)], strict=True):
        if stop > start:
            count = int(stop - start)
            values = chunk.slice(int(start), count if present[start] else 0)
            offsets = np.arange(count + 1) if present[start] else np.zeros(count + 1)
            yield pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values).cast(_LISTS)


def _without_nulls(chunk: pa.Array) -> pa.Array:
    """A list array whose missing lists are empty ones."""
    if not chunk.null_count:
        return chunk.cast(_LISTS)
    offsets = chunk.offsets.to_numpy()
    hidden = np.diff(offsets)[~chunk.is_valid().to_numpy(zero_copy_only=False)]
    if hidden.any():  # values below missing lists, which no writer known to us leaves
        return pa.array([images or [] for images in chunk.to_pylist()], _LISTS)
    return pa.ListArray.from_arrays(chunk.offsets, chunk.values).cast(_LISTS)


def _is_present(images: pa.Array) -> np.ndarray:
    """For each cell of a struct array whether it has bytes or a path."""
    bytes_, paths = (images.field(name).is_valid().to_numpy(zero_copy_only=False) for name in ("bytes", "path"))
    return images.is_valid().to_numpy(zero_copy_only=False) & (bytes_ | paths)


def count_images(column: pa.ChunkedArray) -> Iterator[ImageCount]:
    """How many images each row has, and how many of them are there as bytes."""
    for chunk in column.chunks:
        valid = chunk.is_valid().to_numpy(zero_copy_only=False)
        if pa.types.is_list(chunk.type):
            offsets, images = _offsets_and_images(chunk)
            counts = np.where(valid, np.diff(offsets), 0)
            has_bytes = images.is_valid().to_numpy(zero_copy_only=False)
            has_bytes = has_bytes & images.field("bytes").is_valid().to_numpy(zero_copy_only=False)
            sums = np.concatenate([[0], np.cumsum(has_bytes)])
            with_bytes = np.where(valid, sums[offsets[1:]] - sums[offsets[:-1]], 0)
        else:
            present = _is_present(chunk)
            counts, valid = present.astype(int), present
            with_bytes = present & chunk.field("bytes").is_valid().to_numpy(zero_copy_only=False)
        for count, bytes_, is_valid in zip(counts.tolist(), with_bytes.tolist(), valid.tolist(), strict=True):
            yield ImageCount(count, int(bytes_), not is_valid)


def _offsets_and_images(chunk: pa.Array) -> tuple[np.ndarray, pa.Array]:
    """The offsets of the lists of an array, from 0, and their images alone: an array may be a part of a larger one."""
    offsets = chunk.offsets.to_numpy()
    return offsets - offsets[0], chunk.values.slice(offsets[0], offsets[-1] - offsets[0])


class FilesOfRows:
    """Looks for the image files that the rows of a table name in place of bytes.

    Args:
        column: of lists, as `as_lists` returns it.
        image_root: folder that the paths are relative to and may not leave; None if the rows bring bytes.
    """

    def __init__(self, column: pa.ChunkedArray, image_root: str | os.PathLike | None) -> None:
        self._column, self._root = column, image_root
        self._paths: dict[tuple[int, int], str] = {}

    def require(self, row: int, count: ImageCount) -> None:
        """Find the images of a row that has not the bytes of all.

        Raises:
            UnusableInput: `no-image` or `image-missing`, or as `resolve` says.
        """
        if self._root is None and not count.with_bytes:
            raise RowError("no-image", "the row holds no image, at most the name of one")
        images: Any = self._column[row].as_py()
        for place, image in enumerate(images):
            if image is not None and image["bytes"] is not None:
                continue
            path = image and image["path"]
            if not path or self._root is None:
                raise RowError(
                    "image-missing",
                    f"image {place + 1} of {len(images)} is missing, and without it it is another question",
                )
            try:
                self._paths[row, place] = str(resolve(path, self._root))
            except UnusableInput as error:
                raise RowError(error.reason, str(error)) from None

    def with_paths(self) -> pa.ChunkedArray:
        """The column with the places of the files that were looked for; bytes are not copied."""
        if not self._paths:
            return self._column
        chunks, first_row, missing = [], 0, deque(sorted(self._paths))
        for chunk in self._column.chunks:
            here = {}
            while missing and missing[0][0] < first_row + len(chunk):
                row, place = missing.popleft()
                here[row - first_row, place] = self._paths[row, place]
            chunks.append(_with_paths(chunk, here) if here else chunk)
            first_row += len(chunk)
        return pa.chunked_array(chunks, type=_LISTS)


def _with_paths(chunk: pa.Array, paths: dict[tuple[int, int], str]) -> pa.Array:
    starts, images = _offsets_and_images(chunk)
    texts = images.field("path").to_pylist()
    for (row, place), path in paths.items():
        texts[starts[row] + place] = path
    columns = [images.field("bytes"), pa.array(texts, pa.string())]
    structs = pa.StructArray.from_arrays(columns, fields=[*_IMAGE], mask=images.is_null())
    return pa.ListArray.from_arrays(pa.array(starts, pa.int32()), structs).cast(_LISTS)
