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
    sha256: str  # of its manifest, or of a split's state.json if it has no manifest

    @property
    def family(self) -> Family:
        """The split family of the label."""
        return family_of(self.label)


def find_sets(folder: Path, families: Collection[Family]) -> tuple[list[DataSet], list[str]]:
    """The sets of some split families, in the published order, and the names of folders that are not such sets.

    Raises:
        UserError: there is no set, one cannot be read, or two folders have the same label.
    """
    if not folder.is_dir():
        raise UserError(f"--data {folder} is not a folder; scripts/prepare_omnimedvqa.py --output_dir makes it")
    sets: dict[Label, DataSet] = {}
    ignored_folders = []
    for path in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")):
        label = _label_of(path, families)
        if label is None:
            ignored_folders.append(path.name)
        elif family_of(label) in families:
            if label in sets:
                raise UserError(f"{sets[label].path} and {path} are both {label}; keep one of them in {folder}")
            sets[label] = _read_set(label, path)
    if not sets:
        raise UserError(
            f"--data {folder} contains no prepared set by {' or '.join(families)}; "
            f"make them with scripts/prepare_omnimedvqa.py --output_dir {folder}"
        )
    return [sets[label] for label in [*Modality, *Task] if label in sets], ignored_folders


def _label_of(path: Path, families: Collection[Family]) -> Label | None:
    """The label in a folder's name; `MR` alone is ambiguous unless exactly one family is requested."""
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


def _read_set(label: Label, path: Path) -> DataSet:
    splits = {split: path / split for split in ("train", "test") if (path / split / "state.json").is_file()}
    manifest = path / MANIFEST
    description_file = manifest if manifest.is_file() else path / next(iter(splits), "train") / "state.json"
    if not splits:
        raise UserError(f"{path} has neither a train nor a test split; prepare it again")
    counts = {split: _count_rows(folder) for split, folder in splits.items()}
    return DataSet(label, str(path), counts.get("train", 0), counts.get("test", 0), sha256_file(description_file))


def _count_rows(split: Path) -> int:
    """Rows of a saved split, from its file headers: images are not read."""
    import datasets

    try:
        if not json.loads((split / "state.json").read_text(encoding="utf-8"))["_data_files"]:
            return 0
        return datasets.Dataset.load_from_disk(str(split)).num_rows
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{split} is not a readable saved data set ({str(error).splitlines()[0]}); prepare it again"
        ) from None
