"""Functions of the lmms-eval tasks beside this file: the same prompt and the same grader as eval/infer.py.

lmms-eval imports this file by its path; the package open_r1 must be installed where lmms-eval runs (`bash setup.sh`).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

from open_r1.grading.grader import Outcome, grade
from open_r1.grading.problems import options_in
from open_r1.vocabulary.modes import Mode
from open_r1.vocabulary.prompts import question_text


def doc_to_visual(doc: Mapping[str, Any], _: Any = None) -> list[Image.Image]:
    """The image of a question, as RGB."""
    return [doc["image"].convert("RGB")]


def doc_to_text(doc: Mapping[str, Any], _: Any = None) -> str:
    """The question in the no-think training prompt."""
    return question_text(doc["problem"], Mode.NOTHINK)


def doc_to_text_think(doc: Mapping[str, Any], _: Any = None) -> str:
    """The question in the think training prompt."""
    return question_text(doc["problem"], Mode.THINK)


def process_results(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """Whether the output is right, and whether no answer could be read from it, by the grader of this project."""
    outcome = grade(results[0], doc["solution"], options_in(doc["problem"]), doc["problem"]).outcome
    return {"accuracy": float(outcome is Outcome.CORRECT), "unparsed": float(outcome is Outcome.UNPARSED)}
