"""A real SLURM on this machine, in a folder of its own: munge, a controller, and nodes of one processor each.

Debian's packages slurmctld, slurmd, slurm-client and munge are all it takes; neither systemd nor an administrator.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "srun")
# Two partitions: urgent jobs preempt those of the default one, which have a while to save.
CONFIGURATION = """
ClusterName=local
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=10
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
ReturnToService=2
MessageTimeout=5
KillWait=5
SlurmdTimeout=60
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SchedulerParameters=sched_interval=2,bf_interval=2
NodeName=n[1-2] NodeHostname={host} NodeAddr=127.0.0.1 Port=[{node_port}-{last_port}] CPUs=1 RealMemory=1000
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP PreemptMode=REQUEUE GraceTime=60 PriorityTier=1
PartitionName=urgent Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=10
"""
NODES = ("n1", "n2")


def missing_programs() -> list[str]:
    """The programs of SLURM that are not on this machine; Debian has some of them in /usr/sbin."""
    return [name for name in PROGRAMS if shutil.which(name, path=search_path()) is None]


def search_path() -> str:
    """PATH with the folder of daemons."""
    return f"{os.environ['PATH']}{os.pathsep}/usr/sbin"


@dataclass(frozen=True)
class LocalSlurm:
    """A cluster that runs."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """What its commands need."""
        return os.environ | {"SLURM_CONF": str(self.folder / "slurm.conf"), "PATH": search_path()}

    def ask(self, *command: str) -> str:
        """The output of one of its commands."""
        process = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)
        assert process.returncode == 0, process.stdout + process.stderr
        return process.stdout

    def jobs(self) -> dict[str, tuple[str, str]]:
        """(state, number) of the newest job of each item of a study."""
        lines = sorted(
            (line.split() for line in self.ask("squeue", "--states=all", "-ho", "%i %T %j").splitlines()),
            key=lambda words: int(words[0]),
        )
        return {name.split("-", 2)[-1]: (state, number) for number, state, name in lines}

    def start_node(self, name: str) -> None:
        """Start the daemon of a node."""
        (self.folder / "spool" / name).mkdir(exist_ok=True)
        self._start("slurmd", "-f", str(self.folder / "slurm.conf"), "-N", name)

    def start(self) -> None:
        """Write key and configuration, start all daemons, and wait until the nodes are idle."""
        for name in ("state", "spool", "log"):
            (self.folder / name).mkdir()
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        files = ("key-file", "socket", "pid-file", "log-file", "seed-file")
        munge = [f"--{name}={self.folder / ('munge.' + name.removesuffix('-file'))}" for name in files]
        self._start("munged", "--force", "--num-threads=2", *munge)
        ports = free_ports(1 + len(NODES))
        values = {"node_port": ports[1], "last_port": ports[-1], "controller_port": ports[0]}
        values |= {"host": socket.gethostname().partition(".")[0], "user": _user(), "folder": self.folder}
        (self.folder / "slurm.conf").write_text(CONFIGURATION.format(**values))
        self._start("slurmctld", "-f", str(self.folder / "slurm.conf"))
        for name in NODES:
            self.start_node(name)
        wait_for(lambda: self.ask("sinfo", "-hNo", "%T").split()[: len(NODES)] == ["idle"] * len(NODES), 60)

    def stop(self) -> None:
        """End all jobs and daemons."""
        with suppress(AssertionError):
            self.ask("scancel", "--me", "--signal=KILL", "--full")
            self.ask("scancel", "--me")
            wait_for(lambda: not self.ask("squeue", "-h"), 30)  # without daemons they would go on
        for path in self.folder.glob("*.pid"):
            with suppress(ProcessLookupError, ValueError):
                os.kill(int(path.read_text()), signal.SIGTERM)
        with suppress(ProcessLookupError, ValueError, FileNotFoundError):
            os.kill(int((self.folder / "munge.pid").read_text()), signal.SIGTERM)

    def _start(self, *command: str) -> None:
        process = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)
        assert process.returncode == 0, process.stdout + process.stderr


@contextmanager
def local_slurm(folder: Path) -> Iterator[LocalSlurm]:
    """A cluster in a new folder, whose path must be short, since it holds sockets; its daemons end with the block."""
    cluster = LocalSlurm(folder)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


def wait_for(condition: Callable[[], object], seconds: float) -> None:
    """Wait until a condition holds.

    Raises:
        AssertionError: it does not within that time.
    """
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds:.0f} s in vain"
        time.sleep(0.5)


def free_ports(count: int) -> list[int]:
    """Ports in a row that nothing listens on."""
    for start in range(21_000 + os.getpid() % 8_000, 32_000, count):
        with suppress(OSError):
            for port in range(start, start + count):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
            return [*range(start, start + count)]
    raise AssertionError("no ports are free")


def _user() -> str:
    import pwd

    return pwd.getpwuid(os.getuid()).pw_name


if __name__ == "__main__":  # by hand: python tests/support/local_slurm.py FOLDER, until Ctrl-C
    with local_slurm(Path(sys.argv[1]).resolve()) as running:
        print(f"export SLURM_CONF={running.folder}/slurm.conf", flush=True)
        with suppress(KeyboardInterrupt):
            signal.pause()
