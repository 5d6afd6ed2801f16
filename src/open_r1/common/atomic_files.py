"""Files that matter: written beside and renamed, folders that are claimed, disks that fill up.

A reader never sees half a file: it is written under another name, forced to the disk and renamed. A folder
that takes long is built as `<name>.partial` and renamed when its manifest, written last, is in it.
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
from open_r1.common.full_disk import REFUSALS

MANIFEST = "manifest.json"
"""Written last into every folder that we build: its presence means that the folder is complete."""


class DiskError(UserError):
    """The disk is full, read-only or forbidden: nothing that was written there can be kept."""


_DISK = {**REFUSALS, errno.EACCES: "permission is denied", errno.EPERM: "permission is denied"}


@contextmanager
def disk_errors(path: str | os.PathLike, left: str = "nothing half-made was left") -> Iterator[None]:
    """Turn a full disk, a quota or a lack of permission while writing `path` into one clear `UserError`.

    Args:
        path: a file or a folder.
        left: what to say of what is there now.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _DISK:
            raise
        raise DiskError(
            f"cannot write {path}: {_DISK[error.errno]}; {left}. "
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
    beside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with disk_errors(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(beside, "wb") as file:
                file.write(data.encode() if isinstance(data, str) else data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(beside, path)
            sync_folder(path.parent)
        finally:
            beside.unlink(missing_ok=True)


def write_json(path: str | os.PathLike, value: Any) -> None:
    """`write_atomically` of `value` as indented JSON with sorted keys: equal values, equal bytes."""
    write_atomically(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


class RepeatedKeys(dict):
    """An object of JSON that has a key twice. As a dict it holds the last value, as every parser does."""

    def __init__(self, pairs: list[tuple[str, Any]]):
        super().__init__(pairs)
        self.pairs = pairs
        """Everything that stands there."""


def object_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """For `object_pairs_hook`: an object whose repeated keys are not forgotten."""
    found = dict(pairs)
    return found if len(found) == len(pairs) else RepeatedKeys(pairs)


def repeated_key(value: Any) -> str | None:
    """A key that stands twice in one object within a value parsed with `object_of`; None if there is none."""
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, RepeatedKeys):
            counts = Counter(name for name, _ in each.pairs)
            return next(name for name, count in counts.items() if count > 1)
        waiting += each.values() if isinstance(each, dict) else each if isinstance(each, list) else ()
    return None


def parse_json(text: str | bytes, object_pairs_hook: Callable[[list[tuple[str, Any]]], Any] | None = None) -> Any:
    """`json.loads` of text that somebody else wrote.

    Raises:
        ValueError: it is no JSON, nested too deeply, or holds a number of more than 4,300 digits.
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
    """The manifest of a folder that we completed; None where there is none or it is not ours."""
    try:
        value = parse_json((Path(folder) / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def refuse_foreign(folder: str | os.PathLike) -> None:
    """Refuse an output folder that holds something else than a result of ours (empty or missing is fine).

    Raises:
        UserError: it is a file, or a folder with content and without our manifest.
    """
    folder = Path(folder)
    if folder.is_symlink() or folder.exists():
        if not folder.is_dir():
            raise UserError(f"{folder} is a file; choose another output folder")
        if any(folder.iterdir()) and read_manifest(folder) is None:
            raise UserError(
                f"{folder} holds something else (no {MANIFEST} of ours) and would be overwritten; "
                "move it away or choose another output folder"
            )


def publish_folder(stage: str | os.PathLike, final: str | os.PathLike) -> None:
    """Force every file of `stage` to the disk and rename it to `final`, which must be missing or empty.

    Raises:
        UserError: `final` holds something else, or the disk refuses.
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
    """Build a folder as `<final>.partial`; it gets its name when the block succeeds and is removed when not.

    Raises:
        UserError: `final` exists and is not empty, or the disk refuses.
    """
    final = Path(final)
    refuse_foreign(final)
    stage = final.with_name(final.name + ".partial")
    with disk_errors(final):
        if stage.exists():
            shutil.rmtree(stage)  # of a run that was killed
        stage.mkdir(parents=True)
    try:
        with disk_errors(final):
            yield stage
        publish_folder(stage, final)
    finally:
        shutil.rmtree(stage, ignore_errors=True)
