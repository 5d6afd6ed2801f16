"""Read VLMEvalKit's tables: tab-separated, images as base64, or the index of a row that holds the image.

A table of gigabytes is read row by row. Only where a row refers to another one are the places of all rows looked up,
and the row that is meant is read again from its place.
"""

import csv
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from open_r1.common.errors import UserError
from open_r1.data.images import MAX_BYTES
from open_r1.data.rows import RowError
from open_r1.data.text.files import Row

LONGEST_LINE = MAX_BYTES * 4 // 3 + 2**20
"""Bytes of the longest line: the largest image that is read, as base64, and the texts of its row."""

LONGEST_REFERENCE = 64
"""Characters of an image cell up to which it is the index of another row, as VLMEvalKit has it."""

_LETTER = re.compile(r"[A-Z]")


class Table:
    """One table; rows have the column names in lower case, the letters of options as they are.

    Raises:
        UserError: it cannot be read, or two columns have one name.
    """

    def __init__(self, path: Path):
        self.path = path
        self._places: dict[str, int] | None = None
        if path.suffix != ".tsv" or not path.is_file():
            raise UserError(f"{path} is no table of tab-separated values (.tsv)")
        first = next(self._records(0), None)
        names = [name.strip() for name in (first and first[1]) or ()]
        self.columns = [name if _LETTER.fullmatch(name) else name.casefold() for name in names]
        repeated = [name for name, count in Counter(self.columns).items() if count > 1]
        if repeated:
            raise UserError(f"{path} has two columns {repeated[0]!r}, so it is unclear which one to read; rename one")

    def rows(self) -> Iterator[tuple[str, Row | RowError]]:
        """Every row, `images` in it being the base64 texts of its images: its own, or those of the row it refers to."""
        records = self._records(0)
        next(records, None)
        for number, (_, fields) in enumerate(records):
            where = f"{self.path.name} row {number}"
            row = self._row(fields)
            if not isinstance(row, RowError):
                try:
                    row["images"] = self._images(row)
                except RowError as error:
                    row = error
            yield where, row

    def _row(self, fields: list[str] | None) -> Row | RowError:
        if fields is None:
            return RowError("too-long", f"the line has more than {LONGEST_LINE:,} bytes")
        if len(fields) != len(self.columns):
            return RowError("not-tsv", f"the row has {len(fields)} fields, the header {len(self.columns)}")
        return dict(zip(self.columns, fields, strict=True))

    def _images(self, row: Row) -> list[str]:
        """The base64 texts of a row's images, or of those of the row that it refers to.

        Raises:
            RowError: it refers to itself by way of others, or to a row that is not there.
        """
        visited: set[str] = set()
        cells = _listed(row.get("image", ""))
        while len(cells) == 1 and len(cells[0]) <= LONGEST_REFERENCE:
            index = _index(cells[0])
            if index in visited:
                raise RowError("image-cycle", f"the image is that of row {index}, whose image is that of this row")
            visited.add(index)
            cells = _listed(self._at(index).get("image", ""))
        if any(len(cell) <= LONGEST_REFERENCE for cell in cells):
            cells = [cell if len(cell) > LONGEST_REFERENCE else self._only_image(cell) for cell in cells]
        return cells

    def _only_image(self, cell: str) -> str:
        cells = _listed(self._at(_index(cell)).get("image", ""))
        if len(cells) != 1 or len(cells[0]) <= LONGEST_REFERENCE:
            raise RowError("missing-image", f"the row {cell[:LONGEST_REFERENCE]!r} holds no image")
        return cells[0]

    def _at(self, index: str) -> Row:
        """The row of an index."""
        if self._places is None:
            records = self._records(0)
            next(records, None)
            self._places = {}
            for place, fields in records:
                row = self._row(fields)
                if not isinstance(row, RowError):
                    self._places.setdefault(_index(str(row.get("index", ""))), place)
        place = self._places.get(index)
        row = RowError("missing-image", f"the image is that of row {index!r}, which is not there")
        if place is not None:
            row = self._row(next(self._records(place))[1])
        if isinstance(row, RowError):
            raise row
        return row

    def _records(self, place: int) -> Iterator[tuple[int, list[str] | None]]:
        """The records from a byte on, each with its own place; None for one with a line that is too long."""
        csv.field_size_limit(LONGEST_LINE)  # Python's own limit is 131,072
        try:
            with self.path.open("rb") as file:
                file.seek(place)
                lines = _Lines(file)
                records = csv.reader(lines, delimiter="\t")
                while True:
                    lines.start_record()
                    try:
                        fields = next(records)
                    except StopIteration:
                        return
                    except csv.Error:
                        fields = None
                    if fields != []:
                        yield lines.record_place, None if lines.is_too_long else fields
        except UnicodeDecodeError as error:
            raise UserError(f"{self.path} is not UTF-8 ({error.reason}); save it as UTF-8") from None
        except OSError as error:
            raise UserError(f"{self.path} cannot be read: {error.strerror or error}") from None


class _Lines:
    """The lines of a file as text, with the place of each record's first line."""

    def __init__(self, file: Any):
        self._file = file
        self._place = file.tell()
        self.record_place, self.is_too_long, self._is_first = self._place, False, True

    def start_record(self) -> None:
        self.record_place, self.is_too_long = self._place, False

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        data = self._file.readline(LONGEST_LINE)
        if not data:
            raise StopIteration
        if len(data) == LONGEST_LINE and not data.endswith(b"\n"):
            while (skipped := self._file.readline(LONGEST_LINE)) and not skipped.endswith(b"\n"):
                pass
            self.is_too_long, data = True, b"too long\n"
        is_start = self._place == 0
        self._place = self._file.tell()
        return data.decode("utf-8-sig" if is_start else "utf-8")


def _listed(cell: str) -> list[str]:
    """The images of a cell: one, or a list written as a text. Base64 holds no comma, quote or bracket."""
    cell = cell.strip()
    if cell.startswith("[") and cell.endswith("]"):
        return [text for part in cell[1:-1].split(",") if (text := part.strip().strip("'\""))]
    return [cell] if cell and cell.casefold() != "nan" else []


def _index(text: str) -> str:
    """An index as a key: `12.0` and ` 12` are 12."""
    return text.strip().removesuffix(".0")
