"""The prepared sets below `--data`: one per modality or task, by the name of its folder."""

import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from open_r1.common.atomic_files import MANIFEST, sha256_file
from open_r1.common.errors import UserError
from open_r1.vocabulary.labels import Family, Modality, Task, family_of, parse_label

Label = Modality | Task


@dataclass(frozen=True)
class DataSet:
    """One prepared set."""

    label: Label
    path: str
    train: int  # questions; 0: it has no such split
    test: int
    sha256: str  # of its manifest, or of what describes its splits where it has none

    @property
    def family(self) -> Family:
        """The split family that it is of."""
        return family_of(self.label)


def find_sets(folder: Path, families: Collection[Family]) -> tuple[list[DataSet], list[str]]:
    """The sets of some split families, in the published order, and the names of folders that are no such set.

    Raises:
        UserError: there is none, one cannot be read, or two folders are of one label.
    """
    if not folder.is_dir():
        raise UserError(f"--data {folder} is no folder; scripts/prepare_omnimedvqa.py --output_dir makes it")
    found: dict[Label, DataSet] = {}
    others = []
    for path in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")):
        label = _label(path, families)
        if label is None:
            others.append(path.name)
        elif family_of(label) in families:
            if label in found:
                raise UserError(f"{found[label].path} and {path} are both of {label}; keep one of them in {folder}")
            found[label] = _read(label, path)
    if not found:
        raise UserError(
            f"--data {folder} holds no prepared set by {' or '.join(families)}; "
            f"scripts/prepare_omnimedvqa.py --output_dir {folder} makes them"
        )
    return [found[label] for label in [*Modality, *Task] if label in found], others


def _label(path: Path, families: Collection[Family]) -> Label | None:
    """What a folder is named after; `MR` alone is read by the one family that is asked for."""
    if not (path / "dataset_dict.json").is_file():
        return None
    try:
        return parse_label(path.name)
    except UserError:
        pass
    try:
        return parse_label(path.name, *families) if len(families) == 1 else None
    except UserError:
        return None


def _read(label: Label, path: Path) -> DataSet:
    splits = {split: path / split for split in ("train", "test") if (path / split / "state.json").is_file()}
    manifest = path / MANIFEST
    described = manifest if manifest.is_file() else path / next(iter(splits), "train") / "state.json"
    if not splits:
        raise UserError(f"{path} has neither a train nor a test split; prepare it again")
    counts = {split: _rows(folder) for split, folder in splits.items()}
    return DataSet(label, str(path), counts.get("train", 0), counts.get("test", 0), sha256_file(described))


def _rows(split: Path) -> int:
    """Rows of a saved split, from the heads of its files: images are not read."""
    import datasets

    try:
        if not json.loads((split / "state.json").read_text(encoding="utf-8"))["_data_files"]:
            return 0
        return datasets.Dataset.load_from_disk(str(split)).num_rows
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{split} holds no saved data set that can be read: {str(error).splitlines()[0]}") from None
