"""Which checkpoints and data sets a command names, and the result file of each."""

import re
from collections.abc import Sequence
from pathlib import Path

from open_r1.checkpoints.names import ADAPTER
from open_r1.common.errors import UserError


def each_checkpoint(names: Sequence[str], output: str, sets: int = 1) -> list[tuple[str, str]]:
    """(checkpoint, result file) of every checkpoint that is meant; with several `sets` (checkpoint, result folder).

    A single checkpoint's results go to `output`. Of several, or of a folder that holds the folders of runs, `output` is
    a folder with one file, or folder, for each, named after it.

    Raises:
        UserError: `output` is a file where a folder is needed.
    """
    found = [checkpoint for name in names for checkpoint in _expanded(name)]
    is_one = len(found) == 1 and found == list(names)
    if (not is_one or sets > 1) and (Path(output).is_file() or Path(output).suffix == ".jsonl"):
        several = " and ".join([f"{len(found)} checkpoints"] * (not is_one) + [f"{sets} data sets"] * (sets > 1))
        raise UserError(f"--output_path {output} is one file for {several}; name a folder")
    if is_one:
        return [(found[0], output)]
    end = "" if sets > 1 else ".jsonl"
    return [(name, str(Path(output) / f"{stem}{end}")) for name, stem in zip(found, _stems(found), strict=True)]


def each_set(paths: Sequence[str], output: str) -> list[tuple[str, str]]:
    """(data set, result file) of every data set: the file `output` of one, of several a file each in that folder.

    Raises:
        UserError: a data set is named twice.
    """
    if len(paths) == 1:
        return [(paths[0], output)]
    return [(path, str(Path(output) / f"{stem}.jsonl")) for path, stem in zip(paths, _stems(paths), strict=True)]


def _expanded(name: str) -> list[str]:
    """The checkpoint itself, or those in the folders right below it."""
    folder = Path(name).expanduser()
    if not folder.is_dir() or _is_checkpoint(folder):
        return [name]
    below = [str(path) for path in sorted(folder.iterdir()) if path.is_dir() and _is_checkpoint(path)]
    return below or [name]  # which `model_source` then refuses, with a reason


def _is_checkpoint(folder: Path) -> bool:
    return (folder / "config.json").is_file() or (folder / ADAPTER).is_file()


def _stems(names: Sequence[str]) -> list[str]:
    """File names without their ending: the last parts of the checkpoints' names, as many as tell them apart."""
    parts = [[part for part in re.split(r"[/:]", name) if part not in ("", ".", "..")] for name in names]
    for count in range(1, max(map(len, parts)) + 1):
        stems = ["_".join(each[-count:]) for each in parts]
        if len(set(stems)) == len(stems):
            return stems
    raise UserError(f"one is named twice: {', '.join(names)}")
