"""What torchrun or accelerate has started ends with it, even if the launcher alone is killed."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from published_sets import save_published_form

from open_r1.common import launcher
from open_r1.training.recovery.checkpoint_store import damage, newest_first
from open_r1_testbed.tiny_models import build_tiny_checkpoint

PATIENCE = 300.0  # seconds; on an idle machine everything here takes under two


def until(happened: Callable[[], object], description: str) -> None:
    end = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < end, description
        time.sleep(0.05)


def alive(process: int) -> bool:
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return False
    return fields[0] not in "ZX"


def children(process: int) -> list[int]:
    tasks = Path(f"/proc/{process}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


needs_proc = pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="looks into /proc")


@pytest.mark.slow
@needs_proc
def test_workers_of_a_killed_torchrun_save_and_end(tmp_path: Path, repository: Path) -> None:
    build_tiny_checkpoint(tmp_path / "tiny")
    save_published_form(tmp_path / "CT", 4)
    flags = (
        "--model_name_or_path tiny --dataset_name CT --num_generations 2 --max_completion_length 4 --output_dir out "
    )
    flags += "--max_steps 100000 --save_strategy no --logging_steps 1 --gradient_accumulation_steps 1"
    script = str(repository / "src" / "open_r1" / "grpo_vqa_nothink.py")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", script]
    with open(tmp_path / "log", "wb") as log:
        torchrun = subprocess.Popen([*command, *flags.split()], cwd=tmp_path, stdout=log, stderr=log)
    metrics = tmp_path / "out" / "metrics.jsonl"
    workers: list[int] = []
    try:
        until(lambda: metrics.is_file() and metrics.stat().st_size, (tmp_path / "log").read_text()[-3000:])
        workers = children(torchrun.pid)
        assert len(workers) == 2
        torchrun.kill()
        torchrun.wait()
        until(lambda: not any(map(alive, workers)), "the workers go on without torchrun")
    finally:
        for process in [torchrun.pid, *filter(alive, workers)]:
            if alive(process):
                os.kill(process, signal.SIGKILL)
    story = json.loads((tmp_path / "out" / "run.json").read_text())
    assert story["status"] == "interrupted", (tmp_path / "log").read_text()[-3000:]
    (checkpoint,) = newest_first(tmp_path / "out")
    assert damage(checkpoint) is None


WORKER = """
import sys, time
from pathlib import Path
from open_r1.common import launcher
if {by_looking}:
    launcher._request_signal = lambda: False
from open_r1.common.errors import run_command
def main():
    Path({started!r}).touch()
    time.sleep(600)
run_command(main)
"""
PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", {worker!r}])
print(child.pid, flush=True)
time.sleep(600)
"""


def kill_the_parent(tmp_path: Path, by_looking: bool, **environment: str) -> int:
    """Start a parent with a worker that sleeps, kill the parent alone; the worker's process id."""
    started = tmp_path / "started"
    worker = WORKER.format(started=str(started), by_looking=by_looking)
    variables = {name: value for name, value in os.environ.items() if name != "TORCHELASTIC_RUN_ID"} | environment
    command = [sys.executable, "-c", PARENT.format(worker=worker)]
    with subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        process = int(parent.stdout.readline())
        until(started.exists, "the worker does not start")
        parent.kill()
    return process


@pytest.mark.slow
@needs_proc
@pytest.mark.parametrize("by_looking", [False, True], ids=["signal", "looking"])
def test_a_worker_ends_with_its_launcher(tmp_path: Path, by_looking: bool) -> None:
    process = kill_the_parent(tmp_path, by_looking, TORCHELASTIC_RUN_ID="x")
    until(lambda: not alive(process), "the worker goes on")


@pytest.mark.slow
@needs_proc
def test_a_command_of_a_person_outlives_its_shell(tmp_path: Path) -> None:
    process = kill_the_parent(tmp_path, by_looking=False)
    time.sleep(1.0)
    try:
        assert alive(process)
    finally:
        os.kill(process, signal.SIGKILL)


def test_a_parent_that_is_gone_already_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    signals: list[tuple[int, int]] = []
    monkeypatch.setattr(launcher, "_request_signal", lambda: True)
    monkeypatch.setattr(launcher.os, "kill", lambda *signalled: signals.append(signalled))
    launcher.end_with(os.getppid())
    assert signals == []
    launcher.end_with(2**22 + 1)
    assert signals == [(os.getpid(), signal.SIGTERM)]
