"""Rows of a JSON list or of JSON Lines, whose images are files below a folder."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets

from open_r1.common.errors import UnusableInput, UserError
from open_r1.data.images import check_reference, resolve, shown
from open_r1.data.json_lists import json_entries, json_lines
from open_r1.data.key_table import KeyTable
from open_r1.data.omnimedvqa.source import labels_beside, question_key
from open_r1.data.question_checks import QuestionTexts, check_question
from open_r1.data.readers.image_columns import ROW_FEATURES
from open_r1.data.rows import (
    Dropped,
    RowError,
    images_id,
    refuse_more_images,
    refuse_repeated,
    required_texts,
    row_id,
    source_of,
    text_of,
)
from open_r1.vocabulary.column_names import ColumnNames, renamed_entry
from open_r1.vocabulary.labels import Modality, Task, parse_label, parse_modality, parse_task

LIST, LINES = ".json", ".jsonl"


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of a file."""

    images: tuple[str, ...]
    """Paths below the image root, not looked for yet."""
    texts: QuestionTexts
    id: str
    source: str
    modality: str | None
    task: str | None
    subject: str | None


def entries_of(path: Path) -> Iterator[tuple[str, Any]]:
    """Every entry of a JSON list or JSON Lines file with its place, `train.json entry 3`.

    Raises:
        UserError: the file cannot be read, or is no list.
    """
    entries, word = (json_lines(path), "row") if path.suffix == LINES else (json_entries(path), "entry")
    for number, entry in enumerate(entries):
        yield f"{path.name} {word} {number}", entry


def read_json(
    paths: Sequence[Path], image_root: str | os.PathLike | None, names: ColumnNames
) -> tuple[datasets.Dataset, list[Dropped]]:
    """The usable rows of one or several files and the dropped ones; images are paths of files that are there.

    Raises:
        UserError: a file cannot be read, or its rows name images and there is no folder that they lie in.
    """
    if image_root is not None and not os.path.isdir(image_root):
        raise UserError(f"--image_root {image_root} is not a folder")
    columns: dict[str, list[Any]] = {name: [] for name in ROW_FEATURES}
    dropped: list[Dropped] = []
    seen_ids = KeyTable()
    for path in paths:
        file_label, labels_of_other_family = label_of(path.name), labels_beside(path)
        for where, value in entries_of(path):
            try:
                entry = read_entry(value, names)
                if entry.images and image_root is None:
                    raise _no_root(path)
                refuse_repeated(entry.id, seen_ids)
                images = [{"bytes": None, "path": str(resolve(image, image_root or ""))} for image in entry.images]
            except UnusableInput as error:
                dropped.append(Dropped(where, error.reason, str(error)))
                continue
            labels = [file_label]
            if len(entry.images) == 1:
                labels.append(labels_of_other_family.get(question_key(entry.images[0], entry.texts.problem)))
            values = _labelled(entry, labels) | {"images": images}
            for name, column in columns.items():
                column.append(values[name])
    return datasets.Dataset.from_dict(columns, features=ROW_FEATURES), dropped


def _no_root(path: Path) -> UserError:
    return UserError(
        f"{path} names images by path; give the folder that the paths are relative to as --image_root (a set of the "
        "hub is to be downloaded for that)"
    )


def _labelled(entry: Entry, labels: Sequence[Modality | Task | None]) -> dict[str, Any]:
    """The values of a row without its images; labels of the file come before those in the row."""
    modality = next((str(label) for label in labels if isinstance(label, Modality)), entry.modality)
    task = next((str(label) for label in labels if isinstance(label, Task)), entry.task)
    texts = entry.texts
    return {
        "problem": texts.problem,
        "solution": texts.solution,
        "answer_type": texts.answer_type.value,
        "aliases": list(texts.aliases),
        "id": entry.id,
        "source": entry.source,
        "modality": modality,
        "task": task,
        "subject": entry.subject,
    }


# ------------------------------------------------------------------------------------------------ one entry


def read_entry(value: Any, names: ColumnNames | None = None) -> Entry:
    """Check one row; its images are named, not looked for.

    A row with the key `image` is of the published form: its id and source follow from the path of its image, and its
    labels are those of OmniMedVQA. With `images`, or with neither, all of these are taken from the row.

    Raises:
        UnusableInput: with the reason.
    """
    entry = renamed_entry(value, names or {})
    if isinstance(entry, dict) and "image" not in entry and type(entry.get("solution")) is int:
        entry = entry | {"solution": str(entry["solution"])}  # "How many lesions?": 4
    problem, solution = required_texts(entry, ("problem", "solution"))
    images = _references(entry)
    texts = check_question(problem, solution, entry.get("answer_type"), entry.get("aliases"), len(images))
    for image in images:
        check_reference(image)
    key = row_id(images_id(images), texts.problem, texts.solution)
    subject = _optional_text(entry, "subject")
    if isinstance(entry.get("image"), str):
        modality, task = _omnimedvqa_labels(entry)
        return Entry(images, texts, key, source_of(images[0]), modality, task, subject)
    named_id = entry.get("id")
    if named_id is not None:
        key = str(named_id) if type(named_id) is int else text_of("id", named_id)
    source, modality, task = (_optional_text(entry, name) for name in ("source", "modality", "task"))
    return Entry(images, texts, key, source or "", modality, task, subject)


def _references(entry: Mapping[str, Any]) -> tuple[str, ...]:
    """The images that a row names.

    Raises:
        RowError: `not-text`, `image-missing` or `several-images`.
    """
    listed = "image" if "image" in entry else "images"
    for key, value in entry.items():
        if key != listed:
            refuse_more_images(key, value)
    value = entry.get(listed)
    if isinstance(value, list):
        return tuple(_reference(item, number, len(value)) for number, item in enumerate(value, 1))
    if value is None and listed == "images":
        return ()
    return (text_of(listed, value),)


def _reference(item: Any, number: int, count: int) -> str:
    if isinstance(item, Mapping) and item.get("bytes") is None:
        item = item.get("path")
    if item is None or item == "":
        raise RowError("image-missing", f"image {number} of {count} is missing, and without it it is another question")
    if not isinstance(item, str):
        raise RowError("not-text", f"image {number} of {count} must be a path, not {shown(item)}")
    return item


def _omnimedvqa_labels(entry: Mapping[str, Any]) -> tuple[str | None, str | None]:
    try:
        modality = parse_modality(str(entry.get("modality") or ""), "modality")
        task = parse_task(str(entry.get("task") or ""), "task")
    except UserError as error:
        raise RowError("unknown-label", str(error)) from None
    return modality, task


def _optional_text(entry: Mapping[str, Any], key: str) -> str | None:
    value = entry.get(key)
    return None if value is None or value == "" else text_of(key, value)


def label_of(name: str) -> Modality | Task | None:
    """The label in the name of a file or folder; None if it holds none."""
    try:
        return parse_label(name)
    except UserError:
        return None
