"""VQA-Med 2019: lines of `image|question|answer`, with alternatives after `#` and optional parts in parentheses.

Parentheses are optional parts in the answers about abnormalities alone. Names of modalities hold some too, and without
them another modality is meant: `ct w/contrast (iv)` is not `ct w/contrast (gi)`.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from open_r1.common.errors import UserError
from open_r1.data.rows import RowError
from open_r1.data.text.files import Row
from open_r1.data.vqa.forms import Form, Source
from open_r1.data.vqa.questions import ReaderContext, VqaQuestion, answer_question, numbered, topic_of
from open_r1.data.vqa.readers.vqa_rad import holds_vqa_med

TITLE = "VQA-Med-2019"
_ABNORMALITY = "abnormality"
_OPTIONAL = re.compile(r"\(([^()]*)\)")
_LONGEST_LINE = 10_000  # characters; the longest of the set has 200
_CATEGORIES = {"abn": _ABNORMALITY}


def question(row: Row, context: ReaderContext) -> VqaQuestion:
    """image_name (with or without extension), question, answer, category (None where the files do not say it)."""
    name = (topic_of(row, "category", "question_type") or "").casefold()
    subject = _CATEGORIES.get(name, name) or None
    right, *aliases = alternatives(context.text(row, "answer"), subject == _ABNORMALITY)
    images = numbered([context.images.named(row.get("image_name"))])
    return answer_question(context.text(row, "question"), right, images, TITLE, aliases=aliases, subject=subject)


def alternatives(answer: str, has_optional_parts: bool) -> list[str]:
    """The answer, then what else is right: the texts after `#`, and each text without its optional parts.

    Raises:
        RowError: there is no text.
    """
    texts = [text.strip() for text in answer.split("#") if text.strip()]
    if not texts:
        raise RowError("empty-text", f"the answer is {answer!r:.60}")
    if has_optional_parts:
        for text in tuple(texts):
            for reading in (_OPTIONAL.sub(" ", text), _OPTIONAL.sub(r" \1 ", text)):
                texts.append(" ".join(reading.split()))
    return [text for text in dict.fromkeys(texts) if text]


def lines(path: Path) -> Iterator[tuple[str, Row | RowError]]:
    """The questions of a text file: three parts, or four with the category in the second place.

    Raises:
        UserError: it is no text file of such lines.
    """
    if path.suffix != ".txt":
        raise UserError(f"{path} is no text file")
    categories = _categories_beside(path)
    for where, parts in _parts_of(path):
        if len(parts) == 4:
            image, category, text, answer = parts
        elif len(parts) == 3:
            image, text, answer = parts
            category = categories.get((image, text))
        else:
            answers = "the file of the questions alone has no answers" if len(parts) == 2 else "image|question|answer"
            yield where, RowError("bad-line", f"{len(parts)} parts between '|'; expected are 3 or 4 ({answers})")
            continue
        yield where, {"image_name": image, "question": text, "answer": answer, "category": category}


def _parts_of(path: Path) -> Iterator[tuple[str, list[str]]]:
    try:
        with path.open(encoding="utf-8-sig") as file:
            number = 0
            while line := file.readline(_LONGEST_LINE):
                if line.strip():
                    yield f"{path.name} line {number}", [part.strip() for part in line.split("|")]
                number += line.endswith("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 ({error.reason}); save it as UTF-8") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None


def _categories_beside(path: Path) -> dict[tuple[str, str], str]:
    """(image, question) -> category, from the files of the folder QAPairsByCategory beside a file of all pairs."""
    categories: dict[tuple[str, str], str] = {}
    split = path.stem.rpartition("_")[2]
    for file in sorted((path.parent / "QAPairsByCategory").glob(f"C?_*_{split}.txt")):
        for _, parts in _parts_of(file):
            if len(parts) == 3:
                categories[parts[0], parts[1]] = file.stem.split("_")[1].casefold()
    return categories


_KEYS = ("image_name", "question", "answer")
VQA_MED = Source(
    TITLE,
    (
        Form(
            "VQA-Med 2019 as its task published it",
            {
                "train": ("**/All_QA_Pairs_train.txt",),
                "validation": ("**/All_QA_Pairs_val.txt",),
                "test": ("**/VQAMed2019_Test_Questions_w_Ref_Answers.txt",),
            },
            (*_KEYS, "category"),
            question,
            rows=lines,
        ),
        Form(
            "VQA-Med 2019 in the form of MEVF's files for VQA-RAD",
            {"train": ("trainset.json", "data_RAD/trainset.json"), "test": ("testset.json", "data_RAD/testset.json")},
            (*_KEYS, "answer_type", "phrase_type"),
            question,
            absent=("qid_linked_id",),
            fits=holds_vqa_med,
            image_folders=("images", "data_RAD/images", ""),
        ),
    ),
)
