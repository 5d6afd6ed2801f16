"""Questions with none to many images and any type of answer, in every form that is read directly."""

import hashlib
import json
import os
from collections import Counter
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from open_r1.common.errors import UserError
from open_r1.data.arrow_sets import FEATURES, QUESTION_FEATURES, write_dict, write_split
from open_r1.data.images import ImageError
from open_r1.data.loading import content_digest, load_rows
from open_r1.data.readers.file_layout import split_of
from open_r1.data.row_images import image_key, image_keys, row_images
from open_r1.data.rows import row_id
from open_r1_testbed.damage import BYTES, Draw

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


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    """Where datasets converts Parquet files to."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    return tmp_path / "cache"


@pytest.fixture
def root(tmp_path) -> Path:
    folder = tmp_path / "root"
    folder.mkdir()
    for colour in COLOURS:
        (folder / f"{colour}.png").write_bytes(png(colour))
    return folder


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


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_rows(tmp_path, form):
    rows, dropped = load_rows(FORMS[form](tmp_path / "set", ROWS), "test")
    assert dropped == []
    assert rows.column_names == list(QUESTION_FEATURES)
    assert rows["answer_type"][:] == TYPES
    assert [len(images) for images in rows["images"]] == COUNTS
    for row, expected in zip(rows, ROWS, strict=True):
        assert isinstance(row, dict)
        colours = [image.getpixel((0, 0)) for image in row_images(row)]
        assert colours == [
            Image.new("RGB", (1, 1), Path(image["path"]).stem).getpixel((0, 0)) for image in expected["images"]
        ]
        assert {name: row[name] for name in ("problem", "solution", "id", "source", "subject")} == {
            name: expected[name] for name in ("problem", "solution", "id", "source", "subject")
        }
        assert row["aliases"] == (expected["aliases"] or [])


def test_a_list_needs_no_ids_and_images_are_told_apart_by_their_order(root, tmp_path):
    rows = [
        {"images": names, "problem": "Where?", "solution": "left"} for names in (["red.png", "blue.png"], ["red.png"])
    ]
    rows.append({**rows[0], "images": ["blue.png", "red.png"]})
    rows.append({"problem": "Where?", "solution": "left"})
    rows.append({"image": ["red.png", "lime.png"], "problem": "Where?", "solution": "left"})
    (tmp_path / "list.json").write_text(json.dumps(rows))
    loaded, dropped = load_rows(tmp_path / "list.json", None, root)
    usable: list[Any] = loaded.to_list()
    assert (len(usable), dropped) == (5, [])
    assert len({row["id"] for row in usable}) == 5
    assert usable[1]["id"] == row_id("red.png", "Where?", "left")
    assert len({image_key(row) for row in usable}) == 5
    assert image_key(usable[3]) == usable[3]["id"]
    assert set(image_keys(usable[0])) == set(image_keys(usable[2]))
    digests = {content_digest(row, row["images"]) for row in usable}
    assert len(digests) == 5


def test_the_digest_of_a_published_question_is_that_of_its_three_columns(tmp_path):
    rows, _ = load_rows(saved_form(tmp_path / "set", ROWS), "test")
    digest = content_digest(rows[0], rows[0]["images"])
    assert digest == row_id(hashlib.sha256(png("red")).hexdigest(), "Which? A)CT, B)MRI", "<answer> A </answer>")
    other = dict(rows[1]) | {"aliases": []}
    assert content_digest(rows[1], rows[1]["images"]) != content_digest(other, other["images"])


# -------------------------------------------------------------------------------------------------- what is dropped

BAD = [
    (question(10, images=[stored("red")[0], None]), "image-missing"),
    (question(11, images=[stored("red")[0], {"bytes": None, "path": "x.png"}]), "image-missing"),
    (question(12, images=[{"bytes": None, "path": "x.png"}]), "no-image"),
    (question(13, images=stored(*["red"] * 100)), "too-many-images"),
    (question(14, problem="<image>?"), "image-marks"),
    (question(15, problem="Is <image> it?", images=stored("red", "lime")), "image-marks"),
    (question(16, solution="x" * 10_001), "answer-too-long"),
    (question(17, aliases=["no"]), "alias-contradicts"),
    (question(18, aliases=[None]), "bad-aliases"),
    (question(19, answer_type="number"), "unknown-answer-type"),
    (question(20, solution=""), "not-text"),
    (question(21, solution=None), "not-text"),
    (question(22, solution="B"), "no-options"),
    (question(0), "repeated-question"),
]


def test_bad_rows_of_a_saved_set_are_counted_drops(tmp_path):
    rows, dropped = load_rows(saved_form(tmp_path / "set", [*ROWS, *(row for row, _ in BAD)]), "test")
    assert rows["id"][:] == [row["id"] for row in ROWS]
    assert [row.reason for row in dropped] == [reason for _, reason in BAD]
    assert dropped[0].where == "set test row 5"


BAD_ENTRIES = [
    ({"images": ["red.png", None]}, "image-missing"),
    ({"images": ["red.png", ""]}, "image-missing"),
    ({"images": ["red.png", 7]}, "not-text"),
    ({"images": "\0"}, "not-a-path"),
    ({"images": 7}, "not-text"),
    ({"image": None}, "not-text"),
    ({"images": ["red.png", "nowhere.png"]}, "missing"),
    ({"images": ["red.png", "../root/lime.png"]}, "outside-root"),
    ({"images": ["red.png", "https://example.org/a.png"]}, "url"),
    ({"images": ["red.png", "data:image/png;base64,iVBORw0KGgo="]}, "url"),
    ({"images": ["red.png", "/etc/passwd"]}, "absolute"),
    ({"images": [{"bytes": "iVBORw0KGgo=", "path": None}]}, "not-text"),
    ({"images": ["red.png"] * 17}, "too-many-images"),
    ({"images": ["red.png"], "image_2": "lime.png"}, "several-images"),
    ({"images": ["red.png"], "video": "a.mp4"}, "several-images"),
    ({"images": ["red.png", "lime.png"], "image": "red.png"}, "several-images"),
    ({"id": ["a"]}, "not-text"),
    ({"source": 7}, "not-text"),
    ({"answer_type": ["open"]}, "unknown-answer-type"),
    ({"aliases": "yeah"}, "bad-aliases"),
]


def test_bad_rows_of_json_lines_are_counted_drops(root):
    good = {"images": ["red.png", {"bytes": None, "path": "lime.png"}], "problem": "Is it so?", "solution": "yes"}
    lines = [json.dumps(good), "{", "", "[]", '{"problem": "a", "problem": "b"}']
    lines.append(json.dumps({"problem": "How many?", "solution": 4}))  # as VQA-RAD has it
    lines += [json.dumps({"problem": "Is it so?", "solution": "yes", **change}) for change, _ in BAD_ENTRIES]
    (root / "rows.jsonl").write_text("\n".join(lines))
    rows, dropped = load_rows(root / "rows.jsonl", None, root)
    assert rows["solution"][:] == ["yes", "4"]
    reasons = ["not-json", "not-an-object", "repeated-key", *(reason for _, reason in BAD_ENTRIES)]
    assert [row.reason for row in dropped] == reasons
    assert dropped[0].where == "rows.jsonl row 1"


def test_files_that_rows_name_are_looked_for_below_the_image_root_only(tmp_path, root):
    (tmp_path / "secret.png").write_bytes(png("white"))
    rows = [
        question(0, images=[{"bytes": None, "path": "red.png"}]),
        question(1, images=[{"bytes": None, "path": "../secret.png"}]),
        question(2, images=[{"bytes": None, "path": str(tmp_path / "secret.png")}]),
        question(3, images=[{"bytes": None, "path": "http://127.0.0.1:9/a.png"}]),
        question(4, images=[*stored("lime"), {"bytes": None, "path": "blue.png"}]),
        question(5, images=[{"bytes": None, "path": None}]),
    ]
    folder = saved_form(tmp_path / "set", rows)
    usable, dropped = load_rows(folder, "test", root)
    assert usable["id"][:] == ["0", "4"]
    assert [row.reason for row in dropped] == ["outside-root", "absolute", "url", "image-missing"]
    assert usable[0]["images"] == [{"bytes": None, "path": str(root / "red.png")}]
    assert [image.getpixel((0, 0)) for image in row_images(usable[1])] == [(0, 255, 0), (0, 0, 255)]
    with pytest.raises(UserError, match=r"no row that can be used. 6 rows dropped \(5 no-image, 1 image-missing\)"):
        load_rows(folder, "test")


# -------------------------------------------------------------------------------------------------- columns


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


# -------------------------------------------------------------------------------------------------- layout


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


# -------------------------------------------------------------------------------------------------- Parquet


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


# -------------------------------------------------------------------------------------------------- memory


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


def test_a_set_whose_offsets_lie_outside_is_one_line(tmp_path):
    """Reading it would end the process."""
    offsets = b"".join(n.to_bytes(4, "little") for n in (0, 2**30, 6, 12))
    texts = pa.Array.from_buffers(pa.string(), 3, [None, pa.py_buffer(offsets), pa.py_buffer(b"Is it?Where?")])
    folder = saved_form(tmp_path / "set", ROWS[:3])
    good = pa.ipc.open_stream(folder / "test" / "data-00000-of-00001.arrow").read_all()
    table = good.set_column(good.schema.get_field_index("problem"), "problem", texts)
    with pa.ipc.new_stream(folder / "test" / "data-00000-of-00001.arrow", table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(UserError, match=r"the set is damaged: .*; get it again") as caught:
        load_rows(folder, "test")
    assert "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["parquet", "jsonl"])
def test_damaged_files_end_in_a_line_or_cost_their_rows(tmp_path, suffix):
    """As the fuzzing of the testbed damages files: what is read opens, what is refused is one line."""
    if suffix == "parquet":
        table = pa.Table.from_pylist(ROWS * 4, QUESTION_FEATURES.arrow_schema)
        pq.write_table(table, tmp_path / "good", row_group_size=7)
    else:
        (tmp_path / "good").write_bytes((lines_form(tmp_path / "set", ROWS) / "test.jsonl").read_bytes())
    good, draw, outcomes = (tmp_path / "good").read_bytes(), Draw(7), Counter()
    messages: list[str] = []
    for number in range(300):
        kind = draw.choice(BYTES)
        file = tmp_path / f"{number}.{suffix}"
        file.write_bytes(kind(good, good[::-1], draw))
        try:
            rows, dropped = load_rows(file, None, tmp_path / "set" if suffix == "jsonl" else None)
            outcomes["rows dropped" if dropped else "read"] += 1
            for row in rows:
                with suppress(ImageError):
                    row_images(dict(row))
        except UserError as error:
            messages.append(str(error))
    print(outcomes, len(messages))
    assert outcomes.total() + len(messages) == 300
    assert min(outcomes.total(), len(messages)) > 10
    assert [message for message in messages if "\n" in message] == []
