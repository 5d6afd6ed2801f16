"""MedXpertQA MM: the hub's form and the one of its evaluation repository.

The options stand in the question and beside it; they are taken from beside it and removed from the question.
"""

from typing import Any

from open_r1.data.rows import RowError
from open_r1.data.text.files import Row
from open_r1.data.text.questions import gold_index, text_of
from open_r1.data.text.sources import split_choices, without_choices
from open_r1.data.vqa.forms import Form, Source
from open_r1.data.vqa.options import listed_options
from open_r1.data.vqa.questions import ReaderContext, VqaQuestion, choice_question, numbered, topic_of

TITLE = "MedXpertQA-MM"
_TASKS = {"Basic Science": "Basic Medicine"}  # the repository's name of what the hub calls otherwise
_FOLDERS = ("images", "MM/images", "eval/data/medxpertqa/images", "")


def question(row: Row, context: ReaderContext) -> VqaQuestion:
    """question, options, label (a letter or a list of one), images (names or {"image_path"}), medical_task."""
    text = text_of(row, "question")
    if row.get("options"):
        stem, options = without_choices(text), listed_options(row["options"])
    else:
        stem, options = split_choices(text)
    task = topic_of(row, "medical_task")
    return choice_question(
        stem,
        list(options.values()),
        gold_index(row.get("label"), options),
        numbered([context.images.named(name) for name in _names(row.get("images"))]),
        TITLE,
        subject=_TASKS.get(task, task) if task else None,
    )


def _names(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise RowError("no-image", f"images must be a list of names, not {value!r:.80}")
    return [entry.get("image_path") if isinstance(entry, dict) else entry for entry in value]


MEDXPERTQA_MM = Source(
    TITLE,
    (
        Form(
            "MedXpertQA MM as the hub has it",
            {"dev": ("MM/dev.jsonl", "dev.jsonl"), "test": ("MM/test.jsonl", "test.jsonl")},
            ("question", "options", "label", "images"),
            question,
            fits=lambda rows: all(isinstance(row["options"], dict) for row in rows),
            image_folders=_FOLDERS,
        ),
        Form(
            "MedXpertQA MM as its evaluation repository has it",
            {"test": ("medxpertqa_mm_input.jsonl", "eval/data/medxpertqa/input/medxpertqa_mm_input.jsonl")},
            ("question", "label", "images"),
            question,
            image_folders=_FOLDERS,
        ),
    ),
)
