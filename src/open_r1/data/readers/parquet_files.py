"""Parquet files as a table that need not fit in memory.

datasets converts them once into Arrow files of its cache (`HF_DATASETS_CACHE`), which are mapped into memory: a run
reads the rows that it needs, and several processes share the pages. Only the columns that are read are converted.
"""

import glob
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import datasets
import pyarrow.parquet as pq
from datasets import config
from pyarrow.dataset import ParquetFragmentScanOptions

from open_r1.common.atomic_files import disk_errors
from open_r1.common.errors import UserError
from open_r1.data.readers.arrow_rows import conversion_columns, readable_columns
from open_r1.vocabulary.column_names import ColumnNames

_FEWEST, _MOST, _BYTES = 64, 1000, 10 * 2**20
# Rows that are converted at once: some 10 MB of images. Every batch of them takes 8 KB of memory in every process.


def open_parquet(files: Sequence[Path], names: ColumnNames) -> datasets.Dataset:
    """The table of all files, in order.

    Raises:
        UserError: a file cannot be read, has other columns than the first, or columns of types that are not read.
    """
    features = _features(files[0])
    for file in files[1:]:
        if _features(file).arrow_schema.remove_metadata() != features.arrow_schema.remove_metadata():
            raise UserError(f"{file} has other columns than {files[0]}, so they are not one set; read them one by one")
    read = readable_columns(features, names, str(files[0]))
    columns = conversion_columns(features, read)
    with _errors_of(files[0]), disk_errors(config.HF_DATASETS_CACHE), _disk_error_within(), _quiet():
        return datasets.load_dataset(
            "parquet",
            data_files={"train": [glob.escape(str(file.resolve())) for file in files]},
            split="train",
            columns=columns,
            features=datasets.Features({name: features[name] for name in columns}),
            batch_size=_rows_at_once(files[0]),
            # Without these the scanner reads several row groups ahead: 3.0 GB in place of 1.3 for row groups of 200 MB.
            fragment_scan_options=ParquetFragmentScanOptions(use_buffered_stream=True, pre_buffer=False),
        )  # type: ignore[return-value]


def _rows_at_once(file: Path) -> int:
    metadata = pq.read_metadata(file)
    size = sum(metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups))
    return min(_MOST, max(_FEWEST, _BYTES * metadata.num_rows // max(size, 1)))


def _features(file: Path) -> datasets.Features:
    with _errors_of(file):
        return datasets.Features.from_arrow_schema(pq.read_schema(file))


@contextmanager
def _errors_of(file: Path) -> Iterator[None]:
    try:
        yield
    except (UserError, OSError) as error:
        if isinstance(error, UserError) or error.filename or error.errno:
            raise
        raise UserError(_unreadable(file, error)) from None  # pyarrow raises a bare OSError for damage
    except Exception as error:  # datasets and pyarrow raise many kinds of errors for damaged files
        raise UserError(_unreadable(file, error)) from None


@contextmanager
def _disk_error_within() -> Iterator[None]:
    """Raise the system's own error of what datasets raises in its place."""
    try:
        yield
    except Exception as error:
        cause = error.__cause__ or error.__context__
        if isinstance(cause, OSError) and cause.errno is not None:
            raise cause from None
        raise


def _unreadable(file: Path, error: Exception) -> str:
    cause = error.__cause__ or error
    reason = (str(cause).splitlines() or [type(cause).__name__])[0]
    return f"{file} is no Parquet file that can be read: {reason:.300}; is it complete?"


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the progress bars of datasets, if they are on."""
    if datasets.is_progress_bar_enabled():
        datasets.disable_progress_bars()
        try:
            yield
        finally:
            datasets.enable_progress_bars()
    else:
        yield
