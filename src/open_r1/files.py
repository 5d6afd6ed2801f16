"""Files that matter: written beside and renamed, folders that are claimed, disks that fill up.

A reader never sees half a file: it is written under another name, forced to the disk and renamed. A folder
that takes long is built as `<name>.partial` and renamed when its manifest, written last, is in it.
"""

import errno
import fcntl
import hashlib
import json
import os
import shutil
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from open_r1.errors import UserError
from open_r1.full_disk import REFUSALS

MANIFEST = "manifest.json"
"""Written last into every folder that we build: its presence means that the folder is complete."""


class DiskError(UserError):
    """The disk is full, read-only or forbidden: nothing that was written there can be kept."""


_DISK = {**REFUSALS, errno.EACCES: "permission is denied", errno.EPERM: "permission is denied"}
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


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


@contextmanager
def claimed(folder: str | os.PathLike, patience: float = 0.0) -> Iterator[Path]:
    """Hold `folder` (made if missing) for this process alone, until the block ends or the process dies.

    A folder that was made here and is empty in the end is removed again. On a file system without locks nothing is
    held.

    Args:
        folder: to hold.
        patience: seconds to wait for it; what a killed process has started may hold it a little longer.

    Raises:
        UserError: another process holds it, it is a file, or it cannot be written.
    """
    folder = Path(folder)
    is_new = not folder.exists()
    claim = folder / ".claim"
    end = time.monotonic() + patience
    while (handle := _lock(folder, claim)) is None:
        if time.monotonic() >= end:
            raise UserError(f"another process{_holder(claim)} is writing to {folder}; wait or choose another folder")
        time.sleep(0.1)
    try:
        yield folder
    finally:
        claim.unlink(missing_ok=True)  # while it is still held
        if is_new and folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
        os.close(handle)


def _lock(folder: Path, claim: Path) -> int | None:
    """The open, locked claim of a folder; None if another process holds it."""
    with disk_errors(folder):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise UserError(f"{folder} is, or lies below, a file; choose another output folder") from None
        handle = os.open(claim, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # the holder before may have removed the file between our opening and our locking it
        held = os.path.samestat(os.fstat(handle), os.stat(claim))
    except (BlockingIOError, FileNotFoundError):
        held = False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            os.close(handle)
            raise
        held = True
    if held:
        with suppress(OSError):  # a full disk shows when something that matters is written
            os.ftruncate(handle, 0)
            os.write(handle, f"{os.getpid()} on {socket.gethostname()}".encode())
        return handle
    os.close(handle)
    return None


def _holder(claim: Path) -> str:
    """` (1234 on host)`, as the holder of a claim has written it; nothing where that cannot be read."""
    try:
        return f" ({claim.read_text(encoding='utf-8')[:200]})"
    except (OSError, ValueError):
        return ""


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
