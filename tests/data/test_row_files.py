"""Files of rows: columns of other names, splits and file names, Parquet, damage, memory."""

import json
import os
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from image_rows import ROWS, TEXT, lines_form, png, question, saved_form, stored

from open_r1.common.errors import UserError
from open_r1.data.arrow_sets import FEATURES, QUESTION_FEATURES, write_split
from open_r1.data.loading import load_rows
from open_r1.data.readers.file_layout import split_of
from open_r1.data.row_images import row_images
from open_r1.data.rows import row_id

pytestmark = pytest.mark.usefixtures("parquet_cache")


def parquet(path: Path, columns: dict[str, Any], features: dict[str, Any] | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    schema = None if features is None else datasets.Features(features).arrow_schema
    pq.write_table(pa.table(columns, schema=schema), path)
    return path


def test_columns_of_other_names_are_mapped(tmp_path, root):
    """VQA-RAD as the hub has it: image, question, answer."""
    columns = {"image": [stored("red")[0]] * 2, "question": ["is it red?", "where is it?"], "answer": ["yes", "left"]}
    file = parquet(tmp_path / "rad.parquet", columns, {"image": datasets.Image(), "question": TEXT, "answer": TEXT})
    names = {"problem": "question", "solution": "answer"}
    rows, dropped = load_rows(file, "test", columns=names)
    assert (rows["answer_type"][:], dropped) == (["closed", "open"], [])
    assert rows[0]["id"] == row_id(png("red"), "is it red?", "yes")
    with pytest.raises(UserError, match="lacks the column problem, solution"):
        load_rows(file)
    with pytest.raises(UserError, match="has no column text, which --columns names; its columns are image, question"):
        load_rows(file, columns={"problem": "text"})
    entries = [{"pictures": ["red.png"], "question": "where?", "answer": "left", "problem": "not this one"}]
    (tmp_path / "rows.jsonl").write_text(json.dumps(entries[0]))
    rows, _ = load_rows(tmp_path / "rows.jsonl", None, root, names | {"images": "pictures"})
    assert (rows[0]["problem"], len(rows[0]["images"])) == ("where?", 1)


@pytest.mark.parametrize(
    "images",
    [
        pa.array([png("red"), png("lime")], pa.binary()),
        pa.array([png("red"), png("lime")], pa.large_binary()),
        pa.array([[png("red"), png("lime")], [png("blue")]], pa.list_(pa.binary())),
        pa.array([stored("red", "lime"), stored("blue")]),
        pa.array([stored("red")[0], stored("blue")[0]]),
        pa.array([["red.png", "lime.png"], ["blue.png"]]),
        pa.array(["red.png", "blue.png"]),
    ],
    ids=str,
)
def test_images_are_bytes_structs_or_paths(tmp_path, root, images):
    columns = {"images": images, "problem": ["Is it so?", "Where?"], "solution": ["yes", "left"]}
    file = parquet(tmp_path / "rows.parquet", columns)
    rows, dropped = load_rows(file, None, root)
    assert (len(rows), dropped) == (2, [])
    assert row_images(rows[0])[0].getpixel((0, 0)) == (255, 0, 0)


def test_images_under_a_name_of_their_own_are_never_left_out_in_silence(tmp_path):
    columns = {"scan": [stored("red")[0]], "problem": ["Is it so?"], "solution": ["yes"]}
    features = {"scan": datasets.Image(), "problem": TEXT, "solution": TEXT}
    file = parquet(tmp_path / "rows.parquet", columns, features)
    with pytest.raises(UserError, match=r"the column scan holds images, .* give --columns images=scan"):
        load_rows(file)
    assert len(load_rows(file, columns={"images": "scan"})[0][0]["images"]) == 1


@pytest.mark.parametrize("name", ["problem", "solution", "id", "answer_type", "aliases", "subject"])
@pytest.mark.parametrize("kind", [datasets.Image(), datasets.Audio(), datasets.Video(), datasets.Pdf()])
def test_a_column_that_would_be_fetched_is_refused_before_a_row_is_read(tmp_path, monkeypatch, name, kind):
    opened: list[Any] = []
    monkeypatch.setattr("datasets.load_dataset", lambda *arguments, **_: opened.append(arguments))
    address = {"bytes": None, "path": "http://127.0.0.1:9/x"}
    columns = {"problem": ["Is it so?"], "solution": ["yes"], **{name: [address]}}
    file = parquet(tmp_path / "rows.parquet", columns, {"problem": TEXT, "solution": TEXT, name: kind})
    with pytest.raises(UserError, match=rf"the column {name} of .*rows\.parquet is declared as {type(kind).__name__}"):
        load_rows(file)
    assert opened == []


def test_images_that_are_none_are_refused_by_name(tmp_path):
    columns = {"image": [3], "problem": ["Is it so?"], "solution": ["yes"]}
    file = parquet(tmp_path / "rows.parquet", columns)
    with pytest.raises(UserError, match=r"the column image of .* holds no images: it is declared as int64"):
        load_rows(file)


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("data/train-00000-of-00002.parquet", "train"),
        ("train-00001-of-00002.parquet", "train"),
        ("data/test_mini-00000-of-00001-0123456789abcdef.parquet", "test_mini"),
        ("test/0000.parquet", "test"),
        ("validation/part-0.parquet", "validation"),
        ("train/images.parquet", "train"),
        ("dev.jsonl", "dev"),
        ("MM/test.jsonl", "test"),
        ("data/validate.json", "validate"),
    ],
)
def test_the_split_follows_from_the_name_of_a_file(path, split):
    assert split_of(Path(path)) == split


def test_a_folder_has_splits_of_any_name_and_says_which(tmp_path):
    row = {"problem": "Is it so?", "solution": "yes"}
    for name in ("train", "validate", "test-mini"):
        (tmp_path / "set").mkdir(exist_ok=True)
        (tmp_path / "set" / f"{name}.jsonl").write_text(json.dumps(row | {"id": name}))
    (tmp_path / "set" / ".cache").mkdir()
    (tmp_path / "set" / ".cache" / "hidden.jsonl").write_text(json.dumps(row))
    assert load_rows(tmp_path / "set", "validate")[0]["id"][:] == ["validate"]
    with pytest.raises(UserError, match="has no test split, only test-mini, train, validate"):
        load_rows(tmp_path / "set", "test")
    with pytest.raises(UserError, match="choose one of them as the split"):
        load_rows(tmp_path / "set")


def test_two_sets_in_one_folder_are_told_apart(tmp_path):
    for name in ("MM", "Text"):
        (tmp_path / "set" / name).mkdir(parents=True)
        (tmp_path / "set" / name / "test.jsonl").write_text(json.dumps({"problem": name, "solution": "yes"}))
    with pytest.raises(UserError, match=r"the split test in 2 folders \(MM, Text\).*name one of these folders"):
        load_rows(tmp_path / "set", "test")
    assert load_rows(tmp_path / "set" / "MM", "test")[0]["problem"][:] == ["MM"]


def test_files_of_one_split_must_agree(tmp_path):
    features = {"problem": TEXT, "solution": TEXT}
    parquet(tmp_path / "set" / "test-00000-of-00002.parquet", {"problem": ["a?"], "solution": ["yes"]}, features)
    other = parquet(tmp_path / "set" / "test-00001-of-00002.parquet", {"problem": ["b?"], "answer": ["yes"]})
    with pytest.raises(UserError, match=f"{other.name} has other columns than"):
        load_rows(tmp_path / "set", "test")


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" + b"x" * 100 + b"PAR1", b"no parquet at all" * 9])
def test_a_damaged_file_is_one_line(tmp_path, content):
    (tmp_path / "rows.parquet").write_bytes(content)
    with pytest.raises(UserError, match=r"rows\.parquet is no Parquet file that can be read") as caught:
        load_rows(tmp_path / "rows.parquet")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_cut_off_within_its_rows_is_one_line(tmp_path):
    columns = {"problem": [f"Is it {n}?" for n in range(5000)], "solution": ["yes"] * 5000}
    file = parquet(tmp_path / "rows.parquet", columns)
    data = bytearray(file.read_bytes())
    data[100:4000] = bytes(3900)
    file.write_bytes(bytes(data))
    with pytest.raises(UserError, match=r"rows\.parquet is no Parquet file that can be read") as caught:
        load_rows(file)
    assert "\n" not in str(caught.value)


def test_a_description_with_a_type_that_is_none_is_one_line(tmp_path):
    about = json.dumps({"info": {"features": {"problem": {"_type": "os.system"}}}})
    table = pa.table({"problem": ["a?"], "solution": ["yes"]}).replace_schema_metadata({"huggingface": about})
    pq.write_table(table, tmp_path / "rows.parquet")
    with pytest.raises(UserError) as caught:
        load_rows(tmp_path / "rows.parquet")
    assert "\n" not in str(caught.value)


def test_text_that_is_no_utf8_costs_its_row(tmp_path):
    offsets, characters = b"".join(n.to_bytes(4, "little") for n in (0, 5, 14)), b"\xff\xfe??aIs it so?"
    texts = pa.Array.from_buffers(pa.string(), 2, [None, pa.py_buffer(offsets), pa.py_buffer(characters)])
    pq.write_table(pa.table({"problem": texts, "solution": ["yes", "yes"]}), tmp_path / "rows.parquet")
    rows, dropped = load_rows(tmp_path / "rows.parquet")
    assert (rows["problem"][:], [row.reason for row in dropped]) == (["Is it so?"], ["not-text"])


@pytest.mark.slow
@pytest.mark.parametrize("form", ["saved", "parquet"])
@pytest.mark.parametrize("column", ["images", "image"])
def test_the_bytes_of_images_stay_on_the_disk(tmp_path, form, column):
    """Loading allocates less than a tenth of what the images take: they are mapped, and their lists are made around."""
    megabyte = bytes(2**20)
    image = {"bytes": megabyte, "path": None}
    features = QUESTION_FEATURES if column == "images" else FEATURES
    rows = [question(number, images=[image, image], image=image) for number in range(48)]
    rows[7] |= {"images": None, "image": None, "source": "Text"}
    if form == "saved":
        write_split(tmp_path / "set", rows, features, "test")
    else:
        (tmp_path / "set").mkdir()
        table = pa.Table.from_pylist([{name: row[name] for name in features} for row in rows], features.arrow_schema)
        pq.write_table(table, tmp_path / "set" / "test.parquet", row_group_size=8)
        del table
    load_rows(tmp_path / "set", "test")  # converts
    before = pa.total_allocated_bytes()
    loaded, dropped = load_rows(tmp_path / "set", "test")
    assert (len(loaded), dropped) == (48, [])
    assert [len(images) for images in loaded.select([6, 7, 8])["images"]] == (
        [2, 0, 2] if column == "images" else [1, 0, 1]
    )
    assert pa.total_allocated_bytes() - before < 4 * 2**20


def test_what_lies_in_a_folder_beside_its_files_is_never_opened(tmp_path):
    """A pipe would be waited for until somebody writes to it."""
    folder = lines_form(tmp_path / "set", ROWS)
    os.mkfifo(folder / "test.parquet")
    (folder / "gone.parquet").symlink_to(tmp_path / "nowhere")
    (folder / "dir.parquet").mkdir()
    assert len(load_rows(folder, "test")[0]) == len(ROWS)


def test_a_full_disk_under_the_cache_is_said(tmp_path, monkeypatch):
    file = parquet(tmp_path / "rows.parquet", {"problem": ["Is it so?"], "solution": ["yes"]})

    def full(*_: Any, **__: Any) -> None:
        raise ValueError("An error occurred while generating the dataset") from OSError(28, "No space left on device")

    monkeypatch.setattr("datasets.load_dataset", full)
    with pytest.raises(UserError, match=r"cannot write .*cache: the disk is full"):
        load_rows(file)


def test_loading_writes_nothing_beside_a_saved_set(tmp_path, capfd):
    folder = saved_form(tmp_path / "set", ROWS)
    before = sorted(path.relative_to(folder) for path in folder.rglob("*"))
    load_rows(folder, "test")
    assert sorted(path.relative_to(folder) for path in folder.rglob("*")) == before
    assert not (tmp_path / "cache").exists()
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("is_list", [True, False])
def test_a_path_that_is_no_text_is_left_out_and_the_image_stays(tmp_path, is_list):
    images = pa.array([stored("red")[0], stored("lime")[0], None])
    paths = pa.Array.from_buffers(pa.string(), 3, [*images.field("path").buffers()[:2], pa.py_buffer(b"\xff" * 20)])
    images = pa.StructArray.from_arrays([images.field("bytes"), paths], ["bytes", "path"], mask=images.is_null())
    if is_list:
        images = pa.ListArray.from_arrays(pa.array([0, 2, None, 2], pa.int32()), images.slice(0, 2))
    columns = {
        "images" if is_list else "image": images,
        "problem": ["Is it?", "Where?", "Why?"],
        "solution": ["yes"] * 3,
    }
    pq.write_table(pa.table(columns), tmp_path / "rows.parquet")
    rows, dropped = load_rows(tmp_path / "rows.parquet")
    assert [image["bytes"] for image in rows[0]["images"]] == [png("red"), png("lime")][: 2 if is_list else 1]
    assert [row.reason for row in dropped] == ([] if is_list else ["no-image"])
