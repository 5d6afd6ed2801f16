"""Which questions of a release become training and test: draws, copies of images, published split files."""

import json
import shutil
from collections import Counter

import datasets
import numpy as np
import pytest

from open_r1.common.errors import UserError
from open_r1.data.loading import load_rows
from open_r1.data.omnimedvqa.splits import draw_per_image, draw_per_question
from open_r1.data.omnimedvqa.summary import report_lines
from open_r1.data.rows import leak
from open_r1.vocabulary.labels import Modality


def test_a_random_draw_takes_a_fifth_of_every_cell():
    cells = [(0, 0)] * 100 + [(0, 1)] * 7 + [(1, 0)] * 2 + [(1, 1)]
    sides = draw_per_question(cells, list(range(1, 111)), seed=0)
    # 0.2 * 100 = 20; 0.2 * 7 = 1.4; 0.2 * 2 = 0.4, but a cell of two has a test question; one question trains
    assert Counter(cell for cell, side in zip(cells, sides, strict=True) if side) == {(0, 0): 20, (0, 1): 1, (1, 0): 1}


def test_a_draw_per_image_keeps_images_whole_and_cells_near_a_fifth():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 400, 2000).tolist()
    cells = [(image % 3, question % 2) for question, image in enumerate(images)]
    sides = draw_per_image(cells, images, seed=1)
    assert leak(*([p for p, side in zip(images, sides, strict=True) if side == value] for value in (0, 1))).shared == 0
    for cell, count in Counter(cells).items():
        share = sum(side for value, side in zip(cells, sides, strict=True) if value == cell) / count
        assert 0.12 < share < 0.28, cell  # observed 0.17 to 0.23
    assert sides != draw_per_image(cells, images, seed=2)


def test_a_draw_per_image_of_few_has_both_sides():
    sides = draw_per_image([(0, 0), (0, 1), (0, 1)], [11, 12, 12], seed=0)
    assert sorted(sides) in ([0, 0, 1], [0, 1, 1])
    assert list(draw_per_image([(0, 0), (0, 1)], [11, 11], seed=0)) == [0, 0]


def test_copies_of_an_image_under_other_names_are_one_image(build, tmp_path, release):
    for number in range(0, 20, 2):  # every second CT image is the one before it
        shutil.copy(
            release / f"Images/CT set/{number:03d} (1).png", release / f"Images/CT set/{number + 1:03d} (1).png"
        )
    (apart,) = build("apart", split="image_disjoint", only=(Modality.CT,)).sets
    assert apart.report["leak"]["by content"]["shared"] == apart.report["leak"]["by path"]["shared"] == 0
    assert apart.report["questions"]["test"] in (4, 8, 12)
    (mixed,) = build("mixed", split="random", only=(Modality.CT,)).sets
    by_path, by_content = mixed.report["leak"]["by path"], mixed.report["leak"]["by content"]
    assert by_path["shared"] < by_content["shared"] <= by_content["questions"] == 8


def test_published_splits_keep_sides_and_order_and_get_their_labels(build, splits, release, tmp_path):
    outcome = build(splits_dir=splits, image_root=release)
    assert [data_set.report["questions"] for data_set in outcome.sets] == [
        {"train": 34, "test": 5},
        {"train": 35, "test": 5},
        {"train": 30, "test": 10},
        {"train": 30, "test": 10},
    ]
    wanted = json.loads((splits / "modality/train/OCT (Optical Coherence Tomography_train.json").read_text())
    rows, _ = load_rows(tmp_path / "out/OCT_32", "train")
    assert [row["problem"] for row in rows.to_list()] == [row["problem"] for row in wanted]
    assert [row["images"][0]["path"] for row in rows.to_list()] == [row["image"] for row in wanted]
    assert Counter(row["task"] for row in rows.to_list()) == {"Modality Recognition": 18, "Disease Diagnosis": 17}
    tasks, _ = load_rows(tmp_path / "out/Modality_Recognition_32", "train")
    assert Counter(row["modality"] for row in tasks.to_list()) == {"CT": 19, "OCT": 10, None: 1}
    assert outcome.unlabelled == {"modality": 1, "task": 0}
    assert "1 questions have no modality: they are in no modality set" in list(report_lines(outcome))


def test_split_files_can_be_drawn_anew(build, splits, release, tmp_path):
    outcome = build(splits_dir=splits, image_root=release, split="image_disjoint", by=("task",))
    assert [sum(data_set.report["questions"].values()) for data_set in outcome.sets] == [40, 40]
    assert all(data_set.report["leak"]["by path"]["shared"] == 0 for data_set in outcome.sets)


def test_questions_that_are_asked_twice_or_answered_twice_are_dropped(build, splits, release):
    path = splits / "modality/train/OCT (Optical Coherence Tomography_train.json"
    rows = json.loads(path.read_text())
    path.write_text(json.dumps([*rows, rows[0]]))
    second = splits / "question_type/test/Disease Diagnosis_test.json"
    rows = json.loads(second.read_text())
    turned = {"A": "<answer> B </answer>", "B": "<answer> A </answer>"}
    rows[0]["solution"] = turned[rows[0]["solution"][9]]
    second.write_text(json.dumps(rows))
    outcome = build(splits_dir=splits, image_root=release)
    assert Counter(row["reason"] for row in outcome.dropped) == {"repeated-question": 1, "two-solutions": 1}


def test_a_missing_side_is_refused_before_any_work_unless_allowed(build, splits, release, tmp_path):
    shutil.rmtree(splits / "modality" / "train")
    with pytest.raises(UserError, match=r"CT_32 has no train question; OCT_32 has no train.*--allow_missing_side"):
        build(splits_dir=splits, image_root=release)
    assert not (tmp_path / "out").exists()
    build(splits_dir=splits, image_root=release, by=("modality",), allow_missing_side=True)
    saved = datasets.load_from_disk(str(tmp_path / "out/CT_32"))
    assert isinstance(saved, datasets.DatasetDict)
    assert {split: len(subset) for split, subset in saved.items()} == {"test": 5}
    with pytest.raises(UserError, match="has no train split, only test"):
        load_rows(tmp_path / "out/CT_32", "train")
