"""Leases: one holder at a time among real processes, taken over from the dead, never from the living."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest

from open_r1.study.execution.leases import Leases, create_new, machine_identity, process_start

# Waits for the word to begin, takes every item that it can get, holds each for a moment, and prints what it took.
RACER = """
import sys, time
from pathlib import Path
from open_r1.study.execution.leases import Leases
leases = Leases(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
for k in range(60):
    lease = leases.take(f"item-{k}")
    if lease is not None:
        print(f"item-{k}", flush=True)
        time.sleep(0.01)
print("end", flush=True)
sys.stdin.read()  # alive until all have ended: the items of a dead one may be taken over
"""
# Takes one item, says so and stays.
HOLDER = """
import sys, time
from pathlib import Path
from open_r1.study.execution.leases import Leases
lease = Leases(Path(sys.argv[1])).take("train-CT")
print(lease is not None, flush=True)
time.sleep(3600)  # it is killed before
"""


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def race(folder: Path, count: int) -> list[list[str]]:
    """What each of several processes took that began together, when all of them were ready."""
    racers = [start(RACER, folder) for _ in range(count)]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("begin\n")
        racer.stdin.flush()
    names_by_racer = []
    for racer in racers:
        assert racer.stdout is not None
        names_by_racer.append([line.strip() for line in iter(racer.stdout.readline, "end\n")])
    for racer in racers:
        racer.communicate()
    return names_by_racer


def hold(folder: Path) -> subprocess.Popen[str]:
    holder = start(HOLDER, folder)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "True\n"
    return holder


@pytest.mark.slow
def test_of_racing_processes_one_alone_takes_each_item(tmp_path: Path) -> None:
    names_by_racer = race(tmp_path, 4)
    counts = Counter(name for names in names_by_racer for name in names)
    assert counts == {f"item-{k}": 1 for k in range(60)}
    assert sum(bool(names) for names in names_by_racer) > 1, "nobody raced"


@pytest.mark.slow
def test_a_living_holder_keeps_his_item_and_a_killed_one_loses_it_at_once(tmp_path: Path) -> None:
    holder = hold(tmp_path)
    leases = Leases(tmp_path)
    assert leases.take("train-CT") is None
    assert leases.look("train-CT").holder == f"process {holder.pid} on {machine_identity()[0]}"
    os.kill(holder.pid, signal.SIGKILL)
    while process_start(holder.pid) is not None:  # dead, and not reaped by us yet: a zombie holds nothing
        time.sleep(0.01)
    lease = leases.take("train-CT")
    holder.wait()
    assert lease is not None
    assert lease.number == 2


@pytest.mark.slow
def test_of_racing_heirs_one_alone_takes_over(tmp_path: Path) -> None:
    holder = hold(tmp_path)
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    (tmp_path / "train-CT.1").rename(tmp_path / "item-7.1")
    assert sum(names.count("item-7") for names in race(tmp_path, 4)) == 1


@pytest.mark.slow
def test_a_sleeper_keeps_his_item(tmp_path: Path) -> None:
    holder = hold(tmp_path)
    os.kill(holder.pid, signal.SIGSTOP)
    assert Leases(tmp_path, patience=0).take("train-CT") is None
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()


def write_foreign(folder: Path) -> Path:
    path = folder / "train-CT.1"
    foreign_process = {
        "host": "far",
        "pid": os.getpid(),
        "started": process_start(os.getpid()),
        "place": ["far", "x", "y"],
    }
    assert create_new(path, json.dumps(foreign_process))
    return path


def test_a_holder_on_another_machine_is_dead_after_silence_by_our_own_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr("open_r1.study.execution.leases.time", SimpleNamespace(monotonic=lambda: now[0]))
    path = write_foreign(tmp_path)
    os.utime(path, (0, 0))  # its clock is decades behind: that alone says nothing
    leases = Leases(tmp_path, patience=300)
    for beat in range(1, 4):  # alive for longer than the patience
        assert leases.take("train-CT") is None
        now[0] += 150
        os.utime(path, (beat, beat))
    assert leases.take("train-CT") is None
    now[0] += 299
    assert leases.take("train-CT") is None
    now[0] += 2
    lease = leases.take("train-CT")
    assert lease is not None
    assert lease.number == 2


def test_the_same_process_id_on_another_machine_is_somebody_else(tmp_path: Path) -> None:
    write_foreign(tmp_path)  # with our own id and start: only the place tells it from us
    assert Leases(tmp_path, patience=100).look("train-CT").holder == f"process {os.getpid()} on far"


def test_a_lease_ends_with_a_record_and_can_be_taken_again(tmp_path: Path) -> None:
    leases = Leases(tmp_path)
    first_lease = leases.take("train-CT")
    assert first_lease is not None
    first_lease.end("failed", line="no luck")
    state = leases.look("train-CT")
    assert (state.number, state.holder, state.ending) == (1, None, "failed")
    second_lease = leases.take("train-CT")
    assert second_lease is not None
    second_lease.end("done", units=3)
    assert [record["outcome"] for record in leases.ends("train-CT")] == ["failed", "done"]
    assert leases.look("train-CT-2").number == 0  # a name that begins alike is another item


def test_a_holder_that_was_taken_for_dead_notices(tmp_path: Path) -> None:
    lease = Leases(tmp_path).take("train-CT")
    assert lease is not None
    assert not lease.lost
    create_new(tmp_path / "train-CT.2", "{}")
    assert lease.lost


def test_beats_touch_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("open_r1.study.execution.leases.BEAT", 0.0)
    lease = Leases(tmp_path).take("train-CT")
    assert lease is not None
    os.utime(lease.path, (0, 0))
    lease.beat()
    assert lease.path.stat().st_mtime > 1e9
