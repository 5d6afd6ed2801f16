"""Leases: each item of work is held by one worker at a time, on one machine or on a shared disk.

Leases of an item are numbered. Lease 3 of `train-CT` is the file `train-CT.3`, made as a hard link, which fails if the
name exists, on NFS too. (flock would be released automatically when a worker dies, but on network disks it may lock on
one machine only, or not at all.) The holder touches the file every few seconds. When it has finished,
`train-CT.3.end` records how. Files are never removed or renamed, so two workers cannot get the same lease: those that
see lease 3 ended, or its holder dead, all try to make lease 4, and only one succeeds.

A holder on this machine is dead if its process no longer exists. A holder on another machine is taken for dead if its
file was not touched for `patience` seconds on the observer's clock; clocks are not compared. A holder that was only
suspended sees a higher number than its own (`Lease.lost`) and stops. A holder that is a job of a scheduler is dead when
the scheduler says so.
"""

import errno
import json
import os
import re
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from open_r1.common.atomic_files import disk_errors, write_json

BEAT = 15.0
"""Seconds between two heartbeats of a holder."""
PATIENCE = 300.0
"""Seconds without a heartbeat after which a holder on another machine is taken for dead."""

Ending = Literal["done", "failed", "interrupted"]


@dataclass(frozen=True)
class State:
    """The leases of an item: how many there were, the present holder, and how the last one ended."""

    number: int  # of the last lease; 0: never taken
    holder: str | None = None  # process and machine, if it may be alive
    ended: dict[str, Any] | None = None  # the record of its end

    @property
    def ending(self) -> Ending | None:
        """How the last lease ended; None if its holder did not record it."""
        return None if self.ended is None else self.ended.get("outcome")


@dataclass
class Lease:
    """An item that this process holds."""

    path: Path
    number: int
    taken_at: float = field(default_factory=time.monotonic)
    _last_beat: float = field(default_factory=time.monotonic)

    def beat(self) -> None:
        """Touch the file if a heartbeat is due. To be called about every second."""
        if time.monotonic() - self._last_beat >= BEAT:
            self._last_beat = time.monotonic()
            os.utime(self.path)

    @property
    def lost(self) -> bool:
        """Whether another worker took this process for dead and took over the item."""
        return self.path.with_suffix(f".{self.number + 1}").exists()

    def end(self, ending: Ending, **details: Any) -> None:
        """Release the item; record how it ended, the `seconds` since it was taken, and details."""
        seconds = round(time.monotonic() - self.taken_at, 1)
        write_json(Path(f"{self.path}.end"), {"outcome": ending, "seconds": seconds, **details})


class Leases:
    """The leases of a study.

    Args:
        folder: of the lease files; on a shared disk if several machines work.
        patience: seconds after which a silent holder on another machine is taken for dead.
        job: the scheduler's job that takes leases here.
        job_ended: whether a job that took a lease has ended; without it only time tells.
    """

    def __init__(
        self, folder: Path, patience: float = PATIENCE, job: str = "", job_ended: Callable[[str], bool] | None = None
    ):
        self.folder = folder
        self.patience = patience
        self._job, self._job_ended = job, job_ended
        self._watched: dict[Path, tuple[int, float]] = {}  # lease -> its time stamp, and when we first saw that

    def look(self, name: str) -> State:
        """The state of an item."""
        return self._state(name, self._numbers(name))

    def take(self, name: str) -> Lease | None:
        """The item's next lease; None if a living worker holds it or another was faster.

        Raises:
            UserError: the lease file cannot be written.
        """
        numbers = self._numbers(name)
        if self._state(name, numbers).holder is not None:
            return None
        number = max(numbers, default=0) + 1
        path = self.folder / f"{name}.{number}"
        with disk_errors(path):
            self.folder.mkdir(parents=True, exist_ok=True)
            return Lease(path, number) if create_new(path, json.dumps(_this_process(self._job))) else None

    def ends(self, name: str) -> list[dict[str, Any]]:
        """The records of all released leases of an item, oldest first."""
        records = [_read(self.folder / f"{name}.{number}.end") for number in sorted(self._numbers(name))]
        return [record for record in records if record is not None]

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
        """Process and machine that hold an unreleased lease; None if the holder is dead."""
        process = _read(path) or {}
        name = f"process {process.get('pid', '?')} on {process.get('host', 'another machine')}"
        if process.get("place") == machine_identity() and sys.platform == "linux":
            return name if process_start(process.get("pid", -1)) == process.get("started") else None
        if self._job_ended is not None and process.get("job") and self._job_ended(process["job"]):
            return None
        stamp = _change_time(path)
        watched_stamp, since = self._watched.setdefault(path, (stamp, time.monotonic()))
        if watched_stamp != stamp:
            self._watched[path] = (stamp, time.monotonic())
        return name if watched_stamp != stamp or time.monotonic() - since < self.patience else None


@lru_cache
def machine_identity() -> list[str]:
    """Host name, boot and PID namespace: equal for processes that see each other's process ids."""
    identity = [socket.gethostname()]
    for path in ("/proc/sys/kernel/random/boot_id", "/proc/self/ns/pid"):
        try:
            identity.append(os.readlink(path) if path.endswith("ns/pid") else Path(path).read_text().strip())
        except OSError:
            identity.append("")
    return identity


def process_start(pid: int) -> int | None:
    """When a process of this machine was started, in clock ticks since boot; None if it no longer exists.

    A process is identified by id and start time, because ids are reused.
    """
    try:
        # the second field is the program's name in parentheses, which may contain anything; see proc_pid_stat(5)
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def _this_process(job: str) -> dict[str, Any]:
    pid, place = os.getpid(), machine_identity()
    return {"host": socket.gethostname(), "pid": pid, "started": process_start(pid), "place": place, "job": job}


def create_new(path: Path, text: str) -> bool:
    """Create a file with its content atomically, also across machines; False if it exists already."""
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
        return _create_without_links(path, text)
    finally:
        beside.unlink(missing_ok=True)
    return True


def _create_without_links(path: Path, text: str) -> bool:
    """`create_new` on a disk without hard links; a reader may see the file before its text."""
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


def _change_time(path: Path) -> int:
    """The time of a file's last change in nanoseconds; the file is opened because NFS may cache the time otherwise."""
    with open(path, "rb") as file:
        return os.fstat(file.fileno()).st_mtime_ns
