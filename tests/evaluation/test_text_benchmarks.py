"""The six published text benchmarks from their raw files to one table, before and after, by the commands."""

import csv
import io
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from text_sets import medqa_row, write_lines, xpert_row

from open_r1.common.errors import UserError
from open_r1.data.text.prepare import Benchmark, prepare_benchmark
from open_r1.data.text.sources import read_file
from open_r1.evaluation.answering.run import infer_all
from open_r1_testbed.tiny_models import build_tiny_checkpoint

ASKED = 6  # of every set; the two real ones hold 300 and 244
SETS = ("medmcqa", "medqa", "pubmedqa", "mmlu_pro_medical", "gpqa", "medxpertqa")
SOURCES = ["MedMCQA", "MedQA", "PubMedQA", "MMLU-Pro-medical", "GPQA", "MedXpertQA"]
"""Columns of the published table, in its order."""


def raw_rows(name: str, count: int = ASKED) -> list[dict[str, Any]]:
    """Rows in the form in which a set is published."""
    numbers = range(count)
    if name == "medmcqa":  # counted from 1, as in the original files
        return [
            {
                "question": f"Which of {n}?",
                "opa": f"w{n}",
                "opb": f"x{n}",
                "opc": f"y{n}",
                "opd": f"z{n}",
                "cop": n % 4 + 1,
            }
            | {"subject_name": "Anatomy", "id": f"m{n}"}
            for n in numbers
        ]
    if name == "pubmedqa":
        decisions = ("yes", "no", "maybe")
        return [
            {"QUESTION": f"Does {n} help?", "CONTEXTS": ["We asked.", f"{n} did."], "final_decision": decisions[n % 3]}
            for n in numbers
        ]
    if name == "mmlu_pro_medical":
        medical = [
            {"question": f"Which gene is {n}?", "options": ["N/A", f"x{n}", f"y{n}", f"z{n}"], "answer": "C"}
            | {"category": ("health", "biology")[n % 2], "question_id": n}
            for n in numbers
        ]
        return [*medical, medical[0] | {"category": "law", "question_id": count}]
    if name == "gpqa":
        return [
            {"Question": f"What is {n}?", "Correct Answer": f"it is {n}", "High-level domain": "Biology"}
            | {f"Incorrect Answer {k}": f"it is {n} and {k}" for k in (1, 2, 3)}
            for n in numbers
        ]
    return [medqa_row(n) if name == "medqa" else xpert_row(n, "Reasoning") for n in numbers]


@contextmanager
def command_line(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setattr(sys, "argv", list(map(str, arguments)))
        yield


EVALUATION = {"question": "Which?\nAnswer Choices: (A) x (B) y", "label": ["B"], "medical_task": "Diagnosis"} | {
    "options": [{"letter": "A", "content": "x"}, {"letter": "B", "content": "y"}]
}


@pytest.mark.parametrize("name", ["medqa", "medmcqa", "pubmedqa", "mmlu_medical"])
def test_the_evaluation_form_is_taken_by_every_set_that_is_published_in_it(tmp_path: Path, name: str):
    sources = {"medqa": "MedQA", "medmcqa": "MedMCQA", "pubmedqa": "PubMedQA", "mmlu_medical": "MMLU-medical"}
    reading = read_file(name, write_lines(tmp_path / "a.jsonl", [EVALUATION]))
    (question,) = reading.questions
    assert (question.question, question.options, question.letter) == ("Which?", ("x", "y"), "B")
    assert (question.source, reading.notes) == (sources[name], [])


def test_a_file_that_fails_keeps_no_other_from_being_prepared(
    tmp_path: Path, load_script: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    good = {name: write_lines(tmp_path / f"{name}.jsonl", raw_rows(name)) for name in ("medqa", "gpqa")}
    (tmp_path / "bad.json").write_text("[1, 2")
    files = ["--medmcqa", tmp_path / "bad.json", "--pubmedqa", tmp_path / "none.json"]
    files += [word for name, path in good.items() for word in (f"--{name}", path)]
    with command_line(monkeypatch, "prepare_text_benchmarks.py", *files, "--output_dir", tmp_path / "sets"):
        assert load_script("scripts/prepare_text_benchmarks.py").main() == 2
    assert sorted(path.name for path in (tmp_path / "sets").iterdir()) == ["GPQA", "MedQA"]
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[1] for line in lines[:2]] == ["--medmcqa", "--pubmedqa"]
    assert lines[2] == "2 of 4 files were prepared"


def test_a_source_that_is_there_already_keeps_no_other_of_its_file_from_being_written(tmp_path: Path):
    row = {"question": "Q?", "options": {"A": "x", "B": "y"}, "answer": "y", "answer_idx": "B"}
    (tmp_path / "eval.json").write_text(json.dumps({"First": [row], "Second": [row]}))
    (tmp_path / "sets" / "First").mkdir(parents=True)
    (tmp_path / "sets" / "First" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"First .*was not made by this command.*; written: .*Second"):
        prepare_benchmark(Benchmark("huatuo", tmp_path / "eval.json"), tmp_path / "sets")
    assert (tmp_path / "sets" / "Second" / "manifest.json").is_file()
    assert (tmp_path / "sets" / "First" / "notes.txt").read_text() == "mine"


@pytest.mark.slow
def test_six_benchmarks_go_from_raw_files_to_one_table(
    tmp_path: Path, load_script: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch, repository: Path
):
    files = {name: write_lines(tmp_path / f"{name}.jsonl", raw_rows(name)) for name in SETS}
    real = repository.parent / "shared" / "real"
    published = {"medqa": real / "text_benchmarks" / "medqa.jsonl", "medxpertqa": real / "medxpertqa/Text/test.jsonl"}
    files |= {name: path for name, path in published.items() if path.is_file()}
    flags = [word for name, path in files.items() for word in (f"--{name}", path)]
    with command_line(monkeypatch, "prepare_text_benchmarks.py", *flags, "--output_dir", tmp_path / "sets"):
        assert load_script("scripts/prepare_text_benchmarks.py").main() == 0
    assert sorted(path.name for path in (tmp_path / "sets").iterdir()) == sorted(SOURCES)

    infer, results = load_script("eval/infer.py"), {}
    for seed, run in enumerate(("before", "after")):
        checkpoint = build_tiny_checkpoint(tmp_path / run, "qwen2", seed=seed)
        for source in SOURCES:
            output = tmp_path / f"{run}-{source}.jsonl"
            command = ["--model_path", checkpoint, "--prompt_path", tmp_path / "sets" / source, "--output_path", output]
            limits = ["--limit", ASKED, "--max_new_tokens", 4, "--mode", "think"]
            assert infer_all(infer.read_flags([str(word) for word in (*command, *limits)])) == 0
            results.setdefault(run, []).append(output)

    out = tmp_path / "report"
    command = [*results["after"], "--against", *results["before"], "--output_dir", out]
    with command_line(monkeypatch, "report.py", *command):
        assert load_script("eval/report.py").main() == 0
    summary = (out / "summary.md").read_text()
    head, _, *rows = summary.partition("### Accuracy by checkpoint and benchmark\n\n")[2].split("\n\n")[0].splitlines()
    assert [name.strip() for name in head.strip("| ").split("|")][:6] == [
        f"{source} (n = {ASKED})" for source in SOURCES
    ]
    names = [row.split("|")[1].strip() for row in rows]
    before, after = names[:2]
    assert str(tmp_path / "before") in before
    assert str(tmp_path / "after") in after
    assert names[2:] == [f"{after} minus {before}", f"unparsed: {before}", f"unparsed: {after}", "guessing"]
    table = list(csv.DictReader(io.StringIO((out / "benchmarks.csv").read_text())))
    assert [(row["source"], row["n"]) for row in table] == [(source, str(ASKED)) for source in SOURCES] * 2
    chance = {row["source"]: row["chance"] for row in table}
    # three options without "N/A", four, three, and ten
    assert (chance["PubMedQA"], chance["GPQA"], chance["MMLU-Pro-medical"]) == ("33.33", "25.00", "33.33")
    assert chance["MedXpertQA"] == "10.00"
    pairs = list(csv.DictReader(io.StringIO((out / "difference_by_source.csv").read_text())))
    assert [(row["source"], row["n"]) for row in pairs] == [(source, str(ASKED)) for source in SOURCES]
    assert len(json.loads((out / "manifest.json").read_text())["results"]) == 12
