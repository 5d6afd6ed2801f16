"""Errors that are addressed to the person who typed the command."""

import hashlib
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from open_r1.common.full_disk import refused_write
from open_r1.common.launcher import end_with_launcher
from open_r1.common.redaction import known_secrets, redacted

EXIT_INTERRUPTED = 75
"""Exit status of what was told to stop and goes on with the same command (EX_TEMPFAIL of sysexits.h)."""

_PATIENCE = 5.0  # seconds in which processes that were started together meet the same error


class UserError(ValueError):
    """Input that cannot be used; the message says what is wrong, why it matters and what to do."""


class UnusableInput(UserError):
    """One of many inputs (a row, an image) that cannot be used; `reason` is a short slug to count by."""

    def __init__(self, reason: str, message: str):
        super().__init__(message)
        self.reason = reason

    def __reduce__(self):
        # A worker process hands this to its parent; the default would forget the second argument.
        return type(self), (self.reason, str(self))


def run_command(main: Callable[[], int | None]) -> None:
    """Run a command's `main` and exit: a `UserError` becomes one line on standard error and exit status 2.

    So does a file that may not be read or written, and a disk that takes no more, wherever that is noticed.

    Of processes that torchrun has started on one machine, the first to meet an error prints it for all. They end with
    torchrun, even if that is killed.
    """
    end_with_launcher()
    try:
        code = main()
    except UserError as error:
        raise SystemExit(_report(f"error: {error}")) from None
    except PermissionError as error:
        line = f"error: {error.filename or error}: permission is denied; ask its owner for the right to it, or copy it"
        raise SystemExit(_report(line)) from None
    except Exception as error:
        reason = refused_write(error)
        if reason is None:
            raise
        name = getattr(error, "filename", None)
        line = f"error: cannot write{f' {name}' if name else ''}: {reason}; make room and run the same command again"
        raise SystemExit(_report(line)) from None
    raise SystemExit(code or 0)


def _report(line: str) -> int:
    """Print the line unless another process of this machine has printed the same; returns the exit status.

    Secrets of the command line are hidden: what is printed ends up in logs.
    Before torch is loaded no process can wait for another, so those that have nothing to add end with 0 and the one
    that printed ends last: torchrun's own report, which names every process that failed, is then as short as it gets.
    """
    line = redacted(line, known_secrets())
    folder, others = _shared_folder(), int(os.environ.get("LOCAL_WORLD_SIZE", "1")) - 1
    is_early = "torch" not in sys.modules
    name = hashlib.sha256(line.encode(errors="replace")).hexdigest()[:16]
    if folder is None or not others or _created(folder / f"{name}.printed"):
        print(line, file=sys.stderr, flush=True)
        deadline = time.monotonic() + _PATIENCE
        while folder and is_early and len([*folder.glob(f"{name}.quiet*")]) < others and time.monotonic() < deadline:
            time.sleep(0.02)
        return 2
    _created(folder / f"{name}.quiet{os.getpid()}")
    return 0 if is_early else 2


def is_first_process() -> bool:
    """Whether this is the only process of a command on this machine, or the first of several."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


def _shared_folder() -> Path | None:
    """The folder that torchrun has made for the processes of this machine; None without torchrun."""
    file = os.environ.get("TORCHELASTIC_ERROR_FILE")  # FOLDER/LOCAL_RANK/error.json
    folder = Path(file).parents[1] if file else None
    return folder if folder is not None and folder.is_dir() else None


def _created(path: Path) -> bool:
    """Whether this process has made the file; not if it was there."""
    try:
        path.touch(exist_ok=False)
    except FileExistsError:
        return False
    except OSError:
        return True  # better twice than never
    return True
