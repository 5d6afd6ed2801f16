"""Open the files in which text questions are published: JSON lines, JSON, Parquet or CSV, one row at a time.

A file that cannot be used at all is a `UserError`. A single line that is no JSON is passed on as a `RowError`, so
that whoever reads can count it.
"""

import csv
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from open_r1.errors import UserError
from open_r1.files import parse_json
from open_r1.omnimedvqa import RowError, json_entries

SUFFIXES = (".jsonl", ".json", ".parquet", ".csv")
_FIELD_LIMIT = 2**24  # characters in one CSV field; Python's own limit is 131,072

Row = dict[str, Any]


def rows_of(path: str | os.PathLike) -> Iterator[tuple[str, Row | RowError]]:
    """Every row of a file with its place, `train.jsonl row 3`, counted from 0.

    JSON may be a list of rows, one row per line, or one object: id -> row, or source -> list of rows. Of the last
    two the key is kept in the row, as `id` or `source`.

    Raises:
        UserError: the file is missing, of another kind, not UTF-8, or not what its name says.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path} is not there or is no file; a file of questions is expected ({', '.join(SUFFIXES)})")
    readers = {".jsonl": _json_lines, ".json": _json, ".parquet": _parquet, ".csv": _csv}
    if path.suffix not in readers:
        raise UserError(f"{path} is no file of questions that can be read; give one of {', '.join(SUFFIXES)}")
    try:
        for number, row in enumerate(readers[path.suffix](path)):
            if not isinstance(row, dict | RowError):
                row = RowError("not-an-object", f"an object is expected, not {row!r:.80}")
            yield f"{path.name} row {number}", row
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None


def _json_lines(path: Path) -> Iterator[Any]:
    with path.open(encoding="utf-8-sig") as file:
        for line in file:
            if line.strip():
                try:
                    yield parse_json(line)
                except ValueError as error:
                    yield RowError("not-json", f"the line is no JSON: {error}")


def _json(path: Path) -> Iterator[Any]:
    if _first_sign(path) == "[":
        yield from json_entries(path)
        return
    try:
        value = parse_json(path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError:
        raise
    except ValueError:
        yield from _json_lines(path)  # MedMCQA's own files are JSON lines named .json
        return
    if not isinstance(value, dict):
        raise UserError(f"{path} holds neither a list nor an object of questions")
    if not all(isinstance(held, dict) or _lists_rows(held) for held in value.values()):
        yield value  # JSON lines with a single line
        return
    for key, held in value.items():
        rows = held if isinstance(held, list) else [held]
        name = "source" if isinstance(held, list) else "id"
        yield from ({**row, name: key} if isinstance(row, dict) else row for row in rows)


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
        for batch in file.iter_batches():
            yield from batch.to_pylist()
    except pa.ArrowInvalid as error:
        raise UserError(f"{path} is no Parquet file that can be read: {str(error).splitlines()[0]}") from None


def _csv(path: Path) -> Iterator[Any]:
    csv.field_size_limit(_FIELD_LIMIT)
    with path.open(encoding="utf-8-sig", newline="") as file:
        try:
            for row in csv.DictReader(file):
                short = None in row or None in row.values()
                yield RowError("not-csv", "the row has not as many fields as the header") if short else row
        except csv.Error as error:
            raise UserError(f"{path} is no CSV file that can be read: {error}") from None
