"""SLAKE: a set for each language, what leaks between them, and the English test questions as CSV."""

import json
from pathlib import Path
from typing import Any

import pytest
from vqa_sets import draw, prepared, reasons, rows_of, stored, write

from open_r1.common.errors import UserError


def slake_row(number: int, language: str = "en", **changes: Any) -> dict[str, Any]:
    row = {
        "img_id": number,
        "img_name": f"xmlab{number}/source.jpg",
        "question": f"Is this a scan of case {number}?",
        "answer": "Yes",
        "q_lang": language,
        "location": "Lung",
        "modality": "X-Ray",
        "answer_type": "CLOSED",
        "base_type": "vqa",
        "content_type": "Modality",
        "triple": ["vhead", "_", "_"],
        "qid": number,
    }
    return {**row, **changes}


def slake_folder(folder: Path, **splits: list[dict[str, Any]]) -> Path:
    for name, rows in splits.items():
        write(folder / f"{name}.json", rows)
        draw(folder / "imgs", {row["img_name"] for row in rows})
    return folder


def test_english_is_prepared_unless_asked_otherwise(tmp_path: Path) -> None:
    folder = slake_folder(
        tmp_path / "in",
        train=[slake_row(1), slake_row(2, "zh", answer="是的")],
        validate=[slake_row(3)],
        test=[slake_row(4, answer="Heart", modality="MRI"), slake_row(5, answer="CT", answer_type="OPEN")],
    )
    (data_set,) = prepared("slake", folder, tmp_path / "out")
    assert data_set.folder.name == "slake_en"
    assert {split: counts["rows"] for split, counts in data_set.report["splits"].items()} == {
        "train": 1,
        "validation": 1,
        "test": 2,
    }
    assert data_set.report["left out"] == {"of zh": 1}
    heart, ct = rows_of(data_set, "test")
    assert (heart["answer_type"], heart["modality"], heart["subject"]) == ("closed", "MRI", "Modality")
    assert (ct["answer_type"], ct["modality"]) == ("open", "X-Ray")
    assert data_set.report["splits"]["test"]["closed"] == {"marked": 1, "yes or no": 0}
    assert heart["images"][0]["path"] == "imgs/xmlab4/source.jpg"


def test_the_other_language_leaks(tmp_path: Path) -> None:
    folder = slake_folder(
        tmp_path / "in",
        train=[slake_row(1), slake_row(2, "zh", question="是吗?", answer="不包含")],
        test=[slake_row(2), slake_row(3), slake_row(4, "zh", question="有吗?", answer="没有")],
    )
    english, chinese = prepared("slake", folder, tmp_path / "out", only=("en", "zh"))
    assert [english.folder.name, chinese.folder.name] == ["slake_en", "slake_zh"]
    assert english.report["overlaps"]["train -> test"]["images"] == 0
    assert english.against[str(chinese.folder)]["train -> test"]["images"] == 1  # without being asked
    assert chinese.report["splits"]["test"]["closed"] == {"marked": 1, "yes or no": 1}
    (compared,) = prepared("slake", folder, tmp_path / "out", against=(chinese.folder,))
    assert not compared.is_new
    assert compared.against[str(chinese.folder)]["train -> test"] == {
        "images": 1,
        "of_images": 2,
        "by_file": 1,
        "questions": 1,
        "of_questions": 2,
        "same_question": 0,
    }
    assert json.loads((english.folder / "against.json").read_text()) == compared.against


def test_a_language_that_is_not_there_is_named(tmp_path: Path) -> None:
    folder = slake_folder(tmp_path / "in", test=[slake_row(1, "zh")])
    with pytest.raises(UserError, match="there is no usable question of en; --only can be zh"):
        prepared("slake", folder, tmp_path / "out")


def test_empty_answers_and_other_languages_are_dropped(tmp_path: Path) -> None:
    rows = [slake_row(1), slake_row(2, answer=""), slake_row(3, "fr"), slake_row(4, answer_type="closed")]
    (data_set,) = prepared("slake", slake_folder(tmp_path / "in", train=rows), tmp_path / "out")
    assert reasons(data_set) == {"empty-text": 1, "unknown-language": 1}
    assert data_set.report["folded"] == {"answer_type spelled 'closed'": 1}


def test_csv_files_say_by_their_names_what_is_closed(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    header = "img_id,img_name,question,answer\n"
    (folder / "test_close.csv").write_text(
        f'{header}1,xmlab1/source.jpg,"Which is smaller, bladder or rectum?",Rectum\n'
    )
    (folder / "test_open.csv").write_text(f"{header}1,xmlab1/source.jpg,What is it?,CT\n")
    draw(folder / "imgs", ["xmlab1/source.jpg"])
    (data_set,) = prepared("slake", folder, tmp_path / "out")
    assert [(row["solution"], row["answer_type"]) for row in rows_of(data_set, "test")] == [
        ("Rectum", "closed"),
        ("CT", "open"),
    ]


def test_the_derived_parquet_is_english_and_marks_nothing(tmp_path: Path) -> None:
    rows = [{"image": stored("a"), "question": "is this a ct?", "answer": "no"}]
    write(tmp_path / "in/data/test-00000-of-00001.parquet", rows)
    (data_set,) = prepared("slake", tmp_path / "in", tmp_path / "out")
    assert data_set.folder.name == "slake_en"
    assert data_set.report["splits"]["test"]["closed"] == {"marked": None, "yes or no": 1}


def test_every_set_that_rows_could_be_of_is_named(tmp_path: Path) -> None:
    rows = [{"image": stored("a"), "question": "is this a ct?", "answer": "no"}]
    path = write(tmp_path / "test-00000-of-00001.parquet", rows)
    with pytest.raises(UserError, match=r"is not MedFrameQA: .* prepare it as vqa_rad or slake or pathvqa"):
        prepared("medframeqa", [str(path)], tmp_path / "out")


# ---------------------------------------------------------------------------------------------- real rows


def test_real_rows_with_drawn_images(real_dir: Path, tmp_path: Path) -> None:
    published = {
        name: json.loads((real_dir / f"forms/slake/Slake1.0/{name}.json").read_text())
        for name in ("train", "validate", "test")
    }
    folder = slake_folder(tmp_path / "in", **published)
    english, chinese = prepared("slake", folder, tmp_path / "out", only=("en", "zh"), against=())
    for data_set, language in ((english, "en"), (chinese, "zh")):
        usable = {
            name: [row for row in rows if row["q_lang"] == language and row["answer"]]
            for name, rows in published.items()
        }
        tests = rows_of(data_set, "test")
        assert [row["solution"] for row in tests] == [" ".join(row["answer"].split()) for row in usable["test"]]
        marked = sum(row["answer_type"] == "CLOSED" for row in usable["test"])
        assert data_set.report["splits"]["test"]["closed"]["marked"] == marked
        assert len(rows_of(data_set, "train")) == len(usable["train"])
    (compared,) = prepared("slake", folder, tmp_path / "out", against=(chinese.folder,))
    overlap = compared.against[str(chinese.folder)]["train -> test"]
    assert overlap["images"] == 2  # xmlab604 and xmlab77 were sampled for that; of the whole set 72 of 96 are


def test_real_csv_rows_are_rows_of_the_real_json(real_dir: Path, tmp_path: Path) -> None:
    source = real_dir / "forms/slake/Slake1.0"
    rows = json.loads((source / "test.json").read_text())
    draw(tmp_path / "images/imgs", {row["img_name"] for row in rows})
    files = [str(source / name) for name in ("test_close.csv", "test_open.csv")]
    (data_set,) = prepared("slake", files, tmp_path / "out", image_root=tmp_path / "images")
    marks = {(row["img_name"], row["question"], row["answer"]): row["answer_type"].lower() for row in rows}
    loaded = rows_of(data_set, "test")
    assert len(loaded) == 19
    for row in loaded:
        name = row["images"][0]["path"].removeprefix("imgs/")
        assert marks[name, row["problem"], row["solution"]] == row["answer_type"]
