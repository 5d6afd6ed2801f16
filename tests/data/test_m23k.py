"""MedVLThinker's text questions, m23k: rows made here in the published form, since real ones are not at hand."""

import json
from pathlib import Path
from typing import Any

import pytest

from open_r1.data.text.sources import read_file

ROW = {
    "answer_idx": 2,
    "source": "GBaker/MedQA-USMLE-4-options",
    "metadata": "{'answer_idx': 'A'}",  # of the options before they were shuffled
    "prompt": "A man of 60. Which drug?\nA. aspirin\nB. heparin\nC. naloxone (i.v.)\nD. none",
    "answer_letter": "C",
    "answer_string": "naloxone (i.v.)",
}


def write(folder: Path, *rows: dict[str, Any]) -> Path:
    path = folder / "train.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_the_options_are_taken_off_the_prompt(tmp_path: Path) -> None:
    (question,) = read_file("m23k", write(tmp_path, ROW)).questions
    assert question.question == "A man of 60. Which drug?"
    assert question.options == ("aspirin", "heparin", "naloxone (i.v.)", "none")
    assert (question.letter, question.source, question.question_type) == ("C", "m23k", ROW["source"])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"answer_idx": 0}, "answer-contradicts"),
        ({"answer_string": "aspirin"}, "answer-contradicts"),
        ({"prompt": "Which?\nA. of these\nA. aspirin\nB. heparin"}, "ambiguous-options"),
        ({"prompt": "Which drug is it?"}, "no-options"),
        ({"answer_letter": "E"}, "answer-not-offered"),
    ],
)
def test_a_row_that_contradicts_itself_is_dropped(change: dict[str, Any], reason: str, tmp_path: Path) -> None:
    reading = read_file("m23k", write(tmp_path, ROW, ROW | {"prompt": "Other" + ROW["prompt"]} | change))
    assert len(reading.questions) == 1
    assert [dropped.reason for dropped in reading.dropped] == [reason]
