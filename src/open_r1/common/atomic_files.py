"""Atomic writing of files and folders, and errors of full disks.

A reader never sees half a file: it is written under a temporary name, synced and renamed. A folder is built as
`<name>.partial` and renamed when its manifest, which is written last, is in it.
"""

import errno
import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from open_r1.common.errors import UserError
from open_r1.common.exhausted.full_disk import REFUSALS

MANIFEST = "manifest.json"
"""Written last into every folder that is built here: its presence means that the folder is complete."""


class DiskError(UserError):
    """The disk is full, read-only or lacks permission, so the output cannot be kept."""


_DISK_PROBLEMS = {**REFUSALS, errno.EACCES: "permission is denied", errno.EPERM: "permission is denied"}


@contextmanager
def disk_errors(path: str | os.PathLike, state: str = "no incomplete output was left") -> Iterator[None]:
    """Turn a full disk, a quota or missing permission while writing `path` into one clear `UserError`.

    Args:
        path: a file or a folder.
        state: what the message says about the output now.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _DISK_PROBLEMS:
            raise
        raise DiskError(
            f"cannot write {path}: {_DISK_PROBLEMS[error.errno]}; {state}. "
            "Make room or choose another output folder, then run again"
        ) from error


def usual_modes(folder: str | os.PathLike) -> None:
    """Give each file below a folder the mode that new files get there (umask, default ACL); safetensors writes 0600."""
    probe = os.path.join(folder, f".mode.{os.getpid()}")
    handle = os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    try:
        mode = os.fstat(handle).st_mode & 0o777
    finally:
        os.close(handle)
        os.unlink(probe)
    for place, _, names in os.walk(folder):
        for name in names:
            os.chmod(os.path.join(place, name), mode)


def sync_folder(folder: str | os.PathLike) -> None:
    """Force a folder's entries (a rename, a new file) to the disk."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_atomically(path: str | os.PathLike, data: str | bytes) -> None:
    """Write `data` (text as UTF-8) to `path`: complete and on the disk, or not at all.

    Raises:
        UserError: the disk is full or may not be written; `path` is as it was.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with disk_errors(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(temporary, "wb") as file:
                file.write(data.encode() if isinstance(data, str) else data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
            sync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def write_json(path: str | os.PathLike, value: Any) -> None:
    """`write_atomically` of `value` as indented JSON with sorted keys: equal values, equal bytes."""
    write_atomically(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


class RepeatedKeys(dict):
    """A JSON object with a repeated key. As a dict it holds the last value, as in every parser."""

    def __init__(self, pairs: list[tuple[str, Any]]):
        super().__init__(pairs)
        self.pairs = pairs
        """All pairs, repeated keys included."""


def object_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """For `object_pairs_hook`: an object that keeps repeated keys."""
    entries = dict(pairs)
    return entries if len(entries) == len(pairs) else RepeatedKeys(pairs)


def repeated_key(value: Any) -> str | None:
    """A key that occurs twice in one object of a value parsed with `object_of`; None if there is none."""
    unvisited = [value]
    while unvisited:
        node = unvisited.pop()
        if isinstance(node, RepeatedKeys):
            counts = Counter(name for name, _ in node.pairs)
            return next(name for name, count in counts.items() if count > 1)
        unvisited += node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    return None


def parse_json(text: str | bytes, object_pairs_hook: Callable[[list[tuple[str, Any]]], Any] | None = None) -> Any:
    """`json.loads` for untrusted text.

    Raises:
        ValueError: it is not JSON, is nested too deeply, or has a number of more than 4,300 digits.
    """
    try:
        return json.loads(text, object_pairs_hook=object_pairs_hook)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def sha256_file(path: str | os.PathLike) -> str:
    """SHA-256 of a file's content, as 64 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_manifest(folder: str | os.PathLike) -> dict | None:
    """The manifest of a completed folder; None if there is none or it is not a JSON object."""
    try:
        value = parse_json((Path(folder) / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def refuse_foreign(folder: str | os.PathLike) -> None:
    """Refuse an output folder with foreign content; an empty or missing one is fine.

    Raises:
        UserError: it is a file, or a folder with content but without our manifest.
    """
    folder = Path(folder)
    if folder.is_symlink() or folder.exists():
        if not folder.is_dir():
            raise UserError(f"{folder} is a file; choose another output folder")
        if any(folder.iterdir()) and read_manifest(folder) is None:
            raise UserError(
                f"{folder} is not empty and was not made by this command (no {MANIFEST} of ours), so it is not "
                "overwritten; move it away or choose another output folder"
            )


def publish_folder(stage: str | os.PathLike, final: str | os.PathLike) -> None:
    """Sync every file of `stage` to the disk and rename it to `final`, which must be missing or empty.

    Raises:
        UserError: `final` has content, or the disk cannot be written.
    """
    stage, final = Path(stage), Path(final)
    refuse_foreign(final)
    if read_manifest(final) is not None:
        raise UserError(f"{final} is complete already; remove it or choose another output folder")
    with disk_errors(final):
        usual_modes(stage)
        for folder, _, names in os.walk(stage):
            for name in names:
                with open(os.path.join(folder, name), "rb") as file:
                    os.fsync(file.fileno())
            sync_folder(folder)
        if final.is_dir() and not any(final.iterdir()):
            final.rmdir()
        os.rename(stage, final)
        sync_folder(final.parent)


@contextmanager
def staged_folder(final: str | os.PathLike) -> Iterator[Path]:
    """Build a folder as `<final>.partial`, renamed when the block succeeds and removed when it fails.

    Raises:
        UserError: `final` exists and is not empty, or the disk cannot be written.
    """
    final = Path(final)
    refuse_foreign(final)
    stage = final.with_name(final.name + ".partial")
    with disk_errors(final):
        if stage.exists():
            shutil.rmtree(stage)  # left by a killed run
        stage.mkdir(parents=True)
    try:
        with disk_errors(final):
            yield stage
        publish_folder(stage, final)
    finally:
        shutil.rmtree(stage, ignore_errors=True)
