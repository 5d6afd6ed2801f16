"""Does a study survive? One on phantoms runs undisturbed, the same is killed at random and continued: both are equal.

    python scripts/chaos_study.py --output_dir output/chaos_study --seed 0

With the defaults 4 training runs and 16 cells, killed twice with SIGKILL: everything at once, or the worker alone,
whose child must end by itself before the next worker goes on. Compared are the SHA-256 of all trained weights, every
answer of every result file, every logged loss, and every table of the report.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from open_r1.common.command_line import CommandParser
from open_r1.common.errors import UserError, run_command
from open_r1.study.execution.leases import process_start
from open_r1_testbed.demo_steps import ENVIRONMENT, prepare_folder
from open_r1_testbed.phantom_study import PhantomStudy, differences_of

SCRIPTS = Path(__file__).resolve().parent


def main() -> int:
    """Prepare, run both, compare; 1 if they differ."""
    parser = CommandParser(description=__doc__)
    add = parser.add_argument
    add("--output_dir", type=Path, default=Path("output/chaos_study"))
    add("--seed", type=int, default=0, help="of the phantoms, the training and the moments of the kills")
    add("--kills", type=int, default=2)
    add("--modalities", type=int, default=4, help="4: 4 runs and 16 cells")
    add("--max_steps", type=int, default=6, help="optimizer steps of each run")
    add("--save_steps", type=int, default=2, help="between full checkpoints; 0 saves none, a run then starts again")
    add("--processes", type=int, default=1, help="of each run")
    add("--overwrite", action="store_true", help="remove an earlier one in that folder first")
    flags = parser.parse_args()
    prepare_folder(flags.output_dir, flags.overwrite)
    study = PhantomStudy(flags.modalities, flags.max_steps, flags.save_steps, flags.processes, flags.seed)
    command = study.prepare(SCRIPTS, flags.output_dir)
    straight, killed = flags.output_dir / "straight", flags.output_dir / "killed"
    start = time.monotonic()
    _run_to_end([*command, "--output_dir", str(straight)], flags.output_dir / "straight.log")
    seconds = _seconds_of_work(straight)
    print(f"undisturbed: {time.monotonic() - start:.0f} s, of which runs and cells took {seconds:.0f} s", flush=True)
    _run_with_kills([*command, "--output_dir", str(killed)], killed, flags, seconds)
    differences = differences_of(straight, killed)
    for line in differences:
        print(f"DIFFERENT: {line}")
    print(f"killed {flags.kills} times, seed {flags.seed}: {'not equal' if differences else 'equal'}", flush=True)
    return 1 if differences else 0


def _run_to_end(command: Sequence[str], log: Path) -> None:
    with open(log, "ab") as file:
        process = subprocess.run(
            command, stdout=file, stderr=subprocess.STDOUT, env=os.environ | ENVIRONMENT, check=False
        )
    if process.returncode:
        last_lines = log.read_text(errors="replace").strip().splitlines()[-5:]
        raise UserError(f"the study ended with exit status {process.returncode}: {' | '.join(last_lines)}; log: {log}")


def _run_with_kills(command: Sequence[str], folder: Path, flags: argparse.Namespace, seconds: float) -> None:
    """Run the command, kill it at random moments of its runs and cells, and let it end."""
    rng = random.Random(flags.seed)
    log = flags.output_dir / "killed.log"
    for number in range(1, flags.kills + 1):
        with open(log, "ab") as file:
            worker = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=os.environ | ENVIRONMENT)
        log_size = log.stat().st_size
        while worker.poll() is None and b"\n[" not in log.read_bytes()[log_size:]:
            time.sleep(0.2)  # flags are checked, no item has started yet
        delay = rng.uniform(0.02, 0.9) * seconds / flags.kills
        try:
            worker.wait(delay)
        except subprocess.TimeoutExpired:
            pass
        else:
            raise UserError(f"the study ended before it could be killed; its log: {log}")
        worker_only = rng.random() < 0.5
        killed = [worker.pid] if worker_only else family(worker.pid)
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        worker.wait()
        last_line = log.read_text(errors="replace").strip().splitlines()[-1:] or ["(before its first line)"]
        victims = "the worker alone" if worker_only else f"all {len(killed)} processes"
        finished_count = len(list((folder / "leases").glob("*.end")))
        print(
            f"kill {number}: {victims}, {delay:.0f} s into the work, {finished_count} items done; last: {last_line[0]}",
            flush=True,
        )
    _run_to_end(command, log)


def _seconds_of_work(study: Path) -> float:
    """How long the items of a study took, by their records."""
    return sum(json.loads(path.read_text())["seconds"] for path in (study / "leases").glob("*.end"))


def family(pid: int) -> list[int]:
    """A process and all its descendants, each stopped so that it cannot start another one."""
    processes: list[int] = []
    children = [pid]
    while children:
        for process in children:
            os.kill(process, signal.SIGSTOP)
        processes += children
        children = [child for child, parent in _process_parents() if parent in processes and child not in processes]
    return processes


def _process_parents() -> list[tuple[int, int]]:
    """(process, its parent) of every process that lives."""
    pairs = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            fields = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()
        except OSError:
            continue
        if process_start(int(entry.name)) is not None:
            pairs.append((int(entry.name), int(fields[1])))
    return pairs


if __name__ == "__main__":
    run_command(main)
