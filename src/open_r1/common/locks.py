"""One process at a time: a lock on a folder that ends with the process that holds it."""

import errno
import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from open_r1.common.atomic_files import disk_errors
from open_r1.common.errors import UserError

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


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
        is_locked = os.path.samestat(os.fstat(handle), os.stat(claim))
    except (BlockingIOError, FileNotFoundError):
        is_locked = False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            os.close(handle)
            raise
        is_locked = True
    if is_locked:
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
