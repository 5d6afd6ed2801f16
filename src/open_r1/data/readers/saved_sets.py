"""A DatasetDict or Dataset in a folder, as `save_to_disk` and our preparation write it."""

from pathlib import Path
from typing import Any

import datasets

from open_r1.common.atomic_files import parse_json
from open_r1.common.errors import UserError
from open_r1.data.images import shown

_SPLITS, _STATE = "dataset_dict.json", "state.json"


def is_saved_set(path: Path) -> bool:
    """Whether a folder holds what `save_to_disk` writes, as far as the names of its files say."""
    return (path / _SPLITS).is_file() or (path / _STATE).is_file()


def open_saved_set(path: Path, split: str | None) -> tuple[datasets.Dataset, str]:
    """The table of one split, memory-mapped, and the name of the set and the split.

    Raises:
        UserError: the folder or the split is not there, or cannot be read.
    """
    folder = _pick(path, split)
    return _load(folder), path.name if folder == path else f"{path.name} {folder.name}"


def _pick(path: Path, split: str | None) -> Path:
    """The folder of the requested split. Only that one is opened: datasets cannot load an empty split beside it."""
    names = splits_of_saved_set(path)
    if names is None:
        return path
    return path / _plain_name(choose_split(path, names, split), path / _SPLITS)


def splits_of_saved_set(path: Path) -> list[str] | None:
    """The names of the splits of a DatasetDict; None for a Dataset, which is a single one.

    Raises:
        UserError: the folder cannot be read.
    """
    try:
        return [str(name) for name in _read_json(path / _SPLITS)["splits"]]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} holds no saved data set that can be read: {error}") from None


def choose_split(path: Path | str, names: list[str], split: str | None) -> str:
    """The name of the split to read: the one that is wanted, or the only one.

    Raises:
        UserError: it is not there, or there are several.
    """
    if split is None and len(names) != 1:
        raise UserError(f"{path} holds {', '.join(names) or 'no split'}; choose one of them as the split")
    if split is not None and split not in names:
        raise UserError(f"{path} has no {split} split, only {', '.join(names) or 'nothing'}")
    return split or names[0]


def _plain_name(name: str, named_by: Path) -> str:
    if Path(name).name != name or name == "..":
        raise UserError(f"{named_by} names {shown(name)}, which is not a plain file name beside it; refused")
    return name


def _load(folder: Path) -> datasets.Dataset:
    try:
        state = _read_json(folder / _STATE)
        files = [_plain_name(entry["filename"], folder / _STATE) for entry in state["_data_files"]]
        if not files:
            raise UserError(f"{folder} has no rows")
        return datasets.Dataset.load_from_disk(str(folder)).with_format(None)
    except UserError:
        raise
    except Exception as error:  # datasets and pyarrow raise many kinds of errors for damaged files
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{folder} holds no saved data set that can be read: {reason}") from None


def _read_json(path: Path) -> Any:
    return parse_json(path.read_text(encoding="utf-8"))
