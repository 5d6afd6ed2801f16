"""Which images and questions two splits share, by files and by stored bytes, whatever the form of the question."""

import json
from pathlib import Path
from typing import Any

import pytest
from vqa_sets import draw, prepared, write

from open_r1.data.key_table import key_of
from open_r1.data.omnimedvqa.prepare import Preparation, prepare
from open_r1.data.preparation.encoded_images import Encoding
from open_r1.data.preparation.overlaps import (
    SplitKeys,
    keys_in,
    overlap,
    overlaps_within,
    question_text_key,
)
from open_r1.vocabulary.labels import Modality


def keys(*rows: tuple[list[tuple[str, str]], str, str]) -> SplitKeys:
    split = SplitKeys()
    for images, problem, solution in rows:
        split.add([(key_of(file) if file else 0, key_of(stored)) for file, stored in images], problem, solution)
    return split


def test_images_are_shared_by_their_files_or_by_their_stored_bytes() -> None:
    trained = keys(([("f1", "s1")], "a?", "x"), ([("f2", "s2")], "b?", "x"), ([("", "s3")], "c?", "x"))
    tested = keys(
        ([("f1", "other size")], "a?", "x"),
        ([("other file", "s2")], "b?", "x"),
        ([("f3", "s3"), ("f4", "s4")], "c?", "x"),
        ([("f5", "s5")], "d?", "x"),
        ([("f1", "other size")], "e?", "x"),
    )
    shared = overlap(tested, trained)
    assert (shared.images, shared.of_images, shared.by_file) == (3, 5, 1)
    assert (shared.questions, shared.of_questions) == (4, 5)
    assert shared.same_question == 2  # a by its file, b by its stored bytes; c shows another image beside it


def test_every_later_split_is_compared_with_every_earlier_one() -> None:
    one = ([("f", "s")], "a?", "x")
    assert list(overlaps_within({"train": keys(one), "validation": keys(one), "test": keys(one)})) == [
        *("train -> validation", "train -> test", "validation -> test"),
    ]
    assert overlaps_within({"test": keys(one)}) == {}


@pytest.mark.parametrize(
    ("first", "second", "is_same"),
    [
        (("What? A)cyst, B)lung mass", "<answer> B </answer>"), ("what?\nA) cyst\nB) Lung mass", "B"), True),
        (("What? A)cyst, B)mass", "<answer> B </answer>"), ("What? A)mass, B)cyst", "<answer> A </answer>"), True),
        (("What? A)cyst, B)mass", "<answer> B </answer>"), ("What? A)cyst, B)mass", "<answer> A </answer>"), False),
        (("What? A)cyst, B)mass", "<answer> B </answer>"), ("What? A)cyst, B)scar", "<answer> B </answer>"), False),
        (("Is it?", "Yes"), ("is  it ?", "yes."), True),
        (("Is it?", "yes"), ("Is it?", "no"), False),
        (("Where is it?", "left"), ("What is it?", "left"), False),
    ],
)
def test_a_question_is_known_in_other_words_of_the_same_kind(
    first: tuple[str, str], second: tuple[str, str], is_same: bool
) -> None:
    assert (question_text_key(*first) == question_text_key(*second)) == is_same


def test_omnimedvqa_is_found_again_in_huatuos_file(tmp_path: Path) -> None:
    """The sets store other sizes of the image, and write the question in other forms."""
    omni: list[dict[str, Any]] = [
        {
            "dataset": "CT set",
            "question_type": "Disease Diagnosis",
            "modality_type": "CT(Computed Tomography)",
            "question": f"What is shown in case {number}?",
            "gt_answer": "cyst",
            "image_path": f"Images/CT set/{number}.jpg",
            "option_A": "mass",
            "option_B": "cyst",
        }
        for number in range(10)
    ]
    release = tmp_path / "release"
    draw(release, [row["image_path"] for row in omni])
    write(release / "QA_information/Open-access/CT set.json", omni)
    settings = {"only": (Modality.CT,), "by": ("modality",), "encoding": Encoding(32)}
    (trained,) = prepare(Preparation(tmp_path / "out", release, **settings)).sets
    assert {split: len(split_keys.counts) for split, split_keys in keys_in(trained.folder).items()} == {
        "train": trained.report["questions"]["train"],
        "test": trained.report["questions"]["test"],
    }
    rows = [
        {
            "question": row["question"],
            "options": [row["option_A"], row["option_B"]],
            "answer": row["gt_answer"] if number else "mass",
            "image": [row["image_path"]],
            "dataset": "OmniMedVQA",
            "subset": "CT",
        }
        for number, row in enumerate(omni)
    ]
    path = write(tmp_path / "medical_multimodel_evaluation_data.json", rows)
    (tested,) = prepared("huatuo", [str(path)], tmp_path / "out", image_root=release, against=(trained.folder,))
    counts = tested.against[str(trained.folder)]
    assert sum(counts[f"{split} -> test"]["images"] for split in ("train", "test")) == 10
    assert sum(counts[f"{split} -> test"]["same_question"] for split in ("train", "test")) == 9
    assert counts["train -> test"]["by_file"] == trained.report["questions"]["train"]
    assert json.loads((trained.folder / "manifest.json").read_text())["outputs"].keys() >= {"keys.npz"}


def test_keys_that_earlier_versions_wrote_as_texts_are_read(tmp_path: Path) -> None:
    draw(tmp_path / "in/imgs", ["a.jpg", "b.jpg", "c.jpg"])
    rows = [
        {
            "img_name": f"{name}.jpg",
            "question": f"Is it {name}?",
            "answer": "Yes",
            "q_lang": "en",
            "answer_type": "CLOSED",
        }
        for name in "abc"
    ]
    write(tmp_path / "in/train.json", rows[:2])
    write(tmp_path / "in/test.json", rows[1:])
    (data_set,) = prepared("slake", tmp_path / "in", tmp_path / "out")
    new = keys_in(data_set.folder)
    old = {
        split: {
            "images": [[f"{key:016x}" for key in pair] for pair in split_keys.different_images().tolist()],
            "questions": [[f"{key:016x}" for key in split_keys.questions[at : at + 2]] for at in (0, 2)],
            "shown": [[f"{key:016x}"] for key in split_keys.shown],
        }
        for split, split_keys in new.items()
    }
    old["train"]["images"].append(["", "f" * 16])  # of a set of which only the stored bytes were known
    (data_set.folder / "keys.npz").unlink()
    write(data_set.folder / "keys.json", old)
    read = keys_in(data_set.folder)
    assert (
        overlap(read["test"], new["train"]) == overlap(new["test"], read["train"]) == overlap(new["test"], new["train"])
    )
    assert overlap(new["test"], new["train"]).same_question == 1
    assert read["train"].different_images().tolist()[0] == [0, 2**64 - 1]
