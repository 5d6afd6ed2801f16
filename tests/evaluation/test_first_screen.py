"""The first screen: one table and one chart of the checkpoints, and the runs to which something else was shown."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from report_files import answers, rows_of, write
from report_tables import table_of

from open_r1.common.errors import UserError
from open_r1.evaluation.comparing.changed_runs import changes
from open_r1.evaluation.comparing.scored_runs import load
from open_r1.evaluation.reporting.report import write_report
from open_r1.evaluation.reporting.table_formats import BLANK, Sheet, latex, markdown
from open_r1.evaluation.scoring.results import Result
from open_r1.evaluation.scoring.tallies import Tally
from open_r1.vocabulary.labels import Modality


def with_blind(results: list[Result]) -> list[Result]:
    """A blind floor of 1, 1/2 and 0 in turn."""
    return [replace(result, blind=1 - number % 3 / 2) for number, result in enumerate(results)]


def about(name: str, **more: str) -> dict[str, str]:
    manifest = {"checkpoint": f"out/{name}", "checkpoint_sha256": name, "mode": "think", "method": "grpo"}
    return manifest | {"data": "data/CT_384", "data_sha256": "d", "started": "2026-03-04T05:06:07+00:00"} | more


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """Three checkpoints on 40 questions about 20 images; of the best also without images and with shuffled options."""
    right = {"sft": 20, "grpo": 32, "base": 10}
    paths = {
        name: write(tmp_path / f"{name}.jsonl", with_blind(answers("CT", count, shared=2)), **about(name))
        for name, count in right.items()
    }
    for name, count, shown in (("hidden", 12, {"image": "none"}), ("reordered", 30, {"options": "shuffled"})):
        paths[name] = write(tmp_path / f"{name}.jsonl", answers("CT", count, shared=2), **about("grpo", **shown))
    return paths


@pytest.mark.slow
def test_one_table_holds_a_row_per_checkpoint_the_best_first_and_bold(files, tmp_path):
    summary = write_report([*files.values()], tmp_path / "out", baseline=files["base"])
    assert summary.startswith("# Accuracy of 3 checkpoints in 5 runs on CT_384, 40 questions, 2026-03-04\n\n## Runs\n")
    head, *rows = table_of(summary, "3 runs on the same 40 questions: CT_384")
    table = {row[0]: dict(zip(head, row, strict=True)) for row in rows}
    assert list(table) == ["grpo", "sft", "base"]
    assert [row["accuracy"].startswith("**") for row in table.values()] == [True, False, False]
    assert [row["minus base"].split(" ± ")[0] for row in table.values()] == ["+55.0", "+25.0", BLANK]
    assert [row["no image"] for row in table.values()] == ["30.0", BLANK, BLANK]
    assert [row["blind"] for row in table.values()] == ["51.2"] * 3  # 14 of 1, 13 of 1/2, 13 of 0
    assert table["grpo"]["above it"].startswith("+28.7 ± ")
    sentence = summary.split("\n\n")[2]
    assert "grpo answers 80.0 % of 40 questions right (95 % interval " in sentence
    assert "+55.0 ± " in sentence
    assert "against base. Without the image it answers 30.0 %" in sentence
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.index("grpo answers 80.0 %") < page.index("<svg") < page.index("3 runs on the same 40 questions")
    assert re.search(r"<b>80\.0 ± ", page)
    assert {row["run"] for row in rows_of(tmp_path / "out" / "runs.csv")} == set(files)


@pytest.mark.slow
def test_accuracy_above_the_blind_floor_has_the_error_of_a_regression(files):
    linear_model = pytest.importorskip("statsmodels.api", reason="statsmodels is not here; pip install -e '.[dev]'")
    results = load([files["grpo"]])[0].file.results
    results = [replace(results[0], blind=None), *results[1:]]  # a question of which no floor is known
    gain, stderr = Tally(results).above_blind or (0, 0)
    floored = [result for result in results if result.blind is not None]
    gains = np.array([result.correct - (result.blind or 0) for result in floored])
    images = np.unique([result.image for result in floored], return_inverse=True)[1]
    fitted = linear_model.OLS(gains, np.ones(len(gains))).fit(cov_type="cluster", cov_kwds={"groups": images})
    assert (gain, stderr) == pytest.approx((fitted.params[0], fitted.bse[0]))
    assert Tally(answers("CT", 3)).above_blind is None


@pytest.mark.slow
def test_a_run_that_was_shown_something_else_stands_beside_its_checkpoint_and_what_is_lost_is_negative(files, tmp_path):
    scored = load([files[name] for name in ("hidden", "grpo", "base", "reordered")])
    assert [change.title for change in changes(scored)] == [
        "grpo: no image minus as usual",
        "grpo: options in another order minus as usual",
    ]
    summary = write_report([*files.values()], tmp_path / "out")
    _, *rows = table_of(summary, "The same checkpoints when something else is shown")
    assert [(row[0], row[1], row[2], row[6].split(" ± ")[0]) for row in rows] == [
        ("hidden", "no image", "grpo", "-50.0"),
        ("reordered", "options in another order", "grpo", "-5.0"),
    ]
    corner = rows_of(tmp_path / "out" / "changed_1.csv")[-1]
    assert (corner["n"], corner["difference"], corner["won"], corner["lost"]) == ("40", "-50.00", "0", "20")
    texts = re.findall(r">([^<]+)</text>", (tmp_path / "out" / "changed_1.svg").read_text())
    assert "Difference: grpo: no image minus as usual" in " ".join(texts)
    line = next(row for row in rows_of(tmp_path / "out" / "runs.csv") if row["run"] == "hidden")
    assert (line["minus"], line["difference"]) == ("grpo", "-50.00")


@pytest.mark.parametrize("other", [{"checkpoint_sha256": "x"}, {"mode": "nothink"}, {"data_sha256": "x"}])
def test_a_changed_run_of_another_kind_is_no_change_of_this_one(files, tmp_path, other):
    alien = write(tmp_path / "alien.jsonl", answers("CT", 12), **about("grpo", image="none", **other))
    assert changes(load([files["grpo"], alien])) == []


@pytest.mark.slow
def test_without_a_base_the_first_run_is_the_baseline_and_a_baseline_must_be_among_the_files(files, tmp_path):
    paths = [files[name] for name in ("sft", "grpo", "base")]
    head, *_ = table_of(write_report(paths, tmp_path / "out"), "3 runs on the same 40 questions: CT_384")
    assert "minus sft" in head
    for name in ("elsewhere.jsonl", "hidden.jsonl"):
        with pytest.raises(UserError, match="none of the result files"):
            write_report([*paths, files["hidden"]], tmp_path / "none", baseline=tmp_path / name)


@pytest.mark.slow
def test_eight_files_in_eight_folders_are_one_evaluation_with_one_map(tmp_path):
    paths = []
    for label in Modality:
        entries = {"data": f"data/{label}_384", "data_sha256": label.value, "tested_on": label.value, "split": "test"}
        entries |= {"train_data_sha256": label.value, "rows": 40, "run_dir": None}
        path = tmp_path / "runs" / f"{label}_384" / "results.jsonl"
        paths.append(write(path, answers(label.value, 20), **(about("grpo") | entries)))
    assert len(load(paths)) == 1
    summary = write_report(paths, tmp_path / "out")
    assert summary.startswith("# Accuracy of grpo (think) on CT_384, ")
    assert not [path for path in (tmp_path / "out").iterdir() if path.is_dir()]
    assert len(rows_of(tmp_path / "out" / "by_modality.csv")) == len(Modality) + 1
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.index("grpo answers 50.0 % of 320 questions") < page.index("<svg") < page.index("<table")


def test_the_best_cells_are_bold_in_every_form():
    sheet = Sheet("Title", ["run", "accuracy"], [["a_b", "1 & 2"], ["c", "3"]], best=frozenset({(0, 1)}))
    assert "| a_b | **1 & 2** |" in markdown(sheet)
    assert "a\\_b & \\textbf{1 \\& 2} \\\\" in latex(sheet)
    assert "\\textbf{3}" not in latex(sheet)


@pytest.mark.slow
@pytest.mark.parametrize("right", [0, 40])
def test_runs_that_are_never_or_always_right_are_drawn(tmp_path, right):
    paths = [write(tmp_path / f"{name}.jsonl", answers("CT", right), **about(name)) for name in ("a", "b")]
    write_report(paths, tmp_path / "out")
    svg = (tmp_path / "out" / "accuracy.svg").read_text()
    assert svg.count(f">{100 * right / 40:.1f} %<") == 2


@pytest.mark.slow
@pytest.mark.parametrize(("count", "in_one_place"), [(8, True), (9, False)])
def test_many_maps_stay_with_their_runs(tmp_path, count, in_one_place):
    paths = [write(tmp_path / f"{k}.jsonl", answers("CT", 20 + k), **about(f"step {k}")) for k in range(count)]
    summary = write_report(paths, tmp_path / "out")
    assert ("## Maps" in summary) == in_one_place
    assert len(list((tmp_path / "out").glob("*/heatmap.svg"))) == count
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("Accuracy: 3 (step 3, think)") == 1


@pytest.mark.slow
def test_a_run_that_is_going_on_says_how_much_is_there(tmp_path):
    """12 of 40 answers, two processes: one was killed within a line, the other is writing its next."""
    about = {"rows": 40, "data_sha256": "d", "data": "CT", "tested_on": "CT"}
    path = write(tmp_path / "going.jsonl", answers("CT", 20)[:14], checkpoint_sha256="a", **about)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:8]) + lines[8][:50] + b"".join(lines[9:14]) + lines[14][:60])
    finished = write(tmp_path / "finished.jsonl", answers("CT", 30), checkpoint_sha256="b", **about)
    title, _, heading, _, sentence, *_ = write_report([path, finished], tmp_path / "out").splitlines()
    assert "12 to 40 of 40 questions so far" in title
    assert heading == "## Runs"
    assert "going 12 of 40 questions" in sentence
    assert "finished" not in sentence.partition("so far:")[2]
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.index("going 12 of 40 questions") < page.index("<svg")
    assert "so far" not in write_report([finished], tmp_path / "whole")
