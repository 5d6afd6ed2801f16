"""How long a report takes and how much it holds: `python benchmarks/report.py`, about four minutes on two cores.

Phantoms are drawn and prepared, runs "answer" every test question (drawn answers around thoughts of some hundred
characters, as a think checkpoint writes them, with the share of right ones that the run is given), and `eval/report.py`
reports each number of lines in a process of its own: the runs with their differences, all tables and heatmaps, and the
page with small images. Wall and CPU seconds, the largest resident set, and the size of the page are printed.

The claim: 18,000 result lines in under 60 s. Memory is that of the lines and of the page; images are read one at a
time from a mapped file, whose pages count as resident until the system wants them back.
"""

import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from open_r1.common.command_line import CommandParser
from open_r1.common.errors import run_command
from open_r1.data.loading import load_rows
from open_r1.data.row_images import image_key
from open_r1.evaluation.scoring.result_writer import ResultWriter
from open_r1.evaluation.scoring.results import graded_result
from open_r1.grading.problems import options_in, solution_letter
from open_r1_testbed.phantoms import make_phantoms, save_prepared

ROOT = Path(__file__).resolve().parents[1]
THOUGHTS = (
    "The image shows",
    "a bright rim",
    "that could be",
    "an artefact",
    "or a lesion",
    "at the border",
    "of it.",
)


def write_run(path: Path, rows: Iterable[Mapping[str, Any]], manifest: Mapping[str, Any], right: float) -> None:
    """A result file in which a share `right` of the questions is answered as the solution says."""
    draw = random.Random(path.name)
    path.unlink(missing_ok=True)
    with ResultWriter(path, manifest) as writer:
        for row in rows:
            thought = " ".join(draw.choices(THOUGHTS, k=20))
            letters = [*options_in(row["problem"]), "?"]
            letter = solution_letter(row["solution"]) if draw.random() < right else draw.choice(letters)
            output = f"<think>{thought}</think> <answer> {letter} </answer>"
            writer.write(graded_result(row, image_key(row), output, tokens=90))


# The kernel's own high-water mark of this process: getrusage would count what its parent held when it was forked.
REPORT = """
import atexit, re, runpy, sys
def tell():
    status = open("/proc/self/status").read()
    print(*(re.search(name + r":\\s*(\\d+)", status)[1] for name in ("VmHWM", "RssFile")), file=sys.stderr)
atexit.register(tell)
runpy.run_path(sys.argv.pop(1), run_name="__main__")
"""


def measure(files: Sequence[Path], output: Path) -> str:
    """Report these files in a process of its own, and say what that took."""
    start, spent = time.perf_counter(), os.times()
    script = str(ROOT / "eval" / "report.py")
    command = [sys.executable, "-c", REPORT, script, "--with_items", *map(str, files), "--output_dir", str(output)]
    process = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    if process.returncode:
        raise SystemExit(f"eval/report.py failed with exit status {process.returncode}: {process.stderr}")
    wall, used = time.perf_counter() - start, os.times()
    processor = used.children_user + used.children_system - spent.children_user - spent.children_system
    size = (output / "report.html").stat().st_size
    peak, mapped = (int(number) / 1024 for number in process.stderr.split()[-2:])
    return (
        f"{wall:5.1f} s wall, {processor:5.1f} s CPU, {peak:4.0f} MiB resident at most ({mapped:.0f} MiB are mapped "
        f"files, at the end), page {size / 2**20:.1f} MiB"
    )


def main() -> None:
    parser = CommandParser(description=__doc__)
    parser.add_argument("--lines", type=int, nargs="+", default=[2000, 18_000], help="result lines per run")
    parser.add_argument("--runs", type=int, nargs="+", default=[1, 2], help="runs in a report")
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make_phantoms(root / "phantoms", train=1, test=-(-max(flags.lines) // 40))  # 8 modalities, 5 questions each
        prepared = save_prepared(root / "phantoms", root / "prepared")
        rows, _ = load_rows(prepared, "test")
        manifest = {"data": str(prepared), "split": "test", "data_sha256": "of the benchmark"}
        for lines in flags.lines:
            files = [root / f"checkpoint-{number}.jsonl" for number in range(max(flags.runs))]
            for number, file in enumerate(files):
                right = 0.4 + 0.4 * number / max(1, len(files) - 1)
                write_run(file, (rows[k] for k in range(lines)), {**manifest, "checkpoint": file.stem}, right)
            for count in flags.runs:
                costs = measure(files[:count], root / f"report-{lines}-{count}")
                print(f"{lines:6,} lines x {count} run{'s' if count > 1 else ' '}: {costs}", flush=True)


if __name__ == "__main__":
    run_command(main)
