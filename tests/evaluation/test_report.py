"""The report of result files: nothing is counted twice, and every number agrees with one computed by hand."""

import csv
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from example_results import GOOD, PROBLEM, RIGHT, WRONG, example, result, write
from PIL import Image

from open_r1.common.errors import UserError
from open_r1.evaluation.comparing.pairs import compare
from open_r1.evaluation.comparing.run_names import named_apart
from open_r1.evaluation.reporting.published_form import published_form
from open_r1.evaluation.reporting.report import write_report
from open_r1.evaluation.reporting.table_formats import BLANK
from open_r1.evaluation.scoring.results import Result, read_results
from open_r1.evaluation.scoring.tallies import ALL, averages, tabulate
from open_r1.grading.grader import Outcome

# --------------------------------------------------------------------------------------------------- tables


def test_tallies_and_margins_by_hand():
    table = tabulate(example())
    counts = {cell: (tally.n, tally.count(Outcome.CORRECT), tally.unreadable) for cell, tally in table.items()}
    assert counts == {
        ("CT", "Disease Diagnosis"): (4, 3, 0),
        ("CT", "Modality Recognition"): (1, 0, 0),
        ("MRI", "Modality Recognition"): (2, 2, 0),
        ("MRI", "Disease Diagnosis"): (0, 0, 1),
        ("CT", ALL): (5, 3, 0),
        ("MRI", ALL): (2, 2, 1),
        (ALL, "Disease Diagnosis"): (4, 3, 1),
        (ALL, "Modality Recognition"): (3, 2, 0),
        (ALL, ALL): (7, 5, 1),
    }
    assert table[ALL, ALL].unparsed == pytest.approx(1 / 7)
    assert table[ALL, ALL].chance == pytest.approx(0.25)
    assert table["MRI", "Disease Diagnosis"].estimate is None
    diagnosis = table["CT", "Disease Diagnosis"].estimate
    assert diagnosis is not None
    assert (diagnosis.mean, diagnosis.clusters) == (0.75, 2)
    # e = .25 .25 | .25 -.75: sums .5, -.5; SE^2 = 2 * .5 / 16
    assert diagnosis.stderr == pytest.approx(0.25)


def test_weighted_and_unweighted_means_are_told_apart():
    means = {average.name: average.mean for average in averages(tabulate(example()))}
    assert means == {
        "all questions, weighted by their number": pytest.approx(5 / 7),
        "unweighted mean over 2 modalities": pytest.approx((3 / 5 + 1) / 2),
        "unweighted mean over 2 tasks": pytest.approx((3 / 4 + 2 / 3) / 2),
    }


def test_questions_without_labels_count_in_the_weighted_mean_alone():
    means = averages(tabulate([result("1", None, None, RIGHT), result("2", "CT", None, WRONG)]))
    assert [(average.name, average.mean) for average in means] == [
        ("all questions, weighted by their number", 0.5),
        ("unweighted mean over 1 modality", 0.0),
    ]


def test_differences_are_paired_by_id():
    before = [result("1", "CT", "Disease Diagnosis", RIGHT), result("2", "CT", "Disease Diagnosis", WRONG)]
    after = [result("2", "CT", "Disease Diagnosis", RIGHT), result("1", "CT", "Disease Diagnosis", RIGHT)]
    comparison = compare(before, [*after, result("3", "CT", "Disease Diagnosis", RIGHT)])[ALL, ALL]
    assert (comparison.n, comparison.won, comparison.lost, comparison.mean) == (2, 1, 0, 0.5)


def test_files_that_share_nothing_cannot_be_compared():
    with pytest.raises(UserError, match="no question in common"):
        compare([result("1", "CT", None, RIGHT)], [result("2", "CT", None, RIGHT)])
    other = Result(**{**vars(result("1", "CT", None, RIGHT)), "problem": PROBLEM.replace("CT", "PET")})
    with pytest.raises(UserError, match="another question"):
        compare([result("1", "CT", None, RIGHT)], [other])


def test_files_of_one_name_are_named_apart(tmp_path):
    assert named_apart([Path("a/x.jsonl"), Path("a/y.jsonl")]) == ["x", "y"]
    assert named_apart([Path("a/x.jsonl"), Path("b/x.jsonl")]) == ["a-x", "b-x"]
    assert named_apart([Path("a/x.jsonl"), Path("a/x.jsonl")]) == ["1-x", "2-x"]


# -------------------------------------------------------------------------------------------------- reports

LEAVES = [
    *("averages.csv", "by_modality.csv", "by_modality_and_task.csv", "by_task.csv"),
    *("heatmap.png", "heatmap.svg", "results.json"),
]
WHOLE = ["runs.csv", "summary.md", "tables.tex", "report.html", "manifest.json"]  # beside those of the single files


def rows_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text())))


@pytest.mark.slow
def test_report_of_one_file(tmp_path, repository):
    write(tmp_path / "out.jsonl", example())
    command = [sys.executable, "eval/report.py", str(tmp_path / "out.jsonl"), "--output_dir", str(tmp_path / "report")]
    process = subprocess.run(command, cwd=repository, capture_output=True, text=True, timeout=1800)
    assert process.returncode == 0, process.stderr
    folder = tmp_path / "report"
    review = ["letters.csv", "lengths.csv", "unparsed.csv"]
    assert sorted(path.name for path in folder.iterdir()) == sorted([*LEAVES, *WHOLE, *review])
    summary = (folder / "summary.md").read_text()
    assert process.stdout.strip()
    assert summary.startswith(process.stdout.strip())
    assert "was measured" in summary.removeprefix(process.stdout.strip())
    assert json.loads((folder / "results.json").read_text()) == published_form(example())
    modality = rows_of(folder / "by_modality.csv")
    assert [(row["modality"], row["n"], row["accuracy"]) for row in modality] == [
        ("CT", "5", "60.00"),
        ("MRI", "2", "100.00"),
        ("all", "7", "71.43"),
    ]
    assert [(row["unparsed"], row["unreadable"]) for row in modality] == [("1", "0"), ("0", "1"), ("1", "1")]
    task = rows_of(folder / "by_task.csv")
    assert [(row["task"], row["n"], row["accuracy"]) for row in task] == [
        ("Disease Diagnosis", "4", "75.00"),
        ("Modality Recognition", "3", "66.67"),
        ("all", "7", "71.43"),
    ]
    both = rows_of(folder / "by_modality_and_task.csv")
    assert [tuple(row.values())[:6] for row in both] == [
        ("CT", "Disease Diagnosis", "4", "2", "75.00", "25.00"),
        ("CT", "Modality Recognition", "1", "1", "0.00", ""),
        ("MRI", "Disease Diagnosis", "0", "0", "", ""),
        ("MRI", "Modality Recognition", "2", "2", "100.00", "0.00"),
    ]
    with Image.open(folder / "heatmap.png") as image:
        pixels = image.convert("RGB").resize((64, 64))
        assert len(pixels.getcolors(64 * 64) or []) > 20
        assert pixels.getpixel((63, 63)) == (255, 255, 255)
    assert (folder / "heatmap.svg").read_text().count("n = 4") == 2


@pytest.mark.slow
def test_summary_says_what_is_missing(tmp_path):
    path = write(tmp_path / "out.jsonl", example()[:5] + example()[7:])
    path.write_bytes(path.read_bytes() + b'{"id": "half')
    summary = write_report([path], tmp_path / "report")
    assert "1 questions were not asked" in summary
    assert "2 questions have no result yet" in summary
    assert "last line is unfinished" in summary
    assert "| checkpoint | checkpoints/tiny |" in (tmp_path / "report" / "summary.md").read_text()
    assert "| CT | 75.0 ± 25.0 (4) | 0.0 (1) | 60.0" in summary
    assert "No training split was known" in summary


@pytest.mark.slow
def test_report_of_two_files_adds_their_difference(tmp_path):
    worse = [result(before.id, before.modality, before.task, WRONG, before.image) for before in example()[:7]]
    paths = [write(tmp_path / "base.jsonl", worse), write(tmp_path / "trained.jsonl", example())]
    summary = write_report(paths, tmp_path / "report")
    for name in ("base", "trained"):
        assert sorted(path.name for path in (tmp_path / "report" / name).iterdir()) == LEAVES
    last = rows_of(tmp_path / "report" / "difference.csv")[-1]
    # 5 of 7 won, on four images of which two have several questions; four that changed are too few for a p-value
    assert last | {"stderr": "", "low": "", "high": ""} == {
        **{"modality": "all", "task": "all", "n": "7", "pictures": "4", "changed_pictures": "4"},
        **{"difference": "71.43", "stderr": "", "low": "", "high": "", "won": "5", "lost": "0"},
        **{"p": "", "p_holm": "", "test": "exact sign flip", "excludes_zero": "no", "survives_holm": ""},
    }
    assert float(last["low"]) < 0 < float(last["high"])
    mri = next(row for row in rows_of(tmp_path / "report" / "difference.csv") if row["modality"] == "MRI")
    assert (mri["test"], mri["p"], mri["won"]) == ("exact McNemar", "", "2")
    assert "5 won, 0 lost, 4 images changed: too few for a p-value" in summary
    assert re.search(rf"\| all questions \| 7 \| .* \| too few \| {BLANK} \| exact sign flip \|", summary)
    assert "## trained minus base" in summary
    assert "Left out, in one file only or not asked: 0 and 1." in summary
    assert (tmp_path / "report" / "difference.png").stat().st_size > 10_000


@pytest.mark.slow
def test_report_is_the_same_to_the_byte_and_may_be_made_again(tmp_path):
    path = write(tmp_path / "out.jsonl", example())
    write_report([path], tmp_path / "report")
    first = {leaf: (tmp_path / "report" / leaf).read_bytes() for leaf in LEAVES}
    write_report([path], tmp_path / "report")
    assert {leaf: (tmp_path / "report" / leaf).read_bytes() for leaf in LEAVES} == first


@pytest.mark.slow
def test_report_never_writes_over_other_files(tmp_path):
    path = write(tmp_path / "out.jsonl", example())
    (tmp_path / "results.json").write_text("mine")
    with pytest.raises(UserError, match=r"results\.json exists, is not from an earlier report"):
        write_report([path], tmp_path)
    assert (tmp_path / "results.json").read_text() == "mine"
    (tmp_path / "results.json").unlink()
    write_report([path], tmp_path)  # a result file beside it does no harm
    assert len(read_results(path).results) == 8
    with pytest.raises(UserError, match="is a file"):
        write_report([path], path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["none.jsonl", "empty.jsonl"])
def test_bad_input_ends_the_command_with_one_line(tmp_path, repository, name):
    (tmp_path / "empty.jsonl").write_text("")
    command = [sys.executable, "eval/report.py", str(tmp_path / name), "--output_dir", str(tmp_path / "report")]
    process = subprocess.run(command, cwd=repository, capture_output=True, text=True, timeout=1800)
    assert process.returncode == 2
    assert process.stderr.startswith("error: ")
    assert process.stderr.count("\n") == 1
    assert not (tmp_path / "report").exists()


def test_a_file_with_a_manifest_alone_has_nothing_to_report(tmp_path):
    with pytest.raises(UserError, match="no result line"):
        write_report([write(tmp_path / "out.jsonl", [])], tmp_path / "report")


def test_a_run_in_which_no_image_could_be_read_is_reported_as_such(tmp_path):
    summary = write_report([write(tmp_path / "out.jsonl", example()[7:])], tmp_path / "report")
    assert "No question could be asked" in summary
    assert rows_of(tmp_path / "report" / "by_modality.csv")[0]["accuracy"] == ""


@pytest.mark.parametrize("name", ["data", "image_root", "run_dir", "split", "trained_on", "image", "checkpoint_sha256"])
@pytest.mark.parametrize("value", [1e308, "\0", "\ud800", ["x"]], ids=["number", "NUL", "surrogate", "list"])
def test_a_manifest_whose_names_are_no_text_is_refused(tmp_path, name, value):
    path = write(tmp_path / "out.jsonl", example(), {name: value})
    with pytest.raises(UserError, match=f"{name} of its manifest should be text"):
        write_report([path], tmp_path / "report")


@pytest.mark.parametrize("name", ["rows", "samples"])
@pytest.mark.parametrize("value", ["4", 4.5, True, [4]], ids=["text", "fraction", "true", "list"])
def test_a_manifest_whose_counts_are_no_numbers_is_refused(tmp_path, name, value):
    path = write(tmp_path / "out.jsonl", example(), {name: value})
    with pytest.raises(UserError, match=f"{name} of its manifest should be a whole number"):
        write_report([path], tmp_path / "report")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["data", "image_root", "run_dir"])
@pytest.mark.parametrize("value", ["x" * 5000, ""], ids=["long", "empty"])
def test_a_place_that_cannot_be_does_not_end_a_report(tmp_path, name, value):
    (tmp_path / "list.json").write_text("[]")  # is there, so the image root is looked at too
    path = write(tmp_path / "out.jsonl", example(), {"data": str(tmp_path / "list.json"), name: value})
    write_report([path], tmp_path / "report", with_items=True)
    assert (tmp_path / "report" / "report.html").is_file()


def test_a_question_without_options_is_told_with_its_file(tmp_path):
    line = json.loads(GOOD) | {"problem": "What is A) in this?"}
    path = write(tmp_path / "out.jsonl", [])
    path.write_text(path.read_text() + json.dumps(line) + "\n")
    with pytest.raises(UserError, match=r"out\.jsonl cannot be reported: no options"):
        write_report([path], tmp_path / "report")


def test_a_damaged_line_is_told_in_few_words(tmp_path):
    path = write(tmp_path / "out.jsonl", [])
    path.write_text(path.read_text() + json.dumps({**json.loads(GOOD), "outcome": "x" * 20_000}) + "\n{}\n")
    with pytest.raises(UserError, match="line 2 is no result line") as caught:
        read_results(path)
    assert len(str(caught.value)) < 600
