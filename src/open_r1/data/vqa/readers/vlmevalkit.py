"""VLMEvalKit's tables of medical sets, GMAI-MMBench among them: options in columns A, B, C ..., images as base64.

Every table is a set of its own. An option that is empty or the word None after the last one is not offered, unless it
is the answer. Without options the question is closed or open.
"""

from collections.abc import Iterator
from pathlib import Path

from open_r1.data.answer_texts import bare_letter
from open_r1.data.rows import RowError
from open_r1.data.text.files import Row
from open_r1.data.text.questions import gold_index, options_by_letter
from open_r1.data.vqa.forms import Form, Source
from open_r1.data.vqa.options import index_by_text, literal
from open_r1.data.vqa.questions import (
    ReaderContext,
    VqaQuestion,
    answer_question,
    choice_question,
    known_modality,
    numbered,
    topic_of,
)
from open_r1.data.vqa.tables import Table
from open_r1.grading.problems import LETTERS

_NAME = "table"  # key under which a row has the name of its table
_ABSENT = ("", "nan", "none")
_SUBJECTS = ("clinical vqa task", "l2-category", "category")


def table_rows(path: Path) -> Iterator[tuple[str, Row | RowError]]:
    """The rows of a table, with its name."""
    for where, row in Table(path).rows():
        yield where, {**row, _NAME: path.stem} if isinstance(row, dict) else row


def question(row: Row, context: ReaderContext) -> VqaQuestion:
    """index, image or image_path, question, hint, A, B, C ..., answer (a letter, or a text), category."""
    answer = context.text(row, "answer")
    options = _options(row, answer)
    text = context.text(row, "question")
    if not _is_absent(row.get("hint")):
        text = f"{context.text(row, 'hint')}\n{text}"
    references = [context.images.base64(cell) for cell in row["images"]] or _named(row, context)
    images, modality = numbered(references), known_modality(row.get("modality"))
    if not options:
        return answer_question(text, answer, images, str(row[_NAME]), modality=modality, subject=_subject(row, answer))
    gold = gold_index(answer, options) if bare_letter(answer) else index_by_text(answer, options)
    texts = list(options.values())
    subject = _subject(row, texts[gold])
    return choice_question(text, texts, gold, images, str(row[_NAME]), modality=modality, subject=subject)


def _named(row: Row, context: ReaderContext) -> list[str]:
    cell = str(row.get("image_path") or "").strip()
    if cell.casefold() in _ABSENT:
        raise RowError("no-image", "the row has neither an image nor the path of one")
    return [context.images.named(name) for name in (literal(cell) if cell.startswith("[") else [cell])]


def _options(row: Row, answer: str) -> dict[str, str]:
    """The options that are offered; {} where the table has none."""
    texts = {letter: str(row[letter]).strip() for letter in LETTERS if letter in row}
    while texts:
        letter = max(texts)
        if not _is_absent(texts[letter]) or (answer in (letter, texts[letter]) and texts[letter]):
            break
        del texts[letter]
    empty = [letter for letter, text in texts.items() if not text]
    if empty:
        raise RowError("empty-option", f"option {empty[0]} is empty, and others follow")
    return options_by_letter(texts)


def _is_absent(value: object) -> bool:
    return str(value or "").strip().casefold() in _ABSENT


def _subject(row: Row, right: str) -> str | None:
    """What the question is about; a category that is the right answer itself says nothing."""
    texts = (topic_of(row, key) for key in _SUBJECTS)
    return next((t for t in texts if t and not _is_absent(t) and t.casefold() != right.casefold()), None)


def _table(row: Row) -> str:
    return str(row[_NAME])


VLMEVALKIT = Source(
    "a table of VLMEvalKit",
    (
        Form(
            "VLMEvalKit's table",
            {"test": ("*.tsv",)},
            ("index", "question", "answer"),
            question,
            rows=table_rows,
            set_of=_table,
            embeds_images=True,
            in_parts=True,
            image_folders=("images", ""),
        ),
    ),
)
