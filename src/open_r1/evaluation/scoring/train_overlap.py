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
from open_r1.data.loading import data_fingerprint, load_rows
from open_r1.data.row_images import image_key
from open_r1.data.rows import row_id
from open_r1.evaluation.scoring.blind_floor import BlindGuesser


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
        """Whether a question's image is in training; None where the two sets name images differently."""
        if row["image"] is None or (row["image"]["bytes"] is not None) != self.has_bytes:
            return None
        return image_key(row) in self.images


def load_training_set(path: str, image_root: str | None) -> TrainingSet:
    """The train split of a data set (a JSON list is a single split).

    Raises:
        UserError: it does not exist, or has no train split.
    """
    rows, _ = load_rows(path, "train", image_root)
    texts = rows.select_columns(["problem", "solution"])
    keys, contents, has_bytes = set(), [], True
    for row in rows.select_columns(["id", "image", "problem", "solution"]):
        assert isinstance(row, dict)
        key = ""
        if row["image"] is not None:
            has_bytes = row["image"]["bytes"] is not None
            keys.add(image_key(row))
            key = image_key(row) if has_bytes else ""  # a path is a location, which may change
        contents.append(f"{row['id']} {row_id(key, row['problem'], row['solution'])}")
    content, guesser = data_fingerprint(contents), BlindGuesser(texts)  # pyright: ignore[reportArgumentType]
    return TrainingSet(path, list(rows["id"]), content, guesser, frozenset(keys), has_bytes)


def find_training_set(
    train_path: str | None, checkpoint: Path, prompt_path: str, image_root: str | None
) -> tuple[TrainingSet | None, str]:
    """The training set to compare with, and a line that says which, or why there is none.

    Args:
        train_path: `--train_path`, which comes first and must load.
        checkpoint: the checkpoint's folder; its run.json may name the data.
        prompt_path: the test data, which may have a train split.
        image_root: folder of the images that a JSON list names.
    """
    if train_path is not None:
        return load_training_set(train_path, image_root), f"blind floor from {train_path}"
    reasons = []
    for path, root, origin in _candidates(checkpoint, prompt_path, image_root):
        try:
            return load_training_set(path, root), f"blind floor from {path} ({origin})"
        except UserError as error:
            reasons.append(str(error).split("; ")[0])
    reason = f": {reasons[-1]}" if reasons else ""
    return None, f"no training split, so no blind floor and no check for seen images{reason}; --train_path names one"


def _candidates(checkpoint: Path, prompt_path: str, image_root: str | None) -> list[tuple[str, str | None, str]]:
    record = run_record(checkpoint) or {}
    path = (record.get("data") or {}).get("path")
    root = (record.get("script_arguments") or {}).get("image_root")
    candidates = []
    if isinstance(path, str):
        candidates.append((path, root if isinstance(root, str) else image_root, "the checkpoint's training data"))
    if Path(prompt_path).is_dir():  # a JSON list is one split: the test questions themselves
        candidates.append((prompt_path, image_root, "its train split"))
    return candidates
