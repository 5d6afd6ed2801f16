"""One worker of a study: takes what nobody does, runs it, records how it went, and goes on until nothing is left."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from open_r1.common.atomic_files import disk_errors
from open_r1.common.durations import duration
from open_r1.common.errors import UserError
from open_r1.common.redaction import recorded_command
from open_r1.study.execution import tied_child
from open_r1.study.execution.child_logs import Failure, last_line, processes_with
from open_r1.study.execution.commands import Commands
from open_r1.study.execution.leases import Lease, Leases, Outcome
from open_r1.study.execution.time_left import Forecast
from open_r1.study.planning.plan import Item
from open_r1.study.planning.prepared_sets import DataSet

INTERRUPTED = 75
"""Exit status of a command that was told to stop, and that the same command continues (EX_TEMPFAIL)."""
_POLL = 0.2  # seconds between two looks at a child, or at what other workers do
_WENT_THROUGH = (0, 1, 2)  # exit statuses of eval/infer.py after it has tried every data set


class Stopped(Exception):
    """This worker was told to stop."""


class LeaseLost(Exception):
    """Somebody took this worker for dead and its item over."""


@dataclass
class Stop:
    """Whether a signal has asked this process to stop; the second one kills the child at once."""

    count: int = 0

    def listen(self) -> None:
        """Take SIGTERM and Ctrl-C from now on."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._told)

    def _told(self, *_: object) -> None:
        self.count += 1


@dataclass
class Worker:
    """Does the items of a part of a study, as far as no other worker does them.

    Args:
        commands: of the study.
        items: this worker's part, in order.
        leases: shared by all workers.
        forecast: for the time that is left.
        stop: whether to stop.
    """

    commands: Commands
    items: Sequence[Item]
    leases: Leases
    forecast: Forecast
    stop: Stop
    done: set[str] = field(default_factory=set)
    failures: list[Failure] = field(default_factory=list)
    interrupted: list[Item] = field(default_factory=list)  # trainings that stopped by themselves, their state saved
    _seen: dict[str, int] = field(default_factory=dict)
    _waiting: str = ""

    def run(self) -> None:
        """Work until nothing is left that could be done.

        Raises:
            Stopped: a signal came; what was begun is continued by the same command.
        """
        self._seen = {item.name: self.leases.look(item.name).number for item in self.items}
        while True:
            taken, held = self._next()
            if taken is not None:
                self._do(*taken)
            elif held:
                self._wait(held)
            else:
                return

    def find_done(self) -> None:
        """Note which items are finished; what looks finished and cannot be used is a failure."""
        for item in self.items:
            self._is_done(item)

    def make_report(self, cells: Sequence[Path]) -> None:
        """Have eval/report.py make the report of these result files, one worker at a time.

        Raises:
            Stopped: a signal came.
            UserError: it could not be made; its log says why.
        """
        while (lease := self.leases.take("report")) is None:
            self._wait(["report"])
        log = self.commands.folder.path / "logs" / "report.log"
        code = self._child(self.commands.report(cells), log, lease)
        lease.end("failed" if code else "done")
        if code:
            raise UserError(f"the report could not be made: {last_line(log)}; log: {log}")

    # ------------------------------------------------------------------------------------------------ what to do next

    def _next(self) -> tuple[tuple[Item, Lease] | None, list[str]]:
        """An item that could be taken, with its lease; and who does others that this worker waits for."""
        held = []
        for item in self.items:
            if item.name in self.done or self._is_hopeless(item):
                continue
            state = self.leases.look(item.name)
            if state.holder is not None:
                held.append(f"{item.name} ({state.holder})")
                continue
            if self._is_done(item) or self._is_hopeless(item):
                continue
            if state.outcome == "failed" and state.number > self._seen[item.name]:
                self._fail(item, "failed in another worker's hands", str((state.ended or {}).get("line", "")))
                continue
            if not self._is_ready(item):
                # somebody trains it, maybe in another part of the study
                held.append(f"the training before {item.name}")
                continue
            lease = self.leases.take(item.name)
            if lease is None:
                held.append(item.name)
            elif self._is_done(item):  # by another worker, between our two looks
                lease.end("done")
            else:
                return (item, lease), []
        return None, held

    def _is_done(self, item: Item) -> bool:
        if item.name not in self.done:
            try:
                if self.commands.folder.is_done(item):
                    self.done.add(item.name)
            except UserError as error:
                if not self._is_hopeless(item):
                    self._fail(item, "cannot be used", str(error))
        return item.name in self.done

    def _is_hopeless(self, item: Item) -> bool:
        """Whether an item, or the training before it, has failed or stopped in this session."""
        given_up = [failure.item for failure in self.failures] + self.interrupted
        return any(other.subject == item.subject and other.kind in ("train", item.kind) for other in given_up)

    def _is_ready(self, item: Item) -> bool:
        if item.kind == "train" or item.subject.trained_on is None:
            return True
        training = next(each for each in self.items if each.kind == "train" and each.subject == item.subject)
        return self._is_done(training)

    def _wait(self, held: Sequence[str]) -> None:
        told = f"waiting for what other workers do: {', '.join(held[:3])}{' and more' if len(held) > 3 else ''}"
        if told != self._waiting:
            self._say(told)
        self._waiting = told
        self._pause(5 * _POLL)

    def _pause(self, seconds: float) -> None:
        time.sleep(seconds)
        if self.stop.count:
            raise Stopped

    # -------------------------------------------------------------------------------------------------------- doing it

    def _do(self, item: Item, lease: Lease) -> None:
        place = f"[{self.items.index(item) + 1}/{len(self.items)}] {item.name}"
        log = self.commands.folder.log(item)
        again = f", continued ({lease.number}. time)" if lease.number > 1 else ""
        self._say(f"{place}{again}; log: {log}")
        # a lease that continues an earlier one says nothing about the time of a whole item
        units = self.forecast.units(item) if lease.number == 1 else None
        try:
            outcome, what, line = self._attempt(item, lease, log)
        except Stopped:
            lease.end("interrupted")
            raise
        except LeaseLost:
            self._say(f"{place}: another worker took this over, it took this process for dead")
            return
        lease.end(outcome, units=units if outcome == "done" else None, line=line)
        took = duration(time.monotonic() - lease.begun)
        if outcome == "done":
            self._say(f"{place}: done in {took}; left: {self._left()}")
        elif outcome == "interrupted":
            self.interrupted.append(item)
            self._say(f"{place}: stopped after {took}, its state is saved")
        else:
            self._fail(item, what, line)
            self._say(f"{place}: FAILED after {took} ({what}): {line}")

    def _attempt(self, item: Item, lease: Lease, log: Path) -> tuple[Outcome, str, str]:
        """Run an item's commands; returns how it went, what went wrong, and the line of its log that says why."""
        self._let_go(item, lease)
        if item.kind == "test":
            what, line = self._test(item, lease, log)
        else:
            code = self._child(self.commands.of(item), log, lease)
            line = last_line(log) if code else ""
            if code == INTERRUPTED or (code and self.commands.folder.was_interrupted(item)):
                return "interrupted", "", line
            what = f"exit status {code}" if code else ""
        if self._is_done(item):
            return "done", "", ""
        return "failed", what or "exit status 0, but the result is not complete", line

    def _test(self, item: Item, lease: Lease, log: Path) -> tuple[str, str]:
        """Ask the questions of all cells; one that ends the process is left out, so that the others get their turn.

        Returns:
            What went wrong first, and the line of the log that says why; empty where nothing did.
        """
        left: list[DataSet] = self.commands.folder.open_cells(item)
        what, line = "", ""
        while left:
            code = self._child(self.commands.of(item, left), log, lease)
            still = self.commands.folder.open_cells(item)
            left = [each for each in left if each in still]
            if left and not what:
                what, line = f"exit status {code} at {Path(left[0].path).name}", last_line(log)
            left = [] if code in _WENT_THROUGH else left[1:]
        still = self.commands.folder.open_cells(item)
        return (f"{what}; {len(still)} of {len(item.sets)} cells are not complete", line) if still else ("", "")

    def _child(self, command: Sequence[str], log: Path, lease: Lease) -> int:
        """Run a command with its output in the log; returns its exit status.

        Raises:
            Stopped: a signal came; the child has been told and has ended.
            LeaseLost: see there; the child has been told and has ended.
        """
        with disk_errors(log):
            log.parent.mkdir(parents=True, exist_ok=True)
            with open(log, "ab") as file:
                head = f"\n== {datetime.now(UTC).isoformat(timespec='seconds')}\n$ {recorded_command(command)}\n"
                file.write(head.encode())
                file.flush()
                # a session of its own: Ctrl-C is for us, and we pass it on
                child = subprocess.Popen(
                    [sys.executable, str(tied_child.__file__), str(os.getpid()), *command],
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
        told = 0
        while (code := _ended(child)) is None:
            lease.beat()
            if told == 0 and (self.stop.count or lease.lost):
                child.terminate()
                told = 1
            elif told == 1 and self.stop.count > 1:
                os.killpg(child.pid, signal.SIGKILL)
                told = 2
        if self.stop.count:
            raise Stopped
        if lease.lost:
            raise LeaseLost
        return code

    def _let_go(self, item: Item, lease: Lease) -> None:
        """Wait until processes of a worker that was killed have ended: they would write to the same files."""
        told = False
        while found := processes_with(self.commands.output_of(item)):
            if not told:
                self._say(f"{item.name}: process {found[0]} of an earlier worker is still at it; waiting for its end")
            told = True
            lease.beat()
            self._pause(5 * _POLL)

    # --------------------------------------------------------------------------------------------------------- telling

    def _fail(self, item: Item, what: str, line: str) -> None:
        self.failures.append(Failure(item, what, self.commands.folder.log(item), line))

    def _left(self) -> str:
        left = [item for item in self.items if item.name not in self.done and not self._is_hopeless(item)]
        if not left:
            return "nothing"
        seconds, unknown = self.forecast.seconds(left)
        return f"{len(left)} items" + ("" if unknown else f", about {duration(seconds)}")

    def _say(self, text: str) -> None:
        print(text, flush=True)


def _ended(child: subprocess.Popen) -> int | None:
    """The exit status of a child within a moment, as shells count it; None if it still runs."""
    try:
        code = child.wait(_POLL)
    except subprocess.TimeoutExpired:
        return None
    return code if code >= 0 else 128 - code
