"""A study on a real SLURM whose jobs are killed, preempted and run out of time, beside the same study left in peace."""

import json
import subprocess
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import pytest
from local_slurm import LocalSlurm, wait_for

from open_r1.vocabulary.labels import Modality
from open_r1_testbed.phantom_study import PhantomStudy, differences_of

pytestmark = pytest.mark.slow


def run(command: list[str]) -> str:
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout


def test_a_disturbed_study_ends_as_a_local_one(
    cluster: LocalSlurm, tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """4 runs, 16 cells. The first starts locally, CT is killed, MRI's time runs out, X-Ray is preempted."""
    reward = f"{repository / 'tests' / 'support' / 'held_reward.py'}:held_reward"
    command = PhantomStudy(max_steps=3, save_steps=1, rewards=reward).prepare(repository / "scripts", tmp_path)
    local, study = tmp_path / "local", tmp_path / "slurm"
    undisturbed = subprocess.Popen([*command, "--output_dir", str(local)], stdout=subprocess.PIPE, text=True)
    run([*command, "--output_dir", str(study), "--items", "train-US-grpo-nothink"])

    held = tmp_path / "held"
    monkeypatch.setenv("HELD_RUNS", str(held))
    held.mkdir()
    names = {label: f"train-{label}-grpo-nothink" for label in (Modality.CT, Modality.MRI, Modality.XRAY)}
    for name in names.values():
        (held / name).touch()
    slurm = [*command, "--output_dir", str(study), "--executor", "slurm"]
    slurm += ["--slurm_args", "--gpus-per-node=0 --signal=USR2@60"]
    submitters = [subprocess.Popen(slurm, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [submitter.communicate()[0] for submitter in submitters]
    assert [submitter.returncode for submitter in submitters] == [0, 0], outputs
    assert sum(output.count(": submitted as job ") for output in outputs) == len(cluster.jobs()) == 7

    def log_of(name: str) -> str:
        return (study / "jobs" / name / f"{cluster.jobs()[name][1]}_0_log.out").read_text()

    def begun(name: str) -> bool:
        return (study / "runs" / name.removeprefix("train-") / "checkpoint-1").is_dir()

    ct, mri, xray = names.values()
    wait_for(lambda: begun(ct) and begun(mri), 900)
    cluster.ask("scancel", "--signal=KILL", cluster.jobs()[ct][1])
    wait_for(lambda: cluster.jobs()[ct][0] == "CANCELLED", 60)
    (held / ct).unlink()
    output = run(slurm)
    assert f"{ct}: submitted as job 8; job 1 cancelled on n" in output
    assert "srun: error: " in output
    assert f"{mri}: job 3 is running on n" in output

    node = cluster.ask("squeue", "-hj", cluster.jobs()[mri][1], "-o", "%N").strip()
    cluster.ask("scontrol", "update", f"nodename={node}", "state=drain", "reason=test")
    stop_softly(
        cluster,
        mri,
        log_of,
        held,
        lambda number: cluster.ask("scontrol", "update", f"jobid={number}", limit(cluster, number)),
    )
    cluster.ask("scontrol", "update", f"jobid={cluster.jobs()[mri][1]}", "timelimit=unlimited")
    cluster.ask("scontrol", "update", f"nodename={node}", "state=resume")
    wait_for(lambda: begun(xray), 900)
    stop_softly(
        cluster,
        xray,
        log_of,
        held,
        lambda _: cluster.ask("sbatch", "-purgent", "-N2", "--output=/dev/null", "--wrap=true"),
    )

    output = run([*slurm, "--follow"])
    assert "16 of 16 cells are complete; report: " in output
    assert undisturbed.wait() == 0
    assert differences_of(local, study) == []
    endings: dict[str, list[str]] = defaultdict(list)
    for path in sorted((study / "leases").glob("t*.end")):
        endings[path.name.split(".")[0]].append(json.loads(path.read_text())["outcome"])
    assert endings.pop(mri) == endings.pop(xray) == ["interrupted", "done"]
    assert len(endings) == 6
    for name, outcomes in endings.items():  # what runs beside X-Ray's training is preempted with it
        assert outcomes == [*["interrupted"] * (len(outcomes) - 1), "done"], name


def limit(cluster: LocalSlurm, number: str) -> str:
    """A time limit within the next minute; SLURM counts in minutes and signals USR2 a minute before."""
    elapsed = cluster.ask("squeue", "-hj", number, "-o", "%M").strip().split(":")
    return f"timelimit={int(elapsed[-2]) + 2}"


def stop_softly(
    cluster: LocalSlurm, name: str, log_of: Callable[[str], str], held: Path, stop: Callable[[str], object]
) -> None:
    """Have SLURM stop a training; once its job has the signal, the training goes on to the end of its step."""
    stop(cluster.jobs()[name][1])
    wait_for(lambda: "Bypassing signal SIGCONT" in log_of(name), 180)
    (held / name).unlink()
    wait_for(lambda: "back into the queue" in log_of(name), 300)
    wait_for(lambda: cluster.jobs()[name][0] in ("PENDING", "RUNNING"), 60)
