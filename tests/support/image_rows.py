"""Rows with none to many images of one colour, as each form of file holds them."""

import json
from io import BytesIO
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from open_r1.data.arrow_sets import QUESTION_FEATURES, write_dict, write_split

COLOURS = ("red", "lime", "blue", "white")
TEXT = datasets.Value("string")


def png(colour: str) -> bytes:
    buffer = BytesIO()
    Image.new("RGB", (8, 8), colour).save(buffer, "PNG")
    return buffer.getvalue()


def stored(*colours: str) -> list[dict[str, Any]]:
    return [{"bytes": png(colour), "path": f"{colour}.png"} for colour in colours]


def question(number: int, **changes: Any) -> dict[str, Any]:
    row = {"images": [], "problem": f"Is it number {number}?", "solution": "yes", "answer_type": None, "aliases": None}
    return row | {"id": str(number), "source": "", "modality": None, "task": None, "subject": None} | changes


ROWS = [
    question(0, problem="Which? A)CT, B)MRI", solution="<answer> A </answer>", images=stored("red")),
    question(1, images=stored("red", "lime"), answer_type="CLOSED", aliases=["yeah"], subject="chest"),
    question(2, problem="Where in <image>, <image>, <image>?", solution="left", images=stored("red", "lime", "blue")),
    question(3, source="Text set"),
    question(4, problem="Which? A) <image>, B) <image>", solution="B", images=stored("lime", "blue")),
]
TYPES = ["choice", "closed", "open", "closed", "choice"]
COUNTS = [1, 2, 3, 0, 2]


def saved_form(folder: Path, rows: list[dict[str, Any]]) -> Path:
    for split in ("train", "test"):
        write_split(folder / split, rows, QUESTION_FEATURES, split)
    write_dict(folder, ["train", "test"])
    return folder


def parquet_form(folder: Path, rows: list[dict[str, Any]]) -> Path:
    """As the hub has it: two files of a split, the columns declared in the schema."""
    (folder / "data").mkdir(parents=True)
    half = len(rows) // 2
    for number, part in enumerate((rows[:half], rows[half:])):
        table = pa.Table.from_pylist(part, QUESTION_FEATURES.arrow_schema)
        pq.write_table(table, folder / "data" / f"test-0000{number}-of-00002.parquet")
    return folder


def lines_form(folder: Path, rows: list[dict[str, Any]]) -> Path:
    """JSON Lines beside their images."""
    folder.mkdir(parents=True)
    for colour in COLOURS:
        (folder / f"{colour}.png").write_bytes(png(colour))
    entries = [row | {"images": [image["path"] for image in row["images"]]} for row in rows]
    (folder / "test.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    (folder / "train.jsonl").write_text(json.dumps(entries[0]) + "\n")
    return folder


FORMS = {"saved": saved_form, "parquet": parquet_form, "lines": lines_form}
