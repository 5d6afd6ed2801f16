"""Read published files of text questions row by row: JSON lines, JSON, Parquet or CSV.

An unusable file is a `UserError`. A single line that is not JSON is yielded as a `RowError`, so that the caller can
count it.
"""

import csv
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from open_r1.common.atomic_files import RepeatedKeys, object_of, parse_json, repeated_key
from open_r1.common.errors import UserError
from open_r1.data.json_lists import LONGEST_ENTRY, json_entries, key_twice, lines_of, too_long
from open_r1.data.rows import RowError

SUFFIXES = (".jsonl", ".json", ".parquet", ".csv")

Row = dict[str, Any]
_PARQUET_ROWS = 32  # rows in memory at once; some hold images


def rows_of(path: str | os.PathLike) -> Iterator[tuple[str, Row | RowError]]:
    """Every row of a file with its position, `train.jsonl row 3`, counted from 0.

    JSON may be a list of rows, one row per line, or one object: id -> row, or source -> list of rows. The key of an
    object is added to its rows as `id` or `source`.

    Raises:
        UserError: the file is missing, of another type, not UTF-8, or does not match its extension.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path} is not there or is no file; a file of questions is expected ({', '.join(SUFFIXES)})")
    readers = {".jsonl": lines_of, ".json": _json, ".parquet": _parquet, ".csv": _csv}
    if path.suffix not in readers:
        raise UserError(f"{path} is no file of questions that can be read; give one of {', '.join(SUFFIXES)}")
    try:
        for number, row in enumerate(readers[path.suffix](path)):
            yield f"{path.name} row {number}", _usable(row)
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None


def _usable(row: Any) -> Row | RowError:
    if isinstance(row, RowError):
        return row
    if not isinstance(row, dict):
        return RowError("not-an-object", f"an object is expected, not {row!r:.80}")
    if (key := repeated_key(row)) is not None:
        return key_twice(key)
    if any(isinstance(value, str) and len(value) > LONGEST_ENTRY for value in row.values()):
        return too_long()
    return row


def _json(path: Path) -> Iterator[Any]:
    if _first_sign(path) == "[":
        yield from json_entries(path)
        return
    try:
        value = parse_json(path.read_text(encoding="utf-8-sig"), object_of)
    except UnicodeDecodeError:
        raise
    except ValueError:
        yield from lines_of(path)  # MedMCQA's own files are JSON lines named .json
        return
    if not isinstance(value, dict):
        raise UserError(f"{path} holds neither a list nor an object of questions")
    if not all(isinstance(content, dict) or _lists_rows(content) for content in value.values()):
        yield value  # JSON lines with a single line
        return
    for key, content in value.pairs if isinstance(value, RepeatedKeys) else value.items():
        rows = content if isinstance(content, list) else [content]
        name = "source" if isinstance(content, list) else "id"
        for row in rows:
            yield {**row, name: key} if isinstance(row, dict) and repeated_key(row) is None else row


def _lists_rows(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(row, dict) for row in value)


def _first_sign(path: Path) -> str:
    with path.open(encoding="utf-8-sig") as file:
        while piece := file.read(4096):
            if piece.strip():
                return piece.strip()[0]
    raise UserError(f"{path} is empty")


def _parquet(path: Path) -> Iterator[Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        _refuse_repeated(file.schema_arrow.names, path)
        for batch in file.iter_batches(batch_size=_PARQUET_ROWS):
            yield from batch.to_pylist()
    except (pa.ArrowException, OSError, MemoryError) as error:  # a damaged length asks for all memory there is
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path} is no Parquet file that can be read: {reason}") from None


def _csv(path: Path) -> Iterator[Any]:
    csv.field_size_limit(LONGEST_ENTRY)  # Python's own limit is 131,072
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file)
        try:
            _refuse_repeated(rows.fieldnames or (), path)
            while True:
                try:
                    row = next(rows)
                except csv.Error as error:
                    if "field larger" not in str(error):
                        raise
                    yield too_long()
                    continue
                short = None in row or None in row.values()
                yield RowError("not-csv", "the row has not as many fields as the header") if short else row
        except StopIteration:
            return
        except csv.Error as error:
            raise UserError(f"{path} is no CSV file that can be read: {error}") from None


def _refuse_repeated(columns: Sequence[str], path: Path) -> None:
    twice = [name for name, count in Counter(columns).items() if count > 1 and name]
    if twice:
        raise UserError(f"{path} has two columns {twice[0]!r}, so it is unclear which one to read; rename one of them")
