"""Model outputs that were labelled before the grader read them, by a reader who had not seen its rules.

The files of `tests/grading/blind_outputs` hold outputs under headings. `### QUESTION STYLE LABEL` is one of choice (the
questions are in questions.json); its label is the letter that a careful reader reads, `-` where the text does not
commit, and `B?` where both are fair. `#### TYPE | PROBLEM | SOLUTION | ALIAS` begins a closed or open question, and
`### STYLE LABEL` an answer to it: `+` right, `x` wrong, `-` without an answer.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path

from open_r1.grading.expected import Expected

FOLDER = Path(__file__).parents[1] / "grading" / "blind_outputs"
QUESTIONS = json.loads((FOLDER / "questions.json").read_text(encoding="utf-8"))


def choice_outputs(name: str) -> Iterator[tuple[str, str, str]]:
    """Question, label and text of each output of a set."""
    blocks = re.split(r"^### (?=\w+ [\w.-]+ \S+$)", (FOLDER / f"choice_{name}.txt").read_text("utf-8"), flags=re.M)
    for block in blocks[1:]:
        heading, _, text = block.partition("\n")
        question, _, label = heading.split()
        yield question, label, text.removesuffix("\n")


def free_outputs(name: str) -> Iterator[tuple[Expected, str, str]]:
    """What is expected, label and text of each closed or open answer of a set."""
    for block in re.split(r"^#### ", (FOLDER / f"free_{name}.txt").read_text("utf-8"), flags=re.M)[1:]:
        heading, _, answers = block.partition("\n")
        kind, problem, solution, *aliases = (part.strip() for part in heading.split("|"))
        row = {"problem": problem, "solution": solution, "answer_type": kind, "aliases": aliases}
        for answer in re.split(r"^### (?=[\w.-]+ \S$)", answers, flags=re.M)[1:]:
            label, _, text = answer.partition("\n")
            yield Expected.of(row), label.split()[1], text.removesuffix("\n")
