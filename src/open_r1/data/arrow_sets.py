"""Write one split of a data set like `datasets.save_to_disk`, but row by row and reproducibly to the byte.

`save_to_disk` needs the complete set in a cache first; here a row is in memory only until its batch is written.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa

from open_r1.common.atomic_files import write_atomically

_BATCH_ROWS, _BATCH_BYTES = 1000, 2**22
# Most rows, and bytes of images, of one record batch. datasets takes 8 KB of memory for each in every process that
# opens a set; a batch is in memory twice while it is written.
SHARD_BYTES = 500 * 2**20
"""Size in bytes after which a new file begins; the default of datasets."""


def write_split(
    folder: Path,
    rows: Iterable[dict[str, Any]],
    features: datasets.Features,
    split: str,
    shard_bytes: int = SHARD_BYTES,
) -> dict[str, str]:
    """Write rows to `folder` so that `datasets.load_from_disk` opens it.

    Returns:
        The names of the data files and the SHA-256 of each.

    Raises:
        OSError: the disk is full.
    """
    folder.mkdir(parents=True)
    schema, digests = features.arrow_schema, []
    batches = _batches(iter(rows))
    for first in batches:
        with _shard(folder / f"shard-{len(digests)}", schema) as (writer, file):
            writer.write_batch(_record_batch(first, schema))
            while file.written < shard_bytes and (batch := next(batches, None)):
                writer.write_batch(_record_batch(batch, schema))
        digests.append(file.digest.hexdigest())
    names = [f"data-{number:05d}-of-{len(digests):05d}.arrow" for number in range(len(digests))]
    for number, name in enumerate(names):
        (folder / f"shard-{number}").rename(folder / name)
    _write_state(folder, names, digests, features, split)
    return dict(zip(names, digests, strict=True))


def write_dict(folder: Path, splits: list[str]) -> None:
    """Write the file that names the splits of a DatasetDict; it is written after them."""
    write_atomically(folder / "dataset_dict.json", json.dumps({"splits": splits}))


def _batches(rows: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    batch, size = [], 0
    for row in rows:
        batch.append(row)
        images = row.get("images", [row.get("image")]) or ()
        size += sum(len(image["bytes"] or b"") for image in images if isinstance(image, dict) and "bytes" in image)
        if len(batch) == _BATCH_ROWS or size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _record_batch(rows: list[dict[str, Any]], schema: pa.Schema) -> pa.RecordBatch:
    # Arrow's default allocator keeps some 30 MB for buffers of such varying sizes; the system's frees them.
    pool = pa.system_memory_pool()
    columns = [pa.array([row[field.name] for row in rows], field.type, memory_pool=pool) for field in schema]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


class _HashedFile:
    """A file that counts and hashes what is written to it."""

    def __init__(self, path: Path):
        self._file = path.open("wb")
        self.digest = hashlib.sha256()
        self.written = 0
        self.closed = False

    def write(self, data: Any) -> int:
        self._file.write(data)
        self.digest.update(data)
        self.written += len(data)
        return len(data)

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self.closed = True
        self._file.close()


@contextmanager
def _shard(path: Path, schema: pa.Schema) -> Iterator[tuple[Any, _HashedFile]]:
    file = _HashedFile(path)
    try:
        with pa.ipc.new_stream(file, schema) as writer:
            yield writer, file
    finally:
        file.close()


def _write_state(folder: Path, names: list[str], digests: list[str], features: datasets.Features, split: str) -> None:
    state = {
        "_data_files": [{"filename": name} for name in names],
        "_fingerprint": hashlib.sha256("".join(digests).encode()).hexdigest()[:16],
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": split,
    }
    info = asdict(datasets.DatasetInfo(features=features))
    info = {key: info[key] for key in sorted(info)}  # the order of the features themselves must stay
    write_atomically(folder / "state.json", json.dumps(state, indent=2, sort_keys=True))
    write_atomically(folder / "dataset_info.json", json.dumps(info, indent=2))


FEATURES = datasets.Features(
    {
        "image": datasets.Image(),
        "problem": datasets.Value("string"),
        "solution": datasets.Value("string"),
        "id": datasets.Value("string"),
        "source": datasets.Value("string"),
        "modality": datasets.Value("string"),
        "task": datasets.Value("string"),
    }
)
"""The columns of a prepared set. `image.path` is the image's path in the release."""

QUESTION_FEATURES = datasets.Features(
    {
        "images": datasets.List(datasets.Image()),
        "problem": datasets.Value("string"),
        "solution": datasets.Value("string"),
        "answer_type": datasets.Value("string"),
        "aliases": datasets.List(datasets.Value("string")),
        "id": datasets.Value("string"),
        "source": datasets.Value("string"),
        "modality": datasets.Value("string"),
        "task": datasets.Value("string"),
        "subject": datasets.Value("string"),
    }
)
"""The columns of a set with any number of images and any type of answer."""
