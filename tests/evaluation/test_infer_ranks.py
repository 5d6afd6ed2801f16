"""Several processes share the questions: every id once, killed at any moment, continued by any number of processes."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from asked_rows import small_settings
from sharp_checkpoints import sharp_checkpoint
from torch.distributed import HashStore
from tqdm import tqdm

from open_r1.common.errors import UserError
from open_r1.evaluation.answering.processes import Launch
from open_r1.evaluation.answering.run import _batch_size, infer
from open_r1.evaluation.answering.settings import InferenceSettings
from open_r1.evaluation.scoring.result_writer import ResultWriter
from open_r1.evaluation.scoring.results import Result, read_results
from open_r1.vocabulary.labels import Modality
from open_r1_testbed.forked_runs import free_port, start, torchrun_variables
from open_r1_testbed.phantoms import make_phantoms

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    """Settings of a run over 80 questions on 16 images, by the name of its result file."""
    root = tmp_path_factory.mktemp("ranks")
    make_phantoms(root / "phantoms", train=1, test=8, modalities=[Modality.CT, Modality.OCT], workers=1)
    checkpoint = sharp_checkpoint(root / "model")

    def make(name: str, **changes) -> InferenceSettings:
        lengths = {"batch_size": 3, "max_new_tokens": 12}
        return small_settings(checkpoint, root / "phantoms", root / f"{name}.jsonl", **(lengths | changes))

    return make


@pytest.fixture(scope="module")
def whole(settings) -> list[bytes]:
    """The lines of one process that nobody disturbs, in batches of 16."""
    infer(settings("whole", batch_size=16))
    lines = Path(settings("whole").output_path).read_bytes().splitlines(keepends=True)
    assert len(lines) == 81
    assert len({json.loads(line)["output"] for line in lines[1:]}) > 20
    return lines


def command(settings: InferenceSettings) -> list[str]:
    names = ("model_path", "prompt_path", "image_root", "output_path", "batch_size", "max_new_tokens", "device")
    return [
        *TORCHRUN,
        "eval/infer.py",
        *(word for name in names for word in (f"--{name}", str(getattr(settings, name)))),
    ]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def lines_in(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def stop_itself_at(lines: int, path: Path) -> None:
    """Have this process stop once it has written and the file has so many lines, however busy the machine is."""
    write = ResultWriter.write

    def writing(self: ResultWriter, result: Result) -> None:
        write(self, result)
        if lines_in(path) >= lines:
            ResultWriter.write = write
            os.kill(os.getpid(), signal.SIGSTOP)

    ResultWriter.write = writing


@contextmanager
def launch(
    settings: InferenceSettings,
    processes: int,
    log: Path | None = None,
    stop_at: int | None = None,
    stopping: Sequence[int] | None = None,
) -> Iterator[list[int]]:
    """Forked processes that find what torchrun would tell them; importing everything anew would take most of a test.

    With `stop_at` those ranks that `stopping` names (None: all) stop themselves once the file has so many lines.
    """

    def before(rank: int) -> None:
        tqdm.set_lock(threading.RLock())  # the usual one is shared with forked processes, killed ones included
        if stop_at is not None and (stopping is None or rank in stopping):
            stop_itself_at(stop_at, Path(settings.output_path))

    variables = torchrun_variables(0, 1, free_port()) if processes == 1 else {}
    run = start([], log or Path(os.devnull), processes, before, lambda: infer(settings), variables)
    try:
        yield run.pids
    finally:
        run.kill()


@contextmanager
def stopped_at(lines: int, settings: InferenceSettings, processes: int) -> Iterator[list[int]]:
    """A launch whose processes are all stopped when the file has `lines` lines, and killed in the end."""
    path = Path(settings.output_path)
    with launch(settings, processes, stop_at=lines) as pids:
        deadline = time.monotonic() + 600
        while lines_in(path) < lines:
            assert time.monotonic() < deadline
            time.sleep(0.0005)
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        yield pids


def kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    except (ProcessLookupError, ChildProcessError):
        return


@pytest.mark.slow
def test_killed_at_any_moment_and_continued_by_any_number_of_processes(settings, whole, capfd):
    run_settings = settings("killed")
    path = Path(run_settings.output_path)
    reached = []
    for count, processes in ((1, 2), (4, 1), (9, 2), (7, 3)):
        with stopped_at(lines_in(path) + count, run_settings, processes):
            pass
        reached.append(lines_in(path))
    assert reached == sorted(set(reached))  # each got further
    assert reached[-1] < len(whole)
    assert infer(run_settings) == 0
    lines = path.read_bytes().splitlines(keepends=True)
    assert len(lines) == len(whole)
    assert set(lines[1:]) == set(whole[1:])
    assert "n = 80" in capfd.readouterr().out


@pytest.mark.slow
def test_a_second_launch_waits_for_the_last_process_of_the_first(settings, whole):
    run_settings = settings("locked")
    with stopped_at(5, run_settings, 2) as (first, second):
        with pytest.raises(UserError, match="another process is writing"):
            infer(run_settings)
        kill(first)
        with pytest.raises(UserError, match="another process is writing"):  # the orphan could still add a line
            infer(run_settings)
        kill(second)
        assert infer(run_settings) == 0
    assert set(Path(run_settings.output_path).read_bytes().splitlines(keepends=True)[1:]) == set(whole[1:])


@pytest.mark.slow
def test_one_process_that_was_killed_is_finished_by_two(settings, whole, repository):
    run_settings = settings("torn")
    path = Path(run_settings.output_path)
    path.write_bytes(b"".join(whole[:20]) + whole[20][:70])  # the manifest, 19 answers, the beginning of one
    process = subprocess.run(
        command(run_settings), cwd=repository, env=environment(), capture_output=True, text=True, timeout=1800
    )
    assert process.returncode == 0, process.stderr
    lines = path.read_bytes().splitlines(keepends=True)
    assert lines[:20] == whole[:20]
    assert len(lines) == len(whole)
    assert set(lines[1:]) == set(whole[1:])
    assert [line.split()[0] for line in process.stdout.splitlines()] == ["accuracy", "tables"]  # once, for both
    assert process.stderr.count("61 of 80 questions to ask") == 1


@pytest.mark.slow
def test_an_error_in_a_launch_of_two_ends_both_and_is_printed_once(settings, tmp_path):
    run_settings = settings("refused", prompt_path="nowhere")
    with launch(run_settings, 2, tmp_path / "said") as pids:
        statuses = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    assert statuses == [2, 2]
    log = [line for line in (tmp_path / "said").read_text().splitlines() if line.startswith("error: ")]
    assert len(log) == 1
    assert log[0].startswith("error: nowhere is not there; ")
    assert not Path(run_settings.output_path).exists()


@pytest.mark.slow
def test_a_line_cut_by_a_kill_while_another_process_wrote_on(settings, whole):
    """The beginning of one line and a whole other line on one: the whole one stays, the cut one is asked again."""
    run_settings = settings("interleaved")
    path = Path(run_settings.output_path)
    path.write_bytes(b"".join(whole[:4]) + whole[4][:100] + b"".join(whole[5:9]))
    assert [result.id for result in read_results(path).results] == [
        json.loads(line)["id"] for line in [*whole[1:4], *whole[5:9]]
    ]
    assert infer(run_settings) == 0
    lines = path.read_bytes().splitlines(keepends=True)
    assert lines[:8] == [*whole[:4], *whole[5:9]]
    assert set(lines[1:]) == set(whole[1:])
    assert len(read_results(path).results) == 80


@pytest.mark.slow
def test_a_line_that_is_damaged_otherwise_is_not_thrown_away(settings, whole):
    path = Path(settings("damaged").output_path)
    path.write_bytes(b"".join(whole[:4]) + b'{"nonsense": 1}\n' + b"".join(whole[5:9]))
    before = path.read_bytes()
    with pytest.raises(UserError, match="line 5"):
        infer(settings("damaged"))
    assert path.read_bytes() == before


def test_each_item_is_claimed_once_by_whoever_is_ready_for_it():
    first, second = (Launch(rank, 2, store=store) for store in [HashStore()] for rank in range(2))
    mine, other = first.claim("abcde"), second.claim("abcde")
    assert [next(mine), next(other), next(other), next(other)] == ["a", "b", "c", "d"]
    assert [*mine] == ["e"]
    assert [*other] == []
    assert [*first.claim("xy")] == ["x", "y"]  # a further list is counted anew
    assert [*second.claim("xy")] == []
    assert [*Launch().claim("abc")] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("most", "count", "processes", "size"),
    [(64, 1000, 1, 64), (64, 1000, 8, 63), (1024, 18000, 8, 750), (64, 18000, 8, 63), (64, 3, 8, 1), (64, 160, 2, 40)],
)
def test_all_processes_get_as_many_batches(most, count, processes, size):
    assert _batch_size(most, count, processes) == size


@pytest.mark.slow
def test_a_process_that_hangs_leaves_all_but_two_batches_to_the_others(settings, whole):
    run_settings = settings("hanging")
    path = Path(run_settings.output_path)
    with launch(run_settings, 2, stop_at=1, stopping=[1]) as (busy, hanging):
        deadline = time.monotonic() + 600
        while lines_in(path) < 1 + 80 - 2 * run_settings.batch_size:  # it writes one and holds the rest of two batches
            assert time.monotonic() < deadline
            time.sleep(0.01)
        os.kill(hanging, signal.SIGCONT)
        assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in (busy, hanging)] == [0, 0]
    assert sorted(path.read_bytes().splitlines(keepends=True)[1:]) == sorted(whole[1:])


@pytest.mark.slow
def test_writers_of_one_file_add_whole_lines(settings, whole, tmp_path):
    path = tmp_path / "both.jsonl"
    results = read_results(settings("whole").output_path).results
    first = ResultWriter(path, {"rows": 80})
    second = ResultWriter(path, {"rows": 80}, written_ids=[])
    for result, second_result in zip(results[:40], results[40:], strict=True):
        first.write(result)
        second.write(second_result)
    first.close()
    second.close()
    assert {result.id for result in read_results(path).results} == {result.id for result in results}
