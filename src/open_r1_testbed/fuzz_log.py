"""What the fuzzer saw: outcomes by door and kind of damage, faults, and files that took too long."""

import os
import sys
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path

from open_r1.common.errors import UserError

SLOW = 5.0  # seconds of processor time for one file, or per file of a batch: a busy machine does not count


@dataclass
class Log:
    """What happened: counts by (door, kind, outcome), seconds by door, and everything that should not be."""

    keep: Path
    counts: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    faults: list[str] = field(default_factory=list)

    def note(self, door: str, kind: str, outcome: str, count: int = 1) -> None:
        """Count a file."""
        self.counts[door, kind, outcome] += count

    def fault(self, door: str, kind: str, description: str, files: dict[str, bytes]) -> None:
        """Keep what broke something, so that it can be looked at."""
        folder = self.keep / f"{len(self.faults):03d}-{door}-{kind}"
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            (folder / name).write_bytes(data)
        (folder / "what.txt").write_text(description, encoding="utf-8", errors="backslashreplace")
        self.faults.append(f"{door}, {kind}: {description.strip().splitlines()[-1]:.300} ({folder})")

    @contextmanager
    def watch(self, door: str, kind: str, files: dict[str, bytes], share: int = 1) -> Iterator[None]:
        """Let a `UserError` count as a refusal, anything else and more than SLOW seconds per file as a fault."""
        start = time.process_time()
        try:
            yield
        except UserError as error:
            self.note(door, kind, "refused by name")
            if kind.startswith("batch"):
                self.fault(door, kind, f"all good rows are lost: {error}", files)
            elif len(str(error)) > 3000 or "\n" in str(error):
                self.fault(door, kind, f"a message of {len(str(error))} characters: {str(error)[:3000]}", files)
        except Exception:
            self.note(door, kind, "TRACEBACK")
            self.fault(door, kind, traceback.format_exc(), files)
        finally:
            spent = time.process_time() - start
            self.seconds[door] += spent
            if spent > SLOW * share:
                self.fault(door, kind, f"took {spent:.1f} s", files)


@contextmanager
def quiet() -> Iterator[None]:
    """Without what commands print, and what C libraries write about damaged images."""
    sys.stderr.flush()
    stderr, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        with redirect_stdout(StringIO()):
            yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(null)
