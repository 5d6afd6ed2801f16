"""A report of more runs than anybody looks at one by one: all numbers, the first maps, and each file read once."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from report_files import answers, rows_of, write

from open_r1.evaluation.comparing import scored_runs
from open_r1.evaluation.reporting import report
from open_r1.evaluation.reporting.report import write_overview, write_report
from open_r1.evaluation.reporting.sections.section import ALL_DRAWN, FIRST_DRAWN

pytestmark = pytest.mark.slow
MANY = ALL_DRAWN + 2


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often a file was read, and a figure rendered, by their names."""
    counts: Counter[str] = Counter()
    read, render = scored_runs.read_results, report.rendered

    def counted_read(path: Path) -> Any:
        counts[path.name] += 1
        return read(path)

    def counted_render(figure: Any, form: str) -> bytes:
        counts[form] += 1
        return render(figure, form)

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
    write_report(paths, tmp_path / "report")
    assert {work[path.name] for path in paths} == {1}
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
