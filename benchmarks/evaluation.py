"""A whole evaluation of 18,000 questions: drawn, prepared, answered by the tiny base, reported.

python benchmarks/evaluation.py                # about four minutes on two cores
python benchmarks/evaluation.py --questions 2000

Each command runs as a user starts it, in a process of its own; the resident memory of eval/infer.py is read from the
kernel while it works, at each tenth of the questions. Claims: memory does not grow with the questions, and the report
takes less than 60 s.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from open_r1.common.command_line import CommandParser
from open_r1.common.errors import run_command
from open_r1.vocabulary.labels import Modality
from open_r1_testbed.phantoms import make_phantoms, save_prepared
from open_r1_testbed.tiny_models import TINY_BASE

ROOT = Path(__file__).resolve().parents[1]
QUESTIONS_PER_IMAGE = 5


def resident_mib(pid: int, name: str = "VmRSS") -> float:
    """Resident memory of a process in MiB; 0 once it has ended."""
    try:
        match = re.search(name + r":\s*(\d+)", Path(f"/proc/{pid}/status").read_text())
    except OSError:
        return 0.0
    return int(match[1]) / 1024 if match else 0.0


def lines(path: Path) -> int:
    """Results in a result file so far."""
    return max(0, path.read_bytes().count(b"\n") - 1) if path.exists() else 0


def infer(data: Path, results: Path, questions: int, log: Path) -> tuple[float, list[float]]:
    """Seconds, and the resident memory in MiB at each tenth of the questions."""
    command = [sys.executable, "eval/infer.py", "--model_path", str(TINY_BASE), "--prompt_path", str(data)]
    command += ["--output_path", str(results), "--max_new_tokens", "16", "--mode", "nothink"]
    start, memory = time.perf_counter(), []
    with log.open("w") as output:
        process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output, env=environment())
        while process.poll() is None:
            now = resident_mib(process.pid)
            if now and lines(results) >= questions * (len(memory) + 1) / 10:
                memory.append(now)
            time.sleep(0.5)
    if process.returncode:
        raise SystemExit(f"eval/infer.py ended with status {process.returncode}: {log.read_text()[-500:]}")
    return time.perf_counter() - start, memory


def report(results: Path, output: Path) -> tuple[float, float]:
    """Seconds, and the most resident memory in MiB."""
    command = [sys.executable, "eval/report.py", "--with_items", str(results), "--output_dir", str(output)]
    start, peak = time.perf_counter(), 0.0
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, env=environment())
    while process.poll() is None:
        peak = max(peak, resident_mib(process.pid, "VmHWM"))
        time.sleep(0.1)
    if process.returncode:
        raise SystemExit(f"eval/report.py ended with status {process.returncode}")
    return time.perf_counter() - start, peak


def environment() -> dict[str, str]:
    return os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


def main() -> None:
    parser = CommandParser(description=__doc__)
    parser.add_argument("--questions", type=int, default=18_000, help="test questions, a multiple of 40 is exact")
    flags = parser.parse_args()
    per_modality = max(1, round(flags.questions / QUESTIONS_PER_IMAGE / len(Modality)))
    questions = per_modality * len(Modality) * QUESTIONS_PER_IMAGE
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        start = time.perf_counter()
        make_phantoms(folder / "raw", train=4, test=per_modality)
        drawn = time.perf_counter()
        save_prepared(folder / "raw", folder / "set")
        print(
            f"{questions:,} questions: drawn in {drawn - start:.0f} s, prepared in {time.perf_counter() - drawn:.0f} s"
        )
        seconds, memory = infer(folder / "set", folder / "answers.jsonl", questions, folder / "infer.log")
        print(f"inferred in {seconds:.0f} s; resident MiB at each tenth: {' '.join(f'{mib:.0f}' for mib in memory)}")
        print(f"results: {lines(folder / 'answers.jsonl'):,} lines")
        seconds, peak = report(folder / "answers.jsonl", folder / "report")
        print(f"reported in {seconds:.0f} s, at most {peak:.0f} MiB")


if __name__ == "__main__":
    run_command(main)
