"""Jobs of recipes/slurm on the two nodes of a `LocalSlurm`: submit them, see how they end, lose a node of one."""

import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from local_slurm import LocalSlurm, wait_for

RECIPES = Path(__file__).resolve().parents[2] / "recipes" / "slurm"


@dataclass(frozen=True)
class NodeJob:
    """A job that was submitted."""

    cluster: LocalSlurm
    number: str
    log: Path

    @property
    def state(self) -> str:
        """As squeue names it."""
        return self.cluster.ask("squeue", "--states=all", "-hj", self.number, "-o", "%T").strip()

    @property
    def output(self) -> str:
        """What it has printed, over all its starts."""
        return self.log.read_text() if self.log.exists() else ""

    def wait(self, seconds: float = 600) -> str:
        """The state in which it ended."""
        live = ("PENDING", "RUNNING", "COMPLETING", "CONFIGURING", "SUSPENDED", "REQUEUED")
        wait_for(lambda: self.state not in live, seconds)
        return self.state

    def wait_for_line(self, text: str, seconds: float = 300) -> None:
        """Wait until it has printed something; fails at once if it ends before."""

        def is_printed() -> bool:
            printed = text in self.output
            assert printed or self.state in ("PENDING", "RUNNING", "COMPLETING"), f"{self.state}: {self.output[-3000:]}"
            return printed

        wait_for(is_printed, seconds)

    def processes(self, node: str = "") -> list[int]:
        """Its processes, on all nodes or on one."""
        marks = [f"SLURM_JOB_ID={self.number}".encode(), *([f"SLURMD_NODENAME={node}".encode()] if node else [])]
        numbers = []
        for path in Path("/proc").glob("[0-9]*/environ"):
            try:
                variables = path.read_bytes().split(b"\0")
            except OSError:
                continue  # it has ended
            if all(mark in variables for mark in marks):
                numbers.append(int(path.parent.name))
        return numbers

    def lose(self, node: str) -> None:
        """`kill -9` to all its processes on a node."""
        numbers = self.processes(node)
        assert len(numbers) >= 3, f"task, torchrun and training: {numbers}"
        for number in numbers:
            os.kill(number, signal.SIGKILL)


def submit(
    cluster: LocalSlurm,
    recipe: str,
    folder: Path,
    command: Sequence[str],
    variables: Mapping[str, str] | None = None,
    nodes: int = 2,
) -> NodeJob:
    """Submit a recipe, for one process on a CPU of each node unless PROCESSES says otherwise.

    Args:
        cluster: the cluster.
        recipe: file in recipes/slurm.
        folder: of the log; its name is the job's.
        command: the training command without its launcher.
        variables: of the recipe.
        nodes: how many.
    """
    log = folder / "job.log"
    folder.mkdir(exist_ok=True)
    values = {"PROCESSES": "1", **(variables or {})}
    exported = ",".join(["ALL", *(f"{name}={value}" for name, value in values.items())])
    options = [f"--nodes={nodes}", f"--job-name={folder.name}", f"--output={log}", f"--export={exported}"]
    number = cluster.ask("sbatch", "--parsable", *options, str(RECIPES / recipe), *command).strip()
    return NodeJob(cluster, number, log)
