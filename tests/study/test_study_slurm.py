"""What a study on SLURM does without one: options, refusals, and answers that a real SLURM cannot be made to give."""

import os
import sys
from pathlib import Path

import pytest
from tiny_study import prepared, worker_of

from open_r1.common.errors import UserError
from open_r1.study.execution import slurm
from open_r1.study.execution.leases import Leases
from open_r1.study.execution.slurm import Cluster, ItemJob, Job, has_ended, require_slurm
from open_r1.study.planning.flags import read_flags
from open_r1.study.planning.plan import make_plan
from open_r1.study.planning.slurm_options import SlurmOptions, read_options
from open_r1.study.run import run_study
from open_r1.study.snakefile import snakefile
from open_r1.vocabulary.labels import Modality
from open_r1.vocabulary.modes import Mode

# ---------------------------------------------------------------------------------------------------------- options


def test_options_of_the_command_override_the_file_and_the_file_may_tell_trainings_from_tests(tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text("partition: gpu\ntime: 24:00:00\nexclusive: true\nmem_per_gpu: 080G\ntest:\n  time: 2:00:00\n")
    options = read_options(file, "--partition=urgent --account med --requeue", 2)
    shared = {"partition": "urgent", "account": "med", "requeue": True, "exclusive": True, "mem-per-gpu": "080G"}
    assert options.train == {**shared, "time": "24:00:00", "gpus-per-node": "2"}
    assert options.test == {**shared, "time": "2:00:00", "gpus-per-node": "2"}


def test_gpus_are_those_of_a_run_unless_an_option_names_some() -> None:
    assert read_options(None, "", 4).train == {"gpus-per-node": "4"}
    assert read_options(None, "--gres=gpu:h100:4", 4).train == {"gres": "gpu:h100:4"}
    assert read_options(None, "--gpus-per-node=0", 4) == SlurmOptions({}, {})


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("", "-p gpu", "--slurm_args contains '-p'; write options of sbatch in full"),
        ("", "--mem 'a", "cannot be split into words"),
        ("", "--dependency=afterok:1", "contains dependency, which the study sets for every job"),
        ("", "--nodes=2", "a run of a study takes one node"),
        ("- partition", "", "is not a list of options"),
        ("train: gpu", "", "train is not a list of options"),
        ("mem: [1, 2]", "", "the value of mem is not a single word"),
        ("a: b: c", "", "cannot be read: mapping values are not allowed here"),
        (None, "", "cannot be read: .*No such file"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(tmp_path: Path, file: str | None, text: str, message: str) -> None:
    path = tmp_path / "cluster.yaml"
    if file is not None:
        path.write_text(file)
    with pytest.raises(UserError, match=message) as error:
        read_options(path if file != "" else None, text, 1)
    assert "\n" not in str(error.value)


# --------------------------------------------------------------------------------------------------------- refusals


def command(folder: Path, *more: str) -> list[str]:
    return ["--base", "b", "--data", str(folder), "--output_dir", str(folder / "study"), "--executor", "slurm", *more]


def test_no_slurm_is_one_line_before_anything_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"needs SLURM, but sbatch, squeue, scontrol, srun cannot be run here; .*login"):
        run_study(tmp_path / "scripts" / "run_matrix.py", None, command(tmp_path))
    assert not (tmp_path / "study").exists()


def test_no_submitit_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(UserError, match=r"submitit, which is not installed: pip install '\.\[cluster\]'"):
        require_slurm()


def test_a_secret_may_not_go_into_a_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("open_r1.study.run.require_slurm", lambda: None)
    with pytest.raises(UserError, match="--train_args contains a secret"):
        run_study(tmp_path / "scripts" / "run_matrix.py", None, command(tmp_path, "--train_args", "--hub_token abc"))


# -------------------------------------------------------------------------------------------------- answers of SLURM


class Answers:
    """Stands for SLURM's commands; the test says what each prints, or that it fails."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **answers: str) -> None:
        self.answers, self.commands = answers, []
        monkeypatch.setattr(slurm, "ask", self.ask)

    def ask(self, *words: str, **_: str) -> str:
        self.commands.append(words)
        if words[0] not in self.answers:
            raise UserError(f"SLURM does not answer {words[0]}")
        return self.answers[words[0]]


def cluster_of(folder: Path) -> Cluster:
    worker = worker_of(folder)
    plan = make_plan(prepared(folder, (Modality.CT, Modality.MRI)), (Mode.NOTHINK,), False, False)
    return Cluster(worker, plan, SlurmOptions())


def test_the_newest_job_of_an_item_counts_and_other_studies_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = cluster_of(tmp_path)
    name = study._job_name("train-CT-grpo-nothink")
    lines = [f"{name}|9|FAILED|NonZeroExitCode|n1", f"{name}|10|PENDING|ReqNodeNotAvail, UnavailableNodes:n1|"]
    Answers(
        monkeypatch,
        squeue="\n".join([*lines, f"{name}|8|COMPLETED|None|n2", "study-00000000-train-CT|11|RUNNING|None|n1"]),
    )
    jobs = study.jobs()
    assert jobs == {"train-CT-grpo-nothink": Job("10", "PENDING", "ReqNodeNotAvail, UnavailableNodes:n1", "")}
    assert str(jobs["train-CT-grpo-nothink"]) == "job 10 is pending (ReqNodeNotAvail, UnavailableNodes:n1)"
    assert str(Job("9", "OUT_OF_MEMORY", "OutOfMemory", "n1")) == "job 9 out of memory on n1"


@pytest.mark.parametrize(
    ("sacct", "text"), [("CANCELLED by 1000|n2\n", "job 7 cancelled on n2"), (None, "job 7 ended")]
)
def test_a_job_that_squeue_has_forgotten_is_looked_up_in_the_accounts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sacct: str | None, text: str
) -> None:
    study = cluster_of(tmp_path)
    item = study.worker.items[0]
    folder = tmp_path / "study" / "jobs" / item.name
    folder.mkdir(parents=True)
    assert study._ended_job(item, None) is None
    (folder / "7_submitted.pkl").touch()
    (folder / "7_0_log.out").write_text("a\nb\nslurmstepd: error: *** JOB 7 CANCELLED DUE TO NODE FAILURE ***\n")
    Answers(monkeypatch, **({} if sacct is None else {"sacct": sacct}))
    failure = study._ended_job(item, None)
    assert failure is not None
    assert (failure.reason, failure.log) == (text, folder / "7_0_log.out")
    assert failure.last_line == "slurmstepd: error: *** JOB 7 CANCELLED DUE TO NODE FAILURE ***"


def test_a_lease_of_a_job_that_has_ended_on_another_machine_is_free_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another node would otherwise wait, with its GPUs, until the silence has lasted long enough."""
    monkeypatch.setattr("open_r1.study.execution.leases.machine_identity", lambda: ["far", "x", "y"])
    assert Leases(tmp_path, job="12").take("train-CT") is not None
    monkeypatch.setattr("open_r1.study.execution.leases.machine_identity", lambda: ["near", "x", "y"])
    queue = Answers(monkeypatch, squeue="11\n12\n")
    leases = Leases(tmp_path, job="13", job_ended=has_ended)
    assert leases.take("train-CT") is None
    queue.answers.clear()  # no answer is no proof
    assert leases.take("train-CT") is None
    queue.answers["squeue"] = "11\n"
    lease = leases.take("train-CT")
    assert lease is not None
    assert lease.number == 2
    monkeypatch.setattr("open_r1.study.execution.leases.machine_identity", lambda: ["third", "x", "y"])
    monkeypatch.setenv("SLURM_JOB_ID", "13")  # the same job, requeued on a third machine
    assert leases.take("train-CT") is not None


@pytest.mark.parametrize(("started", "noted"), [(999, False), (1_004, False), (2_000, True), (0, True)])
def test_a_clock_that_differs_from_the_controllers_is_noted(
    monkeypatch: pytest.MonkeyPatch, started: int, noted: bool
) -> None:
    Answers(monkeypatch, squeue=f"{started}\n")
    monkeypatch.setattr(slurm.time, "time", lambda: 1_000.0)
    note = slurm._clock_note("7")
    assert note.startswith(f"note: this job began {1_000 - started:,} s after") is noted
    assert note.count("\n") == noted


@pytest.mark.parametrize(
    ("state", "restarts", "requeued"), [("RUNNING", "0", True), ("COMPLETING", "0", False), ("RUNNING", "100", False)]
)
def test_a_stopped_job_is_queued_again_unless_its_user_cancelled_it_or_it_gets_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str, restarts: str, requeued: bool
) -> None:
    queue = Answers(monkeypatch, squeue=state, scontrol="")
    monkeypatch.setattr(slurm.time, "sleep", lambda seconds: None)
    monkeypatch.setenv("SLURM_RESTART_COUNT", restarts)
    with pytest.raises(SystemExit) as ended:
        slurm._requeue("7")
    assert ended.value.code == 75
    assert (("scontrol", "requeue", "7") in queue.commands) is requeued


@pytest.mark.slow
def test_a_job_does_one_item_and_the_last_one_writes_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Answers(monkeypatch)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setattr("open_r1.study.execution.worker.Stop.listen", lambda self: None)
    study = cluster_of(tmp_path)
    for index, end in enumerate(("0 of 4", "2 of 4", "2 of 4", "4 of 4")):
        item = study.worker.items[index]
        job = ItemJob(worker_of(tmp_path, (Modality.CT, Modality.MRI), "--items", item.name), study.plan)
        with pytest.raises(SystemExit) as ended:
            job()
        assert ended.value.code == 0
        assert capsys.readouterr().out.splitlines()[-1].startswith(f"{end} cells are complete")
        assert (tmp_path / "study" / "logs" / "report.log").exists() is (index == 3)


# -------------------------------------------------------------------------------------------------------- snakemake


def test_the_snakefile_is_python_with_the_plan_and_a_command_without_the_flag_that_asked_for_it() -> None:
    arguments = ["--base", "it's a $HOME {x}", "--emit", "snakemake", "--modes", "nothink", "--nproc_per_node", "2"]
    flags = read_flags(None, arguments)
    plan = make_plan(prepared(Path("d"), (Modality.CT, Modality.XRAY)), (Mode.NOTHINK,), zero_shot=True, sft=False)
    text = snakefile(plan, plan, flags, Path("run_matrix.py"), arguments)
    values: dict[str, object] = {}
    exec("\n".join(line for line in text.splitlines() if line[:1].isupper() and " = " in line), values)
    assert values["TRAINED"] == ["CT-grpo-nothink", "X-Ray-grpo-nothink"]
    assert values["TESTED"] == ["zero-shot-nothink", "CT-grpo-nothink", "X-Ray-grpo-nothink"]
    assert (
        values["STUDY"]
        == f"""{sys.executable} run_matrix.py --base 'it'"'"'s a $HOME {{x}}' --modes nothink --nproc_per_node 2"""
    )
    assert text.count("resources: gpu=2") == 2
    same = snakefile(plan, plan, flags, Path("run_matrix.py"), [*arguments[:2], "--emit=snakemake", *arguments[4:]])
    assert same == text
    assert os.getcwd() in text
