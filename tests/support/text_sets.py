"""Rows and files of text questions as their publishers write them."""

import json
from pathlib import Path
from typing import Any

from open_r1.grading.problems import LETTERS


def write_lines(path: Path, rows: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def medqa_row(number: int, **changes: Any) -> dict[str, Any]:
    options = {"A": f"a{number}", "B": f"b{number}", "C": f"c{number}", "D": f"d{number}"}
    row = {"question": f"Question {number}?", "answer": f"b{number}", "options": options, "meta_info": "step1"}
    return {**row, "answer_idx": "B", **changes}


def xpert_row(number: int, kind: str) -> dict[str, Any]:
    options = {letter: f"{letter.lower()} {number}" for letter in LETTERS[:10]}
    listed = " ".join(f"({letter}) {text}" for letter, text in options.items())
    question = f"Case {number}, what now?\nAnswer Choices: {listed}"
    return {"id": f"Text-{number}", "question": question, "options": options, "label": "J", "question_type": kind}
