"""What the training questions give away about a test question: the blind guess, and whether its image is known.

Both need the training split: that of the data the checkpoint was trained on, where its run.json says it and it is
still there; else the train split beside the test questions; else none, and then nothing is claimed.
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
    """The train split of a data set (a JSON list is one split as it stands).

    Raises:
        UserError: it is not there, or has no train split.
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
            key = image_key(row) if has_bytes else ""  # a path is a place, which may change
        contents.append(f"{row['id']} {row_id(key, row['problem'], row['solution'])}")
    content, guesser = data_fingerprint(contents), BlindGuesser(texts)  # pyright: ignore[reportArgumentType]
    return TrainingSet(path, list(rows["id"]), content, guesser, frozenset(keys), has_bytes)


def find_training_set(
    asked: str | None, checkpoint: Path, prompt_path: str, image_root: str | None
) -> tuple[TrainingSet | None, str]:
    """The training set to compare with, and a line that says which, or why there is none.

    Args:
        asked: `--train_path`, which wins and must load.
        checkpoint: the checkpoint's folder; its run.json may name the data.
        prompt_path: the test data, which may have a train split.
        image_root: folder of the images that a JSON list names.
    """
    if asked is not None:
        return load_training_set(asked, image_root), f"blind floor from {asked}"
    reasons = []
    for path, root, what in _candidates(checkpoint, prompt_path, image_root):
        try:
            return load_training_set(path, root), f"blind floor from {path} ({what})"
        except UserError as error:
            reasons.append(str(error).split("; ")[0])
    why = f": {reasons[-1]}" if reasons else ""
    return None, f"no training split, so no blind floor and no word on seen images{why}; --train_path names one"


def _candidates(checkpoint: Path, prompt_path: str, image_root: str | None) -> list[tuple[str, str | None, str]]:
    record = run_record(checkpoint) or {}
    path = (record.get("data") or {}).get("path")
    root = (record.get("script_arguments") or {}).get("image_root")
    found = []
    if isinstance(path, str):
        found.append((path, root if isinstance(root, str) else image_root, "the checkpoint's training data"))
    if Path(prompt_path).is_dir():  # a JSON list is one split: the test questions themselves
        found.append((prompt_path, image_root, "its train split"))
    return found
