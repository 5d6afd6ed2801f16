"""Text questions in the report: by source, several benchmarks in one table, and the published lenient matching."""

import csv
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from report_files import questions_in
from report_tables import table_of

from open_r1.common.errors import UserError
from open_r1.evaluation.reporting.report import write_report
from open_r1.evaluation.reporting.table_formats import BLANK
from open_r1.evaluation.scoring.result_writer import ResultWriter
from open_r1.evaluation.scoring.results import Result, Sample, graded_result, read_results
from open_r1.evaluation.scoring.tallies import TEXT, columns, modalities, sources, tabulate, tasks
from open_r1.grading.grader import Outcome

OPTIONS = ("Iron deficiency", "Folate deficiency", "Lead", "Thalassaemia")
RIGHT, WRONG, UNREAD = "<answer>A</answer>", "<answer>B</answer>", "Hard to say"


def question(source: str, name: str, output: str, letter: str = "A", **row: Any) -> Result:
    """A text question of a set with four options; what stands for its image is its id."""
    problem = f"{name}?\n" + "\n".join(f"{sign}) {text}" for sign, text in zip("ABCD", OPTIONS, strict=True))
    defaults = {"id": f"{source}-{name}", "source": source, "problem": problem, "solution": letter}
    return graded_result(defaults | row, f"{source}-{name}", output, tokens=3)


def answers(source: str, right: int, count: int = 20, unread: int = 0) -> list[Result]:
    """`right` right answers, then wrong ones, at the end `unread` that cannot be read."""
    outputs = [RIGHT] * right + [WRONG] * (count - right - unread) + [UNREAD] * unread
    return [question(source, str(number), output) for number, output in enumerate(outputs)]


def write(path: Path, results: list[Result], **manifest: Any) -> Path:
    with ResultWriter(path, manifest) as writer:
        for result in results:
            writer.write(result)
    return path


def rows_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text())))


# ------------------------------------------------------------------------------------------------------ one file


def test_text_questions_are_tabulated_by_source_in_the_published_order():
    image = graded_result(
        {"id": "p", "problem": "What? A)x, B)y", "solution": "A", "modality": "CT", "task": "Lesion Grading"},
        "hash of an image",
        RIGHT,
        tokens=1,
    )
    bare = graded_result({"id": "q", "problem": "What? A)x, B)y", "solution": "A"}, "another image", RIGHT, tokens=1)
    names = ("MedXpertQA", "Another", "GPQA", "MMLU-Pro-medical", "PubMedQA", "MedQA", "MedMCQA")
    table = tabulate([*(question(name, "1", RIGHT) for name in names), image, bare])
    published = ["MedMCQA", "MedQA", "PubMedQA", "MMLU-Pro-medical", "GPQA", "MedXpertQA", "Another"]
    assert sources(table) == published
    assert modalities(table) == ["CT", "unlabelled", TEXT]  # an image without labels is no text question
    assert tasks(table) == ["Lesion Grading", "unlabelled"]
    assert columns(table) == ["Lesion Grading", "unlabelled", *published]


def test_one_file_of_text_questions_shows_sources_and_nothing_about_images(tmp_path):
    results = [*answers("MedQA", 15, unread=2), *answers("PubMedQA", 4, count=10)]
    summary = write_report([write(tmp_path / "base.jsonl", results)], tmp_path / "out", with_items=True)
    head, *rows = table_of(summary, "Accuracy by source")
    assert head == ["", "questions", "accuracy", "95 % interval", "guessing", "blind floor", "unparsed", "cut off"]
    # MedQA: 15 of 20, stderr sqrt(.75 * .25 / 19) = 9.9; 2 of 20 unparsed. PubMedQA: 4 of 10, sqrt(.4 * .6 / 9) = 16.3
    assert rows[0] == ["MedQA", "20", "75.0 ± 9.9", "51.6 to 89.4", "25.0", BLANK, "10.0", "unknown"]
    assert rows[1][:3] == ["PubMedQA", "10", "40.0 ± 16.3"]
    assert rows[2][0] == "all questions, weighted by their number"
    assert rows[3][:3] == ["unweighted mean over 2 sources", "30", "57.5 ± 9.6"]  # sqrt(9.93^2 + 16.33^2) / 2
    assert "unlabelled" not in summary
    assert "picture" not in summary.partition("## How to read")[0]
    leaves = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"by_source.csv", "averages.csv", "benchmarks.csv"} <= leaves
    assert not {"by_task.csv", "by_modality.csv", "heatmap.png"} & leaves
    lines = rows_of(tmp_path / "out" / "by_source.csv")
    assert [(row["source"], row["n"], row["unparsed_share"], row["chance"]) for row in lines] == [
        *[("MedQA", "20", "10.00", "25.00"), ("PubMedQA", "10", "0.00", "25.00")],
        ("all", "30", "6.67", "25.00"),
    ]
    assert "MedQA & 20 & 75.0 $\\pm$ 9.9" in (tmp_path / "out" / "tables.tex").read_text()
    page = (tmp_path / "out" / "report.html").read_text()
    assert '<th scope="row">MedQA</th><td>20</td><td>75.0 ± 9.9</td>' in page
    questions = questions_in(tmp_path / "out" / "report.html")
    assert {(item["modality"], item["task"]) for item in questions} == {(TEXT, "MedQA"), (TEXT, "PubMedQA")}
    assert {item["image"] for item in questions} == {-2}  # no image is missed


@pytest.mark.slow
def test_images_and_text_in_one_file_keep_their_own_tables(tmp_path):
    row = {"problem": "What? A)x, B)y", "solution": "A", "modality": "CT", "task": "Lesion Grading"}
    images = [graded_result({**row, "id": f"p{n}"}, f"hash {n}", RIGHT, tokens=1) for n in range(4)]
    write_report([write(tmp_path / "both.jsonl", [*images, *answers("MedQA", 5)])], tmp_path / "out")
    by = {name: rows_of(tmp_path / "out" / f"by_{name}.csv") for name in ("modality", "task", "source")}
    assert [(row["modality"], row["n"]) for row in by["modality"]] == [("CT", "4"), (TEXT, "20"), ("all", "24")]
    assert [(row["task"], row["n"]) for row in by["task"]] == [("Lesion Grading", "4"), ("all", "24")]
    assert [(row["source"], row["n"]) for row in by["source"]] == [("MedQA", "20"), ("all", "24")]
    averages = {row["average"]: row["accuracy"] for row in rows_of(tmp_path / "out" / "averages.csv")}
    assert averages == {
        "all questions, weighted by their number": "37.50",  # (4 + 5) / 24
        "unweighted mean over 1 modality": "100.00",
        "unweighted mean over 1 task": "100.00",
        "unweighted mean over 1 source": "25.00",
    }
    assert "n = 20" in (tmp_path / "out" / "heatmap.svg").read_text()


# --------------------------------------------------------------------------------------------- several benchmarks

SETS = {"MedMCQA": (10, 18), "GPQA": (8, 8)}
"""Right answers of 20 before and after."""


def files_of(folder: Path, when: int, method: str) -> list[Path]:
    return [
        write(folder / f"{name}-{method}.jsonl", answers(name, right[when]), method=method, data_sha256=name)
        for name, right in SETS.items()
    ]


def whole(folder: Path, when: int, method: str) -> list[Path]:
    results = [result for name, right in SETS.items() for result in answers(name, right[when])]
    return [write(folder / f"{method}.jsonl", results, method=method, data_sha256="both")]


@pytest.mark.slow
@pytest.mark.parametrize("before", [files_of, whole])
@pytest.mark.parametrize("after", [files_of, whole])
def test_before_and_after_stand_in_one_table_however_the_benchmarks_are_filed(tmp_path, before, after):
    first, second = before(tmp_path, 0, "zero-shot"), after(tmp_path, 1, "grpo")
    summary = write_report(second, tmp_path / "out", against=first)
    head, *rows = table_of(summary, "Accuracy by checkpoint and benchmark")
    assert head == ["", "MedMCQA (n = 20)", "GPQA (n = 20)", "unweighted mean"]
    # 50 % of 20: sqrt(.25 / 19) = 11.5; 90 %: sqrt(.09 / 19) = 6.9; mean of 50 and 40: sqrt(11.47^2 + 11.24^2) / 2
    assert rows[0] == ["zero-shot", "50.0 ± 11.5", "40.0 ± 11.2", "45.0 ± 8.0"]
    assert rows[1] == ["grpo", "90.0 ± 6.9", "40.0 ± 11.2", "65.0 ± 6.6"]
    # 8 of 20 won, none lost: s = sqrt(8 * .36 + 12 * .16 + 2) / 22 = .1185, t(19) = 2.093; p = 2 / 2^8, twice that
    # after Holm. None of 20 changed: s = sqrt(2) / 22 = .0643
    expected = ["+40.0 ± 11.2 [15.2, 64.8] ★", "+0.0 [-13.5, 13.5]", "+20.0 ± 5.6"]
    assert rows[2] == ["grpo minus zero-shot", *expected]
    assert rows[3] == ["unparsed: zero-shot", "0.0", "0.0", BLANK]
    assert rows[5] == ["guessing", "25.0", "25.0", BLANK]
    rows = rows_of(tmp_path / "out" / "difference_by_source.csv")
    assert [(row["source"], row["won"], row["lost"], row["excludes_zero"]) for row in rows] == [
        ("MedMCQA", "8", "0", "yes"),
        ("GPQA", "0", "0", "no"),
    ]
    assert (rows[0]["p"], rows[0]["p_holm"]) == ("0.00781", "0.0156")  # 2 / 2^8


@pytest.mark.slow
def test_every_run_stands_against_the_one_before_it_or_is_left_without(tmp_path):
    base = write(tmp_path / "base.jsonl", answers("MedQA", 10), method="zero-shot", data_sha256="m", mode="think")
    runs = [
        write(tmp_path / f"set{n}.jsonl", answers("MedQA", 10 - n), method="grpo", checkpoint=f"set{n}", mode="think")
        for n in (1, 2, 3)
    ]
    summary = write_report([base, *runs], tmp_path / "plain")
    rows = table_of(summary, "Accuracy by checkpoint and benchmark")[1:]
    assert [row[0] for row in rows[:4]] == ["base", "set1", "set2", "set3"]
    assert "minus" not in "".join(row[0] for row in rows)
    summary = write_report(runs, tmp_path / "out", against=[base])
    rows = table_of(summary, "Accuracy by checkpoint and benchmark")[1:]
    assert [row[:2] for row in rows[4:7]] == [
        ["set1 minus base", "-5.0 ± 5.0 [-21.3, 11.3]"],
        ["set2 minus base", "-10.0 ± 6.9 [-28.5, 8.5]"],
        ["set3 minus base", "-15.0 ± 8.2 [-35.3, 5.3]"],
    ]


def test_two_benchmarks_of_one_checkpoint_are_no_comparison(tmp_path):
    paths = files_of(tmp_path, 0, "zero-shot")
    summary = write_report(paths, tmp_path / "out")
    assert table_of(summary, "Accuracy by checkpoint and benchmark")[1][0] == "zero-shot"
    assert " minus " not in summary


def test_runs_that_share_no_question_cannot_be_compared(tmp_path):
    result_path, other = files_of(tmp_path, 0, "zero-shot")
    with pytest.raises(UserError, match="no file has a counterpart"):
        write_report([result_path], tmp_path / "out", against=[other])


# -------------------------------------------------------------------------------------------- the lenient matching


def lenient_example() -> list[Result]:
    """By hand. MedQA (right: B): the last match wins; GPQA (right: C): the first does."""
    return [
        question("MedQA", "1", "The answer is A. No, the answer is B.", "B"),  # first A, last B
        question("MedQA", "2", "The answer is C. No, the answer is B.", "B"),  # first C, last B
        question("MedQA", "3", "The answer is B. Or, the answer is D.", "B"),  # first B, last D
        question("GPQA", "1", "(C), and not (D)", "C"),  # first C, last D
        question("GPQA", "2", "It is lead.", "C"),  # by its text: C, C
        question("GPQA", "3", "I choose B, then C.", "C"),  # first B, last C
        question("GPQA", "4", "(C) or (A)", "C"),  # first C, last A
        question("GPQA", "5", "<answer>B</answer>", "C"),  # B, B: wrong for both judges
    ]


def test_lenient_matching_takes_per_source_the_better_of_first_and_last(tmp_path):
    path = write(tmp_path / "base.jsonl", lenient_example())
    before = path.read_bytes()
    summary = write_report([path], tmp_path / "out", grader="huatuo")
    assert path.read_bytes() == before  # what infer stored stays
    accuracy = {row["source"]: row for row in rows_of(tmp_path / "out" / "by_source.csv")}
    # MedQA: first 1 of 3, last 2 of 3; GPQA: first 3 of 5 (1, 2, 4), last 2 of 5 (2, 3)
    assert (accuracy["MedQA"]["accuracy"], accuracy["GPQA"]["accuracy"]) == ("66.67", "60.00")
    assert accuracy["all"]["accuracy"] == "62.50"  # (2 + 3) / 8
    rows = table_of(summary, "LENIENT matching of HuatuoGPT-o1: How the answers were matched")[1:]
    stored = {
        source: sum(result.correct for result in lenient_example() if result.source == source) for source in accuracy
    }
    assert [row[1:7] for row in rows] == [
        ["MedQA", "3", "33.3", "66.7", "last", "0.0"],
        ["GPQA", "5", "60.0", "40.0", "first", "20.0"],
    ]
    assert [row[7] for row in rows] == [f"{100 * stored['MedQA'] / 3:.1f}", f"{100 * stored['GPQA'] / 5:.1f}"]
    assert stored["GPQA"] < 3  # the two judges differ, or this would show nothing


@pytest.mark.slow
def test_lenient_numbers_are_marked_wherever_they_stand(tmp_path):
    first = write(tmp_path / "base.jsonl", lenient_example(), method="zero-shot")
    second = write(tmp_path / "trained.jsonl", lenient_example(), method="grpo")
    command = [sys.executable, "eval/report.py", str(first), str(second), "--output_dir", str(tmp_path / "out")]
    process = subprocess.run(
        [*command, "--grader", "huatuo"], cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=1800
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout.startswith(
        "# LENIENT matching of HuatuoGPT-o1: Accuracy of 2 checkpoints on base, 8 questions\n"
    )
    out = tmp_path / "out"
    titles = [line for line in process.stdout.splitlines() if line.startswith("#") and "How to read" not in line]
    assert len(titles) >= 7
    assert all("LENIENT" in title for title in titles)
    captions = [line for line in (out / "tables.tex").read_text().splitlines() if "\\caption" in line]
    assert captions
    assert all("LENIENT" in caption for caption in captions)
    page = (out / "report.html").read_text()
    assert '<div class="banner">LENIENT' in page
    assert "<title>LENIENT" in page
    assert page.count("<figcaption>LENIENT") == page.count("<figcaption>")
    assert '<th scope="col">accuracy, lenient</th>' in page
    for path in out.rglob("*.csv"):
        assert {row["grader"] for row in rows_of(path)} == {"huatuo"}, path
    assert json.loads((out / "manifest.json").read_text())["grader"] == "huatuo"
    assert json.loads((out / "base" / "results.json").read_text())["grader"] == "huatuo"
    write_report([first], tmp_path / "plain")
    assert "LENIENT" not in (tmp_path / "plain" / "report.html").read_text().partition("<script")[0]
    assert json.loads((tmp_path / "plain" / "manifest.json").read_text())["grader"] == "stored"


def test_lenient_matching_reads_the_options_as_they_were_shown(tmp_path):
    # stored: A) Iron, B) Folate, C) Lead; shown with the last two exchanged, so the answer "C" meant folate, B
    result = question("MedQA", "1", "The answer is C.", "B")
    shuffled_problem = result.problem.replace("B) Folate deficiency\nC) Lead", "B) Lead\nC) Folate deficiency")
    shuffled = Result(**{**vars(result), "asked": shuffled_problem})
    path = write(tmp_path / "shuffled.jsonl", [shuffled], options="shuffled")
    write_report([path], tmp_path / "out", grader="huatuo")
    form = json.loads((tmp_path / "out" / "results.json").read_text())
    assert (form["accuracy"], form["results"][0]["extracted_answer"]) == (100.0, "B")


def test_lenient_matching_refuses_several_samples(tmp_path):
    result = question("MedQA", "1", RIGHT)
    sampled = Result(**{**vars(result), "samples": [Sample(RIGHT, Outcome.CORRECT, "A", 3)] * 2})
    path = write(tmp_path / "drawn.jsonl", [sampled])
    assert read_results(path).results == [sampled]
    with pytest.raises(UserError, match=r"several samples per question.*--samples 1"):
        write_report([path], tmp_path / "out", grader="huatuo")
