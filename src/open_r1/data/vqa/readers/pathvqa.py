"""PathVQA: the JSON lists of its authors' baseline, their pickles, and the hub's Parquet.

No form says which questions are closed; a yes or a no as the answer is what everyone counts. The hub's form has fewer
rows because repeated questions were dropped from it.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from open_r1.common.errors import UserError
from open_r1.data.rows import RowError
from open_r1.data.text.files import Row, rows_of
from open_r1.data.vqa.forms import Form, Source, holds_images
from open_r1.data.vqa.pickles import plain_pickle
from open_r1.data.vqa.questions import ReaderContext, VqaQuestion, answer_question, numbered

TITLE = "PathVQA"
_FOLDERS = ("images", "pvqa/images", "")


def of_named_image(row: Row, context: ReaderContext) -> VqaQuestion:
    """image without its extension, question, answer."""
    images = numbered([context.images.named(row.get("image"))])
    return answer_question(context.text(row, "question"), context.text(row, "answer"), images, TITLE)


def of_stored_image(row: Row, context: ReaderContext) -> VqaQuestion:
    """The hub's rows: image, question, answer."""
    images = numbered([context.images.stored(row.get("image"))])
    return answer_question(context.text(row, "question"), context.text(row, "answer"), images, TITLE)


def baseline_rows(path: Path) -> Iterator[tuple[str, Row | RowError]]:
    """The questions of img_id, sentf {"pvqa": [question]}, labelf {"pvqa": [{answer: 1}]}, the lists being parallel."""
    for where, entry in rows_of(path):
        if isinstance(entry, RowError):
            yield where, entry
            continue
        questions, labels = _listed(entry, "sentf"), _listed(entry, "labelf")
        if questions is None or labels is None or len(questions) != len(labels):
            yield where, RowError("bad-lists", "sentf and labelf must hold one list of questions and one of answers")
            continue
        for number, (question, label) in enumerate(zip(questions, labels, strict=True)):
            name = f"{where} question {number}"
            if isinstance(label, dict) and len(label) == 1:
                yield name, {"image": entry.get("img_id"), "question": question, "answer": next(iter(label))}
            else:
                yield name, RowError("not-one-answer", f"one answer is expected, not {label!r:.80}")


def _listed(entry: Row, key: str) -> list[Any] | None:
    value = entry.get(key)
    listed = value.get("pvqa") if isinstance(value, dict) else None
    return listed if isinstance(listed, list) else None


def pickled_rows(path: Path) -> Iterator[tuple[str, Row | RowError]]:
    """The rows of `train_qa.pkl`: a list of {image, question, answer}.

    Raises:
        UserError: it is no pickle of lists, dicts, texts and numbers alone.
    """
    if path.suffix != ".pkl":
        raise UserError(f"{path} is no pickle")
    entries = plain_pickle(path)
    if not isinstance(entries, list):
        raise UserError(f"{path} holds no list of questions")
    for number, entry in enumerate(entries):
        row = entry if isinstance(entry, dict) else RowError("not-an-object", f"a dict is expected, not {entry!r:.80}")
        yield f"{path.name} row {number}", row


def _names(pattern: str) -> dict[str, tuple[str, ...]]:
    """The files of a form by split, from the pattern of one name."""
    spellings = {"train": "train", "validation": "val", "test": "test"}
    return {
        split: (pattern.replace("{}", word), f"**/{pattern.replace('{}', word)}") for split, word in spellings.items()
    }


PATHVQA = Source(
    TITLE,
    (
        Form(
            "PathVQA as the hub has it",
            {
                "train": ("data/train-*.parquet", "train-*.parquet"),
                "validation": ("data/validation-*.parquet", "validation-*.parquet"),
                "test": ("data/test-*.parquet", "test-*.parquet"),
            },
            ("image", "question", "answer"),
            of_stored_image,
            absent=("options", "answer_type", "question_id"),
            fits=holds_images,
            embeds_images=True,
        ),
        Form(
            "PathVQA as its baseline's JSON",
            _names("pvqa_{}.json"),
            ("image", "question", "answer"),
            of_named_image,
            rows=baseline_rows,
            image_folders=_FOLDERS,
        ),
        Form(
            "PathVQA as its authors' pickles",
            _names("{}_qa.pkl"),
            ("image", "question", "answer"),
            of_named_image,
            rows=pickled_rows,
            image_folders=_FOLDERS,
        ),
    ),
)
