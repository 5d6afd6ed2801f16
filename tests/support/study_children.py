"""Stand-ins for training and testing in a study: `python tests/support/study_children.py KIND FOLDER NAME PATH...`.

They write what the real ones write. What one does follows from files in FOLDER: `slow-NAME` has it wait until the file
is gone, `broken-NAME` has it fail. A study starts many, so this program loads little.
"""

import json
import struct
import sys
import time
from pathlib import Path

from open_r1.evaluation.scoring.result_writer import ResultWriter
from open_r1.evaluation.scoring.results import graded_result


def write_training(output: Path) -> None:
    """run.json and weights, as a finished training leaves them."""
    output.mkdir(parents=True, exist_ok=True)
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    weights = struct.pack("<Q", len(header)) + header + struct.pack("<f", 1.0)
    (output / "config.json").write_text("{}")
    (output / "model.safetensors").write_bytes(weights)
    (output / "run.json").write_text(json.dumps({"status": "done", "method": "grpo", "mode": "nothink"}))


def write_answers(path: Path, rows: int = 4) -> None:
    """A complete result file."""
    with ResultWriter(path, {"rows": rows}) as writer:
        for number in range(rows):
            name = f"q{number}"
            if name not in writer.written_ids:
                row = {"id": name, "problem": "What? A)x, B)y", "solution": "A"}
                writer.write(graded_result(row, name, "<answer>A</answer>", tokens=3))


def stand_in(kind: str, folder: Path, name: str, output: list[str]) -> int:
    """What a child does."""
    with open(folder / "calls", "a") as calls:
        calls.write(f"{kind}-{name}\n")
    print("working", flush=True)
    while (folder / f"slow-{kind}-{name}").exists():
        time.sleep(0.02)
    if (folder / f"broken-{kind}-{name}").exists():
        print("error: it is broken\n=====", flush=True)
        return 1
    if kind == "train":
        write_training(Path(output[-1]))
    else:
        for path in output[: output.index("--output_path")]:
            if Path(path).with_suffix(".crash").exists():
                return 3
            write_answers(Path(path))
    return 0


if __name__ == "__main__":
    raise SystemExit(stand_in(sys.argv[1], Path(sys.argv[2]), sys.argv[3], sys.argv[4:]))
