"""MedVLThinker's training and evaluation sets: multiple choice on images, each data set in them prepared by itself.

The options of its closed sets were written by a model, so its 416 questions of SLAKE are multiple choice, not the
closed questions that others report. `<image 1>` was removed from its questions, and stayed in options.
"""

from typing import Any

from open_r1.data.rows import RowError
from open_r1.data.text.files import Row
from open_r1.data.text.questions import gold_index, optional_text, text_of
from open_r1.data.vqa.forms import Form, Source
from open_r1.data.vqa.options import listed_options
from open_r1.data.vqa.questions import ReaderContext, VqaQuestion, choice_question, data_set_in, numbered

TITLE = "MedVLThinker's sets"


def question(row: Row, context: ReaderContext) -> VqaQuestion:
    """images (a list), question, options (JSON in a text), answer_label (a letter), dataset_name."""
    options = listed_options(row.get("options"))
    gold = gold_index(optional_text(row, "answer_label"), options)
    images = numbered([context.images.stored(cell) for cell in _cells(row.get("images"))])
    return choice_question(text_of(row, "question"), list(options.values()), gold, images, data_set(row))


def _cells(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise RowError("no-image", f"images must be a list, not {value!r:.80}")
    return value


def data_set(row: Row) -> str:
    """The data set that a row is from."""
    return data_set_in(row, "dataset_name")


MEDVLTHINKER = Source(
    TITLE,
    (
        Form(
            "MedVLThinker's sets as the hub has them",
            {split: (f"data/{split}-*.parquet", f"{split}-*.parquet") for split in ("train", "test")},
            ("images", "question", "options", "answer_label", "dataset_name"),
            question,
            set_of=data_set,
            embeds_images=True,
        ),
    ),
)
