"""Questions from a release, from split files, from saved sets: what is read, what is dropped, and why."""

import json
from io import BytesIO

import datasets
import pytest
from PIL import Image

from open_r1.common.errors import UserError
from open_r1.data import json_lists
from open_r1.data.arrow_sets import FEATURES, QUESTION_FEATURES
from open_r1.data.json_lists import json_entries
from open_r1.data.loading import load_rows, summary
from open_r1.data.row_images import image_key, row_images
from open_r1.data.rows import TEXT_KEYS, row_id

PROBLEM = "Which imaging method is it? A)CT, B)MRI, C)OCT (B) scan, D)X-Ray, lateral"
ROW = {"image": "Images/S/a.png", "problem": PROBLEM, "solution": "<answer> B </answer>"}


def png(colour: str = "red") -> bytes:
    buffer = BytesIO()
    Image.new("RGB", (8, 8), colour).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "root" / "Images" / "S"
    folder.mkdir(parents=True)
    (folder / "a.png").write_bytes(png())
    (folder / "b..JPG").write_bytes(png("blue"))
    return tmp_path / "root"


@pytest.fixture
def write(tmp_path):
    def write_rows(rows, name="questions.json"):
        (tmp_path / name).write_text(json.dumps(rows), encoding="utf-8")
        return tmp_path / name

    return write_rows


# ---------------------------------------------------------------------------------------------- JSON lists


@pytest.mark.parametrize("chunk", [1, 2, 7, 64, 2**20])
def test_a_list_is_read_the_same_in_pieces_of_any_size(tmp_path, monkeypatch, chunk):
    value = [{"a": '],[ "\\ é 😀 日'}, [1, [2, {}]], "x", 12345, -1.5e3, True, None, {}, 7]
    for indent, ascii_only in ((None, True), (2, False)):
        (tmp_path / "x.json").write_text(json.dumps(value, indent=indent, ensure_ascii=ascii_only), encoding="utf-8")
        monkeypatch.setattr(json_lists, "_CHUNK", chunk)
        assert list(json_entries(tmp_path / "x.json")) == value


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no JSON list"),
        (b'{"a": 1}', "holds no JSON list"),
        (b"\xef\xbb\xbf {}", "holds no JSON list"),
        (b"[1, 2", "no valid JSON"),
        (b"[1, 2}", "no valid JSON"),
        (b"[1 2]", "no valid JSON"),
        (b"[1,]", "no valid JSON"),
        (b'[{"a": 1}', "no valid JSON"),
        (b'[{"a": "x]', "no valid JSON at entry 0"),
        (b"[1] [2]", "more text after the list"),
        (b'["\xff\xfe"]', "is not UTF-8"),
        ('["é"]'.encode("utf-16"), "is not UTF-8"),
        (b"[" * 200_000, "nested too deeply"),
    ],
)
def test_a_file_that_is_no_list_is_an_error_that_names_it(tmp_path, content, message):
    path = tmp_path / "bad.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"bad\.json.*{message}"):
        list(json_entries(path))


def test_an_empty_list_and_a_byte_order_mark_are_fine(tmp_path):
    (tmp_path / "x.json").write_bytes(b"\xef\xbb\xbf [ ] \n")
    assert list(json_entries(tmp_path / "x.json")) == []
    with pytest.raises(UserError, match="is missing or not a file"):
        list(json_entries(tmp_path / "y.json"))


# ---------------------------------------------------------------------------------------------- bare JSON


def test_a_bare_list_loads_with_its_images_undecoded(root, write):
    rows, dropped = load_rows(write([ROW, {**ROW, "image": "Images/S/b..JPG"}]), image_root=root)
    assert rows.column_names == list(QUESTION_FEATURES)
    assert rows[1]["images"] == [{"bytes": None, "path": str(root / "Images/S/b..JPG")}]
    assert rows[0]["id"] == row_id("Images/S/a.png", PROBLEM, "<answer> B </answer>") != rows[1]["id"]
    assert (rows[0]["source"], rows[0]["modality"], rows[0]["task"]) == ("S", None, None)
    assert row_images(rows[1], (384, 384))[0].getpixel((5, 5)) == (0, 0, 255)
    assert (dropped, summary(dropped)) == ([], "")


BAD_ROWS = [
    (7, "not-an-object"),
    (["image"], "not-an-object"),
    ({"image": "Images/S/a.png", "problem": PROBLEM}, "missing-key"),
    ({**ROW, "problem": 7}, "not-text"),
    ({**ROW, "solution": None}, "not-text"),
    ({**ROW, "problem": " "}, "not-text"),
    ({**ROW, "problem": "x \ud800 A)a, B)b"}, "not-text"),  # half a character
    ({**ROW, "problem": "How many cells?"}, "no-options"),
    ({**ROW, "problem": "How many? A)1, B)2, C)1"}, "repeated-option"),
    ({**ROW, "solution": "<answer> E </answer>"}, "solution-not-offered"),
    ({**ROW, "solution": "<answer> MRI </answer>"}, "bad-solution"),
    ({**ROW, "solution": "<answer> A </answer><answer> B </answer>"}, "bad-solution"),
    ({**ROW, "image": "Images/S/none.png"}, "missing"),
    ({**ROW, "image": "Images/S"}, "not-a-file"),
    ({**ROW, "image": "../root/Images/S/a.png"}, "outside-root"),
    ({**ROW, "image": "http://example.org/a.png"}, "url"),
    ({**ROW, "image": {"bytes": "x"}}, "not-text"),
    ({**ROW, "modality": "PET"}, "unknown-label"),
    (ROW, "repeated-question"),
]


def test_bad_rows_are_counted_and_named_and_end_nothing(root, write):
    rows, dropped = load_rows(write([ROW, *(row for row, _ in BAD_ROWS)]), image_root=root)
    assert len(rows) == 1
    assert [row.reason for row in dropped] == [reason for _, reason in BAD_ROWS]
    assert dropped[2].where == "questions.json entry 3"
    line = summary(dropped)
    assert line.startswith("19 rows dropped (5 not-text, 2 not-an-object, ")
    assert "'solution' is missing" in line
    assert line.endswith("and 16 more")
    assert "\n" not in line


def test_a_list_without_one_good_row_is_an_error(root, write):
    with pytest.raises(UserError, match=r"no row that can be used. 1 rows dropped \(1 missing-key\)"):
        load_rows(write([{}]), image_root=root)
    with pytest.raises(UserError, match="It is empty"):
        load_rows(write([]), image_root=root)


def test_a_bare_list_needs_an_image_root_that_is_there(root, write):
    path = write([ROW])
    with pytest.raises(UserError, match="--image_root"):
        load_rows(path)
    with pytest.raises(UserError, match="nowhere is not a folder"):
        load_rows(path, image_root=root / "nowhere")
    with pytest.raises(UserError, match=r"x\.json is not there"):
        load_rows(root / "x.json", image_root=root)


def test_labels_come_from_the_row_the_file_name_and_the_other_family(root, write, tmp_path):
    rows, _ = load_rows(write([{**ROW, "modality": "MR", "task": "MR"}]), image_root=root)
    assert (rows[0]["modality"], rows[0]["task"]) == ("MRI", "Modality Recognition")
    for folder in ("modality/test", "question_type/train"):
        (tmp_path / "splits" / folder).mkdir(parents=True)
    path = write([ROW], "splits/modality/test/MR (Mag-netic Resonance Imaging)_test.json")
    rows, _ = load_rows(path, image_root=root)
    assert (rows[0]["modality"], rows[0]["task"]) == ("MRI", None)
    write([ROW], "splits/question_type/train/Modality Recognition_train.json")
    rows, _ = load_rows(path, image_root=root)
    assert (rows[0]["modality"], rows[0]["task"]) == ("MRI", "Modality Recognition")


# ---------------------------------------------------------------------------------------------- saved sets


def saved(folder, rows, features, splits=("train", "test")):
    columns = {name: [row[name] for row in rows] for name in features}
    split_rows = datasets.Dataset.from_dict(columns, features=features)
    datasets.DatasetDict(dict.fromkeys(splits, split_rows)).save_to_disk(str(folder))
    return folder


def three(colour: str | None = "red", problem: str | None = PROBLEM, solution: str = "<answer> B </answer>"):
    image = None if colour is None else {"bytes": png(colour), "path": None}
    return {"image": image, "problem": problem, "solution": solution}


PUBLISHED = datasets.Features({name: FEATURES[name] for name in TEXT_KEYS})


def test_the_published_three_columns_load_with_ids_from_the_images(tmp_path):
    rows, dropped = load_rows(saved(tmp_path / "CT_384", [three(), three("blue")], PUBLISHED), "test")
    assert rows.column_names == list(QUESTION_FEATURES)
    assert rows[0]["images"][0]["bytes"] == png()
    assert rows[0]["id"] == row_id(png(), PROBLEM, "<answer> B </answer>")
    assert (rows[1]["source"], rows[1]["modality"], rows[1]["task"]) == ("", "CT", None)
    assert row_images(rows[1])[0].getpixel((0, 0)) == (0, 0, 255)
    assert image_key(rows[0]) != image_key(rows[1])
    assert dropped == []


def test_bad_rows_of_a_saved_set_are_dropped_with_their_reasons(tmp_path):
    rows = [
        three(),
        three(None),
        three("blue", "How many?"),
        three("blue", "How many? A)1, B)1"),
        three("blue", solution="<answer> F </answer>"),
        three("blue", None),
        three(),
        three("blue"),
    ]
    usable, dropped = load_rows(saved(tmp_path / "data", rows, PUBLISHED), "train")
    assert [row_images(row)[0].getpixel((0, 0)) for row in usable.to_list()] == [(255, 0, 0), (0, 0, 255)]
    assert [row.reason for row in dropped] == [
        "no-image",
        "no-options",
        "repeated-option",
        "solution-not-offered",
        "not-text",
        "repeated-question",
    ]
    assert dropped[0].where == "data train row 1"


def test_a_single_saved_set_needs_no_split(tmp_path):
    datasets.Dataset.from_list([three()], features=PUBLISHED).save_to_disk(str(tmp_path / "one"))
    assert len(load_rows(tmp_path / "one", "test")[0]) == 1
    saved(tmp_path / "only_test", [three()], PUBLISHED, ("test",))
    assert len(load_rows(tmp_path / "only_test")[0]) == 1


def test_a_split_that_is_missing_empty_or_not_chosen_is_an_error(tmp_path):
    saved(tmp_path / "a", [three()], PUBLISHED, ("test",))
    with pytest.raises(UserError, match="has no train split, only test"):
        load_rows(tmp_path / "a", "train")
    saved(tmp_path / "b", [three()], PUBLISHED)
    with pytest.raises(UserError, match="holds train, test; choose one of them"):
        load_rows(tmp_path / "b")
    saved(tmp_path / "c", [], PUBLISHED)
    with pytest.raises(UserError, match="c/test has no rows"):
        load_rows(tmp_path / "c", "test")


def test_a_folder_that_holds_something_else_is_an_error(tmp_path):
    (tmp_path / "photos").mkdir()
    with pytest.raises(UserError, match="photos holds no saved data set"):
        load_rows(tmp_path / "photos", "train")
    saved(tmp_path / "columns", [{"text": "x"}], datasets.Features({"text": datasets.Value("string")}))
    with pytest.raises(UserError, match="lacks the column image, problem, solution"):
        load_rows(tmp_path / "columns", "train")
    half = saved(tmp_path / "half", [three()], PUBLISHED)
    arrow = next((half / "train").glob("*.arrow"))
    arrow.write_bytes(arrow.read_bytes()[:50])
    with pytest.raises(UserError, match="half/train holds no saved data set that can be read"):
        load_rows(half, "train")
