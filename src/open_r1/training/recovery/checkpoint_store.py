"""Checkpoints of a run, complete or absent: staged, hashed, forced to the disk, manifest last, renamed.

A run's folder holds `checkpoint-N` folders. One is built as `.saving/checkpoint-N` and gets its name when everything
that continuing needs is in it. Its manifest.json holds size and SHA-256 of each file, so damage is found before a run
goes on from it, and never silently. Standard library only.
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
from open_r1.common.full_disk import refused_write

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
    """The `checkpoint-N` folders of a run, whole or damaged, by falling N."""
    return sorted((path for path in run.glob("checkpoint-*") if step_of(path) >= 0), key=step_of, reverse=True)


def clear_stage(run: Path) -> Path:
    """An empty folder to build a checkpoint in; what a killed run left half-made or half-removed is deleted."""
    for left in [run / STAGE, *run.glob(f"{_REMOVING}*")]:
        shutil.rmtree(left, ignore_errors=True)
    (run / STAGE).mkdir(parents=True)
    return run / STAGE


def seal(stage: Path, final: Path, about: dict[str, Any]) -> None:
    """Write the manifest of a staged checkpoint and give it its name.

    Args:
        stage: holds everything.
        final: `checkpoint-N`.
        about: what the manifest says beside the files: `resumable`, `processes`, `engine` and the like.

    Raises:
        UserError: the disk refuses, or `final` is there already.
    """
    names = sorted(_files(stage))
    with ThreadPoolExecutor(4) as pool:  # hashing releases the interpreter
        hashes = pool.map(lambda name: sha256_file(stage / name), names)
    files = {name: [(stage / name).stat().st_size, digest] for name, digest in zip(names, hashes, strict=True)}
    write_json(stage / MANIFEST, about | {"kind": _KIND, "step": step_of(final), "files": files})
    publish_folder(stage, final)


def damage(folder: Path) -> str | None:
    """What is wrong with a checkpoint, naming the file; None if every byte is as it was saved."""
    try:
        manifest = parse_json((folder / MANIFEST).read_text(encoding="utf-8"))
        files = dict(manifest["files"])
        expected = {str(name): (int(size), str(digest)) for name, (size, digest) in files.items()}
    except FileNotFoundError:
        return f"{MANIFEST} is missing, which is written last"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"{MANIFEST} cannot be read ({type(error).__name__})"
    if manifest.get("kind") != _KIND or manifest.get("step") != step_of(folder):
        return f"{MANIFEST} is that of something else"
    for name, (size, _) in expected.items():
        if not (folder / name).is_file():
            return f"{name} is missing"
        if (found := (folder / name).stat().st_size) != size:
            return f"{name} has {found:,} bytes instead of {size:,}"
    with ThreadPoolExecutor(4) as pool:
        for name, digest in zip(expected, pool.map(lambda each: _digest(folder / each), expected), strict=True):
            if digest != expected[name][1]:
                return f"{name} has other content than was saved"
    return None


def read_about(folder: Path) -> dict[str, Any]:
    """The manifest of a checkpoint in which `damage` found none."""
    return json.loads((folder / MANIFEST).read_text(encoding="utf-8"))


def set_aside(folder: Path) -> Path:
    """Rename a damaged checkpoint, so that its number is free and nothing of it is lost; returns the new place."""
    place = folder.with_name(_SET_ASIDE + folder.name)
    number = 1
    while place.exists():
        number += 1
        place = folder.with_name(f"{_SET_ASIDE}{folder.name}-{number}")
    os.rename(folder, place)
    sync_folder(place.parent)
    return place


def full_disk(error: Exception, folder: Path) -> str | None:
    """What to say if an error means that no more can be written to a run's folder; None if it means something else."""
    reason = refused_write(error)
    if reason is None:
        return None
    whole = next((path for path in newest_first(folder) if _looks_resumable(path)), None)
    left = "no checkpoint of this run can be gone on from: the same command begins it anew"
    if whole is not None:
        left = f"{whole.name} is complete, and the same command continues from it"
    return f"cannot write the checkpoint to {folder}: {reason}. Make room; {left}"


def _looks_resumable(folder: Path) -> bool:
    """Whether a checkpoint was complete and can be gone on from; its bytes are not read."""
    try:
        return bool(read_about(folder).get("resumable"))
    except (OSError, ValueError, AttributeError):
        return False


def prune(run: Path, limit: int | None, spare: Iterable[Path] = ()) -> None:
    """Delete the oldest checkpoints over a limit; called after the newest is complete, which always stays.

    Args:
        run: the run's folder.
        limit: how many to keep, `--save_total_limit`; None or 0 keeps all.
        spare: further ones to keep, such as the best.
    """
    if not limit or limit < 1:
        return
    kept = {path.resolve() for path in spare}
    for old in newest_first(run)[limit:]:
        if old.resolve() not in kept:
            doomed = old.with_name(_REMOVING + old.name)
            os.rename(old, doomed)  # from here on nobody takes it for a checkpoint
            shutil.rmtree(doomed, ignore_errors=True)


def publish_files(stage: Path, folder: Path) -> None:
    """Move the files of `stage` to `folder`, each forced to the disk and whole under its name; weights come last."""
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
    """Refuse to seal a checkpoint from which the run could not go on.

    Args:
        stage: the folder.
        names: patterns of which each must match a file.

    Raises:
        UserError: with what is missing.
    """
    missing = [name for name in names if not any(stage.glob(name))]
    if missing:
        raise UserError(
            f"the checkpoint lacks {', '.join(missing)} and could not be continued from, so it is not kept; with "
            "several machines --output_dir must be a folder that all of them share"
        )


def _files(folder: Path) -> Iterator[str]:
    for place, _, names in os.walk(folder):
        for name in names:
            yield str((Path(place) / name).relative_to(folder))


def _digest(path: Path) -> str:
    try:
        return sha256_file(path)
    except OSError as error:
        return f"unreadable: {error.strerror}"
