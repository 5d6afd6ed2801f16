"""The report command on made-up results, and its CSV files read back."""

import csv
import io
from pathlib import Path
from typing import Any

from open_r1.evaluation.scoring.result_writer import ResultWriter
from open_r1.evaluation.scoring.results import Result, graded_result
from open_r1.vocabulary.labels import Modality

RIGHT, WRONG = "<answer>A</answer>", "<answer>B</answer>"


def answers(label: str, right: int, questions: int = 40, offset: int = 0, shared: int = 1) -> list[Result]:
    """`asked` questions of one modality or task, of which `right` are answered right, from number `offset` on.

    Each image has `shared` questions.
    """
    kind = "modality" if label in list(Modality) else "task"
    results = []
    for number in range(questions):
        row = {"id": f"{label}-{number}", "problem": "What? A)x, B)y", "solution": "A", kind: label}
        good = (number - offset) % questions < right
        results.append(graded_result(row, f"{label}-{number // shared}", RIGHT if good else WRONG, tokens=3))
    return results


def write(path: Path, results: list[Result], **manifest: Any) -> Path:
    with ResultWriter(path, manifest) as writer:
        for result in results:
            writer.write(result)
    return path


def run(folder: Path, trained: str | None, tested: str, right: int, mode: str = "nothink", **more: Any) -> Path:
    """The result file of a run on one test set."""
    about = {"trained_on": trained, "tested_on": tested, "mode": mode, "data_sha256": tested, "split": "test"}
    about |= {"checkpoint_sha256": f"{trained} {mode}", "method": "grpo" if trained else "zero-shot"}
    name = f"{trained}-{tested}-{mode}{''.join(map(str, more.values()))}.jsonl"
    return write(folder / name.replace(" ", "_"), answers(tested, right), **about, **more)


def rows_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text())))
