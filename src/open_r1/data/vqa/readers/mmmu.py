"""MMMU and MMMU-Pro, the five subjects of Health & Medicine.

Options are a Python list within a text, and may be images themselves; `<image 3>` in question or options says which
image stands there, in any order. Of MMMU-Pro the form with the question drawn into the image is not read.
"""

import re
from collections.abc import Mapping

from open_r1.data.rows import RowError
from open_r1.data.text.files import Row
from open_r1.data.text.questions import gold_index, text_of
from open_r1.data.vqa.forms import Form, Source
from open_r1.data.vqa.options import listed_options, literal
from open_r1.data.vqa.questions import (
    LeftOut,
    ReaderContext,
    VqaQuestion,
    answer_question,
    choice_question,
    image_numbers,
)

SUBJECTS = (
    *("Basic_Medical_Science", "Clinical_Medicine", "Diagnostics_and_Laboratory_Medicine", "Pharmacy"),
    "Public_Health",
)
"""The subjects of Health & Medicine; rows of others are left out."""

_ID = re.compile(r"(?:dev|validation|test)_(.+)_\d+")
_COLUMNS = 7  # image_1 to image_7
_OPEN = ("open", "short-answer")
_HIDDEN = ("?", "")  # what the hub has in place of the answers of MMMU's test


def stored_images(row: Row, context: ReaderContext) -> dict[int, str]:
    """The images of the columns image_1 to image_7 that are filled."""
    cells = {number: row.get(f"image_{number}") for number in range(1, _COLUMNS + 1)}
    return {number: context.images.stored(cell) for number, cell in cells.items() if cell is not None}


def named_images(row: Row, context: ReaderContext) -> dict[int, str]:
    """The images that question and options name; their files are called by the question's id and their number."""
    numbers = sorted({*image_numbers(f"{row.get('question')} {row.get('options')}")})
    return {number: context.images.named(f"{text_of(row, 'id')}_{number}.png") for number in numbers}


def question(row: Row, context: ReaderContext, title: str, images: Mapping[int, str]) -> VqaQuestion:
    """question, options (a list in a text; "[]" where the question is open), answer, question_type."""
    text, answer = text_of(row, "question"), row.get("answer")
    if not isinstance(answer, str) or answer.strip() in _HIDDEN:
        raise RowError("no-label", f"the answer is {answer!r:.40}: it is published without one")
    subject = subject_of(row)
    if row.get("question_type") in _OPEN or row.get("options") in ("[]", []):
        right, *others = _alternatives(answer)
        return answer_question(text.strip(), right, images, title, aliases=others, subject=subject)
    options = listed_options(row.get("options"))
    gold = gold_index(answer, options)
    return choice_question(text, list(options.values()), gold, images, title, subject=subject)


def _alternatives(answer: str) -> list[str]:
    """The answers of an open question; several are written as a list."""
    if answer.strip().startswith("["):
        texts = [" ".join(str(text).split()) for text in literal(answer)]
        if not texts or not all(texts):
            raise RowError("empty-text", f"the answer is the list {answer!r:.80}")
        return texts
    return [" ".join(answer.split())]


def subject_of(row: Row) -> str:
    """The subject, by its column or by the question's id.

    Raises:
        LeftOut: it is none of SUBJECTS.
        RowError: neither says it.
    """
    subject = row.get("subject")
    if not isinstance(subject, str):
        match = _ID.fullmatch(str(row.get("id")))
        if match is None:
            raise RowError("unknown-subject", f"neither subject nor the id {row.get('id')!r:.60} names a subject")
        subject = match[1]
    if subject not in SUBJECTS:
        raise LeftOut("of another subject")
    return subject


def mmmu(row: Row, context: ReaderContext) -> VqaQuestion:
    """A row of MMMU."""
    subject_of(row)  # before the images of another subject are unpacked
    return question(row, context, "MMMU", stored_images(row, context))


def mmmu_pro(row: Row, context: ReaderContext) -> VqaQuestion:
    """A row of MMMU-Pro with its images."""
    subject_of(row)
    return question(row, context, "MMMU-Pro", stored_images(row, context))


def mmmu_pro_text(row: Row, context: ReaderContext) -> VqaQuestion:
    """A row of MMMU-Pro whose images are files."""
    subject_of(row)
    return question(row, context, "MMMU-Pro", named_images(row, context))


def _files(split: str) -> tuple[str, ...]:
    return (f"{split}-*.parquet", f"*/{split}-*.parquet", f"*/*/{split}-*.parquet")


MMMU = Source(
    "MMMU (Health & Medicine)",
    (
        Form(
            "MMMU as the hub has it",
            {split: _files(split) for split in ("dev", "validation", "test")},
            ("id", "question", "options", "image_1", "answer", "question_type"),
            mmmu,
            embeds_images=True,
        ),
    ),
)
MMMU_PRO = Source(
    "MMMU-Pro (Health & Medicine)",
    (
        Form(
            "MMMU-Pro as the hub has it",
            {
                "test": (
                    *("test-*.parquet", "standard (10 options)/test-*.parquet"),
                    "standard (4 options)/test-*.parquet",
                )
            },
            ("id", "question", "options", "image_1", "answer", "subject"),
            mmmu_pro,
            absent=("question_type",),
            embeds_images=True,
        ),
        Form(
            "MMMU-Pro as JSON Lines",
            {"test": ("test.jsonl", "standard (10 options)/test.jsonl", "*.jsonl")},
            ("id", "question", "options", "answer", "subject"),
            mmmu_pro_text,
            absent=("image_1", "image", "question_type"),
            image_folders=("images", "static/images", "mmmu-pro/tool/static/images", ""),
        ),
    ),
)
