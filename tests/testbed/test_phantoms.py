"""Phantoms: balanced answers, images that never cross the split, and the same bytes from the same seed."""

import json
import random
from collections import Counter
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from open_r1.common.errors import UserError
from open_r1.data.loading import load_rows
from open_r1.data.row_images import row_images
from open_r1.grading.problems import options_in, solution_letter
from open_r1.vocabulary.labels import Modality, Split, Task, parse_modality
from open_r1_testbed.phantom_images import draw
from open_r1_testbed.phantom_questions import LETTERS, Phantom, answer, options_for, question, sample_phantoms
from open_r1_testbed.phantoms import make_phantoms, save_prepared

TRAIN, TEST = 4, 4
SPLITS: tuple[tuple[Split, int], ...] = (("train", TRAIN), ("test", TEST))


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_phantoms(tmp_path_factory.mktemp("phantoms") / "set", TRAIN, TEST, seed=3)


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def contents(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): sha256(path.read_bytes()).hexdigest() for path in files}


def blind_accuracy(train: list[dict[str, str]], test: list[dict[str, str]]) -> float:
    """FACTS' blind guess, worked out from the rows alone: highest share gold/offered, ties share the point."""
    offered, gold = Counter[str](), Counter[str]()

    def options(row: dict[str, str]) -> list[str]:
        return [part.split(")", 1)[1] for part in ("A)" + row["problem"].split(" A)", 1)[1]).split(", ")]

    def right(row: dict[str, str]) -> str:
        return options(row)[LETTERS.index(row["solution"].split()[1])]

    for row in train:
        offered.update(options(row))
        gold[right(row)] += 1
    points = 0.0
    for row in test:
        share = {text: gold[text] / offered[text] if offered[text] else 0.0 for text in options(row)}
        best = [text for text, value in share.items() if value == max(share.values())]
        points += (right(row) in best) / len(best)
    return points / len(test)


@pytest.mark.slow
def test_every_cell_of_the_two_lists_holds_every_answer_equally_often(phantoms: Path) -> None:
    for split, images in SPLITS:
        rows = read(phantoms / f"{split}.json")
        assert len(rows) == 8 * images * 5
        for modality in Modality:
            for task in Task:
                cell = [row for row in rows if (row["modality"], row["task"]) == (modality, task)]
                right = Counter(options_in(row["problem"])[solution_letter(row["solution"])] for row in cell)
                if task is Task.MODALITY:
                    assert right == {modality.value: images}
                else:  # 4 images, 4 answers: one each
                    assert right == dict.fromkeys(options_for(modality, task), images // 4)


@pytest.mark.slow
def test_options_stand_in_any_order_and_no_letter_is_right_more_often() -> None:
    rng = random.Random(0)
    phantoms = [phantom for modality in Modality for phantom in sample_phantoms(modality, 150, [0, 0])]
    rows = [question(phantom, task, rng) for phantom in phantoms for task in Task]
    letters = Counter(row["solution"] for row in rows)
    # 6,000 questions: 1,500 of each letter with a standard deviation of 34
    assert all(1500 - 4 * 34 < letters[f"<answer> {letter} </answer>"] < 1500 + 4 * 34 for letter in LETTERS), letters
    stains = Counter(tuple(options_in(row["problem"]).values()) for row in rows if row["task"] == Task.ATTRIBUTES)
    assert len(stains) == 24
    assert min(stains.values()) > 20  # of 1,200 / 24 = 50, standard deviation 7


@pytest.mark.slow
def test_blind_guess_is_a_quarter_even_when_training_answers_are_not_quite_balanced() -> None:
    def rows(count: int, stream: int) -> list[dict[str, str]]:
        rng = random.Random(0)
        drawn = [p for m in Modality for p in sample_phantoms(m, count, [0, stream])]
        return [question(phantom, task, rng) for phantom in drawn for task in Task]

    # 150 = 38 + 38 + 37 + 37, so some option leads in every cell; 16 test images hold it 4 times: 4 / 16
    assert blind_accuracy(rows(150, 0), rows(16, 1)) == pytest.approx(0.25)


def test_no_image_is_on_both_sides(phantoms: Path) -> None:
    hashes = {split: {sha256(path.read_bytes()).digest() for path in phantoms.glob(f"Images/*/{split}/*.png")}
              for split in ("train", "test")}  # fmt: skip
    assert [len(hashes[split]) for split in ("train", "test")] == [8 * TRAIN, 8 * TEST]
    assert not hashes["train"] & hashes["test"]


def test_images_are_384_rgb_and_small(phantoms: Path) -> None:
    files = list(phantoms.glob("Images/*/*/*.png"))
    for path in files:
        with Image.open(path) as image:
            assert (image.size, image.mode) == ((384, 384), "RGB")
    assert sum(path.stat().st_size for path in files) / len(files) < 50_000


def test_release_and_split_files_ask_the_same_questions(phantoms: Path) -> None:
    release = {}
    for file in sorted((phantoms / "QA_information" / "Open-access").glob("*.json")):
        for row in read(file):
            assert (phantoms / row["image_path"]).is_file()
            options = {letter: row[f"option_{letter}"] for letter in LETTERS}
            offered = ", ".join(f"{letter}){text}" for letter, text in options.items())
            letter = next(letter for letter, text in options.items() if text == row["gt_answer"])
            key = (row["image_path"], f"{row['question']} {offered}")
            release[key] = (f"<answer> {letter} </answer>", parse_modality(row["modality_type"]), row["question_type"])
    assert len(release) == 8 * (TRAIN + TEST) * 5
    for family in ("modality", "question_type"):
        solutions = {}
        for file in (phantoms / "splits" / family).rglob("*.json"):
            for row in read(file):
                assert set(row) == {"image", "problem", "solution"}
                assert f"/{file.parent.name}/" in row["image"]
                solutions[row["image"], row["problem"]] = row["solution"]
        assert solutions == {key: value[0] for key, value in release.items()}
    for split in ("train", "test"):
        for row in read(phantoms / f"{split}.json"):
            expected = (row["solution"], Modality(row["modality"]), row["task"])
            assert release[row["image"], row["problem"]] == expected


def test_split_files_bear_the_published_names(phantoms: Path, real_dir: Path) -> None:
    ours = {path.relative_to(phantoms / "splits") for path in (phantoms / "splits").rglob("*.json")}
    root = real_dir / "omnimedvqa_splits"
    published = {path.relative_to(root) for path in root.rglob("*.json")}
    assert len(ours) == 2 * (8 + 5)
    assert {path for path in published if "unknown" not in path.name} <= ours


@pytest.mark.slow
def test_same_seed_same_bytes_whatever_the_number_of_workers(phantoms: Path, tmp_path: Path) -> None:
    assert contents(make_phantoms(tmp_path / "again", TRAIN, TEST, seed=3, workers=1)) == contents(phantoms)
    other = contents(make_phantoms(tmp_path / "other", TRAIN, TEST, seed=4))
    assert not set(other.values()) & {value for name, value in contents(phantoms).items() if name.endswith(".png")}


@pytest.mark.slow
def test_each_code_changes_the_image_and_nothing_else_does() -> None:
    for modality in Modality:
        plain = Phantom(modality, 0, 0, 2, 0, seed=7)
        assert draw(plain).tobytes() == draw(Phantom(modality, 0, 0, 2, 0, seed=7)).tobytes()
        for codes in ((1, 0, 2, 0), (0, 1, 2, 0), (0, 0, 3, 0), (0, 0, 2, 1)):
            changed = np.asarray(draw(Phantom(modality, *codes, seed=7)), int)
            # at the model's 112 x 112 a change must still show: over 2 % of the pixels by more than 30 of 255
            assert (abs(changed - np.asarray(draw(plain), int)).max(-1) > 30).mean() > 0.02


def test_answer_is_what_was_drawn() -> None:
    phantom = Phantom(Modality.FUNDUS, anatomy=3, disease=2, grade=1, stain=0, seed=0)
    answers = {task: answer(phantom, task) for task in Task}
    assert answers == {
        Task.ANATOMY: "periphery",
        Task.DIAGNOSIS: "hemorrhage",
        Task.GRADING: "mild",
        Task.MODALITY: "Fundus",
        Task.ATTRIBUTES: "amber",
    }


def test_prepared_form_loads_with_images_and_both_labels(phantoms: Path, tmp_path: Path) -> None:
    saved = save_prepared(phantoms, tmp_path / "all_384")
    for split, images in SPLITS:
        rows, dropped = load_rows(saved, split)
        assert not dropped
        listed = read(phantoms / f"{split}.json")
        assert [{key: row[key] for key in listed[0] if key != "image"} for row in rows] == [
            {key: row[key] for key in row if key != "image"} for row in listed
        ]
        assert Counter(rows["source"]) == {f"Phantom {modality}": images * 5 for modality in Modality}
        with Image.open(phantoms / listed[0]["image"]) as image:
            assert row_images(rows[0])[0].tobytes() == image.tobytes()


@pytest.mark.slow
def test_both_lists_load_as_they_are(phantoms: Path) -> None:
    rows, dropped = load_rows(phantoms / "test.json", image_root=phantoms)
    assert (len(rows), dropped) == (8 * TEST * 5, [])


def test_chosen_modalities_only(tmp_path: Path) -> None:
    folder = make_phantoms(tmp_path / "set", 1, 1, modalities=[Modality.OCT, Modality.CT])
    assert {row["modality"] for row in read(folder / "train.json")} == {"CT", "OCT"}


def test_finished_folder_is_left_alone_and_a_foreign_one_is_refused(tmp_path: Path) -> None:
    folder = make_phantoms(tmp_path / "set", 1, 1, modalities=[Modality.CT])
    before = (folder / "train.json").stat().st_mtime_ns
    assert make_phantoms(folder, 1, 1, modalities=[Modality.CT]) == folder
    assert (folder / "train.json").stat().st_mtime_ns == before
    with pytest.raises(UserError, match="holds other phantoms"):
        make_phantoms(folder, 1, 1, seed=1, modalities=[Modality.CT])
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("precious")
    with pytest.raises(UserError, match=r"thesis\.tex"):
        make_phantoms(tmp_path / "mine", 1, 1)


def test_interrupted_drawing_is_finished_by_the_next_run(tmp_path: Path) -> None:
    whole = contents(make_phantoms(tmp_path / "set", 1, 1, modalities=[Modality.CT]))
    (tmp_path / "set" / "manifest.json").unlink()
    (tmp_path / "set" / "Images" / "Phantom CT" / "test" / "0000.png").write_bytes(b"half")
    assert contents(make_phantoms(tmp_path / "set", 1, 1, modalities=[Modality.CT])) == whole


def test_empty_split_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="test images per modality: 0"):
        make_phantoms(tmp_path / "set", 1, 0)
