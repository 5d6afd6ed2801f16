"""A study on SLURM: a job for every training and for the evaluation that depends on it, submitted with submitit.

SLURM queues, starts and requeues; what a job does is what a worker does (`Worker`), for one item. Jobs of an item have
one name and the dependency `singleton`, so that two of them never run at the same time. A job that is preempted or
reaches its time limit lets the training save and puts itself back into the queue.
"""

import hashlib
import io
import os
import shutil
import subprocess
import time
from contextlib import redirect_stderr
from dataclasses import dataclass, replace
from pathlib import Path

from open_r1.common.atomic_files import disk_errors
from open_r1.common.errors import UserError
from open_r1.study.execution.cells import report_cells
from open_r1.study.execution.child_logs import Failure, failure_lines, last_line
from open_r1.study.execution.leases import Leases
from open_r1.study.execution.worker import INTERRUPTED, Stopped, Worker
from open_r1.study.planning.plan import Item, Plan
from open_r1.study.planning.slurm_options import SlurmOptions

_ENDED = {
    *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED"),
    *("REVOKED", "TIMEOUT"),
}
_MOST_RESTARTS = 100  # of one job: a time limit that is too short for a single step must not use the cluster for ever
_USUAL_START = (-5, 300)  # seconds from a job's start by the controller's clock to its first line by the node's clock
_PAUSE = 10.0  # seconds between two looks at the queue
_DEFAULTS: dict[str, str | bool] = {"signal": "USR2@300", "requeue": True, "kill-on-invalid-dep": "yes"}


def require_slurm() -> None:
    """Refuse a machine from which nothing can be submitted.

    Raises:
        UserError: submitit or SLURM's commands are missing.
    """
    try:
        import submitit  # noqa: F401
    except ImportError:
        raise UserError("--executor slurm needs submitit, which is not installed: pip install '.[cluster]'") from None
    missing = [name for name in ("sbatch", "squeue", "scontrol", "srun") if shutil.which(name) is None]
    if missing:
        raise UserError(
            f"--executor slurm needs SLURM, but {', '.join(missing)} cannot be run here; start this command on a login "
            "node of the cluster, or leave --executor out to work on this machine"
        )


@dataclass(frozen=True)
class Job:
    """A job as squeue shows it."""

    number: str
    state: str = "ENDED"  # of a job that SLURM no longer lists
    reason: str = "None"
    nodes: str = ""

    @property
    def is_live(self) -> bool:
        """Whether the job waits, runs or is just ending."""
        return self.state not in _ENDED and self.state != "ENDED"

    def __str__(self) -> str:
        """`job 12 is pending (Resources)`, `job 12 is running on n1`."""
        waits_for = f" ({self.reason})" if self.state == "PENDING" else f" on {self.nodes}" if self.nodes else ""
        verb = "is " if self.is_live else ""
        return f"job {self.number} {verb}{self.state.lower().replace('_', ' ')}{waits_for}"


@dataclass(frozen=True)
class Cluster:
    """The jobs of a study.

    Args:
        worker: with the items to submit and what the jobs need.
        plan: the whole study.
        options: of sbatch.
    """

    worker: Worker
    plan: Plan
    options: SlurmOptions

    def start(self) -> int:
        """Submit what is missing and has no job yet; say what became of earlier jobs. Returns the number of live jobs.

        Raises:
            UserError: SLURM refuses a job or does not answer, or the disk is full; jobs that it has accepted stay.
        """
        while (lease := self.worker.leases.take("submission")) is None:
            print("waiting for another command that submits the jobs of this study", flush=True)
            time.sleep(_PAUSE)
        try:
            jobs = self.jobs()
            for item in self._remaining():
                job, holder = jobs.get(item.name), self.worker.leases.look(item.name).holder
                if job is not None and job.is_live:
                    print(f"{item.name}: {job}", flush=True)
                elif holder is not None:
                    print(f"{item.name}: not submitted, {holder} works on it", flush=True)
                elif self._training_is_ahead(item, jobs):
                    earlier = self._ended_job(item, job)
                    after = f"; {earlier.reason}: {earlier.last_line}" if earlier else ""
                    jobs[item.name] = self._submit(item, jobs)
                    print(f"{item.name}: submitted as job {jobs[item.name].number}{after}", flush=True)
        finally:
            lease.end("done")
        return len([job for job in jobs.values() if job.is_live])

    def follow(self) -> None:
        """Print what changes until no job is left, then record the items that are not finished as failures."""
        shown: dict[str, str] = {}
        while True:
            jobs = self.jobs()  # before looking at the files: a job that ends in between is seen live once more
            remaining = self._remaining()
            for item in self.worker.items:
                text = str(jobs.get(item.name) or shown.get(item.name, "has no job")) if item in remaining else "done"
                if text != shown.get(item.name, "done"):
                    left = self.worker.forecast.line(remaining)
                    print(f"{item.name}: {text}" + (f"; left: {left}" if text == "done" else ""), flush=True)
                shown[item.name] = text
            if not any(jobs[item.name].is_live for item in self.worker.items if item.name in jobs):
                break  # not even one that writes the report
            time.sleep(_PAUSE)
        for item in remaining:
            training_failed = any(failure.item.subject == item.subject for failure in self.worker.failures)
            failure = self._ended_job(item, jobs.get(item.name))
            if failure is None:
                self.worker.interrupted.append(item)  # it had no job: another worker has it
            elif not training_failed:
                self.worker.failures.append(failure)

    def jobs(self) -> dict[str, Job]:
        """The newest job of each item, by the item's name, among those that SLURM lists; ended ones it soon forgets.

        Raises:
            UserError: SLURM does not answer.
        """
        prefix = self._job_name("")
        jobs: dict[str, Job] = {}
        for line in ask("squeue", "--me", "--states=all", "--noheader", "--format=%j|%i|%T|%r|%N").splitlines():
            name, *columns = line.split("|")
            job = Job(*columns)
            earlier = jobs.get(name.removeprefix(prefix))
            if name.startswith(prefix) and (earlier is None or int(earlier.number) < int(job.number)):
                jobs[name.removeprefix(prefix)] = job
        return jobs

    def _remaining(self) -> list[Item]:
        self.worker.find_done()
        return [item for item in self.worker.items if item.name not in self.worker.finished]

    def _training_is_ahead(self, item: Item, jobs: dict[str, Job]) -> bool:
        """Whether an item can run now, or after a job of its training."""
        if item.kind == "train" or item.subject.trained_on is None:
            return True
        name = f"train-{item.subject.name}"
        return (name in jobs and jobs[name].is_live) or self.worker.is_ready(item)

    def _job_name(self, item_name: str) -> str:
        folder = str(self.worker.commands.folder.path.resolve())
        return f"study-{hashlib.sha256(folder.encode()).hexdigest()[:8]}-{item_name}"

    def _folder(self, item: Item) -> Path:
        """The folder of an item's submitted jobs and their output."""
        return self.worker.commands.folder.path / "jobs" / item.name

    def _submit(self, item: Item, jobs: dict[str, Job]) -> Job:
        """Submit one item, after its training if that is not finished.

        Raises:
            UserError: SLURM refuses it, or its files cannot be written.
        """
        import submitit
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        options = {**_DEFAULTS, **(self.options.train if item.kind == "train" else self.options.test)}
        training = jobs.get(f"train-{item.subject.name}") if item.kind == "test" else None
        after_training = [f"afterok:{training.number}"] if training is not None and training.is_live else []
        options["dependency"] = ",".join([*after_training, "singleton"])
        cpus = options.get("cpus-per-task")  # srun does not take over what sbatch was told
        executor = submitit.SlurmExecutor(self._folder(item))
        executor.update_parameters(
            job_name=self._job_name(item.name),
            time=None,
            stderr_to_stdout=True,
            srun_args=["--nodes=1", "--ntasks=1", *([f"--cpus-per-task={cpus}"] if cpus else [])],
            additional_parameters=options,
        )
        try:
            with disk_errors(self._folder(item)), redirect_stderr(io.StringIO()):
                number = executor.submit(ItemJob(replace(self.worker, items=[item]), self.plan)).job_id
        except (FailedJobError, FailedSubmissionError) as error:
            reason = "; ".join(line.removeprefix("sbatch: error: ") for line in str(error).splitlines())
            raise UserError(
                f"SLURM does not take the job of {item.name}: {reason}. Correct --slurm_args or --slurm_config and "
                "start the same command again; what was submitted before stays"
            ) from None
        return Job(number, "PENDING")

    def _ended_job(self, item: Item, job: Job | None) -> Failure | None:
        """How an item's last job ended without finishing it, with the line that says why; None if it had none."""
        numbers = [int(path.name.partition("_")[0]) for path in self._folder(item).glob("[0-9]*_submitted.pkl")]
        if not numbers:
            return None
        if job is None:
            job = _job_of_accounting(str(max(numbers)))
        record, log = self.worker.leases.look(item.name).ended or {}, self._folder(item) / f"{job.number}_0_log.out"
        if record.get("outcome") == "failed":
            return Failure(item, str(job), self.worker.commands.folder.log(item), str(record.get("line", "")))
        return Failure(item, str(job), log, last_line(log) if log.exists() else "it has not started")


@dataclass(frozen=True)
class ItemJob:
    """What one job does; submitit stores it in a file and calls it on the node.

    Args:
        worker: with one item.
        plan: the whole study, for the report that the last job writes.
    """

    worker: Worker
    plan: Plan

    def __call__(self) -> None:
        """Run the item; exits with 1 if it failed, and with 75 if it was stopped and could not be queued again."""
        number = os.environ["SLURM_JOB_ID"]
        leases = Leases(self.worker.leases.folder, self.worker.leases.patience, number, has_ended)
        worker = replace(self.worker, leases=leases, finished=set(), failures=[])
        worker.stop.listen()
        print(_clock_note(number), end="", flush=True)
        try:
            worker.run()
            lines = failure_lines(worker.failures, worker.interrupted, worker.items)
            lines += [] if lines else report_cells(worker, self.plan, only_if_all=True)
        except Stopped:
            _requeue(number)
        for line in lines:
            print(line, flush=True)
        if worker.interrupted:
            _requeue(number)
        raise SystemExit(1 if worker.failures else 0)


def ask(*command: str, **environment: str) -> str:
    """The output of one of SLURM's commands.

    Raises:
        UserError: it fails, for example because the controller does not answer.
    """
    process = subprocess.run(command, capture_output=True, text=True, env=os.environ | environment, check=False)
    if process.returncode:
        reason = "; ".join(process.stderr.split("\n")[:2]) or f"exit status {process.returncode}"
        raise UserError(f"SLURM does not answer {command[0]}: {reason}; jobs go on, try the same command again later")
    return process.stdout


def _job_of_accounting(number: str) -> Job:
    """A job that squeue no longer lists, as sacct shows it where accounting is kept."""
    try:
        line = ask("sacct", f"--jobs={number}", "--allocations", "--noheader", "--parsable2", "--format=State,NodeList")
        state, _, nodes = line.strip().partition("|")
        return Job(number, state.split()[0], nodes=nodes)  # `CANCELLED by 1000`
    except (UserError, OSError, IndexError):
        return Job(number)


def has_ended(number: str) -> bool:
    """Whether the process of a job has ended. This job's own number belongs to it before it was requeued."""
    if number == os.environ.get("SLURM_JOB_ID"):
        return True
    try:
        return number not in ask("squeue", "--me", "--noheader", "--format=%i").split()
    except UserError:
        return False


def _requeue(number: str) -> None:
    """Put this job back into the queue, if it was stopped by a time limit or a preemption and not by its user.

    Raises:
        SystemExit: always.
    """
    try:
        if ask("squeue", f"--jobs={number}", "--noheader", "--format=%T").strip() == "RUNNING":
            if int(os.environ.get("SLURM_RESTART_COUNT", "0")) >= _MOST_RESTARTS:
                raise UserError(f"it was started {_MOST_RESTARTS} times; start the study again with a longer --time")
            print("stopped, its state is saved; back into the queue", flush=True)
            ask("scontrol", "requeue", number)
            time.sleep(60)  # until SLURM ends this job
    except UserError as error:
        print(f"error: the job cannot be queued again: {error}", flush=True)
    raise SystemExit(INTERRUPTED)


def _clock_note(number: str) -> str:
    """A line if the clock of this node differs from the controller's; nothing here compares times of two machines."""
    try:
        started = ask("squeue", f"--jobs={number}", "--noheader", "--format=%S", SLURM_TIME_FORMAT="%s").strip()
        seconds = time.time() - float(started)
    except (UserError, ValueError):
        return ""
    if _USUAL_START[0] <= seconds <= _USUAL_START[1]:
        return ""
    return (
        f"note: this job began {seconds:,.0f} s after its start by the controller's clock; if the clocks of the nodes "
        "differ, have them synchronised; nothing was lost, and results do not depend on it\n"
    )
