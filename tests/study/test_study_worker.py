"""A worker of a study: skips, continues, goes on after a failure, shares with others, stops and dies without harm."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from study_children import write_answers, write_training
from tiny_study import HERE, worker_of

from open_r1.study.execution.child_logs import failure_lines, last_line, processes_with
from open_r1.study.execution.leases import process_start
from open_r1.study.execution.worker import INTERRUPTED
from open_r1.vocabulary.labels import Modality

EVERYTHING = ["train-CT-grpo-nothink", "test-CT-grpo-nothink", "train-MRI-grpo-nothink", "test-MRI-grpo-nothink"]


def calls(folder: Path) -> list[str]:
    path = folder / "calls"
    return path.read_text().split() if path.exists() else []


def until(condition: Callable[[], object], seconds: float = 600.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def start(folder: Path, *flags: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, HERE, str(folder), *flags], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


@pytest.mark.slow
def test_everything_is_done_once_in_order_and_then_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    worker_of(tmp_path).run()
    assert calls(tmp_path) == EVERYTHING
    output = capsys.readouterr().out
    assert "[4/4] test-MRI-grpo-nothink: done in " in output
    assert "left: nothing" in output
    again = worker_of(tmp_path)
    again.run()
    assert calls(tmp_path) == EVERYTHING
    assert again.finished == set(EVERYTHING)


@pytest.mark.slow
def test_what_is_done_is_seen_by_its_manifests_and_the_rest_continued(tmp_path: Path) -> None:
    worker = worker_of(tmp_path)
    ct, mri = worker.items[0].subject, worker.items[2].subject
    folder = worker.commands.folder
    write_training(folder.run(ct))
    folder.run(mri).mkdir(parents=True)
    (folder.run(mri) / "run.json").write_text(json.dumps({"status": "running"}))  # cut off
    for data_set in worker.items[1].sets:
        write_answers(folder.cell(ct, data_set))
    path = folder.cell(ct, worker.items[1].sets[1])
    path.write_bytes(path.read_bytes()[:-30])  # cut off within its last answer
    worker.run()
    assert calls(tmp_path) == ["test-CT-grpo-nothink", *EVERYTHING[2:]]


@pytest.mark.slow
def test_a_failure_keeps_no_other_waiting_and_is_named_with_its_log(tmp_path: Path) -> None:
    (tmp_path / "broken-train-CT-grpo-nothink").touch()
    worker = worker_of(tmp_path)
    worker.run()
    assert calls(tmp_path) == ["train-CT-grpo-nothink", *EVERYTHING[2:]]
    lines = failure_lines(worker.failures, worker.interrupted, worker.items)
    assert lines[0] == "1 of 4 items failed:"
    log = tmp_path / "study" / "logs" / "train-CT-grpo-nothink.log"
    assert lines[1] == f"  train-CT-grpo-nothink: exit status 1; log: {log}"
    assert lines[2].strip() == "error: it is broken"
    assert lines[3] == "not tested, because the training is not finished: test-CT-grpo-nothink"
    (tmp_path / "broken-train-CT-grpo-nothink").unlink()
    worker_of(tmp_path).run()  # the same command again
    assert calls(tmp_path)[3:] == EVERYTHING[:2]


@pytest.mark.slow
def test_a_cell_that_ends_the_process_does_not_keep_the_others_from_their_turn(tmp_path: Path) -> None:
    worker = worker_of(tmp_path, (Modality.CT, Modality.MRI, Modality.OCT))
    cells = worker.commands.folder.cells(worker.items[1].subject)
    cells.mkdir(parents=True)
    (cells / "CT_384.crash").touch()
    worker.run()
    assert sorted(path.name for path in cells.glob("*.jsonl")) == ["MRI_384.jsonl", "OCT_384.jsonl"]
    assert [failure.reason for failure in worker.failures] == ["exit status 3 at CT_384; 1 of 3 cells are not complete"]


@pytest.mark.slow
def test_a_finished_run_without_weights_is_a_failure_and_not_trained_over(tmp_path: Path) -> None:
    worker = worker_of(tmp_path)
    run = worker.commands.folder.run(worker.items[0].subject)
    write_training(run)
    (run / "model.safetensors").unlink()
    worker.run()
    assert calls(tmp_path) == EVERYTHING[2:]
    assert "finished run without usable weights" in worker.failures[0].last_line


@pytest.mark.slow
def test_answers_of_weights_that_were_trained_again_are_refused(tmp_path: Path) -> None:
    worker = worker_of(tmp_path)
    worker.run()
    weights = worker.commands.folder.run(worker.items[0].subject) / "model.safetensors"
    os.utime(weights, (time.time() + 60, time.time() + 60))  # newer than the answers
    again = worker_of(tmp_path)
    again.run()
    assert "was made with other weights" in again.failures[0].last_line
    assert calls(tmp_path) == EVERYTHING


@pytest.mark.slow
def test_two_workers_share_and_do_nothing_twice(tmp_path: Path) -> None:
    workers = [start(tmp_path) for _ in range(2)]
    assert [worker.wait(600) for worker in workers] == [0, 0]
    assert Counter(calls(tmp_path)) == Counter(EVERYTHING)
    assert calls(tmp_path).index("train-MRI-grpo-nothink") < calls(tmp_path).index("test-MRI-grpo-nothink")


@pytest.mark.slow
def test_items_are_run_alone_and_a_test_waits_for_the_training_before_it(tmp_path: Path) -> None:
    tester = start(tmp_path, "--items", "test-MRI-grpo-nothink")
    assert tester.stdout is not None
    assert tester.stdout.readline() == "waiting for other workers: the training before test-MRI-grpo-nothink\n"
    assert start(tmp_path, "--items", "train-MRI-grpo-nothink").wait(600) == 0
    assert tester.wait(600) == 0
    assert calls(tmp_path) == EVERYTHING[2:]
    assert start(tmp_path).wait(600) == 0
    assert sorted(calls(tmp_path)) == sorted(EVERYTHING)


@pytest.mark.slow
def test_sigterm_is_passed_on_and_the_same_command_continues(tmp_path: Path) -> None:
    slow = tmp_path / "slow-test-CT-grpo-nothink"
    slow.touch()
    worker = start(tmp_path)
    until(lambda: "test-CT-grpo-nothink" in calls(tmp_path))
    (child,) = processes_with({str(tmp_path / "study" / "cells" / "CT-grpo-nothink")})
    worker.send_signal(signal.SIGTERM)
    output, _ = worker.communicate(timeout=600)
    assert worker.returncode == INTERRUPTED == 75
    assert output.strip().splitlines()[-1] == "stopped; the same command continues"
    assert process_start(child) is None
    slow.unlink()
    assert start(tmp_path).wait(600) == 0
    assert calls(tmp_path) == [*EVERYTHING[:2], *EVERYTHING[1:]]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="a child learns of its parent's death on Linux alone")
def test_the_child_of_a_killed_worker_ends_and_the_next_worker_goes_on(tmp_path: Path) -> None:
    slow = tmp_path / "slow-train-CT-grpo-nothink"
    slow.touch()
    worker = start(tmp_path)
    until(lambda: calls(tmp_path))
    (child,) = processes_with({str(tmp_path / "study" / "runs" / "CT-grpo-nothink")})
    worker.kill()
    worker.communicate()
    until(lambda: process_start(child) is None)
    slow.unlink()
    assert start(tmp_path).wait(600) == 0
    assert calls(tmp_path) == [EVERYTHING[0], *EVERYTHING]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="processes are looked up in /proc")
def test_an_orphan_that_still_writes_is_waited_for(tmp_path: Path) -> None:
    run = tmp_path / "study" / "runs" / "CT-grpo-nothink"
    code = "import sys, time; print(flush=True); time.sleep(3600)"
    orphan = subprocess.Popen(
        [sys.executable, "-c", code, "--output_dir", "study/runs/CT-grpo-nothink"], cwd=tmp_path, stdout=subprocess.PIPE
    )
    assert orphan.stdout is not None
    orphan.stdout.readline()
    assert processes_with({str(run)}) == [orphan.pid]
    worker = start(tmp_path)
    assert worker.stdout is not None
    assert worker.stdout.readline().startswith("[1/4]")
    assert "of an earlier worker to end" in worker.stdout.readline()
    assert calls(tmp_path) == []
    orphan.kill()
    orphan.wait()
    assert worker.wait(600) == 0
    assert calls(tmp_path) == EVERYTHING


@pytest.mark.slow
def test_what_another_worker_failed_at_is_not_tried_again_by_this_one(tmp_path: Path) -> None:
    (tmp_path / "broken-train-MRI-grpo-nothink").touch()
    slow = tmp_path / "slow-train-CT-grpo-nothink"
    slow.touch()
    first_worker = start(tmp_path)
    until(lambda: calls(tmp_path))
    assert start(tmp_path, "--only", "MRI").wait(600) == 1
    slow.unlink()
    output, _ = first_worker.communicate(timeout=600)
    assert first_worker.returncode == 1
    assert "train-MRI-grpo-nothink: failed in another worker" in output
    assert calls(tmp_path).count("train-MRI-grpo-nothink") == 1


@pytest.mark.parametrize(
    ("log", "line"),
    [
        ("Traceback\nValueError: no\n====\n", "ValueError: no"),
        ("[rank0]: torch.OutOfMemoryError: CUDA out of memory\nx.ChildFailedError: \n------", "torch.OutOfMemoryError"),
        ("error: --data is gone\n  traceback : below\n", "error: --data is gone"),
        ("10%\r20%\rKilled\n", "Killed"),
        ("", ""),
    ],
)
def test_the_line_that_says_why(tmp_path: Path, log: str, line: str) -> None:
    path = tmp_path / "a.log"
    path.write_text("RuntimeError: of an earlier try\n\n== 2026-11-21T00:00:00+00:00\n$ command\n" + log)
    assert last_line(path)[: len(line) or None] == line
