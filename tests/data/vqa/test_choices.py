"""The multiple-choice sets: options and answers in every published spelling, several images, images as options."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from vqa_sets import draw, prepared, reasons, rows_of, stored, write

from open_r1.data.rows import RowError
from open_r1.data.vqa.options import LONGEST_LITERAL, listed_options, literal, without_prefix
from open_r1.grading.grader import Outcome, grade
from open_r1.grading.problems import options_in


def write_csv(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


# ---------------------------------------------------------------------------------------------- PMC-VQA

FIRST = {
    "Figure_path": "PMC1_F1.jpg",
    "Question": "What is the uptake pattern?",
    "Answer": "Focal uptake",
    "Choice A": "A:Diffuse uptake",
    "Choice B": "B:Focal uptake",
    "Choice C": "C: C: elegans",
    "Choice D": "D:None of the above",
    "Answer_label": "B",
}
SECOND = {
    "index": "35",
    "Figure_path": "PMC2_Fig4_11.jpg",
    "Caption": "Golgi complexes (red)",
    "Question": " What color is used? ",
    "Choice A": " A: Green ",
    "Choice B": " B: Red ",
    "Choice C": " C: Light blue ",
    "Choice D": " D: Yellow",
    "Answer": "B",
    "split": "test",
}


def test_pmc_vqa_reads_the_first_version_and_the_checked_test(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    early = {("Anwser" + key.removeprefix("Answer") if key.startswith("Answer") else key): FIRST[key] for key in FIRST}
    write_csv(folder / "train.csv", [early])
    write_csv(folder / "test_clean.csv", [FIRST])
    write_csv(folder / "test.csv", [FIRST, FIRST])
    write_csv(folder / "test_2.csv", [SECOND])
    draw(folder / "images", ["PMC1_F1.jpg"])
    (data_set,) = prepared("pmc_vqa", folder, tmp_path / "out")
    assert data_set.folder.name == "pmc_vqa"
    (row,) = rows_of(data_set, "test")
    assert row["solution"] == "<answer> B </answer>"
    assert options_in(row["problem"]) == {
        "A": "Diffuse uptake",
        "B": "Focal uptake",
        "C": "C: elegans",
        "D": "None of the above",
    }
    assert data_set.report["files not read"] == ["test.csv", "test_2.csv"]
    assert rows_of(data_set, "train")[0]["problem"] == row["problem"]


def test_pmc_vqas_second_version_is_a_set_of_its_own_and_hides_captions(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "in/test_2.csv", [SECOND])
    draw(tmp_path / "in/figures", ["PMC2_Fig4_11.jpg"])
    (data_set,) = prepared("pmc_vqa", [str(path)], tmp_path / "out")
    assert data_set.folder.name == "pmc_vqa_v2"
    (row,) = rows_of(data_set, "test")
    assert row["problem"] == "What color is used?\nA) Green\nB) Red\nC) Light blue\nD) Yellow"
    assert data_set.report["folded"] == {"white space in an option": 4, "white space in the question": 1}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"Answer": "Diffuse uptake"}, "answer-contradicts"),
        ({"Answer_label": "E"}, "answer-not-offered"),
        ({"Choice A": "A:Focal uptake"}, "repeated-option"),
        ({"Choice D": ""}, "empty-text"),
        ({"Figure_path": "../secret.jpg"}, "outside-root"),
        ({"Figure_path": "https://example.org/a.jpg"}, "url"),
        ({"Figure_path": "gone.jpg"}, "missing"),
    ],
)
def test_pmc_vqa_drops_what_cannot_be_used(tmp_path: Path, changes: dict[str, str], reason: str) -> None:
    path = write_csv(tmp_path / "in/test.csv", [FIRST, {**FIRST, **changes}])
    draw(tmp_path / "in/images", ["PMC1_F1.jpg"])
    (data_set,) = prepared("pmc_vqa", [str(path)], tmp_path / "out")
    assert reasons(data_set) == {reason: 1}
    assert len(rows_of(data_set, "test")) == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        *(("A:Green", "Green"), (" A: Green ", "Green"), (" A : Green", "Green"), ("A) Green", "Green")),
        *(("Green", "Green"), ("B: Green", "B: Green"), ("A: A: x", "A: x"), ("A:", "A:"), ("Apple", "Apple")),
    ],
)
def test_the_letter_before_an_option_is_removed_once(text: str, expected: str) -> None:
    assert without_prefix("A", text) == expected


def test_real_rows_of_pmc_vqa(real_dir: Path, tmp_path: Path) -> None:
    source = real_dir / "forms/pmc_vqa"
    for name in ("train.csv", "train_2.csv", "test_2.csv"):
        with (source / name).open(newline="") as file:
            draw(tmp_path / "images", {row["Figure_path"] for row in csv.DictReader(file)})
    files = [str(source / name) for name in ("train_2.csv", "test_2.csv")]
    (data_set,) = prepared("pmc_vqa", files, tmp_path / "out", image_root=tmp_path / "images")
    with (source / "test_2.csv").open(newline="") as file:
        published = list(csv.DictReader(file))
    rows = rows_of(data_set, "test")
    assert [row["solution"] for row in rows] == [f"<answer> {row['Answer']} </answer>" for row in published]
    for row, original in zip(rows, published, strict=True):
        right = original[f"Choice {original['Answer']}"].strip().split(":", 1)[1].strip()
        assert options_in(row["problem"])[original["Answer"]] == right
        assert original["Caption"].strip() not in row["problem"]


# ---------------------------------------------------------------------------------------------- MedXpertQA MM

HUB = {
    "id": "MM-26",
    "question": 'What do Figure A and Figure B show?\nAnswer Choices: (A) Cyst (B) Graves" disease (C) None',
    "options": {"A": "Cyst", "B": 'Graves" disease', "C": "None"},
    "label": "B",
    "images": ["MM-26-a.jpeg", "MM-26-b.JPG"],
    "medical_task": "Basic Medicine",
    "body_system": "Endocrine",
    "question_type": "Reasoning",
}


def github(row: dict[str, Any]) -> dict[str, Any]:
    return {
        **row,
        "options": [{"letter": letter, "content": text} for letter, text in row["options"].items()],
        "label": [row["label"]],
        "images": [{"image_path": name} for name in row["images"]],
        "medical_task": row["medical_task"].replace("Medicine", "Science"),
    }


def test_both_forms_of_medxpertqa_give_the_same_rows(tmp_path: Path) -> None:
    draw(tmp_path / "images", HUB["images"])
    write(tmp_path / "hub/MM/test.jsonl", [HUB])
    write(tmp_path / "github/medxpertqa_mm_input.jsonl", [github(HUB)])
    (hub,) = prepared("medxpertqa_mm", tmp_path / "hub", tmp_path / "a", image_root=tmp_path)
    (repository,) = prepared("medxpertqa_mm", tmp_path / "github", tmp_path / "b", image_root=tmp_path)
    assert rows_of(hub, "test") == rows_of(repository, "test")
    (row,) = rows_of(hub, "test")
    assert row["problem"] == 'What do Figure A and Figure B show?\nA) Cyst\nB) Graves" disease\nC) None'
    assert (row["solution"], row["subject"], row["answer_type"]) == ("<answer> B </answer>", "Basic Medicine", "choice")
    assert [image["path"] for image in row["images"]] == ["images/MM-26-a.jpeg", "images/MM-26-b.JPG"]


def test_names_with_another_case_of_the_extension_are_found(tmp_path: Path) -> None:
    write(tmp_path / "MM/test.jsonl", [{**HUB, "images": ["MM-26-a.jpg"]}])
    draw(tmp_path / "images", ["MM-26-a.JPG"])
    (data_set,) = prepared("medxpertqa_mm", tmp_path, tmp_path / "out")
    assert rows_of(data_set, "test")[0]["images"][0]["path"] == "images/MM-26-a.JPG"


def test_an_image_that_is_missing_in_part_drops_the_whole_question(tmp_path: Path) -> None:
    write(tmp_path / "MM/test.jsonl", [HUB, {**HUB, "images": ["MM-26-a.jpeg"]}, {**HUB, "images": []}])
    draw(tmp_path / "images", ["MM-26-a.jpeg"])
    (data_set,) = prepared("medxpertqa_mm", tmp_path, tmp_path / "out")
    assert reasons(data_set) == {"missing": 1, "no-image": 1}
    assert [len(row["images"]) for row in rows_of(data_set, "test")] == [1]


def test_options_that_are_letters_are_graded_by_their_own_letter(tmp_path: Path) -> None:
    options = {"A": "B", "B": "A", "C": "C", "D": "D", "E": "E"}
    write(tmp_path / "MM/test.jsonl", [{**HUB, "question": "Which one?", "options": options, "label": "A"}])
    draw(tmp_path / "images", HUB["images"])
    (data_set,) = prepared("medxpertqa_mm", tmp_path, tmp_path / "out")
    (row,) = rows_of(data_set, "test")
    offered = options_in(row["problem"])
    assert offered == options
    for completion, outcome in (("A", "correct"), ("<answer> A </answer>", "correct"), ("<answer>B</answer>", "wrong")):
        assert grade(completion, row["solution"], offered).outcome == Outcome(outcome), completion


@pytest.mark.slow
def test_real_rows_of_medxpertqa_are_the_same_in_both_forms(real_dir: Path, tmp_path: Path) -> None:
    source = real_dir / "forms/medxpertqa_mm"
    published = [json.loads(line) for line in (source / "MM/test.jsonl").read_text().splitlines()]
    draw(tmp_path / "images", {name for row in published for name in row["images"]})
    (hub,) = prepared("medxpertqa_mm", source, tmp_path / "a", image_root=tmp_path)
    path = source / "eval/data/medxpertqa/input/medxpertqa_mm_input.jsonl"
    (repository,) = prepared("medxpertqa_mm", [f"test={path}"], tmp_path / "b", image_root=tmp_path)
    rows = rows_of(hub, "test")
    assert rows == rows_of(repository, "test")
    assert hub.report["dropped"] == []
    assert hub.report["splits"]["test"]["images of a row"] == {"1": 27, "2": 23, "3": 3, "4": 4, "5": 3}
    for row, original in zip(rows, published, strict=True):
        assert options_in(row["problem"]) == {k: " ".join(v.split()) for k, v in original["options"].items()}
        assert "Answer Choices:" not in row["problem"]
        assert row["solution"] == f"<answer> {original['label']} </answer>"


# ---------------------------------------------------------------------------------------------- MedFrameQA


def test_medframeqa_has_up_to_six_options_and_five_frames(tmp_path: Path) -> None:
    row = {
        "question_id": "q1",
        "system": "digestive",
        "modality": "Ultrasound",
        "question": "What do the frames show?",
        "options": [f"finding {number}" for number in range(6)],
        **{f"image_{place}": stored(f"frame {place}") if place < 4 else None for place in range(1, 6)},
        "correct_answer": "F",
        "reasoning_chain": "not shown",
    }
    rows = [row, {**row, "modality": "Other", "question": "And now?", "correct_answer": "G"}]
    write(tmp_path / "in/data/test-00000-of-00001.parquet", [*rows, {**row, "modality": "PET"}])
    (data_set,) = prepared("medframeqa", tmp_path / "in", tmp_path / "out")
    first, second = rows_of(data_set, "test")
    assert (first["solution"], len(first["images"]), first["subject"]) == ("<answer> F </answer>", 3, "digestive")
    assert (first["modality"], second["modality"]) == ("Ultrasound", None)
    assert "not shown" not in first["problem"]
    assert reasons(data_set) == {"answer-not-offered": 1}


# ---------------------------------------------------------------------------------------------- Huatuo


def test_every_data_set_of_huatuos_file_is_a_set(tmp_path: Path) -> None:
    row = {"question": "Is it?", "options": ["Yes", "No"], "answer": "No", "image": ["images/a.jpg"]}
    omni = {**row, "dataset": "OmniMedVQA", "subset": "MR (Mag-netic Resonance Imaging)", "test_id": 1}
    rows = [
        omni,
        {**omni, "question": "And OCT?", "subset": "OCT (Optical Coherence Tomography"},
        {**row, "dataset": "SLAKE_test", "subset": "", "answer": "no."},
        {
            **row,
            "dataset": "MMMU_Medical_Validation",
            "question": "<image 2> or <image 1>?",
            "image": ["a.jpg", "b.jpg"],
        },
        {**row, "dataset": "SLAKE_test", "answer": "maybe"},
        row,
    ]
    write(tmp_path / "in/medical_multimodel_evaluation_data.json", rows)
    draw(tmp_path / "in/images", ["a.jpg", "b.jpg"])
    omnimed, slake, mmmu = prepared("huatuo", tmp_path / "in", tmp_path / "out", image_root=tmp_path / "in/images/..")
    assert [data_set.folder.name for data_set in (omnimed, slake)] == ["huatuo_OmniMedVQA", "huatuo_SLAKE_test"]
    assert [row["modality"] for row in rows_of(omnimed, "test")] == ["MRI", "OCT"]
    (yes_no,) = rows_of(slake, "test")
    assert (yes_no["solution"], yes_no["answer_type"], yes_no["source"]) == (
        "<answer> B </answer>",
        "choice",
        "SLAKE_test",
    )
    assert reasons(slake) == {"solution-not-offered": 1}
    assert [Path(image["path"]).name for image in rows_of(mmmu, "test")[0]["images"]] == ["b.jpg", "a.jpg"]
    (alone,) = prepared("huatuo", tmp_path / "in", tmp_path / "alone", only=("SLAKE_test",))
    assert rows_of(alone, "test") == rows_of(slake, "test")


# ---------------------------------------------------------------------------------------------- MedVLThinker


def test_medvlthinkers_options_are_json_in_a_text(tmp_path: Path) -> None:
    options = json.dumps({"A": "<image 2>", "B": "<image 1>"})
    row = {"images": [stored("a"), stored("b")], "question": "Which?", "options": options, "answer_label": "B"}
    rows = [{**row, "dataset_name": "MMMU-medical"}, {**row, "dataset_name": "slake_closed", "options": "{"}]
    rows.append({**rows[1], "options": json.dumps({"A": "yes", "B": "no"})})
    write(tmp_path / "in/data/test-00000-of-00001.parquet", rows)
    mmmu, slake = prepared("medvlthinker", tmp_path / "in", tmp_path / "out")
    (by_image,) = rows_of(mmmu, "test")
    assert by_image["problem"] == "Which?\nA) <image>\nB) <image>"
    assert (by_image["source"], by_image["solution"]) == ("MMMU-medical", "<answer> B </answer>")
    (yes_no,) = rows_of(slake, "test")
    assert yes_no["answer_type"] == "choice"
    assert by_image["images"] == yes_no["images"][::-1]
    assert reasons(slake) == {"no-options": 1}


# ---------------------------------------------------------------------------------------------- spellings


@pytest.mark.parametrize(
    "value",
    [
        {"A": "x", "B": "y, z"},
        ["x", "y, z"],
        [{"letter": "A", "content": "x"}, {"letter": "B", "content": "y, z"}],
        '{"A": "x", "B": "y, z"}',
        '["x", "y, z"]',
        "['x', 'y, z']",
        "('x', 'y, z')",
        ["A. x", "B. y, z"],
    ],
)
def test_options_of_every_spelling(value: Any) -> None:
    assert listed_options(value) == {"A": "x", "B": "y, z"}


@pytest.mark.parametrize("value", ["", "x", "5", None, 5, "'x'", "{1: " * 9000, "f(1)", "x" * (LONGEST_LITERAL + 1)])
def test_what_is_no_list_of_options_is_one_error(value: Any) -> None:
    with pytest.raises(RowError):
        listed_options(value)


def test_nothing_in_a_literal_is_run(tmp_path: Path) -> None:
    with pytest.raises(RowError):
        literal(f"[open({str(tmp_path / 'trace')!r}, 'w')]")
    assert not (tmp_path / "trace").exists()
