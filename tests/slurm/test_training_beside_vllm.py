"""recipes/slurm/train_vllm.sbatch on a real SLURM, with stand-ins of vLLM and of the training: host, port and ends."""

import os
import signal
import sys
from pathlib import Path

import pytest
from local_slurm import LocalSlurm, wait_for
from node_jobs import NodeJob, submit

pytestmark = pytest.mark.slow

SUPPORT = Path(__file__).resolve().parents[1] / "support"


def start(cluster: LocalSlurm, folder: Path, training: float, server: float = 3.0, **variables: str) -> NodeJob:
    """A job whose server is ready, and whose training ends, after so many seconds."""
    command = [str(SUPPORT / "stand_in_training.py"), "--model_name_or_path", "tiny", "--seconds", str(training)]
    variables |= {"VLLM_COMMAND": f"{sys.executable} {SUPPORT / 'stand_in_vllm.py'}", "GRACE": "1"}
    return submit(cluster, "train_vllm.sbatch", folder, command, variables | {"VLLM_ARGS": f"--seconds {server}"})


def test_the_training_starts_when_the_server_is_ready_and_both_end(cluster: LocalSlurm, tmp_path: Path) -> None:
    job = start(cluster, tmp_path, training=1)
    assert job.wait(120) == "COMPLETED", job.output
    lines = job.output.splitlines()
    assert lines[0].startswith("waiting for the server on n2 (http://127.0.0.1:3")
    not_ready, ready = (lines.index(f"stand-in server: /health is {state}") for state in ("not ready", "ready"))
    assert not_ready < ready < lines.index("training 0 of 1 on n1: --vllm_mode server, server of tiny")
    assert "training 0 is done" in lines
    wait_for(lambda: not job.processes(), 30)


def test_a_training_does_not_outlive_its_server(cluster: LocalSlurm, tmp_path: Path) -> None:
    job = start(cluster, tmp_path, training=600)
    job.wait_for_line("training 0 of 1 on n1")
    (server,) = [number for number in job.processes("n2") if arguments(number)[1].endswith("stand_in_vllm.py")]
    os.kill(server, signal.SIGKILL)
    assert job.wait(60) == "FAILED"
    assert "error: the server ended before the training (exit status 137)" in job.output
    assert "training 0 is done" not in job.output
    wait_for(lambda: not job.processes(), 30)


def test_a_server_does_not_outlive_its_training_that_fails(cluster: LocalSlurm, tmp_path: Path) -> None:
    job = start(cluster, tmp_path, training=-1)  # time.sleep refuses it
    assert job.wait(120) == "FAILED"
    assert "ValueError: sleep length must be non-negative" in job.output
    wait_for(lambda: not job.processes(), 30)


def test_a_server_that_is_never_ready_ends_the_job(cluster: LocalSlurm, tmp_path: Path) -> None:
    job = start(cluster, tmp_path, training=600, server=600, VLLM_TIMEOUT="4")
    assert job.wait(60) == "FAILED"
    assert "error: the server was not ready after 4 seconds" in job.output
    wait_for(lambda: not job.processes(), 30)


def test_a_server_that_cannot_start_ends_the_job(cluster: LocalSlurm, tmp_path: Path) -> None:
    job = submit(
        cluster,
        "train_vllm.sbatch",
        tmp_path,
        [str(SUPPORT / "stand_in_training.py"), "--model_name_or_path=tiny"],
        {"VLLM_COMMAND": "false", "GRACE": "0"},
    )
    assert job.wait(60) == "FAILED"
    assert "error: the server ended before it was ready (exit status 1)" in job.output


def test_a_job_that_is_asked_to_stop_goes_back_into_the_queue(cluster: LocalSlurm, tmp_path: Path) -> None:
    job = start(cluster, tmp_path, training=600)
    job.wait_for_line("training 0 of 1 on n1")
    cluster.ask("scancel", "--signal=USR2", job.number)  # as SLURM does before the end of the time
    job.wait_for_line("stopped, its state is saved; back into the queue", 60)
    wait_for(lambda: job.state == "PENDING", 60)
    cluster.ask("scancel", job.number)


def arguments(process: int) -> list[str]:
    """The command line of a process."""
    return [*Path(f"/proc/{process}/cmdline").read_text().split("\0"), ""]
