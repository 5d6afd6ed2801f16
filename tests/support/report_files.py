"""The report command on made-up results, and its CSV files read back."""

import base64
import csv
import io
import re
from pathlib import Path
from typing import Any

from open_r1.evaluation.reporting.items.packing import unpack
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


def block_of(page: Path, name: str) -> str:
    """A block of data in the page of a report; blank if it has none."""
    match = re.search(rf'<script type="text/plain" id="{name}">(.*?)</script>', page.read_text(), re.DOTALL)
    return match[1] if match else ""


def questions_in(page: Path) -> list[dict[str, Any]]:
    """The questions of the item browser: each column, the parts of the problem, and per run what is known, or None."""
    index = unpack(block_of(page, "index"))
    texts = [entry for block in block_of(page, "outputs").splitlines() for entry in unpack(block)]
    questions = []
    for number, name in enumerate(index["id"]):
        problem, end, options, right, expected = index["problems"][index["problem"][number]]
        answers = []
        for run, written in zip(index["runs"], texts[number], strict=True):
            codes = {key: run[key][number] for key in ("outcome", "tokens", "cutOff", "look", "read", "wording")}
            codes["read"] = index["read"][codes["read"]] if codes["read"] >= 0 else None
            codes["wording"] = index["wordings"][codes["wording"]] if codes["wording"] >= 0 else None
            answers.append(codes | {"texts": written} if written else None)
        modality, task = index["modalities"][index["modality"][number]], index["tasks"][index["task"][number]]
        questions.append(
            {"id": name, "stem": problem[:end].strip(), "options": options, "right": right, "expected": expected}
            | {"modality": modality, "task": task}
            | {"image": index["image"][number], "seen": index["seen"][number], "answers": answers}
        )
    return questions


def images_in(page: Path) -> list[bytes]:
    """The small images of the item browser, as JPEG files."""
    return [base64.b64decode(line, validate=True) for line in block_of(page, "images").splitlines()]
