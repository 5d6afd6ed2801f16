"""VQA-RAD in its three forms: both counts of closed questions, dirty types, and VQA-Med under its file names."""

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest
from vqa_sets import draw, prepared, rad_folder, rad_row, reasons, rows_of, stored, write

from open_r1.common.errors import UserError


def test_the_official_test_is_what_the_phrase_type_says(tmp_path: Path) -> None:
    phrase_types = ("freeform", "para", "test_freeform", "test_para")
    folder = rad_folder(tmp_path / "in", [rad_row(n, phrase_type=kind) for n, kind in enumerate(phrase_types)])
    (data_set,) = prepared("vqa_rad", folder, tmp_path / "out")
    assert data_set.folder == tmp_path / "out" / "vqa_rad"
    assert [len(rows_of(data_set, split)) for split in ("train", "test")] == [2, 2]
    row = rows_of(data_set, "test")[0]
    assert (row["problem"], row["solution"], row["answer_type"]) == ("Is there a lesion in case 2?", "Yes", "closed")
    assert (row["source"], row["subject"], row["modality"], row["aliases"]) == ("VQA-RAD", "CHEST", None, [])
    assert row["images"][0]["path"] == "VQA_RAD Image Folder/synpic2.jpg"


def test_dirty_types_are_folded_and_counted(tmp_path: Path) -> None:
    rows = [
        rad_row(0, qid="0"),
        rad_row(1, answer=4, answer_type="OPEN"),
        rad_row(2, answer_type="CLOSED "),
        rad_row(3, answer="\tright  lung ", answer_type="OPEN"),
        rad_row(4, question="What \ufffd is it?", answer="5mm", answer_type="OPEN"),
        rad_row(5, answer=""),
        rad_row(6, answer_type="MAYBE"),
        rad_row(7, phrase_type="NULL"),
        rad_row(8, answer=None),
        {key: value for key, value in rad_row(9).items() if key != "question_frame"},
    ]
    (data_set,) = prepared("vqa_rad", rad_folder(tmp_path / "in", rows), tmp_path / "out")
    assert [row["solution"] for row in rows_of(data_set, "train")] == ["Yes", "4", "Yes", "right lung", "5mm", "Yes"]
    assert [row["answer_type"] for row in rows_of(data_set, "train")] == [
        *("closed", "open", "closed", "open", "open", "closed"),
    ]
    assert data_set.report["folded"] == {
        "a lost character (U+FFFD) in question, left as it is": 1,
        "answer is a number": 1,
        "answer_type spelled 'CLOSED '": 1,
        "white space in answer": 1,
    }
    assert reasons(data_set) == {"empty-text": 1, "unknown-answer-type": 1, "unknown-split": 1, "missing-key": 1}


@pytest.mark.parametrize(("closed", "types"), [("marked", "closed closed open"), ("yes_no", "closed open open")])
def test_closed_is_what_is_marked_or_what_is_yes_or_no(tmp_path: Path, closed: str, types: str) -> None:
    rows = [
        rad_row(0, answer="no", phrase_type="test_para"),
        rad_row(1, answer="Left", phrase_type="test_para"),
        rad_row(2, answer="Left", answer_type="OPEN", phrase_type="test_para"),
    ]
    (data_set,) = prepared("vqa_rad", rad_folder(tmp_path / "in", rows), tmp_path / "out", closed=closed)
    assert " ".join(row["answer_type"] for row in rows_of(data_set, "test")) == types
    assert data_set.report["splits"]["test"]["closed"] == {"marked": 2, "yes or no": 1}


def mevf_rows(count: int, **changes: object) -> list[dict[str, object]]:
    rows = [rad_row(number, **changes) for number in range(count)]
    return [
        {key: value for key, value in row.items() if key not in ("qid_linked_id", "question_frame")} for row in rows
    ]


def test_mevfs_files_say_the_split(tmp_path: Path) -> None:
    write(tmp_path / "in/data_RAD/trainset.json", mevf_rows(3, phrase_type="frame"))
    write(tmp_path / "in/data_RAD/testset.json", mevf_rows(2))
    draw(tmp_path / "in/data_RAD/images", [f"synpic{number}.jpg" for number in range(3)])
    (data_set,) = prepared("vqa_rad", tmp_path / "in", tmp_path / "out")
    assert data_set.report["form"] == "VQA-RAD as MEVF publishes it"
    assert {split: counts["rows"] for split, counts in data_set.report["splits"].items()} == {"train": 3, "test": 2}
    overlap = data_set.report["overlaps"]["train -> test"]
    assert (overlap["images"], overlap["of_images"], overlap["same_question"]) == (2, 2, 2)


VQA_MED = {"answer": "xr - plain film", "answer_type": "OPEN", "question_type": "MODALITY"}


@pytest.mark.parametrize("organ", [None, "CHEST"])
def test_vqa_med_under_mevfs_names_is_refused_by_name(tmp_path: Path, organ: str | None) -> None:
    rows = mevf_rows(4, image_organ=organ, **VQA_MED)
    for row in rows:
        if organ is None:
            del row["image_organ"]
    path = write(tmp_path / "trainset.json", rows)
    with pytest.raises(UserError, match=r"trainset.json is not VQA-RAD.*VQA-Med 2019.*prepare it as vqa_med_2019"):
        prepared("vqa_rad", [str(path)], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_hubs_form_marks_nothing(tmp_path: Path) -> None:
    rows = [
        {"image": stored("a"), "question": "is the lung healthy?", "answer": "no"},
        {"image": stored("b"), "question": "what is seen?", "answer": "a mass"},
    ]
    write(tmp_path / "in/data/train-00000-of-00001.parquet", rows)
    write(tmp_path / "in/data/test-00000-of-00001.parquet", rows[:1])
    (data_set,) = prepared("vqa_rad", tmp_path / "in", tmp_path / "out")
    assert [row["answer_type"] for row in rows_of(data_set, "train")] == ["closed", "open"]
    assert data_set.report["splits"]["train"]["closed"] == {"marked": None, "yes or no": 1}
    assert data_set.report["overlaps"]["train -> test"]["images"] == 1


@pytest.mark.slow
def test_a_longer_file_of_the_same_columns_is_another_set(tmp_path: Path) -> None:
    rows = [{"image": stored("a"), "question": f"is it {number}?", "answer": "no"} for number in range(1798)]
    write(tmp_path / "in/train-00000-of-00001.parquet", rows)
    with pytest.raises(UserError, match="more than the 1,797 rows of VQA-RAD as the hub has it, so it is another set"):
        prepared("vqa_rad", tmp_path / "in", tmp_path / "out")


# ---------------------------------------------------------------------------------------------- real rows


@pytest.fixture
def real_rad(real_dir: Path) -> Path:
    return real_dir / "forms" / "vqa_rad"


def test_real_rows_with_their_own_images(real_rad: Path, tmp_path: Path) -> None:
    (data_set,) = prepared("vqa_rad", real_rad, tmp_path / "out")
    published = json.loads((real_rad / "VQA_RAD Dataset Public.json").read_text())
    files = {path.name for path in (real_rad / "VQA_RAD Image Folder").iterdir()}
    usable = [row for row in published if row["image_name"] in files]
    assert 0 < len(usable) < len(published)
    tests = [row for row in usable if row["phrase_type"].startswith("test_")]
    assert [row["solution"] for row in rows_of(data_set, "test")] == [str(row["answer"]).strip() for row in tests]
    assert reasons(data_set) == {"missing": len(published) - len(usable)}
    marks = Counter(row["answer_type"].strip() for row in tests)
    assert data_set.report["splits"]["test"]["closed"]["marked"] == marks["CLOSED"]
    assert data_set.report["folded"]["answer is a number"] == sum(isinstance(row["answer"], int) for row in published)
    overlap = data_set.report["overlaps"]["train -> test"]
    assert overlap["images"] == overlap["of_images"] == 6  # of the whole set 202 of 203 are


def test_real_rows_of_mevf_with_drawn_images(real_dir: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(real_dir / "forms/vqa_rad_mevf/data_RAD", tmp_path / "data_RAD"))
    folder.chmod(0o755)
    published = {side: json.loads((folder / f"{side}set.json").read_text()) for side in ("train", "test")}
    draw(folder / "images", {row["image_name"] for rows in published.values() for row in rows})
    (data_set,) = prepared("vqa_rad", tmp_path, tmp_path / "out")
    counts = {split: counts["rows"] for split, counts in data_set.report["splits"].items()}
    assert counts == {side: len(rows) for side, rows in published.items()}
    assert data_set.report["dropped"] == []


def test_the_real_hub_form_is_found_again_in_the_real_file(real_dir: Path, real_rad: Path, tmp_path: Path) -> None:
    prepared("vqa_rad", real_rad, tmp_path / "osf")
    (hub,) = prepared("vqa_rad", real_dir / "forms/vqa_rad_hub", tmp_path / "hub", against=(tmp_path / "osf/vqa_rad",))
    overlap = hub.against[str(tmp_path / "osf/vqa_rad")]["test -> test"]
    assert (overlap["images"], overlap["same_question"]) == (overlap["of_images"], overlap["of_questions"]) == (5, 8)
