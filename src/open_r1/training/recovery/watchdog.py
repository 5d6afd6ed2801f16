"""End a process that hangs, instead of waiting forever."""

import faulthandler
import os
import sys
import threading
import time
from pathlib import Path
from types import FrameType

EXIT_HUNG = 76
_GRACE = 3.0  # seconds that waiting processes leave to the hanging one to print its stacks


class Watchdog:
    """Ends a process that makes no progress within a step, and prints its stacks.

    Args:
        limit: most seconds between two beats.
        rank: rank of this process.
        folder: where `stacks-rank<N>.txt` is written.
    """

    def __init__(self, limit: float, rank: int, folder: Path) -> None:
        self.limit, self._rank, self._folder = limit, rank, folder
        self._last_beat: float | None = None
        self._activity = ""
        self._thread: threading.Thread | None = None

    def beat(self, activity: str) -> None:
        """Report progress; `activity` is what starts now."""
        self._last_beat, self._activity = time.monotonic(), activity
        # in C, in case the hanging code holds the GIL
        faulthandler.dump_traceback_later(self.limit + 4 * _GRACE, exit=True, file=2)
        if self._thread is None:
            self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
            self._thread.start()

    def pause(self) -> None:
        """Stop timing until the next beat."""
        self._last_beat = None
        faulthandler.cancel_dump_traceback_later()

    def _watch(self) -> None:
        while True:
            time.sleep(min(1.0, self.limit / 10))
            last_beat = self._last_beat
            if last_beat is not None and time.monotonic() - last_beat > self.limit:
                self._end(time.monotonic() - last_beat)

    def _end(self, seconds: float) -> None:
        frame = sys._current_frames().get(threading.main_thread().ident or 0)
        waits = _waits_for_others(frame)
        head = f"error: process {self._rank} made no progress for {seconds:.0f} s ({self._activity})"
        if waits:
            time.sleep(_GRACE)
            print(f"{head}: it waits for the other processes", file=sys.stderr, flush=True)
            os._exit(EXIT_HUNG)
        path = self._folder / f"stacks-rank{self._rank}.txt"
        print(
            f"{head}: it hangs, its stacks follow and are in {path}. The last complete checkpoint is kept and the "
            "same command continues from it; if steps are merely slow, raise --ddp_timeout",
            file=sys.stderr,
            flush=True,
        )
        faulthandler.dump_traceback(file=2, all_threads=True)
        try:
            with open(path, "w") as file:
                faulthandler.dump_traceback(file, all_threads=True)
        except OSError:
            pass  # the stacks were printed
        os._exit(EXIT_HUNG)


def _waits_for_others(frame: FrameType | None) -> bool:
    names: list[str] = []
    while frame is not None and len(names) < 3:
        names.append(frame.f_code.co_filename)
        frame = frame.f_back
    return any(f"torch{os.sep}distributed" in name or f"deepspeed{os.sep}comm" in name for name in names)
