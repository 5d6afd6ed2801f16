"""Read OmniMedVQA's questions: the release (`QA_information/`) or Med-R1's split files, one question at a time.

No image is opened here. An unusable question becomes a `Dropped` with its reason; a file that is not a list of
questions is an error. Files are parsed entry by entry, so that memory does not grow with them.
"""

import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from open_r1.common.errors import UnusableInput, UserError
from open_r1.data.answer_texts import letter_by_text, without_marks
from open_r1.data.images import check_reference, shown
from open_r1.data.json_lists import json_entries
from open_r1.data.rows import (
    Dropped,
    RowError,
    check_row,
    check_texts,
    refuse_more_images,
    required_texts,
    row_id,
    source_of,
    text_of,
)
from open_r1.grading.problems import LETTERS, render_problem
from open_r1.vocabulary.labels import Modality, SplitFile, Task, parse_modality, parse_split_file, parse_task


@dataclass(frozen=True, slots=True)
class Question:
    """One question in the published form, with what the data says about it."""

    image: str  # path below the image root, as the data writes it
    problem: str  # "Question? A)x, B)y"
    solution: str  # "<answer> B </answer>"
    source: str  # OmniMedVQA's name of the data set
    modality: Modality | None
    task: Task | None


# -------------------------------------------------------------------------------------------------- release


def release_files(release: str | os.PathLike) -> list[Path]:
    """The question files of a release folder, in a fixed order.

    Raises:
        UserError: the folder does not have the release's layout.
    """
    files = sorted(Path(release).glob("QA_information/*/*.json"))
    if not files:
        raise UserError(
            f"{release} is not an OmniMedVQA release: it has no QA_information/Open-access/<dataset>.json; "
            "unpack OmniMedVQA.zip and give the folder that contains Images and QA_information"
        )
    return files


def read_release(release: str | os.PathLike) -> Iterator[Question | Dropped]:
    """Every question of a release folder, file after file.

    Raises:
        UserError: the layout is not the release's, or a file is no list.
    """
    for file in release_files(release):
        for number, entry in enumerate(json_entries(file)):
            yield _release_row(entry, f"{file.parent.name}/{file.name} entry {number}", file.stem)


def _release_row(entry: Any, where: str, stem: str) -> Question | Dropped:
    modality = task = None
    try:
        if isinstance(entry, RowError):
            raise entry
        if not isinstance(entry, dict):
            raise RowError("not-an-object", f"an object is expected, not {shown(entry)}")
        try:
            modality = parse_modality(str(entry.get("modality_type") or ""), "modality")
            task = parse_task(str(entry.get("question_type") or ""), "task")
        except UserError as error:
            raise RowError("unknown-label", str(error)) from None
        # Some grades are numbers in the data; they are read as texts.
        entry = {key: str(value) if _is_number(value) else value for key, value in entry.items()}
        question, answer, image = required_texts(entry, ("question", "gt_answer", "image_path"))
        for key, value in entry.items():
            refuse_more_images(key, value)
        problem, solution = _published_form(question, answer.strip(), _release_options(entry))
        source = text_of("dataset", entry["dataset"]) if entry.get("dataset") else stem
        return Question(check_reference(image), problem, solution, source, modality, task)
    except UnusableInput as error:
        return Dropped(where, error.reason, str(error), modality, task)


def _is_number(value: Any) -> bool:
    """Whether a value is a finite number. `json` also reads NaN and Infinity, which answer nothing."""
    return isinstance(value, int | float) and value == value and value not in (math.inf, -math.inf)


def _release_options(entry: dict[str, Any]) -> list[str]:
    keys = sorted(key for key in entry if re.fullmatch(r"option_[A-Z]", key))
    texts = [text_of(key, entry[key]).strip() for key in keys if entry[key] not in (None, "")]
    if len(texts) < 2:
        raise RowError("no-options", f"{len(texts)} options are offered; option_A and option_B are expected")
    texts = list(without_marks(dict(zip(LETTERS, texts, strict=False))).values())
    if len(set(texts)) < len(texts):
        raise RowError("repeated-option", f"an option is repeated in {shown(texts)}")
    return texts


def _published_form(question: str, answer: str, options: list[str]) -> tuple[str, str]:
    try:
        problem = render_problem(question, options)
    except UserError as error:
        raise RowError("no-options", str(error)) from None
    letter = letter_by_text(answer, dict(zip(LETTERS, options, strict=False)))
    return check_texts(problem, f"<answer> {letter} </answer>")


# ---------------------------------------------------------------------------------------------- split files


def split_files(splits_dir: str | os.PathLike) -> list[tuple[Path, SplitFile]]:
    """The published split files below a folder: modalities first, labels in order, train before test.

    Raises:
        UserError: there are none, or a name cannot be read.
    """
    order = {label: place for place, label in enumerate([*Modality, *Task])}
    files = [
        (path, parse_split_file(path.relative_to(splits_dir)))
        for path in sorted(Path(splits_dir).rglob("*.json"))
        if path.stem.endswith(("_train", "_test"))
    ]
    if not files:
        raise UserError(
            f"{splits_dir} holds no split files; modality/train/<name>_train.json, modality/test/..., "
            "question_type/train/... are expected"
        )
    return sorted(
        files,
        key=lambda item: (
            item[1].family,
            order.get(item[1].label, 99) if item[1].label else 99,
            item[1].split != "train",
            str(item[0]),
        ),
    )


def read_split_file(path: Path, split: SplitFile) -> Iterator[Question | Dropped]:
    """The questions of one split file; only the label that the file's name gives is filled in.

    Raises:
        UserError: the file is no list.
    """
    modality = split.label if isinstance(split.label, Modality) else None
    task = split.label if isinstance(split.label, Task) else None
    for number, entry in enumerate(json_entries(path)):
        try:
            image, problem, solution = check_row(entry)
        except UnusableInput as error:
            yield Dropped(f"{path.name} entry {number}", error.reason, str(error), modality, task)
        else:
            yield Question(image, problem, solution, source_of(image), modality, task)


def question_key(image: str, problem: str) -> int:
    """The key that joins the two split families: image path and problem, as 64 bits of a SHA-256."""
    return int(row_id(image, problem, ""), 16)


def labels_beside(path: Path) -> dict[int, Modality | Task]:
    """Labels for the questions of a split file from the other family's files: `question_key` -> label.

    Empty if the file is not in the published folders, or the other family is missing or unreadable.
    """
    side, family = path.resolve().parents[:2] if len(path.resolve().parents) > 2 else (path, path)
    labels: dict[int, Modality | Task] = {}
    if side.name not in ("train", "test") or family.name not in ("modality", "question_type"):
        return labels
    try:
        for path_of_other, split in split_files(family.parent):
            if split.label is not None and not path_of_other.is_relative_to(family):
                for row in read_split_file(path_of_other, split):
                    if isinstance(row, Question):
                        labels[question_key(row.image, row.problem)] = split.label
    except UserError:
        return {}
    return labels
