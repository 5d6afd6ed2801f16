"""Which files of a folder hold which split, as data sets of the hub are laid out.

`train-00000-of-00002.parquet`, also below `data/`, is of the split train; so are `train/0000.parquet`, `train.parquet`
and `train.jsonl`. A split may have any name.
"""

import os
import re
from collections.abc import Iterable
from pathlib import Path, PurePath

from open_r1.common.errors import UserError
from open_r1.data.readers.saved_sets import choose_split

PARQUET = ".parquet"
SUFFIXES = (PARQUET, ".jsonl", ".json")
"""The files that are read; of a folder with several kinds those of the first kind."""

_SHARD = re.compile(r"(.+?)-\d{5}-of-\d{5}(?:-[0-9a-f]+)?")
_PART = re.compile(r"\d+|part[-_.].*|data[-_.].*")
_FOLDERS = frozenset({"train", "test", "validation", "val", "valid", "dev", "eval"})
_DEPTH = 4  # folders below the one that is named
# JSON files that describe a set and hold none of its rows.
_DESCRIPTIONS = frozenset({"dataset_info", "dataset_infos", "manifest", "report", "config", "metadata", "schema"})


def split_of(path: PurePath) -> str:
    """The split that a file holds, by its path below the folder of the set."""
    folders = [name for name in path.parts[:-1] if name != "data"]
    if shard := _SHARD.fullmatch(path.stem):
        return shard[1]
    if folders and (folders[-1] in _FOLDERS or _PART.fullmatch(path.stem)):
        return folders[-1]
    return path.stem


def files_in(folder: Path) -> list[PurePath]:
    """The data files below a folder, as paths relative to it; hidden files and folders are left out."""
    paths = []
    for place, folders, names in os.walk(folder):
        inside = PurePath(os.path.relpath(place, folder))
        folders[:] = sorted(name for name in folders if not name.startswith(".") and len(inside.parts) < _DEPTH)
        files = [name for name in names if not name.startswith(".")]
        paths += [inside / name for name in files if os.path.isfile(os.path.join(place, name))]  # no pipes
    return data_files(paths)


def data_files(paths: Iterable[PurePath]) -> list[PurePath]:
    """Those of the paths that are files of rows, all of one kind, in order."""
    for suffix in SUFFIXES:
        files = [path for path in paths if path.suffix == suffix and path.stem not in _DESCRIPTIONS]
        if files:
            return sorted(files)
        paths = [*paths]
    return []


def files_of_split(where: Path | str, files: Iterable[PurePath], split: str | None) -> tuple[str, list[PurePath]]:
    """The split to read and its files.

    Raises:
        UserError: the split is not there, is to be chosen among several, or lies in several folders, which are
            different sets.
    """
    by_split: dict[str, list[PurePath]] = {}
    for path in files:
        by_split.setdefault(split_of(path), []).append(path)
    name = choose_split(where, [*by_split], split)
    folders = sorted({str(path.parent) for path in by_split[name]})
    if len(folders) > 1:
        raise UserError(
            f"{where} has the split {name} in {len(folders)} folders ({', '.join(folders[:5])}), which are different "
            "sets; name one of these folders"
        )
    return name, by_split[name]
