"""Sets that an engine for larger ones has written: shards of datasets and Ray Data as they are, WebDataset converted.

The files here have the names and the schemas of those that Ray Data 2.60 and datasets 5.2 write.
"""

import io
import json
import re
import tarfile
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from image_rows import png

from open_r1.common.errors import UserError
from open_r1.data.loading import load_rows
from open_r1.data.row_images import row_images
from open_r1.evaluation.scoring.blind_floor import measure, read_set
from open_r1.evaluation.scoring.train_overlap import load_training_set
from open_r1.training.setup.questions import load_sets

RAY_NAME = "0355AwROr7iE4swBuSMfII_de1dba2e51ca4d5d8435bb53d83463f1_{:06d}-0.parquet"
DATASETS_NAME = "{}-{:05d}-of-00002.parquet"
COLOURS = ("red", "blue", "lime", "white")

pytestmark = pytest.mark.usefixtures("parquet_cache")


def row(number: int) -> dict[str, Any]:
    return {"image": png(COLOURS[number]), "problem": f"Is it {number}?", "solution": "yes"}


def as_struct(cell: bytes) -> dict[str, Any]:
    return {"bytes": cell, "path": None}


STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.null())])
FORMS = {
    "bytes": ("image", lambda cell: cell, pa.binary()),
    "struct": ("image", as_struct, STRUCT),
    "lists of bytes": ("images", lambda cell: [cell], pa.list_(pa.binary())),
    "lists of structs": ("images", lambda cell: [as_struct(cell)], pa.list_(STRUCT)),
}


@pytest.mark.parametrize("form", FORMS)
def test_shards_of_ray_data_are_one_split_of_their_folder(tmp_path: Path, form: str) -> None:
    name, cell, kind = FORMS[form]
    schema = pa.schema([(name, kind), ("problem", pa.string()), ("solution", pa.string())])
    for split, numbers in {"train": (0, 1, 2), "test": (3,)}.items():
        (tmp_path / "set" / split).mkdir(parents=True)
        for number in numbers:
            values = row(number)
            values[name] = cell(values.pop("image"))
            pq.write_table(pa.Table.from_pylist([values], schema), tmp_path / "set" / split / RAY_NAME.format(number))
    assert_trains_and_evaluates(tmp_path / "set")


def test_shards_of_datasets_are_one_split(tmp_path: Path) -> None:
    features = datasets.Features(
        {"image": datasets.Image(), "problem": datasets.Value("string"), "solution": datasets.Value("string")}
    )
    (tmp_path / "set/data").mkdir(parents=True)
    for split, numbers in {"train": range(3), "test": (3,)}.items():
        rows = datasets.Dataset.from_list([{**row(n), "image": as_struct(row(n)["image"])} for n in numbers], features)
        for shard in range(2 if split == "train" else 1):
            part = rows.shard(2, shard) if split == "train" else rows
            part.to_parquet(tmp_path / "set/data" / DATASETS_NAME.format(split, shard))
    assert_trains_and_evaluates(tmp_path / "set")


def assert_trains_and_evaluates(folder: Path) -> None:
    rows, dropped, _ = load_sets([str(folder)], None)
    assert (rows["problem"][:], dropped) == (["Is it 0?", "Is it 1?", "Is it 2?"], [])
    assert [row_images(shown)[0].getpixel((0, 0)) for shown in rows] == [(255, 0, 0), (0, 0, 255), (0, 255, 0)]  # type: ignore[arg-type]
    tested, _ = load_rows(folder, "test")
    assert tested["problem"][:] == ["Is it 3?"]
    training = load_training_set(str(folder), None)
    assert training.ids == rows["id"][:]
    assert training.has_image_of(rows[0]) is True
    assert training.has_image_of(tested[0]) is False
    assert measure(read_set(folder, "train"), read_set(folder, "test")).image_in_training == 0


def test_tensors_of_ray_data_are_refused_with_what_to_write(tmp_path: Path) -> None:
    """`read_images` keeps pixels as an extension type, which is a struct of lists for other readers."""
    kind = pa.struct([("data", pa.large_list(pa.uint8())), ("shape", pa.large_list(pa.int64()))])
    values = {**row(0), "image": {"data": [0] * 12, "shape": [2, 2, 3]}}
    schema = pa.schema([("image", kind), ("problem", pa.string()), ("solution", pa.string())])
    (tmp_path / "train").mkdir()
    pq.write_table(pa.Table.from_pylist([values], schema), tmp_path / "train" / RAY_NAME.format(0))
    with pytest.raises(UserError, match="the bytes of image files are expected, not pixels"):
        load_rows(tmp_path, "train")


def test_the_documented_lines_make_parquet_of_webdataset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, repository: Path
) -> None:
    (tmp_path / "shards").mkdir()
    for shard in range(2):
        with tarfile.open(tmp_path / f"shards/train-{shard:06d}.tar", "w") as archive:
            for number in (shard * 2, shard * 2 + 1):
                values = row(number)
                for extension, data in {"png": values.pop("image"), "json": json.dumps(values).encode()}.items():
                    member = tarfile.TarInfo(f"{number:06d}.{extension}")
                    member.size = len(data)
                    archive.addfile(member, io.BytesIO(data))
    page = (repository / "docs/data.md").read_text(encoding="utf-8")
    lines = re.search(r"```python\n(from datasets import load_dataset\n.*?)```", page, re.DOTALL)
    assert lines is not None
    monkeypatch.chdir(tmp_path)
    exec(compile(lines[1], "docs/data.md", "exec"), {})
    columns = re.search(r"--columns (image=png\S*json\.solution)", page)
    assert columns is not None
    names = dict(pair.split("=") for pair in columns[1].split(","))
    rows, dropped = load_rows(tmp_path / "converted", "train", columns=names)
    assert (rows["problem"][:], dropped) == ([f"Is it {number}?" for number in range(4)], [])
    assert [len(images) for images in rows["images"]] == [1] * 4
