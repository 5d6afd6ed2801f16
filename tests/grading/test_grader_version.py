"""The grader's version changes with its readings: an evaluation is continued with the same readings or not at all."""

import hashlib
import json
import random
from itertools import product
from pathlib import Path

import pytest
from blind_outputs import QUESTIONS, choice_outputs
from completions import BLOOD, LONG, LUNG, SCAN, SIZES, TABLE, TEN
from free_completions import CLOSED, OPEN
from labelled_outputs import OUTPUTS

from open_r1.common.errors import UserError
from open_r1.evaluation.scoring.result_writer import ResultWriter
from open_r1.evaluation.scoring.results import read_results
from open_r1.grading.expected import Expected, grade_answer
from open_r1.grading.formats import follows_format
from open_r1.grading.grader import GRADER_VERSION, extract_answer, grade
from open_r1.vocabulary.modes import Mode

# version -> SHA-256 of the readings below. A new version gets a line of its own; no line is ever changed.
READINGS = {
    1: "0384979169528ae65dec7746fd0f1f9240c7abacbebab3d0a83c0e4f9091dbb8",
    2: "98d0d36a895dd32fef3acbba725a15744ef801e2e0f31654c57f0521b7cf9241",
    3: "c6ab97e2aaa80178d05f9352dfb2bd53168df633187698a8f07f39e0418732e4",
    4: "8fabde4290c28fa4b7b8f87a83fac9025d5ff120749ceef1c39a1085317319e0",
}
# The same of closed and open answers.
FREE_READINGS = {
    3: "d7fef1ece19cef21e8b833c1dbc6bfefc607a99a57d9de96098b79060b33665d",
    4: "1bbb6e582cc2fe7dd222e745aef7e5e45fd108ea9158399082a34233257a839b",
}
PIECES = (
    *("<think>", "</think>", "<answer>", "</answer>", "<answer", "\\boxed{B}", "**C**", "(D)", "a", "B) MRI", "C."),
    *("\n", "The answer is ", "is not ", "Answer: ", "so ", "Normal", "CT", "option ", "either A or B", "答案是", "…"),
    "<|im_end|>",
)
FREE_PIECES = (
    "yes",
    "no",
    "Yes, ",
    "No. ",
    "left lung",
    "right lung",
    "5 mm",
    "0.5 cm",
    "the ",
    ", ",
    "\\boxed{yes}",
    "是的",
)
OLD_HASH = "442752582e0bd7e59a03ea383d81e3a48c3f150dea2e253767df977a63117cbb"


def readings() -> str:
    """A hash over what the grader reads in the labelled table and in 20,000 texts of pieces that matter to it."""
    rng = random.Random(0)
    drawn = ["".join(rng.choices(PIECES, k=rng.randint(1, 7))) for _ in range(20_000)]
    offered = (SCAN, LONG, BLOOD, LUNG, TEN, SIZES)
    read = [extract_answer(text, options) for text, options in product(drawn[:2_000], offered)]
    read += [extract_answer(text, SCAN) for text in drawn]
    read += [grade(text, gold, options).letter for _, _, text, gold, options in TABLE]
    read += [extract_answer(text, options) for options, _, text in OUTPUTS]
    for name in ("first", "second", "third", "fourth", "fifth"):  # since version 4, with the question
        read += [
            extract_answer(text, QUESTIONS[key]["options"], QUESTIONS[key]["question"])
            for key, _, text in choice_outputs(name)
        ]
    read += [follows_format(text, mode) for text in drawn[:2_000] for mode in Mode if mode.is_trained]
    return hashlib.sha256(json.dumps(read).encode()).hexdigest()


def free_readings() -> str:
    """A hash over the grades of closed and open answers: the labelled ones, and 6,000 texts of pieces."""
    rng = random.Random(0)
    texts = ["".join(rng.choices([*PIECES, *FREE_PIECES], k=rng.randint(1, 6))) for _ in range(6_000)]
    asked = [("yes", "closed"), ("MRI", "closed"), ("left lung", "open"), ("5 mm", "open")]
    rows = [{"problem": "?", "solution": solution, "answer_type": kind} for solution, kind in asked]
    graded = [grade_answer(text, Expected.of(row)) for text in texts for row in rows]
    for kind, table in (("closed", CLOSED), ("open", OPEN)):
        rows = [{"problem": "?", "solution": row[0], "answer_type": kind} for row in table]
        graded += [grade_answer(row[1], Expected.of(asked)) for row, asked in zip(table, rows, strict=True)]
    return hashlib.sha256(json.dumps(graded).encode()).hexdigest()


@pytest.mark.slow
def test_readings_are_those_of_the_version():
    assert free_readings() == FREE_READINGS[GRADER_VERSION], "other grades: raise GRADER_VERSION and add them"
    assert readings() == READINGS[GRADER_VERSION], "other readings: raise GRADER_VERSION and add them"
    assert max(READINGS) == GRADER_VERSION


def test_a_file_begun_before_versions_goes_on(tmp_path: Path):
    path = tmp_path / "begun.jsonl"
    ResultWriter(path, {"mode": "think", "grader_sha256": OLD_HASH}).close()
    with ResultWriter(path, {"mode": "think", "grader_version": 1}):
        pass
    assert read_results(path).manifest["grader_sha256"] == OLD_HASH


@pytest.mark.parametrize("there", [{"grader_version": 2}, {"grader_sha256": "0" * 64}])
def test_a_file_of_another_grader_is_not_continued(tmp_path: Path, there: dict):
    path = tmp_path / "begun.jsonl"
    ResultWriter(path, {"mode": "think", **there}).close()
    with pytest.raises(UserError, match="grader_version"):
        ResultWriter(path, {"mode": "think", "grader_version": 1})
