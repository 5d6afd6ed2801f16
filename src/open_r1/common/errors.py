"""Errors for the user of a command, and how a command reports them."""

import hashlib
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from open_r1.common.exhausted.full_disk import refused_write
from open_r1.common.exhausted.full_memory import out_of_memory
from open_r1.common.launcher import end_with_launcher
from open_r1.common.library_messages import closing_progress_bars, leave_out_library_messages
from open_r1.common.redaction import known_secrets, redacted

EXIT_INTERRUPTED = 75
"""Exit status of an interrupted command, which the same command continues (EX_TEMPFAIL of sysexits.h)."""
EXIT_ALARM = 77
"""Exit status of a training that an alarm of `--stop_on_alarm` has stopped; the same command does not continue it."""

_WAIT = 5.0  # seconds within which processes that were started together meet the same error


class UserError(ValueError):
    """Input that cannot be used; the message says what is wrong, why it matters and what to do."""


class UnusableInput(UserError):
    """One of many inputs (a row, an image) that cannot be used; `reason` is a short slug for counts."""

    def __init__(self, reason: str, message: str):
        super().__init__(message)
        self.reason = reason

    def __reduce__(self):
        # For pickling between worker processes: the default would lose the second argument.
        return type(self), (self.reason, str(self))


def run_command(main: Callable[[], int | None]) -> None:
    """Run a command's `main` and exit: a `UserError` becomes one line on standard error and exit status 2.

    The same holds for a file without read or write permission, for a full disk, and for a full memory of the host or of
    a GPU, wherever the error is raised.

    If torchrun has started several processes on a machine, only the first one that meets an error prints it. The
    processes end when torchrun ends, even if it is killed.
    """
    end_with_launcher()
    leave_out_library_messages()
    try:
        with closing_progress_bars():
            code = main()
    except UserError as error:
        raise SystemExit(_report(f"error: {error}")) from None
    except PermissionError as error:
        line = f"error: {error.filename or error}: permission denied; ask its owner for access, or copy it"
        raise SystemExit(_report(line)) from None
    except Exception as error:
        line = out_of_memory(error)
        if line is not None:
            raise SystemExit(_report(f"error: {line}")) from None
        reason = refused_write(error)
        if reason is None:
            raise
        name = getattr(error, "filename", None)
        line = f"error: cannot write{f' {name}' if name else ''}: {reason}; make room and run the same command again"
        raise SystemExit(_report(line)) from None
    raise SystemExit(code or 0)


def _report(line: str) -> int:
    """Print the line unless another process of this machine has printed it; returns the exit status.

    Secrets of the command line are hidden, because output ends up in logs. torchrun's own report lists every process
    that failed. To keep it short, while torch is not loaded (no process waits for another) only the process that
    printed the line fails, after the others have ended with 0.
    """
    line = redacted(line, known_secrets())
    shared_folder, other_count = _shared_folder(), int(os.environ.get("LOCAL_WORLD_SIZE", "1")) - 1
    is_early = "torch" not in sys.modules
    name = hashlib.sha256(line.encode(errors="replace")).hexdigest()[:16]
    if shared_folder is None or not other_count or _create(shared_folder / f"{name}.printed"):
        beside_bar = not is_early and not is_first_process()  # the first process's progress bar may be open
        print(f"\n{line}" if beside_bar else line, file=sys.stderr, flush=True)
        deadline = time.monotonic() + _WAIT
        while (
            shared_folder
            and is_early
            and sum(map(_has_ended, shared_folder.glob(f"{name}.quiet*"))) < other_count
            and time.monotonic() < deadline
        ):
            time.sleep(0.02)
        return 2
    _create(shared_folder / f"{name}.quiet.{os.getpid()}")
    return 0 if is_early else 2


def _has_ended(mark: Path) -> bool:
    """Whether the process that made the mark has ended and torchrun has seen it: one that torchrun stops has failed."""
    try:
        os.kill(int(mark.suffix.removeprefix(".")), 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


def is_first_process() -> bool:
    """Whether this is the only process of a command on this machine, or the first of several."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


def _shared_folder() -> Path | None:
    """The folder that torchrun has made for the processes of this machine; None without torchrun."""
    file = os.environ.get("TORCHELASTIC_ERROR_FILE")  # FOLDER/LOCAL_RANK/error.json
    folder = Path(file).parents[1] if file else None
    return folder if folder is not None and folder.is_dir() else None


def _create(path: Path) -> bool:
    """Create the file; False if it exists already."""
    try:
        path.touch(exist_ok=False)
    except FileExistsError:
        return False
    except OSError:
        return True  # rather print twice than never
    return True
