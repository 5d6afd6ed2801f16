"""Whatever stands in a row, a reader makes a question of it or drops it with a reason; nothing else is raised."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from vqa_sets import image_bytes, rad_row

from open_r1.common.errors import UnusableInput
from open_r1.data.vqa.forms import Form
from open_r1.data.vqa.image_files import ImageFiles
from open_r1.data.vqa.questions import LeftOut, ReaderContext, VqaQuestion
from open_r1.data.vqa.registry import SOURCES

CELL = {"bytes": image_bytes("a"), "path": "a.png"}
HUB = {"image": CELL, "question": "is it?", "answer": "no"}
MMMU = {"id": "test_Pharmacy_1", "question": "<image 1> or?", "options": "['a', 'b']", "answer": "A", "image_1": CELL}
SLAKE = {"img_name": "a.jpg", "question": "Is it?", "answer": "Yes", "q_lang": "en", "answer_type": "CLOSED"}
PMC = {
    "Figure_path": "a.jpg",
    "Question": "Which?",
    **{f"Choice {letter}": f"{letter}: {letter}x" for letter in "ABCD"},
}
EXPERT = {"question": "Which?", "options": {"A": "x", "B": "y"}, "label": "A", "images": ["a.jpg"], "medical_task": "T"}
MED = {"image_name": "a", "question": "what?", "answer": "a (b)#c", "category": "abnormality"}

ROWS: dict[str, dict[str, Any]] = {
    "VQA-RAD as OSF publishes it": rad_row(1),
    "VQA-RAD as MEVF publishes it": rad_row(1),
    "VQA-RAD as the hub has it": HUB,
    "SLAKE's JSON": {**SLAKE, "modality": "CT", "content_type": "Organ"},
    "SLAKE's English test questions as CSV": SLAKE,
    "SLAKE's English questions as Parquet": HUB,
    "PathVQA as the hub has it": HUB,
    "PathVQA as its baseline's JSON": {"image": "a", "question": "Is it?", "answer": "no"},
    "PathVQA as its authors' pickles": {"image": "a", "question": "Is it?", "answer": "no"},
    "PMC-VQA, first version": {**PMC, "Answer": "Ax", "Answer_label": "A"},
    "PMC-VQA, second version": {**PMC, "Answer": "A", "Caption": "", "split": "test"},
    "MedXpertQA MM as the hub has it": EXPERT,
    "MedXpertQA MM as its evaluation repository has it": EXPERT,
    "MMMU as the hub has it": {**MMMU, "question_type": "multiple-choice"},
    "MMMU-Pro as the hub has it": {**MMMU, "subject": "Pharmacy"},
    "MMMU-Pro as JSON Lines": {**MMMU, "subject": "Pharmacy"},
    "MedFrameQA as the hub has it": {
        **HUB,
        "options": ["a", "b"],
        "correct_answer": "A",
        "image_1": CELL,
        "system": "s",
    },
    "VQA-Med 2019 as its task published it": MED,
    "VQA-Med 2019 in the form of MEVF's files for VQA-RAD": MED,
    "HuatuoGPT-Vision's evaluation file": {**EXPERT, "answer": "x", "image": ["a.jpg"], "dataset": "D", "subset": "CT"},
    "MedVLThinker's sets as the hub has them": {
        **{"images": [CELL], "question": "Which?", "options": '{"A": "x", "B": "y"}'},
        **{"answer_label": "A", "dataset_name": "pmc_vqa"},
    },
    "VLMEvalKit's table": {
        **{"question": "Which?", "A": "x", "B": "y", "answer": "A", "images": [], "image_path": "a.jpg"},
        **{"table": "T", "category": "c", "hint": "h", "modality": "CT"},
    },
}
FORMS = {form.name: form for source in SOURCES.values() for form in source.forms}
TEXTS = [
    "",
    " ",
    "A",
    "\ud800",
    "\0",
    "a\tb\n",
    "<image>",
    "<image 9>",
    "x" * 5000,
    "[" * 2000,
    "['a', 1]",
    "NULL",
    "#",
]
VALUES = [
    *TEXTS,
    None,
    0,
    -1,
    5.5,
    float("nan"),
    True,
    [],
    [None],
    ["A"],
    [[]],
    {},
    {"A": None},
    {"bytes": b"x"},
    b"x",
    CELL,
]


def question_of(form: Form, row: dict[str, Any], context: ReaderContext) -> VqaQuestion | None:
    """What a reader makes of a row; None if it leaves it out or drops it."""
    try:
        if form.set_of is not None:
            form.set_of(row).encode()
        if form.split_of is not None:
            assert form.split_of(row) in ("train", "test")
        return form.read(row, context)
    except UnusableInput as error:
        f"{error.reason} {error}".encode()  # as the report holds them
    except LeftOut:
        pass
    return None


def variants(row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The row without each of its keys, and with every strange value in the place of each value."""
    made_by_us = {"images", "table"} if "table" in row else set()
    for key in sorted(row.keys() - made_by_us):
        yield {name: value for name, value in row.items() if name != key}
        yield from ({**row, key: value} for value in VALUES)


@pytest.fixture
def contexts(tmp_path: Path) -> dict[bool, ReaderContext]:
    (tmp_path / "images").mkdir()
    (tmp_path / "unpacked").mkdir()
    (tmp_path / "images" / "a.jpg").write_bytes(image_bytes("a", form="JPEG"))
    unpacked = {False: None, True: tmp_path / "unpacked"}
    return {
        embeds: ReaderContext(ImageFiles(tmp_path / "images", ("",), folder)) for embeds, folder in unpacked.items()
    }


def test_every_form_has_a_row_here() -> None:
    assert ROWS.keys() == FORMS.keys()


@pytest.mark.parametrize("name", ROWS)
def test_a_clean_row_is_read_and_a_dirty_one_costs_itself(name: str, contexts: dict[bool, ReaderContext]) -> None:
    form, row = FORMS[name], ROWS[name]
    context = contexts[form.embeds_images]
    assert question_of(form, row, context) is not None
    for variant in variants(row):
        question = question_of(form, variant, context)
        if question is None:
            continue
        assert question.problem.strip()
        assert question.solution.strip()
        assert question.problem.count("<image>") in (0, len(question.images))
        assert 1 <= len(question.images) <= 16
        for text in (question.problem, question.solution, question.subject or "", *question.aliases):
            text.encode()
