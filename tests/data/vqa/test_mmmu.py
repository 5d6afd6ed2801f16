"""MMMU and MMMU-Pro: medical subjects, images as options and where markers name them."""

import json
from pathlib import Path
from typing import Any

import pytest
from vqa_sets import draw, prepared, reasons, rows_of, stored, write

from open_r1.common.errors import UserError
from open_r1.grading.problems import options_in


def mmmu_row(number: int, **changes: Any) -> dict[str, Any]:
    row = {
        "id": f"validation_Clinical_Medicine_{number}",
        "question": f"<image 1>What is shown in {number}?",
        "options": "['Cyst', \"Graves' disease\"]",
        "explanation": "",
        **{f"image_{place}": stored(f"{number}") if place == 1 else None for place in range(1, 8)},
        "img_type": "['Diagrams']",
        "answer": "B",
        "topic_difficulty": "Easy",
        "question_type": "multiple-choice",
        "subfield": "Radiology",
    }
    return {**row, **changes}


def images_at(*places: int) -> dict[str, Any]:
    return {f"image_{place}": stored(f"picture {place}") for place in places}


def test_mmmu_takes_the_medical_subjects(tmp_path: Path) -> None:
    rows = [
        mmmu_row(1),
        mmmu_row(2, id="validation_Art_2"),
        mmmu_row(3, id="validation_Pharmacy_3", options="[]", question_type="open", answer="B"),
        mmmu_row(4, options="[]", question_type="short-answer", answer="['8', 'eight']"),
        mmmu_row(5, answer="?"),
        mmmu_row(6, id="x"),
    ]
    for split in ("dev", "validation"):
        write(tmp_path / f"in/Clinical_Medicine/{split}-00000-of-00001.parquet", rows)
    write(tmp_path / "in/Pharmacy/validation-00000-of-00001.parquet", [mmmu_row(7, id="validation_Pharmacy_7")])
    (data_set,) = prepared("mmmu", tmp_path / "in", tmp_path / "out")
    assert {split: counts["rows"] for split, counts in data_set.report["splits"].items()} == {"dev": 3, "validation": 4}
    choice, letter, several, _ = rows_of(data_set, "validation")
    assert choice["problem"] == "<image>What is shown in 1?\nA) Cyst\nB) Graves' disease"
    assert (choice["solution"], choice["subject"]) == ("<answer> B </answer>", "Clinical_Medicine")
    assert (letter["answer_type"], letter["solution"], letter["subject"]) == ("open", "B", "Pharmacy")
    assert (several["solution"], several["aliases"]) == ("8", ["eight"])
    assert reasons(data_set) == {"no-label": 2, "unknown-subject": 2}
    assert data_set.report["left out"] == {"of another subject": 2}


def pro_row(**changes: Any) -> dict[str, Any]:
    row = mmmu_row(1, subject="Clinical_Medicine", **changes)
    del row["question_type"]
    return row


def prepared_pro(tmp_path: Path, *rows: dict[str, Any]) -> Any:
    write(tmp_path / "in/standard (10 options)/test-00000-of-00001.parquet", list(rows))
    (data_set,) = prepared("mmmu_pro", tmp_path / "in", tmp_path / "out")
    return data_set


def test_images_as_options_come_in_the_order_in_which_they_stand(tmp_path: Path) -> None:
    row = pro_row(
        question="Which structure is saturated?",
        options="['<image 3>', '<image 4>', '<image 2>', '<image 1>']",
        **images_at(1, 2, 3, 4),
    )
    data_set = prepared_pro(tmp_path, row)
    (loaded,) = rows_of(data_set, "test")
    assert loaded["problem"] == "Which structure is saturated?\nA) <image>\nB) <image>\nC) <image>\nD) <image>"
    plain = pro_row(question="<image 1><image 2><image 3><image 4>", **images_at(1, 2, 3, 4))
    in_order = rows_of(prepared_pro(tmp_path / "plain", plain), "test")[0]["images"]
    assert loaded["images"] == [in_order[2], in_order[3], in_order[1], in_order[0]]


def test_an_image_that_no_marker_names_comes_first_and_one_named_twice_is_shown_twice(tmp_path: Path) -> None:
    row = pro_row(question="See <image 2>, then <image 2> again.", **images_at(1, 2))
    (loaded,) = rows_of(prepared_pro(tmp_path, row), "test")
    assert loaded["problem"].startswith("<image>\nSee <image>, then <image> again.\nA) ")
    first, second, third = (image["path"] for image in loaded["images"])
    assert first != second == third


def test_without_markers_images_come_first_and_the_text_stays(tmp_path: Path) -> None:
    (loaded,) = rows_of(prepared_pro(tmp_path, pro_row(question="What is it?", **images_at(1, 2))), "test")
    assert loaded["problem"].startswith("What is it?\nA) ")
    assert len(loaded["images"]) == 2


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"question": "See <image 3>."}, "image-marks"),
        ({"options": repr([f"option {number}" for number in range(10_000)])}, "too-long"),
        ({"options": repr([str(number) for number in range(10_000)])}, "too-many-options"),
        ({"options": "['a'"}, "no-options"),
        ({"options": "__import__('os').getcwd()"}, "no-options"),
        ({"options": "[" * 50_000}, "no-options"),
        ({"options": "['a', 'a']"}, "repeated-option"),
        ({"options": "['a', '']"}, "empty-option"),
        ({"options": "['a']", "answer": "A"}, "too-few-options"),
        ({"answer": "C"}, "answer-not-offered"),
        ({"image_1": None}, "no-image"),
        ({"image_1": {"bytes": None, "path": "../../etc/passwd"}}, "outside-root"),
        ({"question": "<image 1>" * 17}, "too-many-images"),
    ],
)
def test_hostile_options_and_markers_cost_one_row(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    data_set = prepared_pro(tmp_path, pro_row(), pro_row(**changes))
    assert reasons(data_set) == {reason: 1}
    assert len(rows_of(data_set, "test")) == 1


def test_the_ten_options_are_read_unless_the_four_are_named(tmp_path: Path) -> None:
    for count, name in ((3, "standard (10 options)"), (2, "standard (4 options)")):
        row = pro_row(options=repr([f"option {number}" for number in range(count)]))
        write(tmp_path / f"in/{name}/test-00000-of-00001.parquet", [row])
    (ten,) = prepared("mmmu_pro", tmp_path / "in", tmp_path / "ten")
    (four,) = prepared("mmmu_pro", tmp_path / "in/standard (4 options)", tmp_path / "four")
    assert [len(options_in(rows_of(data_set, "test")[0]["problem"])) for data_set in (ten, four)] == [3, 2]
    assert ten.report["files not read"] == ["standard (4 options)/test-00000-of-00001.parquet"]


def test_a_file_of_answers_alone_is_refused(tmp_path: Path) -> None:
    path = write(
        tmp_path / "answer_dict_val.json", {"validation_Pharmacy_1": {"question_type": "x", "ground_truth": "A"}}
    )
    with pytest.raises(
        UserError, match=r"is no file of MMMU.*: its rows have question_type, ground_truth, id; MMMU as"
    ):
        prepared("mmmu", [f"validation={path}"], tmp_path / "out")


def test_the_real_file_of_answers_alone_is_refused(real_dir: Path, tmp_path: Path) -> None:
    path = real_dir / "forms/mmmu/mmmu/answer_dict_val.json"
    with pytest.raises(UserError, match=r"answer_dict_val.json is no file of MMMU .* its rows have question_type"):
        prepared("mmmu", [f"validation={path}"], tmp_path / "out")


@pytest.mark.slow
def test_real_rows_of_mmmu_pro(real_dir: Path, tmp_path: Path) -> None:
    (hub,) = prepared("mmmu_pro", real_dir / "forms/mmmu_pro_hub", tmp_path / "hub")
    assert [row["solution"][9] for row in rows_of(hub, "test")] == ["E", "A"]
    path = real_dir / "forms/mmmu_pro/standard (10 options)/test.jsonl"
    published = [json.loads(line) for line in path.read_text().splitlines()]
    draw(tmp_path / "images", {f"{row['id']}_{number}.png" for row in published for number in range(1, 6)})
    (data_set,) = prepared("mmmu_pro", [str(path)], tmp_path / "out", image_root=tmp_path / "images")
    rows = {row["problem"]: row for row in rows_of(data_set, "test")}
    as_options = next(row for problem, row in rows.items() if "plaque pH response" in problem)
    numbers = [image["path"].removesuffix(".png")[-1] for image in as_options["images"]]
    assert numbers == ["1", "3", "5", "2", "4"]
    assert as_options["solution"] == "<answer> C </answer>"
    assert data_set.report["splits"]["test"]["rows"] + len(data_set.report["dropped"]) == len(published)
    assert set(reasons(data_set)) <= {"no-image", "repeated-option"}
