"""The overlap of test questions with the training split: the blind guess by option text, and images that occur in both.

The training split is that of the checkpoint's training data, if its run.json names it and it still exists; otherwise
the train split of the test data; without either, both are recorded as unknown.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from open_r1.checkpoints.folder import run_record
from open_r1.common.errors import UserError
from open_r1.data.loading import data_fingerprint, digest_of, load_rows
from open_r1.data.row_images import image_keys
from open_r1.evaluation.scoring.blind_floor import BlindGuesser
from open_r1.vocabulary.column_names import ColumnNames, parse_columns


@dataclass(frozen=True)
class TrainingSet:
    """Training questions, as far as test questions are compared with them."""

    path: str
    ids: list[str]
    content: str
    """SHA-256 over ids, texts and, where images are told apart by content, images."""
    guesser: BlindGuesser
    images: frozenset[str]
    has_bytes: bool
    """Whether images are told apart by content; by path otherwise."""

    def guess_points(self, row: Mapping[str, Any]) -> float:
        """The share of a point (0 to 1) that guessing by option texts earns on a question."""
        return self.guesser.points(row)

    def has_image_of(self, row: Mapping[str, Any]) -> bool | None:
        """Whether an image of a question is in training; None without images, or if the sets name them differently."""
        images = row["images"]
        if not images or any((image["bytes"] is not None) != self.has_bytes for image in images):
            return None
        return not self.images.isdisjoint(image_keys(row))


def load_training_set(
    path: str, image_root: str | None, columns: ColumnNames | None = None, split: str = "train"
) -> TrainingSet:
    """The training split of a data set (a JSON list is a single split).

    Raises:
        UserError: it does not exist, or has no train split.
    """
    rows, _ = load_rows(path, split, image_root, columns)
    texts = rows.select_columns(["problem", "solution", "answer_type", "aliases"])
    keys, contents, has_bytes = set(), [], True
    for row in rows:
        assert isinstance(row, dict)
        row_keys = image_keys(row)
        keys.update(row_keys)
        if row["images"]:
            has_bytes = all(image["bytes"] is not None for image in row["images"])
        # a path is a location, which may change
        contents.append(f"{row['id']} {digest_of(row, row_keys if has_bytes else [])}")
    content, guesser = data_fingerprint(contents), BlindGuesser(texts)  # pyright: ignore[reportArgumentType]
    return TrainingSet(path, list(rows["id"]), content, guesser, frozenset(keys), has_bytes)


def find_training_set(
    train_path: str | None,
    checkpoint: Path,
    prompt_path: str,
    image_root: str | None,
    columns: ColumnNames | None = None,
    split: str = "train",
) -> tuple[TrainingSet | None, str]:
    """The training set to compare with, and a line that says which, or why there is none.

    Args:
        train_path: `--train_path`, which comes first and must load.
        checkpoint: the checkpoint's folder; its run.json may name the data.
        prompt_path: the test data, which may have a train split.
        image_root: folder of the images that a JSON list names.
        columns: other names of columns in the test data and in `train_path`.
        split: the training split of these two.
    """
    if train_path is not None:
        return load_training_set(train_path, image_root, columns, split), f"blind floor from {train_path}"
    candidates = [_of_checkpoint(checkpoint, image_root)]
    if Path(prompt_path).is_dir():  # a JSON list is one split: the test questions themselves
        candidates.append(((prompt_path, image_root, columns, split), f"its {split} split"))
    reasons = []
    for place, origin in filter(None, candidates):
        try:
            return load_training_set(*place), f"blind floor from {place[0]} ({origin})"
        except UserError as error:
            reasons.append(str(error).split("; ")[0])
    reason = f": {reasons[-1]}" if reasons else ""
    return None, f"no training split, so no blind floor and no check for seen images{reason}; --train_path names one"


_Place = tuple[str, str | None, ColumnNames | None, str]  # path, image root, names of columns, split


def _of_checkpoint(checkpoint: Path, image_root: str | None) -> tuple[_Place, str] | None:
    """Where the run record of a checkpoint says that its training questions are; None if it names no single set."""
    record = run_record(checkpoint) or {}
    path = (record.get("data") or {}).get("path")
    if not isinstance(path, str):
        return None
    flags = record.get("script_arguments") or {}
    root, split, columns = (flags.get(name) for name in ("image_root", "dataset_train_split", "columns"))
    place = (
        path,
        root if isinstance(root, str) else image_root,
        parse_columns(columns) if isinstance(columns, str) else None,
        split if isinstance(split, str) else "train",
    )
    return place, "the checkpoint's training data"
