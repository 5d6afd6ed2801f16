"""Questions from a release, from split files, from saved sets: what is read, what is dropped, and why."""

import json
from array import array
from collections import Counter
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import pytest
from PIL import Image

from open_r1.common.errors import UserError
from open_r1.data import json_lists
from open_r1.data.arrow_sets import FEATURES, QUESTION_FEATURES
from open_r1.data.json_lists import json_entries
from open_r1.data.loading import load_rows, summary
from open_r1.data.omnimedvqa.source import (
    Question,
    labels_beside,
    question_key,
    read_release,
    read_split_file,
    split_files,
)
from open_r1.data.omnimedvqa.summary import Outcome, Prepared, report_lines, set_report
from open_r1.data.row_images import image_key, row_images
from open_r1.data.rows import TEXT_KEYS, Dropped, leak, row_id
from open_r1.vocabulary.labels import Modality, Task, parse_label

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


# ---------------------------------------------------------------------------------------------- release

RELEASE_ROW = {
    "dataset": "S",
    "question_id": "S_0",
    "question_type": "Modality Recognition",
    "question": "Which method is it?",
    "gt_answer": "MRI",
    "image_path": "Images/S/a.png",
    "option_A": "CT",
    "option_B": "MRI",
    "option_C": "OCT, (B) scan",
    "modality_type": "MR (Mag-netic Resonance Imaging)",
}


def released(tmp_path, *rows):
    folder = tmp_path / "release" / "QA_information" / "Open-access"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "S.json").write_text(json.dumps(rows))
    return tmp_path / "release"


def test_a_release_row_becomes_the_published_form(tmp_path):
    (question,) = read_release(released(tmp_path, RELEASE_ROW))
    assert question == Question(
        "Images/S/a.png",
        "Which method is it? A)CT, B)MRI, C)OCT, (B) scan",
        "<answer> B </answer>",
        "S",
        Modality.MRI,
        Task.MODALITY,
    )


def test_release_answers_may_differ_in_case_and_options_may_be_numbers_or_empty(tmp_path):
    lower = {**RELEASE_ROW, "gt_answer": " mri"}
    numbers = {**RELEASE_ROW, "gt_answer": 3, "option_A": 2, "option_B": "", "option_C": None, "option_D": 3}
    both_cases = {**RELEASE_ROW, "gt_answer": "Mri", "option_A": "MRI", "option_B": "mri"}
    first_row, second, third = read_release(released(tmp_path, lower, numbers, both_cases))
    assert isinstance(first_row, Question)
    assert first_row.solution == "<answer> B </answer>"
    assert isinstance(second, Question)
    assert (second.problem, second.solution) == ("Which method is it? A)2, B)3", "<answer> B </answer>")
    assert isinstance(third, Dropped)
    assert third.reason == "solution-not-offered"  # two are as near


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"gt_answer": "PET"}, "solution-not-offered"),
        ({"option_A": "MRI"}, "repeated-option"),
        ({"option_A": "", "option_C": ""}, "no-options"),
        ({"option_A": ["CT"]}, "not-text"),
        ({"question": None}, "not-text"),
        ({"image_path": "/a.png"}, "absolute"),
        ({"modality_type": "Telepathy"}, "unknown-label"),
    ],
)
def test_a_release_row_that_cannot_be_used_says_why(tmp_path, change, reason):
    (dropped,) = read_release(released(tmp_path, {**RELEASE_ROW, **change}))
    assert isinstance(dropped, Dropped)
    assert (dropped.reason, dropped.where) == (reason, "Open-access/S.json entry 0")
    assert dropped.task is Task.MODALITY or reason == "unknown-label"


def test_a_row_without_a_modality_is_read_as_unlabelled(tmp_path):
    row = {**RELEASE_ROW, "modality_type": ""}
    (question,) = read_release(released(tmp_path, row))
    assert isinstance(question, Question)
    assert (question.modality, question.task) == (None, Task.MODALITY)


def test_a_folder_without_the_layout_says_what_is_expected(tmp_path):
    with pytest.raises(UserError, match="is not an OmniMedVQA release"):
        list(read_release(tmp_path))
    with pytest.raises(UserError, match="holds no split files"):
        split_files(tmp_path)


# ---------------------------------------------------------------------------------------------- ids and leaks


def test_ids_depend_on_every_part_and_never_change():
    assert row_id("Images/S/a.png", PROBLEM, "<answer> B </answer>") == "90450ff7404bb3ef"
    pieces = [("ab", "c", "d"), ("a", "bc", "d"), ("ab", "cd", ""), ("ab", "", "cd"), ("d", "c", "ab")]
    assert len({row_id(*piece) for piece in pieces}) == len(pieces)
    assert row_id(b"ab", "c", "d") == row_id("ab", "c", "d")


def test_the_leak_counts_test_questions_not_images():
    # test asks about a twice, b and c once; a and c are in train: 3 of 4
    overlap = leak(["a", "c", "c"], ["a", "a", "b", "c"])
    assert (overlap.questions, overlap.shared, overlap.percent) == (4, 3, 75.0)
    assert leak(["a"], []).percent == 0.0


def leak_line(shared: int, test: int, train: int) -> str:
    """What a preparation prints of a set in which `shared` of its test questions show an image of train."""
    images = [*range(train), *range(shared), *range(train, train + test - shared)]
    questions: Any = SimpleNamespace(image_index=images, task=lambda index: Task.GRADING)
    used = {"train": array("I", range(train)), "test": array("I", range(train, train + test))}
    report = set_report(Modality.CT, questions, used, lambda image: image, [])  # type: ignore[arg-type]
    lines = report_lines(Outcome([Prepared(Path("CT_384"), True, report)], [], {}))
    return next(line for line in lines if "leak" in line)


def test_shares_are_rounded_once_from_their_counts():
    # 100 * 241 / 1306 = 18.4533 and 100 * 308 / 1110 = 27.7477; rounded to 18.45 and 27.75 first they became 18.4, 27.8
    assert "18.5 % of the test questions (241)" in leak_line(241, 1306, 400)
    assert "27.7 % of the test questions (308)" in leak_line(308, 1110, 400)
    assert "27.7 % by its content" in leak_line(308, 1110, 400)


def test_no_share_is_named_where_one_side_is_missing():
    assert leak_line(0, 10, 0) == "  leak: not known, as there is no train question here"
    assert leak_line(0, 0, 10) == "  leak: not known, as there is no test question here"


# ---------------------------------------------------------------------------------------------- the real files

# Train and test questions, from the published counts.
COUNTS = {
    Modality.CT: (12567, 3241),
    Modality.MRI: (25507, 6370),
    Modality.FUNDUS: (4300, 1098),
    Modality.OCT: (3798, 848),
    Task.ANATOMY: (13119, 3329),
    Task.GRADING: (1662, 436),
    Task.MODALITY: (9173, 2392),
    Task.ATTRIBUTES: (2794, 704),
    None: (1, 0),
}


@pytest.mark.slow
def test_real_split_files_are_named_and_counted_as_published(real_dir):
    files = split_files(real_dir / "omnimedvqa_splits")
    assert len(files) == 13
    for path, split in files:
        rows = list(read_split_file(path, split))
        assert len(rows) == COUNTS[split.label][split.split == "test"], path
        reasons = Counter(row.reason for row in rows if isinstance(row, Dropped))
        assert set(reasons) <= {"repeated-option"}, path
        assert reasons.total() == (3 if (split.label, split.split) in REPEATED else 0)


REPEATED = {(Task.GRADING, "train"), (Task.MODALITY, "test")}  # 'A)SPECT, B)Ultrasound, C)SPECT' and the like


@pytest.mark.parametrize(("label", "percent"), [(Modality.OCT, 29.8), (Modality.FUNDUS, 9.7)])
def test_the_published_splits_leak_as_measured(real_dir, label, percent):
    images = {
        split.split: [row.image for row in read_split_file(path, split) if isinstance(row, Question)]
        for path, split in split_files(real_dir / "omnimedvqa_splits")
        if split.label is label
    }
    assert round(leak(images["train"], images["test"]).percent, 1) == percent


def test_real_labels_are_joined_from_the_other_family(real_dir):
    splits = real_dir / "omnimedvqa_splits"
    (path, split), *_ = [item for item in split_files(splits) if item[1].label is Modality.OCT]
    labels = labels_beside(path)
    joined = Counter(labels.get(question_key(row.image, row.problem)) for row in read_split_file(path, split))  # type: ignore[union-attr]
    # OCT is never asked for anatomy or grades (published counts 0), and only two task files lie here with both sides.
    assert set(joined) == {Task.MODALITY, Task.ATTRIBUTES, None}
    assert joined[Task.ATTRIBUTES] > 1300  # all 1,697 are here, four in five of them in train
    assert parse_label(path.name) is Modality.OCT


def test_the_module_has_one_home_for_columns():
    assert tuple(FEATURES)[:3] == TEXT_KEYS
