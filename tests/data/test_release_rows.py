"""Rows of the OmniMedVQA release, ids, leaks between its splits, and its real split files."""

import json
from array import array
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from open_r1.common.errors import UserError
from open_r1.data.arrow_sets import FEATURES
from open_r1.data.omnimedvqa.source import (
    Question,
    labels_beside,
    question_key,
    read_release,
    read_split_file,
    split_files,
)
from open_r1.data.omnimedvqa.summary import Outcome, Prepared, report_lines, set_report
from open_r1.data.rows import TEXT_KEYS, Dropped, leak, row_id
from open_r1.vocabulary.labels import Modality, Task, parse_label

PROBLEM = "Which imaging method is it? A)CT, B)MRI, C)OCT (B) scan, D)X-Ray, lateral"


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


@pytest.mark.slow
@pytest.mark.parametrize(("label", "percent"), [(Modality.OCT, 29.8), (Modality.FUNDUS, 9.7)])
def test_the_published_splits_leak_as_measured(real_dir, label, percent):
    images = {
        split.split: [row.image for row in read_split_file(path, split) if isinstance(row, Question)]
        for path, split in split_files(real_dir / "omnimedvqa_splits")
        if split.label is label
    }
    assert round(leak(images["train"], images["test"]).percent, 1) == percent


@pytest.mark.slow
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
