"""SLAKE: its three JSON files in two languages, the English test questions as CSV, the English ones as Parquet.

The splits share no image within a language, and many across languages, so each language is a set of its own.
"""

from collections.abc import Iterator
from pathlib import Path

from open_r1.data.rows import RowError
from open_r1.data.text.files import Row, rows_of
from open_r1.data.vqa.forms import Form, Source, holds_images
from open_r1.data.vqa.questions import ReaderContext, VqaQuestion, answer_question, known_modality, numbered, topic_of

TITLE = "SLAKE"
_LANGUAGES = ("en", "zh")


def question(row: Row, context: ReaderContext) -> VqaQuestion:
    """img_name below imgs/, question, answer, and in JSON answer_type, modality, content_type."""
    return answer_question(
        context.text(row, "question"),
        context.text(row, "answer"),
        numbered([context.images.named(row.get("img_name"))]),
        TITLE,
        marked_closed=context.marked_closed(row, "answer_type"),
        modality=known_modality(row.get("modality")),
        subject=topic_of(row, "content_type"),
    )


def of_stored_image(row: Row, context: ReaderContext) -> VqaQuestion:
    """Rows of a derived set on the hub: image, question, answer, in lower case; nothing says what is closed."""
    images = numbered([context.images.stored(row.get("image"))])
    return answer_question(context.text(row, "question"), context.text(row, "answer"), images, TITLE)


def language(row: Row) -> str:
    """The language of a row; rows of the derived forms are English.

    Raises:
        RowError: it is neither English nor Chinese.
    """
    name = str(row.get("q_lang", "en")).strip().casefold()
    if name not in _LANGUAGES:
        raise RowError("unknown-language", f"q_lang is {row.get('q_lang')!r}; en or zh is expected")
    return name


def csv_rows(path: Path) -> Iterator[tuple[str, Row | RowError]]:
    """The rows of test_close.csv or test_open.csv, with the answer type that only the file's name says."""
    mark = "CLOSED" if "clos" in path.stem.casefold() else "OPEN" if "open" in path.stem.casefold() else None
    for where, row in rows_of(path):
        yield where, {**row, "answer_type": mark} if isinstance(row, dict) else row


SLAKE = Source(
    TITLE,
    (
        Form(
            "SLAKE's JSON",
            {
                "train": ("train.json", "Slake1.0/train.json"),
                "validation": (
                    "validation.json",
                    "validate.json",
                    "Slake1.0/validation.json",
                    "Slake1.0/validate.json",
                ),
                "test": ("test.json", "Slake1.0/test.json"),
            },
            ("img_name", "question", "answer", "q_lang", "answer_type"),
            question,
            set_of=language,
            image_folders=("imgs", "Slake1.0/imgs", "images", ""),
        ),
        Form(
            "SLAKE's English test questions as CSV",
            {"test": ("test_*.csv", "Slake1.0/test_*.csv")},
            ("img_id", "img_name", "question", "answer"),
            question,
            absent=("q_lang",),
            rows=csv_rows,
            set_of=language,
            image_folders=("imgs", "Slake1.0/imgs", "images", ""),
            in_parts=True,
        ),
        Form(
            "SLAKE's English questions as Parquet",
            {
                split: (f"data/{split}-*.parquet", f"{split}-*.parquet", f"{split}.parquet")
                for split in ("train", "validation", "test")
            },
            ("image", "question", "answer"),
            of_stored_image,
            absent=("options", "answer_type", "question_id"),
            fits=holds_images,
            set_of=language,
            embeds_images=True,
        ),
    ),
    parts=("en",),
)
