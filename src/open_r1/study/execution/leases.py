"""Who does what: a lease per item of work, taken by one worker at a time, on one machine or on a shared disk.

Each taking of an item has a number. Lease 3 of `train-CT` is the file `train-CT.3`, made by a hard link, which either
succeeds or finds the name taken, on NFS too. (flock would be released by itself when a worker dies, but on network
disks it may lock on one machine only, or not at all.) Its holder touches it every few seconds; when he is through,
`train-CT.3.end` says how it went. Nothing is ever removed or renamed, so there is no moment at which two could take
the same lease: whoever finds lease 3 ended or its holder dead makes lease 4, and only one of several can.

A holder is dead if this machine has no such process any more, which is known at once. A holder on another machine is
dead if its file was not touched for `patience` seconds by the clock of the one who watches: clocks are not compared. A
holder that was only asleep finds a higher number than his own (`Lease.lost`) and stops.
"""

import errno
import json
import os
import re
import socket
import sys
import time
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from open_r1.common.atomic_files import disk_errors, write_json

BEAT = 15.0
"""Seconds between two signs of life of a holder."""
PATIENCE = 300.0
"""Seconds without one, after which a holder on another machine is taken for dead."""

Outcome = Literal["done", "failed", "interrupted"]


@dataclass(frozen=True)
class State:
    """What is known about an item: how often it was taken, by whom it is held now, how it ended last."""

    number: int  # of the last lease; 0: never taken
    holder: str | None = None  # who holds it, alive as far as can be told
    ended: dict[str, Any] | None = None  # the record of its end

    @property
    def outcome(self) -> Outcome | None:
        """How the last lease ended, where its holder could say."""
        return None if self.ended is None else self.ended.get("outcome")


@dataclass
class Lease:
    """An item that this process holds."""

    path: Path
    number: int
    begun: float = field(default_factory=time.monotonic)
    _beaten: float = field(default_factory=time.monotonic)

    def beat(self) -> None:
        """Give a sign of life, if it is time for one. To be called every second or so."""
        if time.monotonic() - self._beaten >= BEAT:
            self._beaten = time.monotonic()
            os.utime(self.path)

    @property
    def lost(self) -> bool:
        """Whether somebody took this process for dead and the item over."""
        return self.path.with_suffix(f".{self.number + 1}").exists()

    def end(self, outcome: Outcome, **more: Any) -> None:
        """Give the item back and record how it went, and `seconds` since it was taken."""
        seconds = round(time.monotonic() - self.begun, 1)
        write_json(Path(f"{self.path}.end"), {"outcome": outcome, "seconds": seconds, **more})


class Leases:
    """The leases of a study.

    Args:
        folder: where they lie; on a shared disk where several machines work.
        patience: seconds after which a silent holder on another machine is taken for dead.
    """

    def __init__(self, folder: Path, patience: float = PATIENCE):
        self.folder = folder
        self._patience = patience
        self._watched: dict[Path, tuple[int, float]] = {}  # lease -> its time stamp, and when we saw that first

    def look(self, name: str) -> State:
        """The state of an item."""
        return self._state(name, self._numbers(name))

    def take(self, name: str) -> Lease | None:
        """The item's next lease; None if a living worker holds it or another was quicker.

        Raises:
            UserError: the disk refuses.
        """
        numbers = self._numbers(name)
        if self._state(name, numbers).holder is not None:
            return None
        number = max(numbers, default=0) + 1
        path = self.folder / f"{name}.{number}"
        with disk_errors(path):
            self.folder.mkdir(parents=True, exist_ok=True)
            return Lease(path, number) if created(path, json.dumps(_myself())) else None

    def ends(self, name: str) -> list[dict[str, Any]]:
        """The records of all leases of an item that were given back, oldest first."""
        found = [_read(self.folder / f"{name}.{number}.end") for number in sorted(self._numbers(name))]
        return [record for record in found if record is not None]

    def _numbers(self, name: str) -> list[int]:
        leases = re.compile(re.escape(name) + r"\.(\d+)")
        try:
            entries = os.listdir(self.folder)
        except FileNotFoundError:
            return []
        return [int(match[1]) for entry in entries if (match := leases.fullmatch(entry))]

    def _state(self, name: str, numbers: list[int]) -> State:
        if not numbers:
            return State(0)
        path = self.folder / f"{name}.{max(numbers)}"
        ended = _read(Path(f"{path}.end"))
        if ended is not None:
            return State(max(numbers), ended=ended)
        return State(max(numbers), holder=self._holder(path))

    def _holder(self, path: Path) -> str | None:
        """Who holds a lease that has not ended; None if he is dead."""
        who = _read(path) or {}
        name = f"process {who.get('pid', '?')} on {who.get('host', 'another machine')}"
        if who.get("place") == place() and sys.platform == "linux":
            return name if process_start(who.get("pid", -1)) == who.get("started") else None
        stamp = _stamp(path)
        seen, since = self._watched.setdefault(path, (stamp, time.monotonic()))
        if seen != stamp:
            self._watched[path] = (stamp, time.monotonic())
        return name if seen != stamp or time.monotonic() - since < self._patience else None


@lru_cache
def place() -> list[str]:
    """What processes that see each other's ids have in common: the machine since it was started, and its container."""
    found = [socket.gethostname()]
    for path in ("/proc/sys/kernel/random/boot_id", "/proc/self/ns/pid"):
        try:
            found.append(os.readlink(path) if path.endswith("ns/pid") else Path(path).read_text().strip())
        except OSError:
            found.append("")
    return found


def process_start(pid: int) -> int | None:
    """When a process of this machine was started, in clock ticks since the machine was; None if it is no more.

    Id and start together name a process; an id alone is given out again.
    """
    try:
        # the second field is the program's name in parentheses, and may hold anything; see proc_pid_stat(5)
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def _myself() -> dict[str, Any]:
    pid = os.getpid()
    return {"host": socket.gethostname(), "pid": pid, "started": process_start(pid), "place": place()}


def created(path: Path, text: str) -> bool:
    """Make a file with its content, or return False if there is one: all at once, for every machine."""
    beside = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}")
    try:
        with open(beside, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.link(beside, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK):
            raise
        return _created_alone(path, text)
    finally:
        beside.unlink(missing_ok=True)
    return True


def _created_alone(path: Path, text: str) -> bool:
    """The same where the disk has no hard links; a reader may find the file before it holds the text."""
    try:
        with open(path, "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        return False
    return True


def _read(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def _stamp(path: Path) -> int:
    """The time stamp of a file's last change; opened, because NFS answers from its cache otherwise."""
    with open(path, "rb") as file:
        return os.fstat(file.fileno()).st_mtime_ns
