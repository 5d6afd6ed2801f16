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
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from open_r1.common.atomic_files import sha256_file
from open_r1.common.command_line import CommandParser
from open_r1.common.errors import UserError, run_command
from open_r1.evaluation.scoring.results import read_results
from open_r1.study.execution.leases import process_start
from open_r1.vocabulary.labels import Modality
from open_r1_testbed.demo_steps import ENVIRONMENT, prepare_folder
from open_r1_testbed.phantoms import make_phantoms
from open_r1_testbed.tiny_models import TINY_BASE

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
    command = _prepare_study(flags)
    straight, killed = flags.output_dir / "straight", flags.output_dir / "killed"
    start = time.monotonic()
    _run_to_end([*command, "--output_dir", str(straight)], flags.output_dir / "straight.log")
    seconds = _seconds_of_work(straight)
    print(f"undisturbed: {time.monotonic() - start:.0f} s, of which runs and cells took {seconds:.0f} s", flush=True)
    _run_with_kills([*command, "--output_dir", str(killed)], killed, flags, seconds)
    differences = [*_compare(straight, killed)]
    for line in differences:
        print(f"DIFFERENT: {line}")
    print(f"killed {flags.kills} times, seed {flags.seed}: {'not equal' if differences else 'equal'}", flush=True)
    return 1 if differences else 0


def _prepare_study(flags: argparse.Namespace) -> list[str]:
    """Draw and prepare the data; the study's command without its output folder."""
    phantoms, data = flags.output_dir / "phantoms", flags.output_dir / "data"
    make_phantoms(phantoms, 6, 3, flags.seed, list(Modality)[: flags.modalities])
    make = [sys.executable, str(SCRIPTS / "prepare_omnimedvqa.py"), "--splits_dir", str(phantoms / "splits")]
    make += ["--image_root", str(phantoms), "--output_dir", str(data), "--by", "modality", "--num_workers", "1"]
    process = subprocess.run(make, env=os.environ | ENVIRONMENT, capture_output=True, text=True, check=False)
    if process.returncode:
        raise UserError(f"the phantoms could not be prepared: {process.stderr.strip()[-500:]}")
    saving = f"--save_steps {flags.save_steps}" if flags.save_steps else "--save_strategy no"
    training = (
        f"--max_steps {flags.max_steps} --num_generations 8 --max_completion_length 8 --per_device_train_batch_size 4 "
        f"--learning_rate 1e-4 --logging_steps 1 --seed {flags.seed} {saving}"
    )
    return [
        *(sys.executable, str(SCRIPTS / "run_matrix.py"), "--base", str(TINY_BASE), "--data", str(data)),
        *("--modes", "nothink", "--by", "modality", "--no-zero_shot", "--nproc_per_node", str(flags.processes)),
        *("--train_args", training, "--infer_args", "--max_new_tokens 8 --batch_size 16"),
    ]


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


def _compare(undisturbed: Path, killed: Path) -> list[str]:
    """What differs between two studies, and a line for each kind of thing that was compared."""
    differences = []
    for kind, content_of in (("trained weights", _weights), ("answers", _answers), ("report tables", _tables)):
        expected, actual = content_of(undisturbed), content_of(killed)
        differing = [name for name in sorted(expected.keys() | actual.keys()) if expected.get(name) != actual.get(name)]
        print(f"{kind}: {len(expected)} compared, {len(expected) - len(differing)} equal", flush=True)
        differences += [f"{kind}: {name}" for name in differing]
        if not expected:
            differences.append(f"{kind}: there are none to compare")
    weights = _weights(undisturbed)
    if len(set(weights.values())) < len(weights):
        differences.append(f"some runs of {undisturbed} ended with the same weights, so there was nothing to lose")
    return differences


def _weights(study: Path) -> dict[str, str]:
    return {str(path.relative_to(study)): sha256_file(path) for path in study.glob("runs/*/*.safetensors")}


def _answers(study: Path) -> dict[str, object]:
    answers = {}
    for path in study.glob("cells/*/*.jsonl"):
        for result in read_results(path).results:
            name = f"{path.relative_to(study)}: {result.id}"
            answers[name] = (result.output, result.outcome, result.letter, result.blind, result.seen)
    return answers


def _tables(study: Path) -> dict[str, str]:
    tables = {path.name: path.read_text() for path in (study / "report").glob("*.csv")}
    summary = (study / "report" / "summary.md").read_text().partition("\n## How ")[0]
    log = {path.parent.name: _losses(path) for path in study.glob("runs/*/trainer_state.json")}
    return tables | {"summary.md": summary} | {f"{name}: logged losses": value for name, value in log.items()}


def _losses(state: Path) -> str:
    history = json.loads(state.read_text())["log_history"]
    return shlex.join(f"{entry['step']}:{entry['loss']}" for entry in history if "loss" in entry)


if __name__ == "__main__":
    run_command(main)
