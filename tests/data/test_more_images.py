"""A key that changes what a question is costs the row, by name: images of text questions, further images."""

import json
from typing import Any

import datasets
import pytest
from PIL import Image

from open_r1.common.errors import UserError
from open_r1.data.loading import load_rows
from open_r1.data.omnimedvqa.source import Question, read_release
from open_r1.data.rows import Dropped
from open_r1.data.text.sources import read_file

TEXT = {"question": "What is shown?", "options": {"A": "x", "B": "y"}, "label": "A"}
IMAGES: list[dict[str, Any]] = [
    {"images": ["MM-26-a.jpeg"]},
    {"images": [{"image_path": "a.jpeg"}]},
    {"image_1": {"bytes": "x"}},
    {"Figure_path": "PMC1.jpg"},
    {"picture_url": "a.jpg"},
    {"img_name": "xmlab1/source.jpg"},
    {"image": "iVBORw0KGgo="},
    {"question": "What does <image 1> show?"},
    {"question": "What is seen?\n<image>"},
    {"options": {"A": "<image 2>", "B": "<image 3>"}},
]


@pytest.mark.parametrize("change", IMAGES, ids=[json.dumps(change)[:40] for change in IMAGES])
def test_a_text_reader_drops_questions_about_images(tmp_path, change):
    rows = [TEXT | {"question": "Without an image?", "images": [], "image": None}, TEXT | change]
    (tmp_path / "mm.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    reading = read_file("medxpertqa", tmp_path / "mm.jsonl")
    assert [question.question for question in reading.questions] == ["Without an image?"]
    assert [(row.where, row.reason) for row in reading.dropped] == [("mm.jsonl row 1", "has-images")]


def test_a_file_of_images_alone_is_refused_with_the_reason(real_dir):
    with pytest.raises(UserError, match="shows images"):
        read_file("medxpertqa", next((real_dir / "forms" / "medxpertqa_mm").rglob("*.jsonl")))


MORE = [
    {"images": ["a.png", "b.png"]},
    {"image_2": "b.png"},
    {"picture_2": "b.png"},
    {"pictures": ["a.png", "b.png"]},
    {"video": "a.mp4"},
]
SAME = [{"images": ["a.png"]}, {"image_2": None, "images": []}, {"image_id": 7, "image_size": 384}]


@pytest.mark.parametrize("change", MORE + SAME)
def test_a_image_list_drops_questions_about_several(tmp_path, change):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    row = {"image": "a.png", "problem": "Which? A)x, B)y", "solution": "A"}
    (tmp_path / "rows.json").write_text(json.dumps([row, {**row, "problem": "What? A)x, B)y", **change}]))
    usable, dropped = load_rows(tmp_path / "rows.json", None, tmp_path)
    assert len(usable) == (1 if change in MORE else 2)
    assert [entry.reason for entry in dropped] == (["several-images"] if change in MORE else [])
    release = tmp_path / "QA_information" / "Open-access"
    release.mkdir(parents=True)
    entry = {"question": "Which?", "gt_answer": "x", "image_path": "a.png", "option_A": "x", "option_B": "y"}
    (release / "S.json").write_text(json.dumps([entry | change]))
    (result,) = read_release(tmp_path)
    assert isinstance(result, Dropped if change in MORE else Question)


def test_a_saved_set_drops_questions_about_several(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    image = {"bytes": (tmp_path / "a.png").read_bytes(), "path": None}
    columns: dict[str, Any] = {
        "image": [image] * 4,
        "problem": [f"Which {number}? A)x, B)y" for number in range(4)],
        "solution": ["A"] * 4,
        "image_2": [None, image, None, None],
        "images": [[image], [], [image, image], None],
    }
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "problem": datasets.Value("string"),
            "solution": datasets.Value("string"),
            "image_2": datasets.Image(),
            "images": datasets.Sequence(datasets.Image()),
        }
    )
    datasets.Dataset.from_dict(columns, features=features).save_to_disk(str(tmp_path / "saved"))
    usable, dropped = load_rows(tmp_path / "saved")
    assert usable["problem"][:] == ["Which 0? A)x, B)y", "Which 3? A)x, B)y"]
    assert [(row.where, row.reason) for row in dropped] == [
        ("saved row 1", "several-images"),
        ("saved row 2", "several-images"),
    ]
