"""The report of a whole study, from the manifests of its result files alone."""

import csv
import json
import re
from pathlib import Path

import pytest
from report_files import questions_in, rows_of, run
from report_tables import table_of

from open_r1.common.errors import UserError
from open_r1.data.overlap.clusters import write_clusters
from open_r1.evaluation.comparing.pairs import pair_up
from open_r1.evaluation.comparing.scored_runs import load
from open_r1.evaluation.reporting.report import write_overview
from open_r1.evaluation.reporting.table_formats import BLANK


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two modalities, trained in both modes and fine-tuned, and the base: of 40 questions so many are right."""
    folder = tmp_path_factory.mktemp("cells")
    labels = ["CT", "MRI"]
    files = [run(folder, None, tested, 10, mode) for tested in labels for mode in ("think", "nothink")]
    for trained in labels:
        for tested in labels:
            is_same = trained == tested
            files.append(run(folder, trained, tested, 20, "think"))
            files.append(run(folder, trained, tested, 28 if is_same else 20, "nothink"))
            about = {"method": "sft", "checkpoint_sha256": f"{trained} sft"}
            path = folder / f"sft-{trained}-{tested}.jsonl"
            run(folder, trained, tested, 24, "nothink", image="none").rename(path)
            path.write_text(_with(path.read_text(), image="shown", **about))
            files.append(path)
    return files


def _with(text: str, **about: str) -> str:
    """A result file with other entries in its manifest."""
    for key, value in about.items():
        text = re.sub(rf'"{key}": "[^"]*"', f'"{key}": "{value}"', text, count=1)
    return text


@pytest.mark.slow
def test_one_table_holds_every_way_beside_the_others(cells: list[Path], tmp_path: Path) -> None:
    summary = write_overview(cells, tmp_path / "out")
    table = {row[0]: row[1:] for row in table_of(summary, "Accuracy by test set")}
    shares = {name: [cell.partition(" ")[0] for cell in cells] for name, cells in table.items()}
    # 10 of 40 by the base; 24 by SFT; without thoughts 28 on the same set and 20 on the other; 20 with thoughts
    expected = {
        **{"zero-shot (nothink)": "25.0", "zero-shot (think)": "25.0"},
        **{"sft (nothink), same set": "60.0", "sft (nothink), other sets": "60.0"},
        **{"grpo (nothink), same set": "70.0", "grpo (nothink), other sets": "50.0"},
        **{"grpo (think), same set": "50.0", "grpo (think), other sets": "50.0"},
    }
    assert table["tested on"] == ["blind floor", *expected]
    assert shares["CT"] == shares["MRI"] == shares["unweighted mean"] == [BLANK, *expected.values()]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["grpo", "sft"])
def test_a_run_that_does_not_say_what_it_was_trained_on_counts_as_neither_same_nor_other(tmp_path, method):
    paths = [run(tmp_path, None, "CT", 10), run(tmp_path, "CT", "CT", 28), run(tmp_path, "MRI", "CT", 20)]
    mixture = run(tmp_path, None, "CT", 33, note="mixture")
    mixture.write_text(_with(mixture.read_text(), method=method, checkpoint_sha256="mixture"))
    summary = write_overview([*paths, mixture], tmp_path / "out")
    head, *rows = table_of(summary, "Accuracy by test set")
    unnamed = f"{method} (nothink), mixture or unnamed set"
    values = dict(zip(head, (cell.partition(" ")[0] for cell in rows[0]), strict=True))
    assert (values["zero-shot (nothink)"], values[unnamed]) == ("25.0", "82.5")
    assert (values["grpo (nothink), same set"], values["grpo (nothink), other sets"]) == ("70.0", "50.0")
    assert [cell.partition(" ")[0] for cell in rows[0]].count("82.5") == 1


def test_a_mixture_trained_before_is_no_base(tmp_path):
    mixture = run(tmp_path, None, "CT", 20, note="mixture")
    mixture.write_text(_with(mixture.read_text(), method="grpo", checkpoint_sha256="mixture"))
    base, after = run(tmp_path, None, "CT", 20), run(tmp_path, "CT", "CT", 20)
    pairs, _ = pair_up(load([base, mixture]), load([after]))
    assert [pair.first.name for pair in pairs] == [base.stem]


@pytest.mark.slow
def test_every_comparison_has_its_map_and_its_tests(cells: list[Path], tmp_path: Path) -> None:
    write_overview(cells, tmp_path / "out")
    maps = {path.stem.removeprefix("improvement_modality_") for path in (tmp_path / "out").glob("improvement_*.png")}
    assert maps == {
        "nothink_minus_think",
        "grpo_nothink_minus_sft_nothink",
        "grpo_nothink_minus_zero-shot_nothink",
        "grpo_think_minus_zero-shot_think",
        "sft_nothink_minus_zero-shot_nothink",
    }
    rows = {
        (row["trained_on"], row["tested_on"]): row
        for row in rows_of(tmp_path / "out" / "improvement_modality_nothink_minus_think.csv")
    }
    # 8 of 40 won where trained and tested on the same: McNemar 2 / 2^8
    assert {cell: row["difference"] for cell, row in rows.items()} == {
        ("CT", "CT"): "20.00",
        ("CT", "MRI"): "0.00",
        ("MRI", "CT"): "0.00",
        ("MRI", "MRI"): "20.00",
    }
    assert (rows["CT", "CT"]["p"], rows["CT", "CT"]["test"]) == ("0.00781", "exact McNemar")


@pytest.mark.slow
def test_each_mode_has_a_map_whose_rows_say_only_what_differs(cells: list[Path], tmp_path: Path) -> None:
    write_overview(cells, tmp_path / "out")
    think = rows_of(tmp_path / "out" / "trained_on_x_tested_on_modality_think.csv")
    assert {row["trained_on"] for row in think} == {"CT", "MRI", "zero-shot"}
    nothink = rows_of(tmp_path / "out" / "trained_on_x_tested_on_modality_nothink.csv")
    assert {row["trained_on"] for row in nothink} == {"CT (grpo)", "CT (sft)", "MRI (grpo)", "MRI (sft)", "zero-shot"}


@pytest.mark.slow
def test_the_page_holds_the_most_telling_questions_and_says_so(cells: list[Path], tmp_path: Path) -> None:
    write_overview(cells, tmp_path / "out", questions=5, with_items=True)
    page = (tmp_path / "out" / "report.html").read_text()
    assert "5 of 80 questions are in this page" in page
    questions = questions_in(tmp_path / "out" / "report.html")
    assert len(questions) == 5
    for question in questions:  # it has the answers of its own test set
        outcomes = {answer["outcome"] for answer in question["answers"] if answer is not None}
        assert len(outcomes) > 1, "runs disagree about it"


@pytest.mark.slow
def test_the_command_refuses_what_an_overview_cannot_take(
    cells: list[Path], tmp_path: Path, load_script, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = load_script("eval/report.py")
    words = ["report.py", *map(str, cells), "--overview", "--output_dir", str(tmp_path / "out")]
    monkeypatch.setattr("sys.argv", [*words, "--against", str(cells[0])])
    with pytest.raises(UserError, match="leave --against, --baseline, --grader"):
        report.main()
    monkeypatch.setattr("sys.argv", words)
    assert report.main() == 0
    assert (tmp_path / "out" / "report.html").is_file()


@pytest.mark.slow
def test_what_a_reviewer_asks_has_a_row_for_each_run_and_errors_may_count_clusters(
    cells: list[Path], tmp_path: Path
) -> None:
    write_clusters(tmp_path / "clusters.csv", {f"CT-{number}": f"cluster {number // 4}" for number in range(40)})
    summary = write_overview(cells, tmp_path / "out", clusters=tmp_path / "clusters.csv")
    assert "count clusters of nearly equal images" in summary
    for leaf in ("letters.csv", "lengths.csv"):
        with open(tmp_path / "out" / leaf, encoding="utf-8", newline="") as file:
            runs = {line["run"] for line in csv.DictReader(file)}
        assert len(runs) == len(load(cells)), leaf
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    links = re.findall(r'<a href="#part-\d+">([^<]*)</a>', page)
    assert {"Position of the answers", "Length of the answers"} <= set(links)


@pytest.mark.slow
def test_curves_of_many_runs_are_drawn_by_how_they_were_trained(tmp_path: Path) -> None:
    files = []
    labels = ["CT", "MRI", "X-Ray", "US", "Der", "FP", "OCT", "Micro", "DD"]
    for mode in ("think", "nothink"):
        for trained in labels:
            home = tmp_path / f"{trained}-{mode}"
            home.mkdir()
            history = {"log_history": [{"step": step, "reward": step / 4} for step in range(1, 4)]}
            (home / "trainer_state.json").write_text(json.dumps(history))
            tested = "MR" if trained == "DD" else "CT"
            files.append(run(tmp_path, trained, tested, 20, mode, run_dir=str(home), note=trained))
    summary = write_overview(files, tmp_path / "out")
    drawn = {path.stem for path in (tmp_path / "out").glob("curves*.png")}
    assert drawn == {f"curves_grpo_{mode}_by_{by}" for mode in ("think", "nothink") for by in ("modality", "task")}
    assert all(f"({name}.png)" in summary or f"<{name}.png>" in summary for name in drawn)
    short_page = write_overview(files[:3], tmp_path / "few")
    assert "<curves.png>" in short_page
    assert {path.stem for path in (tmp_path / "few").glob("curves*.png")} == {"curves"}


@pytest.mark.slow
def test_a_map_says_what_the_number_of_its_tests_leaves(cells: list[Path], tmp_path: Path) -> None:
    summary = write_overview(cells, tmp_path / "out")
    # GRPO without thoughts minus with: 8 of 40 won on the diagonal, exact p = 2 ** -7; equal elsewhere
    section = summary.split("## Improvement on each modality: nothink minus think")[1].split("\n## ")[0]
    sentence = "excludes zero in 2 of 4 cells (\\*); were there no difference anywhere, it would in up to about 0.2."
    assert f"The 95 % interval {sentence} Corrected for 4 tests (Holm), p < 0.05 in 2 (★)." in section
    assert "+20.0 ± 6.4 ★" in section
    rows = rows_of(tmp_path / "out" / "improvement_modality_nothink_minus_think.csv")
    assert [(row["p"], row["p_holm"]) for row in rows if row["trained_on"] == row["tested_on"]] == [
        ("0.00781", "0.0312"),
        ("0.00781", "0.0312"),
    ]
