"""Eight answers to one question with images of two modalities, and the file that holds them."""

import json
from pathlib import Path

from open_r1.evaluation.scoring.result_writer import ResultWriter
from open_r1.evaluation.scoring.results import Result, failed_result, graded_result

PROBLEM = "What is it? A)CT, B)Chest X-ray, C)Pneumonia, D)Normal"


MANIFEST = {"checkpoint": "checkpoints/tiny", "prompt": "train-nothink", "rows": 8}


def result(name: str, modality: str | None, task: str | None, answer: str, image: str = "") -> Result:
    """A question whose right answer is C."""
    row = {"id": name, "source": "test", "modality": modality, "task": task}
    row |= {"problem": PROBLEM, "solution": "<answer> C </answer>"}
    return graded_result(row, image or f"image of {name}", answer, tokens=5)


RIGHT, WRONG, UNREAD = "<answer>C</answer>", "<answer>A</answer>", "Well, A or C"


def example() -> list[Result]:
    """CT: 3 of 4 diagnoses, 0 of 1 recognitions; MRI: 2 of 2 recognitions; and one image that cannot be read."""
    return [
        result("1", "CT", "Disease Diagnosis", RIGHT, "p1"),
        result("2", "CT", "Disease Diagnosis", RIGHT, "p1"),
        result("3", "CT", "Disease Diagnosis", RIGHT, "p2"),
        result("4", "CT", "Disease Diagnosis", UNREAD, "p2"),
        result("5", "CT", "Modality Recognition", WRONG, "p1"),
        result("6", "MRI", "Modality Recognition", RIGHT),
        result("7", "MRI", "Modality Recognition", RIGHT),
        failed_result(
            {"id": "8", "modality": "MRI", "task": "Disease Diagnosis", "problem": PROBLEM, "solution": "C"},
            "p9",
            "truncated image",
        ),
    ]


def write(path: Path, results: list[Result], manifest: dict | None = None) -> Path:
    with ResultWriter(path, MANIFEST if manifest is None else manifest) as writer:
        for result in results:
            writer.write(result)
    return path


LINE = json.dumps({"id": "1", "source": ""})


GOOD = json.dumps(
    json.loads(LINE)
    | {"image": "p", "modality": None, "task": None, "problem": PROBLEM, "solution": "C", "output": "C"}
    | {"outcome": "correct", "letter": "C", "tokens": 1, "error": None}
)


HEAD = json.dumps({"manifest": {}})
