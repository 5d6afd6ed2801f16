"""One worker of a study: takes free items, runs them and records how they ended, until no item is left."""

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
from open_r1.study.execution.leases import Ending, Lease, Leases
from open_r1.study.execution.time_left import Forecast
from open_r1.study.planning.plan import Item
from open_r1.study.planning.prepared_sets import DataSet

INTERRUPTED = 75
"""Exit status of an interrupted command, which the same command continues (EX_TEMPFAIL)."""
_POLL = 0.2  # seconds between two checks of a child or of the other workers
_ALL_SETS_TRIED = (0, 1, 2)  # exit statuses of eval/infer.py after it has tried every data set


class Stopped(Exception):
    """This worker received a signal to stop."""


class LeaseLost(Exception):
    """Another worker took this one for dead and took over its item."""


@dataclass
class Stop:
    """Counts the signals to stop: the first is passed on to the child, the second kills it."""

    count: int = 0

    def listen(self) -> None:
        """Handle SIGTERM, Ctrl-C and SIGUSR2 (SLURM: the time is nearly over) from now on."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2):
            signal.signal(number, self._count_signal)

    def _count_signal(self, *_: object) -> None:
        self.count += 1


@dataclass
class Worker:
    """Runs those of its items that no other worker runs.

    Args:
        commands: of the study.
        items: to run, in order.
        leases: shared by all workers.
        forecast: of the remaining time.
        stop: signals received.
    """

    commands: Commands
    items: Sequence[Item]
    leases: Leases
    forecast: Forecast
    stop: Stop
    finished: set[str] = field(default_factory=set)
    failures: list[Failure] = field(default_factory=list)
    interrupted: list[Item] = field(default_factory=list)  # trainings that stopped with their state saved
    _numbers_at_start: dict[str, int] = field(default_factory=dict)
    _wait_message: str = ""

    def run(self) -> None:
        """Work until no item is left that can be run.

        Raises:
            Stopped: a signal came; the same command continues the item.
        """
        self._numbers_at_start = {item.name: self.leases.look(item.name).number for item in self.items}
        while True:
            claimed, awaited = self._claim_next()
            if claimed is not None:
                self._run_item(*claimed)
            elif awaited:
                self._wait(awaited)
            else:
                return

    def find_done(self) -> None:
        """Record which items are finished; a finished item with unusable files is recorded as a failure."""
        for item in self.items:
            self._is_finished(item)

    def make_report(self, cells: Sequence[Path]) -> None:
        """Run eval/report.py on these result files, in one worker at a time.

        Raises:
            Stopped: a signal came.
            UserError: the report could not be written; its log says why.
        """
        while (lease := self.leases.take("report")) is None:
            self._wait(["report"])
        log = self.commands.folder.path / "logs" / "report.log"
        code = self._run_child(self.commands.report(cells), log, lease)
        lease.end("failed" if code else "done")
        if code:
            raise UserError(f"the report could not be written: {last_line(log)}; log: {log}")

    # ---------------------------------------------------------------------------------------------------- the next item

    def _claim_next(self) -> tuple[tuple[Item, Lease] | None, list[str]]:
        """The next free item with its lease; or None and the items, held by other workers, to wait for."""
        awaited = []
        for item in self.items:
            if item.name in self.finished or self._is_given_up(item):
                continue
            state = self.leases.look(item.name)
            if state.holder is not None:
                awaited.append(f"{item.name} ({state.holder})")
                continue
            if self._is_finished(item) or self._is_given_up(item):
                continue
            if state.ending == "failed" and state.number > self._numbers_at_start[item.name]:
                self._record_failure(item, "failed in another worker", str((state.ended or {}).get("line", "")))
                continue
            if not self.is_ready(item):
                # another worker trains it
                awaited.append(f"the training before {item.name}")
                continue
            lease = self.leases.take(item.name)
            if lease is None:
                awaited.append(item.name)
            elif self._is_finished(item):  # another worker finished it since the check above
                lease.end("done")
            else:
                return (item, lease), []
        return None, awaited

    def _is_finished(self, item: Item) -> bool:
        if item.name not in self.finished:
            try:
                if self.commands.folder.is_done(item):
                    self.finished.add(item.name)
            except UserError as error:
                if not self._is_given_up(item):
                    self._record_failure(item, "unusable files", str(error))
        return item.name in self.finished

    def _is_given_up(self, item: Item) -> bool:
        """Whether an item, or the training before it, has failed or stopped in this process."""
        given_up = [failure.item for failure in self.failures] + self.interrupted
        return any(
            item_given_up.subject == item.subject and item_given_up.kind in ("train", item.kind)
            for item_given_up in given_up
        )

    def is_ready(self, item: Item) -> bool:
        """Whether nothing has to be trained before an item can run."""
        if item.kind == "train" or item.subject.trained_on is None:
            return True
        return self._is_finished(Item("train", item.subject, (item.subject.trained_on,)))

    def _wait(self, awaited: Sequence[str]) -> None:
        message = f"waiting for other workers: {', '.join(awaited[:3])}{' and more' if len(awaited) > 3 else ''}"
        if message != self._wait_message:
            self._print(message)
        self._wait_message = message
        self._pause(5 * _POLL)

    def _pause(self, seconds: float) -> None:
        time.sleep(seconds)
        if self.stop.count:
            raise Stopped

    # -------------------------------------------------------------------------------------------------- running an item

    def _run_item(self, item: Item, lease: Lease) -> None:
        label = f"[{self.items.index(item) + 1}/{len(self.items)}] {item.name}"
        log = self.commands.folder.log(item)
        again = f", continued ({lease.number}. time)" if lease.number > 1 else ""
        self._print(f"{label}{again}; log: {log}")
        # the time of a continued item is not the time of a full item
        units = self.forecast.units(item) if lease.number == 1 else None
        try:
            ending, problem, line = self._attempt(item, lease, log)
        except Stopped:
            lease.end("interrupted")
            raise
        except LeaseLost:
            self._print(f"{label}: another worker took this process for dead and took over the item")
            return
        lease.end(ending, units=units if ending == "done" else None, line=line)
        took = duration(time.monotonic() - lease.taken_at)
        if ending == "done":
            self._print(f"{label}: done in {took}; left: {self._describe_remaining()}")
        elif ending == "interrupted":
            self.interrupted.append(item)
            self._print(f"{label}: stopped after {took}, its state is saved")
        else:
            self._record_failure(item, problem, line)
            self._print(f"{label}: FAILED after {took} ({problem}): {line}")

    def _attempt(self, item: Item, lease: Lease, log: Path) -> tuple[Ending, str, str]:
        """Run an item's commands; returns how it ended, the problem, and the line of its log that explains it."""
        self._wait_for_orphans(item, lease)
        if item.kind == "test":
            problem, line = self._test_sets(item, lease, log)
        else:
            code = self._run_child(self.commands.command_of(item), log, lease)
            line = last_line(log) if code else ""
            if code == INTERRUPTED or (code and self.commands.folder.was_interrupted(item)):
                return "interrupted", "", line
            problem = f"exit status {code}" if code else ""
        if self._is_finished(item):
            return "done", "", ""
        return "failed", problem or "exit status 0, but the result is not complete", line

    def _test_sets(self, item: Item, lease: Lease, log: Path) -> tuple[str, str]:
        """Evaluate on all unfinished sets; a set that ends the process is skipped, so that the next ones are tried.

        Returns:
            The first problem and the line of the log that explains it; both empty if all cells are complete.
        """
        remaining: list[DataSet] = self.commands.folder.unfinished_sets(item)
        problem, line = "", ""
        while remaining:
            code = self._run_child(self.commands.command_of(item, remaining), log, lease)
            unfinished = self.commands.folder.unfinished_sets(item)
            remaining = [data_set for data_set in remaining if data_set in unfinished]
            if remaining and not problem:
                problem, line = f"exit status {code} at {Path(remaining[0].path).name}", last_line(log)
            remaining = [] if code in _ALL_SETS_TRIED else remaining[1:]
        unfinished = self.commands.folder.unfinished_sets(item)
        return (
            (f"{problem}; {len(unfinished)} of {len(item.sets)} cells are not complete", line)
            if unfinished
            else ("", "")
        )

    def _run_child(self, command: Sequence[str], log: Path, lease: Lease) -> int:
        """Run a command with its output in the log; returns its exit status.

        Raises:
            Stopped: a signal came; it was passed on and the child has ended.
            LeaseLost: the lease was lost; the child was terminated and has ended.
        """
        with disk_errors(log):
            log.parent.mkdir(parents=True, exist_ok=True)
            with open(log, "ab") as file:
                head = f"\n== {datetime.now(UTC).isoformat(timespec='seconds')}\n$ {recorded_command(command)}\n"
                file.write(head.encode())
                file.flush()
                # in a new session, so that Ctrl-C reaches this process alone, which passes it on
                child = subprocess.Popen(
                    [sys.executable, str(tied_child.__file__), str(os.getpid()), *command],
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
        signals_sent = 0
        while (code := _exit_status(child)) is None:
            lease.beat()
            if signals_sent == 0 and (self.stop.count or lease.lost):
                child.terminate()
                signals_sent = 1
            elif signals_sent == 1 and self.stop.count > 1:
                os.killpg(child.pid, signal.SIGKILL)
                signals_sent = 2
        if self.stop.count:
            raise Stopped
        if lease.lost:
            raise LeaseLost
        return code

    def _wait_for_orphans(self, item: Item, lease: Lease) -> None:
        """Wait for the processes of a killed worker to end, because they write to the same files."""
        is_announced = False
        while process_ids := processes_with(self.commands.output_of(item)):
            if not is_announced:
                self._print(f"{item.name}: waiting for process {process_ids[0]} of an earlier worker to end")
            is_announced = True
            lease.beat()
            self._pause(5 * _POLL)

    # --------------------------------------------------------------------------------------------------------- messages

    def _record_failure(self, item: Item, problem: str, line: str) -> None:
        self.failures.append(Failure(item, problem, self.commands.folder.log(item), line))

    def _describe_remaining(self) -> str:
        remaining = [item for item in self.items if item.name not in self.finished and not self._is_given_up(item)]
        if not remaining:
            return "nothing"
        seconds, unknown = self.forecast.seconds(remaining)
        return f"{len(remaining)} items" + ("" if unknown else f", about {duration(seconds)}")

    def _print(self, text: str) -> None:
        print(text, flush=True)


def _exit_status(child: subprocess.Popen) -> int | None:
    """The exit status of a child as shells count it; None if it still runs after a moment."""
    try:
        code = child.wait(_POLL)
    except subprocess.TimeoutExpired:
        return None
    return code if code >= 0 else 128 - code
