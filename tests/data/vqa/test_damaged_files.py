"""Files of every form with flipped bits, cuts and parts of other files: one line, or what can still be read."""

import base64
import csv
import io
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from vqa_sets import draw, image_bytes, prepared, rad_row, stored

from open_r1.common.errors import UserError
from open_r1_testbed.damage import BYTES, Draw

COPIES = 6  # files with each kind of damage


def as_json(rows: list[dict[str, Any]]) -> bytes:
    return json.dumps(rows).encode()


def as_lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def as_parquet(rows: list[dict[str, Any]]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), buffer)
    return buffer.getvalue()


def as_table(rows: list[dict[str, Any]], delimiter: str = "\t") -> bytes:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, rows[0], delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue().encode()


def as_csv(rows: list[dict[str, Any]]) -> bytes:
    return as_table(rows, ",")


def as_pickle(rows: list[dict[str, Any]]) -> bytes:
    return pickle.dumps(rows)


def as_pipes(rows: list[dict[str, Any]]) -> bytes:
    return "\n".join("|".join(map(str, row.values())) for row in rows).encode()


def encoded(number: int) -> str:
    return base64.b64encode(image_bytes(str(number))).decode()


NUMBERS = range(8)
HUB = [{"image": stored(f"{n}"), "question": f"is it {n}?", "answer": "no"} for n in NUMBERS]
EXPERT = [{"question": f"Q{n}?", "options": {"A": "x", "B": "y"}, "label": "A", "images": ["a.jpg"]} for n in NUMBERS]
TABLE = [{"index": n, "image": encoded(n), "question": f"Q{n}?", "answer": "yes"} for n in NUMBERS]
PIPES = [{"image": "a", "category": "plane", "question": f"q{n}?", "answer": "axial"} for n in NUMBERS]
PMC = {"Figure_path": "a.jpg", **{f"Choice {letter}": letter * 2 for letter in "ABCD"}, "Answer_label": "A"}
FILES: list[tuple[str, str, Callable[[list[dict[str, Any]]], bytes], list[dict[str, Any]]]] = [
    ("vqa_rad", "VQA_RAD Dataset Public.json", as_json, [rad_row(n, image_name="a.jpg") for n in NUMBERS]),
    ("vqa_rad", "test-00000-of-00001.parquet", as_parquet, HUB),
    ("medxpertqa_mm", "test.jsonl", as_lines, EXPERT),
    ("pmc_vqa", "test.csv", as_csv, [{**PMC, "Question": f"Q{n}?"} for n in NUMBERS]),
    ("pathvqa", "test_qa.pkl", as_pickle, [{"image": "a", "question": f"Q{n}?", "answer": "no"} for n in NUMBERS]),
    ("vqa_med_2019", "VQAMed2019_Test_Questions_w_Ref_Answers.txt", as_pipes, PIPES),
    ("vlmevalkit", "T.tsv", as_table, TABLE),
]


@pytest.mark.slow
@pytest.mark.parametrize(("source", "name", "write", "rows"), FILES, ids=[name for _, name, _, _ in FILES])
def test_a_damaged_file_ends_in_one_line_or_in_a_set(
    tmp_path: Path, source: str, name: str, write: Callable[[list[dict[str, Any]]], bytes], rows: list[dict[str, Any]]
) -> None:
    folder, chance = tmp_path / "in", Draw(0)
    draw(folder, ["a.jpg"])
    data, other = write(rows), as_json([{"other": "file"}])
    (folder / name).write_bytes(data)
    (whole,) = prepared(source, folder, tmp_path / "whole")
    assert sum(counts["rows"] for counts in whole.report["splits"].values()) == len(NUMBERS)
    refusals: list[str] = []
    for number in range(COPIES):
        for change in BYTES:
            (folder / name).write_bytes(change(data, other, chance))
            try:
                prepared(source, folder, tmp_path / f"{number} {change.__name__}")
            except UserError as error:
                refusals.append(str(error))
    assert [refusal for refusal in refusals if "\n" in refusal] == []
    assert 0 < len(refusals) < COPIES * len(BYTES)
