"""Real questions of every set: all are loaded, with their images, and their right answers alone are graded as right."""

import json
from pathlib import Path
from typing import Any

import pytest
from vqa_sets import draw, prepared, rows_of

from open_r1.data.arrow_sets import QUESTION_FEATURES
from open_r1.data.loading import load_rows
from open_r1.data.row_images import row_images
from open_r1.data.vqa.report import Prepared
from open_r1.grading.expected import Expected, grade_answer
from open_r1.grading.grader import Outcome


def drawn(folder: Path, names: set[str]) -> Path:
    draw(folder, names)
    return folder


@pytest.fixture
def real_sets(real_dir: Path, tmp_path: Path) -> dict[str, Prepared]:
    """Sets of real rows; where their images may not be copied, with drawn ones."""
    forms, out = real_dir / "forms", tmp_path / "out"
    experts = [json.loads(line) for line in (forms / "medxpertqa_mm/MM/test.jsonl").read_text().splitlines()]
    images = drawn(tmp_path / "expert", {name for row in experts for name in row["images"]})
    slake = [
        row
        for name in ("train", "validate", "test")
        for row in json.loads((forms / f"slake/Slake1.0/{name}.json").read_text())
    ]
    pro = forms / "mmmu_pro/standard (10 options)/test.jsonl"
    ids = [json.loads(line)["id"] for line in pro.read_text().splitlines()]
    med = forms / "vqa_med_2019"
    tests = [str(med / "VQAMed2019Test/VQAMed2019_Test_Questions_w_Ref_Answers.txt")]
    lungs = drawn(tmp_path / "slake", {row["img_name"] for row in slake})
    structures = drawn(tmp_path / "pro", {f"{name}_{number}.png" for name in ids for number in range(1, 6)})
    sets = [
        *prepared("vqa_rad", forms / "vqa_rad", out),
        *prepared("slake", forms / "slake", out, only=("en", "zh"), image_root=lungs),
        *prepared("medxpertqa_mm", forms / "medxpertqa_mm", out, image_root=images),
        *prepared("mmmu_pro", [str(pro)], out, image_root=structures),
        *prepared("vqa_med_2019", tests, out, image_root=med),
    ]
    return {data_set.folder.name: data_set for data_set in sets}


def all_rows(data_set: Prepared) -> list[dict[str, Any]]:
    return [row for split in data_set.report["splits"] for row in rows_of(data_set, split)]


@pytest.mark.slow
def test_right_answers_are_right_and_others_are_not(real_sets: dict[str, Prepared]) -> None:
    assert len(real_sets) == 6
    for name, data_set in real_sets.items():
        rows = all_rows(data_set)
        assert len(rows) >= 6
        for row in rows:
            expected = Expected.of(row)
            assert expected.answer_type == row["answer_type"]
            for answer in (row["solution"], *row["aliases"]):
                text = answer if row["answer_type"] == "choice" else f"<think>?</think><answer>{answer}</answer>"
                assert grade_answer(text, expected).outcome is Outcome.CORRECT, (name, row["problem"], answer)
            assert grade_answer("<answer>the spleen of a goat</answer>", expected).outcome is not Outcome.CORRECT
            for letter in expected.options.keys() - {row["solution"][9:10]}:
                assert grade_answer(f"<answer> {letter} </answer>", expected).outcome is Outcome.WRONG


@pytest.mark.slow
def test_every_prepared_row_is_loaded_with_its_images(real_sets: dict[str, Prepared]) -> None:
    for data_set in real_sets.values():
        for split in data_set.report["splits"]:
            rows, dropped = load_rows(data_set.folder, split)
            assert dropped == []
            assert list(rows.column_names) == list(QUESTION_FEATURES)
            assert rows.to_list() == rows_of(data_set, split)
            row = rows[0]
            assert isinstance(row, dict)
            assert [image.mode for image in row_images(row)] == ["RGB"] * len(row["images"])
