"""HuatuoGPT-Vision's evaluation file: six test sets as multiple choice, each prepared as a set of its own."""

from typing import Any

from open_r1.data.text.files import Row
from open_r1.data.text.questions import text_of
from open_r1.data.vqa.forms import Form, Source
from open_r1.data.vqa.options import index_by_text, listed_options
from open_r1.data.vqa.questions import (
    ReaderContext,
    VqaQuestion,
    choice_question,
    data_set_in,
    known_modality,
    numbered,
    topic_of,
)

TITLE = "HuatuoGPT-Vision's evaluation file"


def question(row: Row, context: ReaderContext) -> VqaQuestion:
    """question, options (a list of texts), answer (the text of one), image (names), dataset, subset."""
    options = listed_options(row.get("options"))
    return choice_question(
        text_of(row, "question"),
        list(options.values()),
        index_by_text(text_of(row, "answer"), options),
        numbered([context.images.named(name) for name in _names(row.get("image"))]),
        data_set(row),
        modality=known_modality(row.get("subset")),
        subject=topic_of(row, "subset"),
    )


def _names(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def data_set(row: Row) -> str:
    """The data set that a row is from."""
    return data_set_in(row, "dataset")


HUATUO = Source(
    TITLE,
    (
        Form(
            "HuatuoGPT-Vision's evaluation file",
            {"test": ("medical_multimodel_evaluation_data.json", "medical_multimodal_evaluation_data.json")},
            ("question", "options", "answer", "image", "dataset"),
            question,
            set_of=data_set,
            in_parts=True,
        ),
    ),
)
