"""Stand-ins of a study as jobs of a real SLURM on this machine: refusals, failures, jobs that never start."""

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from local_slurm import LocalSlurm, wait_for
from tiny_study import worker_of

from open_r1.common.errors import UserError
from open_r1.study.execution.child_logs import failure_lines
from open_r1.study.execution.slurm import Cluster, require_slurm
from open_r1.study.planning.plan import make_plan
from open_r1.study.planning.slurm_options import read_options
from open_r1.vocabulary.modes import Mode

pytestmark = pytest.mark.slow


def cluster_of(folder: Path, options: str = "") -> Cluster:
    """The jobs of a study of stand-ins: two runs and four cells."""
    worker = worker_of(folder)
    sets = [data_set for item in worker.items if item.kind == "train" for data_set in item.sets]
    plan = make_plan(sets, (Mode.NOTHINK,), zero_shot=False, sft=False)
    return Cluster(worker, plan, read_options(None, f"--gpus-per-node=0 {options}", 1))


# ------------------------------------------------------------------------------------------------ stand-ins as jobs


def test_what_can_be_submitted_from_here_is_not_refused(cluster: LocalSlurm) -> None:
    require_slurm()


def test_a_partition_that_does_not_exist_is_one_line_and_nothing_is_submitted(
    cluster: LocalSlurm, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = cluster.jobs()
    with pytest.raises(UserError, match="invalid partition specified: nope") as error:
        cluster_of(tmp_path, "--partition=nope").start()
    assert "\n" not in str(error.value)
    assert capfd.readouterr().err == ""
    assert cluster.jobs() == before


def test_a_failed_training_is_named_with_its_last_line_and_its_test_does_not_wait_for_ever(
    cluster: LocalSlurm, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken-train-CT-grpo-nothink").touch()
    study = cluster_of(tmp_path)
    assert study.start() == 4
    study.follow()
    lines = failure_lines(study.worker.failures, [], study.worker.items)
    log = tmp_path / "study" / "logs" / "train-CT-grpo-nothink.log"
    assert lines[0] == "1 of 4 items failed:"
    assert lines[1].endswith(f"failed on n1; log: {log}") or lines[1].endswith(f"failed on n2; log: {log}")
    assert lines[2].strip() == "error: it is broken"
    assert lines[3] == "not tested, because the training is not finished: test-CT-grpo-nothink"
    assert study.worker.finished == {"train-MRI-grpo-nothink", "test-MRI-grpo-nothink"}
    (tmp_path / "broken-train-CT-grpo-nothink").unlink()
    capsys.readouterr()
    again = cluster_of(tmp_path)
    assert again.start() == 2
    assert "test-CT-grpo-nothink: submitted as job " in capsys.readouterr().out
    again.follow()
    assert again.worker.failures == []
    assert sorted((tmp_path / "calls").read_text().split()).count("train-MRI-grpo-nothink") == 1


def test_a_job_that_never_starts_says_what_it_waits_for(
    cluster: LocalSlurm, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.ask("scontrol", "update", "nodename=n[1-2]", "state=drain", "reason=test")
    try:
        assert cluster_of(tmp_path).start() == 4
        wait_for(
            lambda: "NotAvail" in cluster.ask("squeue", "-ho", "%r") or "Nodes" in cluster.ask("squeue", "-ho", "%r"),
            60,
        )
        capsys.readouterr()
        assert cluster_of(tmp_path).start() == 4  # submits nothing
        lines = capsys.readouterr().out.splitlines()
        assert lines[0].startswith("train-CT-grpo-nothink: job ")
        assert " is pending (" in lines[0]
        assert (
            "odes" in lines[0]
        )  # "Nodes required for job are DOWN, DRAINED or reserved ..." or "ReqNodeNotAvail, Unav..."
    finally:
        cluster.ask("scancel", "--me")
        cluster.ask("scontrol", "update", "nodename=n[1-2]", "state=resume")


def test_a_full_disk_refuses_the_submission_and_the_same_command_goes_on(
    cluster: LocalSlurm, tmp_path: Path, file_size_limit: Callable[[int], AbstractContextManager[None]]
) -> None:
    before = cluster.jobs()
    with file_size_limit(1000), pytest.raises(UserError, match=r"cannot write .*jobs.*no incomplete output was left"):
        cluster_of(tmp_path).start()
    assert cluster.jobs() == before
    assert cluster_of(tmp_path).start() == 4
    cluster.ask("scancel", "--me")


def test_a_controller_that_does_not_answer_is_one_line(
    cluster: LocalSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = Path(os.environ["SLURM_CONF"]).read_text()
    (tmp_path / "slurm.conf").write_text(text.replace("SlurmctldPort=", "SlurmctldPort=1"))
    monkeypatch.setenv("SLURM_CONF", str(tmp_path / "slurm.conf"))
    with pytest.raises(UserError, match=r"SLURM does not answer squeue: .*; jobs go on") as error:
        cluster_of(tmp_path).start()
    assert "\n" not in str(error.value)
