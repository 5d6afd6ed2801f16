"""Published medical VQA sets as small folders, and their preparation."""

import io
import json
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from open_r1.data.preparation.encoded_images import BoundedEncoding
from open_r1.data.vqa.prepare import VqaPreparation, prepare
from open_r1.data.vqa.report import Prepared

SMALL = BoundedEncoding(64)


def image(name: str, size: tuple[int, int] = (24, 16), mode: str = "RGB") -> Image.Image:
    """An image of noise that only its name decides."""
    pixels = np.random.default_rng(zlib.crc32(name.encode())).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def image_bytes(name: str, size: tuple[int, int] = (24, 16), mode: str = "RGB", form: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image(name, size, mode).save(buffer, form)
    return buffer.getvalue()


def draw(folder: Path, names: Iterable[str]) -> None:
    """An image file for each name below a folder; a name without an extension becomes a .jpg."""
    for name in names:
        path = folder / (name if "." in name.rpartition("/")[2] else f"{name}.jpg")
        path.parent.mkdir(parents=True, exist_ok=True)
        image(name).save(path, "PNG" if path.suffix == ".png" else "JPEG")


def write(path: Path, rows: Any) -> Path:
    """Rows as JSON, JSON lines, CSV or Parquet, by the extension."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".json":
        path.write_text(json.dumps(rows))
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        raise ValueError(path.suffix)
    return path


def stored(name: str, **options: Any) -> dict[str, Any]:
    """An image as a column of Parquet holds it."""
    return {"bytes": image_bytes(name, **options), "path": f"{name}.png"}


def prepared(source: str, inputs: Path | Iterable[str], out: Path, **options: Any) -> list[Prepared]:
    """Prepare with one process."""
    words = (str(inputs),) if isinstance(inputs, Path) else tuple(inputs)
    return prepare(
        VqaPreparation(**{"encoding": SMALL, "source": source, "inputs": words, "output_dir": out, **options})
    )


def rows_of(data_set: Prepared | Path, split: str) -> list[dict[str, Any]]:
    """The rows of a split as `datasets` loads them, with undecoded images."""
    folder = data_set if isinstance(data_set, Path) else data_set.folder
    saved = datasets.load_from_disk(str(folder))
    assert isinstance(saved, datasets.DatasetDict)
    return saved[split].cast_column("images", datasets.List(datasets.Image(decode=False))).to_list()


def reasons(data_set: Prepared) -> dict[str, int]:
    """Why rows were dropped -> how many."""
    counts: dict[str, int] = {}
    for row in data_set.report["dropped"]:
        counts[row["reason"]] = counts.get(row["reason"], 0) + 1
    return counts


def rad_row(number: int, **changes: Any) -> dict[str, Any]:
    """A row as OSF publishes VQA-RAD."""
    row = {
        "qid": number,
        "phrase_type": "freeform",
        "qid_linked_id": f"0000-{number}",
        "image_name": f"synpic{number}.jpg",
        "image_organ": "CHEST",
        "question": f"Is there a lesion in case {number}?",
        "question_frame": "NULL",
        "answer": "Yes",
        "answer_type": "CLOSED",
    }
    return {**row, **changes}


def rad_folder(folder: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    """OSF's folder with an image for every row."""
    rows = list(rows)
    write(folder / "VQA_RAD Dataset Public.json", rows)
    names = {str(row["image_name"]) for row in rows if isinstance(row.get("image_name"), str)}
    draw(folder / "VQA_RAD Image Folder", names)
    return folder
