"""Write checkpoints atomically: staged, hashed, synced to disk, manifest last, renamed.

A checkpoint is built as `.saving/checkpoint-N` and moved to `checkpoint-N` when everything needed for resuming is in
it. Its manifest.json holds size and SHA-256 of each file, so that damage is found before a run resumes from it.
Standard library only.
"""

import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from open_r1.common.atomic_files import (
    MANIFEST,
    parse_json,
    publish_folder,
    sha256_file,
    sync_folder,
    usual_modes,
    write_json,
)
from open_r1.common.errors import UserError
from open_r1.common.exhausted.full_disk import refused_write

STAGE = ".saving"
_REMOVING = ".removing-"
_SET_ASIDE = "damaged-"
_NAME = re.compile(r"checkpoint-(\d+)")
_KIND = "checkpoint"


def step_of(folder: Path) -> int:
    """N of `checkpoint-N`; -1 for any other name."""
    match = _NAME.fullmatch(folder.name)
    return int(match[1]) if match else -1


def newest_first(run: Path) -> list[Path]:
    """The `checkpoint-N` folders of a run, complete or damaged, newest first."""
    return sorted((path for path in run.glob("checkpoint-*") if step_of(path) >= 0), key=step_of, reverse=True)


def clear_stage(run: Path) -> Path:
    """Return an empty folder to build a checkpoint in, and delete incomplete ones of a killed run."""
    for leftover in [run / STAGE, *run.glob(f"{_REMOVING}*")]:
        shutil.rmtree(leftover, ignore_errors=True)
    (run / STAGE).mkdir(parents=True)
    return run / STAGE


def seal(stage: Path, final: Path, about: dict[str, Any]) -> None:
    """Write the manifest of a staged checkpoint and move it to its final name.

    Args:
        stage: folder with all files.
        final: `checkpoint-N`.
        about: further entries of the manifest: `resumable`, `processes`, `engine` and others.

    Raises:
        UserError: if the disk is full, or `final` exists.
    """
    names = sorted(_files(stage))
    with ThreadPoolExecutor(4) as pool:  # hashing releases the GIL
        hashes = pool.map(lambda name: sha256_file(stage / name), names)
    files = {name: [(stage / name).stat().st_size, digest] for name, digest in zip(names, hashes, strict=True)}
    write_json(stage / MANIFEST, about | {"kind": _KIND, "step": step_of(final), "files": files})
    publish_folder(stage, final)


def damage(folder: Path) -> str | None:
    """What is wrong with a checkpoint, with the file's name; None if every byte is as saved."""
    try:
        manifest = parse_json((folder / MANIFEST).read_text(encoding="utf-8"))
        files = dict(manifest["files"])
        expected = {str(name): (int(size), str(digest)) for name, (size, digest) in files.items()}
    except FileNotFoundError:
        return f"{MANIFEST} is missing, so saving was not completed"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"{MANIFEST} cannot be read ({type(error).__name__})"
    if manifest.get("kind") != _KIND or manifest.get("step") != step_of(folder):
        return f"{MANIFEST} belongs to something else"
    for name, (size, _) in expected.items():
        if not (folder / name).is_file():
            return f"{name} is missing"
        if (actual := (folder / name).stat().st_size) != size:
            return f"{name} has {actual:,} bytes instead of {size:,}"
    with ThreadPoolExecutor(4) as pool:
        for name, digest in zip(
            expected, pool.map(lambda file_name: _digest(folder / file_name), expected), strict=True
        ):
            if digest != expected[name][1]:
                return f"{name} has changed since it was saved"
    return None


def checkpoint_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of an undamaged checkpoint."""
    return json.loads((folder / MANIFEST).read_text(encoding="utf-8"))


def set_aside(folder: Path) -> Path:
    """Rename a damaged checkpoint, so that its number is free and no file is lost; returns the new path."""
    path = folder.with_name(_SET_ASIDE + folder.name)
    number = 1
    while path.exists():
        number += 1
        path = folder.with_name(f"{_SET_ASIDE}{folder.name}-{number}")
    os.rename(folder, path)
    sync_folder(path.parent)
    return path


def full_disk(error: Exception, folder: Path) -> str | None:
    """Message for an error that means that the disk of a run's folder is full; None for other errors."""
    reason = refused_write(error)
    if reason is None:
        return None
    newest = next((path for path in newest_first(folder) if _looks_resumable(path)), None)
    remedy = "there is no checkpoint to resume from, so the same command starts the run again"
    if newest is not None:
        remedy = f"{newest.name} is complete, and the same command continues from it"
    return f"cannot write the checkpoint to {folder}: {reason}. Free some space; {remedy}"


def _looks_resumable(folder: Path) -> bool:
    """Whether the manifest says that a run can resume from this checkpoint; files are not read."""
    try:
        return bool(checkpoint_manifest(folder).get("resumable"))
    except (OSError, ValueError, AttributeError):
        return False


def prune(run: Path, limit: int | None, spare: Iterable[Path] = ()) -> None:
    """Delete the oldest checkpoints over a limit. Call when the newest is complete, which is always kept.

    Args:
        run: the run's folder.
        limit: number to keep, `--save_total_limit`; None or 0 keeps all.
        spare: further checkpoints to keep, such as the best.
    """
    if not limit or limit < 1:
        return
    spared = {path.resolve() for path in spare}
    for old in newest_first(run)[limit:]:
        if old.resolve() not in spared:
            doomed = old.with_name(_REMOVING + old.name)
            os.rename(old, doomed)  # now it no longer counts as a checkpoint
            shutil.rmtree(doomed, ignore_errors=True)


def publish_files(stage: Path, folder: Path) -> None:
    """Move the files of `stage` to `folder`, each synced and renamed atomically, weights last."""
    usual_modes(stage)
    names = sorted(_files(stage), key=lambda name: (name.endswith(".safetensors"), name))
    for name in names:
        with open(stage / name, "rb") as file:
            os.fsync(file.fileno())
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        os.replace(stage / name, folder / name)
    sync_folder(folder)
    shutil.rmtree(stage)


def require(stage: Path, names: Iterable[str]) -> None:
    """Refuse a staged checkpoint from which the run could not resume.

    Args:
        stage: the folder.
        names: patterns, each of which must match a file.

    Raises:
        UserError: with the missing files.
    """
    missing = [name for name in names if not any(stage.glob(name))]
    if missing:
        raise UserError(
            f"the checkpoint lacks {', '.join(missing)} and could not be resumed from, so it is not kept; with "
            "several machines --output_dir must be a folder that all of them share"
        )


def _files(folder: Path) -> Iterator[str]:
    for directory, _, names in os.walk(folder):
        for name in names:
            yield str((Path(directory) / name).relative_to(folder))


def _digest(path: Path) -> str:
    try:
        return sha256_file(path)
    except OSError as error:
        return f"unreadable: {error.strerror}"
