"""A report of more runs than anybody looks at one by one: all numbers, the first maps, and each file read once."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_files import answers, rows_of, write

from open_r1.evaluation.comparing import scored_runs
from open_r1.evaluation.reporting import report
from open_r1.evaluation.reporting.report import write_overview, write_report
from open_r1.evaluation.reporting.sections.section import ALL_DRAWN, FIRST_DRAWN
from open_r1.evaluation.scoring import statistics
from open_r1.evaluation.scoring.results import Result
from open_r1.grading import problems

pytestmark = pytest.mark.slow
MANY = ALL_DRAWN + 2


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often a file was read, a figure rendered, a result built, options read and a test computed."""
    counts: Counter[str] = Counter()
    read, render = scored_runs.read_results, report.rendered

    def counted_read(path: Path) -> Any:
        counts[path.name] += 1
        return read(path)

    def counted_render(figure: Any, form: str) -> bytes:
        counts[form] += 1
        return render(figure, form)

    def counted_build(result: Result, *arguments: Any, **entries: Any) -> None:
        counts["results built"] += 1
        build(result, *arguments, **entries)

    def counted_options(problem: str) -> dict[str, str]:
        counts["options read"] += 1
        return read_options(problem)

    def counted_tests(sums: np.ndarray) -> float:
        counts["tests"] += 1
        return test(sums)

    build, read_options, test = Result.__init__, problems._lines_of_options, statistics.sign_flip
    monkeypatch.setattr(Result, "__init__", counted_build)
    monkeypatch.setattr(problems, "_lines_of_options", counted_options)
    monkeypatch.setattr(statistics, "sign_flip", counted_tests)
    monkeypatch.setattr(scored_runs, "read_results", counted_read)
    monkeypatch.setattr(report, "rendered", counted_render)
    return counts


def runs(folder: Path, count: int, **more: Any) -> list[Path]:
    """Checkpoints that answered the same 30 questions, run k right in k of them."""
    paths = []
    for number in range(count):
        about = {"checkpoint": f"step-{number}", "checkpoint_sha256": f"{number}", "mode": "nothink", "data": "CT"}
        results = answers("CT", right=number, questions=30)
        paths.append(write(folder / f"step-{number}.jsonl", results, **about, **more))
    return paths


def test_of_many_runs_the_first_have_maps_and_all_have_their_numbers(tmp_path: Path, work: Counter[str]) -> None:
    paths = runs(tmp_path, MANY)
    work.clear()
    write_report(paths, tmp_path / "report")
    assert {work[path.name] for path in paths} == {1}
    assert work["results built"] == 30 * MANY  # a line is one object, never copied
    assert work["options read"] <= 2 * 30  # of each question, not of each answer
    # each cell (1 modality, 1 task, margins) of a comparison once, and each of 4 letters of a run
    assert work["tests"] <= 4 * (MANY - 1) + 4 * MANY
    # a map for each of the first runs and comparisons, and the chart of all runs
    assert work["svg"] == work["png"] == 2 * FIRST_DRAWN + 1
    page = (tmp_path / "report" / "report.html").read_text()
    assert page.count("No map is drawn") == (MANY - FIRST_DRAWN) + (MANY - 1 - FIRST_DRAWN)
    ranking = rows_of(tmp_path / "report" / "runs.csv")
    assert sorted(float(row["accuracy"]) for row in ranking) == pytest.approx(
        [100 * k / 30 for k in range(MANY)], abs=0.01
    )
    for number in range(MANY):
        folder = tmp_path / "report" / f"step-{number}"
        assert (folder / "heatmap.png").exists() == (number < FIRST_DRAWN)
        assert float(rows_of(folder / "by_modality.csv")[-1]["accuracy"]) == pytest.approx(100 * number / 30, abs=0.01)
    assert len([*(tmp_path / "report").glob("difference_*.csv")]) == MANY - 1


def test_an_overview_of_many_pairs_draws_the_first(tmp_path: Path, work: Counter[str]) -> None:
    paths = []
    for number in range(MANY):
        for mode in ("nothink", "think"):
            about = {"checkpoint_sha256": f"{number}{mode}", "mode": mode, "method": "grpo", "data_sha256": f"{number}"}
            name = f"{number}-{mode}.jsonl"
            paths.append(write(tmp_path / name, answers("CT", right=number, questions=30), **about, split="test"))
    write_overview(paths, tmp_path / "report")
    assert {work[path.name] for path in paths} == {1}
    assert len([*(tmp_path / "report").glob("difference_*.csv")]) == MANY
    assert len([*(tmp_path / "report").glob("difference_*.svg")]) == FIRST_DRAWN
