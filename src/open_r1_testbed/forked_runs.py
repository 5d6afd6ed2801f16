"""Training runs in forked processes, which have the libraries loaded already: for the many runs of tests and chaos.

Importing torch, transformers and TRL takes longer than a tiny run. The parent imports them once; each run is made of
forks that get torchrun's variables, so the code under test is the entry's own. The parent must not compute anything
with torch itself.
"""

import os
import random
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets

from open_r1.common.errors import run_command
from open_r1.training import grpo_run
from open_r1.vocabulary.labels import Modality, Task
from open_r1.vocabulary.modes import Mode
from open_r1_testbed.phantom_images import draw
from open_r1_testbed.phantom_questions import question, sample_phantoms

Entry = Callable[[], Any]


@dataclass
class ForkedRun:
    """One run that was started: its processes by rank, and what they print."""

    pids: list[int]
    log: Path

    def wait(self, timeout: float = 1800.0, grace: float = 40.0) -> list[int]:
        """Exit status by rank, negative for a signal. Where one fails the others get SIGTERM, then SIGKILL after
        `grace` seconds, as torchrun does it.

        Raises:
            TimeoutError: the run takes longer than `timeout` seconds; it is killed.
        """
        codes: dict[int, int] = {}
        end, stopped_at = time.monotonic() + timeout, 0.0
        while len(codes) < len(self.pids):
            for rank, pid in enumerate(self.pids):
                if rank not in codes and (ended := os.waitpid(pid, os.WNOHANG))[0]:
                    codes[rank] = os.waitstatus_to_exitcode(ended[1])
            if any(codes.values()) and not stopped_at:
                stopped_at = time.monotonic()
                self._signal(signal.SIGTERM, codes)
            if stopped_at and time.monotonic() - stopped_at > grace:
                self._signal(signal.SIGKILL, codes)
            if time.monotonic() > end:
                self._signal(signal.SIGKILL, codes)
                raise TimeoutError(f"no end after {timeout:.0f} s: {self.log.read_text()[-2000:]}")
            time.sleep(0.005)
        return [codes[rank] for rank in range(len(self.pids))]

    def kill(self) -> None:
        """kill -9 to every process, and wait until they are gone."""
        self._signal(signal.SIGKILL, {})
        for pid in self.pids:
            try:
                os.waitpid(pid, 0)
            except ChildProcessError:
                continue

    def _signal(self, number: int, ended: dict[int, int]) -> None:
        for rank, pid in enumerate(self.pids):
            if rank not in ended:
                try:
                    os.kill(pid, number)
                except ProcessLookupError:
                    continue


def start(
    arguments: Sequence[str],
    log: Path,
    processes: int = 1,
    before: Callable[[int], None] | None = None,
    entry: Entry | None = None,
    environment: dict[str, str] | None = None,
) -> ForkedRun:
    """Start a training run.

    Args:
        arguments: of the command line, without the script.
        log: gets what the processes print, after what is in it already.
        processes: how many, joined by gloo.
        before: called in each process with its rank before the entry: the place to plant a fault.
        entry: what to run; None trains with GRPO without thoughts.
        environment: further variables.
    """
    port, pids = free_port(), []
    sys.stdout.flush()
    sys.stderr.flush()
    for rank in range(processes):
        pid = os.fork()
        if pid == 0:
            variables = dict(environment or {})
            if processes > 1:
                variables |= torchrun_variables(rank, processes, port)
            _become(list(arguments), log, variables, rank, before, entry or _grpo)
        pids.append(pid)
    return ForkedRun(pids, log)


def torchrun_variables(rank: int, processes: int, port: int) -> dict[str, str]:
    """What torchrun tells the process of a rank on one machine; `port` is where the first process listens."""
    variables = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes)}
    variables |= {"LOCAL_WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return variables


def _grpo() -> int:
    return grpo_run.train_grpo(Mode.NOTHINK)


def _become(
    arguments: list[str],
    log: Path,
    variables: dict[str, str],
    rank: int,
    before: Callable[[int], None] | None,
    entry: Entry,
) -> None:
    """Turn this fork into one process of the run; it never returns."""
    code = 1
    try:
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
        sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            signal.signal(number, signal.SIG_DFL)
        os.environ.update(variables)
        sys.argv = ["grpo_vqa_nothink.py", *arguments]
        if before is not None:
            before(rank)
        run_command(entry)
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def free_port() -> int:
    """A TCP port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def small_set(folder: Path, count: int, seed: int = 0) -> Path:
    """Save `count` questions about phantoms to train on and as many others to test, in the published three columns.

    Returns:
        The folder.
    """
    train, test = (_questions(count, [seed, side]) for side in range(2))
    datasets.DatasetDict({"train": train, "test": test}).save_to_disk(str(folder))
    return folder


def _questions(count: int, seed: list[int]) -> datasets.Dataset:
    random_ = random.Random(str(seed))
    phantoms = sample_phantoms(Modality.CT, count, seed)
    questions = [question(phantom, Task.DIAGNOSIS, random_) for phantom in phantoms]
    return datasets.Dataset.from_dict(
        {
            "image": [draw(phantom) for phantom in phantoms],
            "problem": [row["problem"] for row in questions],
            "solution": [row["solution"] for row in questions],
        },
        features=datasets.Features(
            {"image": datasets.Image(), "problem": datasets.Value("string"), "solution": datasets.Value("string")}
        ),
    )


def reward_text_length(rank: int) -> None:
    """To be called `before` a run: earn by length and by letters, so that groups of a random model have spread."""

    def spread(completions: list[Any], **_: Any) -> list[float]:
        return [len(completion[0]["content"]) / 10 + completion[0]["content"].count("e") for completion in completions]

    grpo_run.rewards_for = lambda *_: [spread]
