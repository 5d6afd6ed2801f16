"""Questions with none to many images and any type of answer, in every form that is read directly."""

import hashlib
import json
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from image_rows import COUNTS, FORMS, ROWS, TYPES, lines_form, png, question, saved_form, stored
from PIL import Image

from open_r1.common.errors import UserError
from open_r1.data.arrow_sets import QUESTION_FEATURES
from open_r1.data.images import ImageError
from open_r1.data.loading import content_digest, load_rows
from open_r1.data.row_images import image_key, image_keys, row_images
from open_r1.data.rows import row_id
from open_r1_testbed.damage import BYTES, Draw

pytestmark = pytest.mark.usefixtures("parquet_cache")


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


# -------------------------------------------------------------------------------------------------- memory


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
