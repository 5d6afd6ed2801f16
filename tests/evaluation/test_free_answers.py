"""Closed and open questions in result files and reports: their own lines, tables and metrics, apart from choice."""

import json
from pathlib import Path
from typing import Any

import pytest
from report_files import answers, questions_in, rows_of, write

from open_r1.common.errors import UserError
from open_r1.evaluation.reporting.model_card import accuracy_table
from open_r1.evaluation.reporting.report import write_overview, write_report
from open_r1.evaluation.scoring.free_answers import FreeTally
from open_r1.evaluation.scoring.result_writer import ResultWriter
from open_r1.evaluation.scoring.results import Result, Sample, graded_result, majority, read_results
from open_r1.evaluation.scoring.summary_lines import summary_lines
from open_r1.grading.grader import Outcome
from open_r1.vocabulary.answer_types import AnswerType

ABOUT = {"mode": "think", "data_sha256": "x", "split": "test"}
CHOICE_LINE = (
    '{"id": "c", "source": "", "image": "i", "modality": null, "task": null, "problem": "What? A)x, B)y", '
    '"solution": "A", "output": "A", "outcome": "correct", "letter": "A", "tokens": 1, "error": null, "blind": null, '
    '"seen": null, "samples": null, "asked": null, "cut_off": null, "content": null}'
)
"""A line as files of before have it."""


def result(name: str, solution: str, output: str, image: str, **more: Any) -> Result:
    return graded_result({"id": name, "problem": f"{name}?", "solution": solution, **more}, image, output, tokens=3)


def closed(right: int, questions: int = 8) -> list[Result]:
    """Two questions an image, of which the first `right` are answered right."""
    return [result(f"closed-{n}", "yes", "Yes." if n < right else "no", f"image-{n // 2}") for n in range(questions)]


def opened(*outputs: str) -> list[Result]:
    more = {"answer_type": "open", "aliases": ["lung on the left"], "source": "SLAKE"}
    return [result(f"open-{n}", "left lung", text, f"image-{n}", **more) for n, text in enumerate(outputs)]


def test_the_line_of_a_choice_is_what_it_was(tmp_path: Path) -> None:
    row = {"id": "c", "problem": "What? A)x, B)y", "solution": "A"}
    for about in (row, {**row, "answer_type": "choice", "aliases": []}):
        path = tmp_path / f"{len(about)}.jsonl"
        write(path, [graded_result(about, "i", "A", tokens=1)], **ABOUT)
        assert path.read_text().splitlines()[1] == CHOICE_LINE


def test_a_line_holds_what_grades_it_again(tmp_path: Path) -> None:
    path = write(tmp_path / "free.jsonl", [*closed(1, 1), *opened("left lungs")], **ABOUT)
    first, second = (json.loads(line) for line in path.read_text().splitlines()[1:])
    assert (first["answer_type"], first["letter"], "aliases" in first) == ("closed", "yes", False)
    assert (second["answer_type"], second["letter"]) == ("open", "left lungs")
    assert second["aliases"] == ["lung on the left"]
    read = read_results(path).results
    assert [entry.answer_type for entry in read] == [AnswerType.CLOSED, AnswerType.OPEN]
    assert read[1].expected.references == ("left lung", "lung on the left")
    with ResultWriter(path, ABOUT) as writer:  # and the file can be continued
        assert writer.written_ids == {"closed-0", "open-0"}


@pytest.mark.parametrize(("name", "value"), [("answer_type", "essay"), ("aliases", "x"), ("aliases", [1])])
def test_a_damaged_line_is_named(tmp_path: Path, name: str, value: Any) -> None:
    path = write(tmp_path / "free.jsonl", opened("x", "y"), **ABOUT)
    lines = path.read_text().splitlines()
    lines[1] = json.dumps(json.loads(lines[1]) | {name: value})
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(UserError, match="line 2 is no result line"):
        read_results(path)


def test_samples_that_say_the_same_vote_together() -> None:
    texts = ["right lung", "5 mm", "0.5 cm"]
    samples = [Sample(text, Outcome.WRONG, text, 1) for text in texts]
    assert majority(samples, of_texts=True).letter == "5 mm"
    assert majority(samples).letter == "right lung"


def test_scores_are_means_and_unparsed_answers_score_nothing() -> None:
    tally = FreeTally(opened("left lung", "left lung opacity", ""))
    assert tally.scores["token recall"].mean == pytest.approx((1 + 1 + 0) / 3)
    assert tally.scores["token F1"].mean == pytest.approx((1 + 0.8 + 0) / 3)
    assert (tally.n, tally.unparsed) == (3, pytest.approx(1 / 3))
    assert tally.estimate is not None
    assert tally.estimate.mean == pytest.approx(1 / 3)


def test_the_end_of_an_evaluation_names_a_metric_for_each_type() -> None:
    lines = summary_lines([*answers("CT", 20), *closed(4), *opened("left lung", "heart")], failed=2)
    assert lines[0].startswith("accuracy 0.500 ± 0.080 (n = 40), unparsed 0.0%, errors 2")
    assert lines[1].startswith("closed accuracy 0.500 ± 0.289 (n = 8), unparsed 0.0%")
    assert lines[2].startswith("open exact match 0.500 ± 0.500 (n = 2)")
    assert "token recall 0.500" in lines[2]
    assert len(lines) == 3


@pytest.mark.slow
def test_a_report_never_mixes_them(tmp_path: Path) -> None:
    results = [*answers("CT", 30), *closed(4), *opened("left lung", "right lung", "heart", "")]
    mixed = write(tmp_path / "mixed.jsonl", results, **ABOUT, tested_on="CT", checkpoint="x")
    alone = write(tmp_path / "alone.jsonl", answers("CT", 30), **ABOUT, tested_on="CT", checkpoint="x")
    summary = write_report([mixed], tmp_path / "report")
    write_report([alone], tmp_path / "choice")
    for name in (
        "averages.csv",
        "by_modality_and_task.csv",
        "runs.csv",
    ):  # the numbers of choice are those of a file without the others
        with_others, without = rows_of(tmp_path / "report" / name), rows_of(tmp_path / "choice" / name)
        drop = {"run", "data"}
        assert [{k: v for k, v in row.items() if k not in drop} for row in with_others] == [
            {k: v for k, v in row.items() if k not in drop} for row in without
        ]
    (closed_row, *_) = rows_of(tmp_path / "report" / "closed.csv")
    assert (closed_row["questions"], closed_row["percent_right"], closed_row["f1"]) == ("8", "50.00", "")
    open_row = rows_of(tmp_path / "report" / "open.csv")[0]
    assert (open_row["questions"], open_row["percent_right"], open_row["percent_unparsed"]) == ("4", "25.00", "25.00")
    assert float(open_row["recall"]) == pytest.approx(100 * (1 + 0.5) / 4)
    assert "## Closed questions" in summary
    assert "## Open questions" in summary
    published = json.loads((tmp_path / "report" / "results.json").read_text())
    assert len(published["results"]) == 40
    assert published["accuracy"] == 75


@pytest.mark.slow
def test_the_page_shows_what_was_expected_in_place_of_options(tmp_path: Path) -> None:
    path = write(tmp_path / "mixed.jsonl", [*answers("CT", 2, questions=2), *opened("heart")], **ABOUT, tested_on="CT")
    write_report([path], tmp_path / "report", with_items=True)
    questions = questions_in(tmp_path / "report" / "report.html")
    free = [question for question in questions if question["expected"]]
    assert (free[0]["stem"], free[0]["options"]) == ("open-0?", [])
    assert free[0]["expected"] == "left lung or lung on the left"
    write_report([path], tmp_path / "without")
    assert "left lung" not in (tmp_path / "without" / "report.html").read_text()


def test_the_error_is_clustered_by_image(tmp_path: Path) -> None:
    path = write(tmp_path / "closed.jsonl", closed(4), **ABOUT)  # two images right, two wrong: as four questions
    write_report([path], tmp_path / "report")
    row = rows_of(tmp_path / "report" / "closed.csv")[0]
    assert float(row["stderr"]) == pytest.approx(100 * (0.25 / 3) ** 0.5, abs=0.01)


def test_a_report_of_closed_and_open_questions_alone(tmp_path: Path) -> None:
    before = write(tmp_path / "before.jsonl", [*closed(2), *opened("heart", "heart")], **ABOUT, checkpoint="base")
    after = write(tmp_path / "after.jsonl", [*closed(8), *opened("left lung", "heart")], **ABOUT, checkpoint="trained")
    summary = write_report([after], tmp_path / "report", against=[before])
    rows = {row["run"]: row for row in rows_of(tmp_path / "report" / "closed.csv") if row["source"] == "all"}
    compared = next(row for row in rows.values() if row["minus"])
    assert (compared["difference"], compared["percent_right"]) == ("75.00", "100.00")
    assert "too few" in summary  # three images changed
    assert not (tmp_path / "report" / "runs.csv").exists()
    assert write_overview([before, after], tmp_path / "overview")


def test_the_model_card_shows_them_in_their_own_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("open_r1.evaluation.reporting.model_card._refuse_others", lambda *_: None)
    path = write(tmp_path / "free.jsonl", [*closed(4), *opened("left lung", "heart")], **ABOUT)
    table = accuracy_table(tmp_path, [path])
    assert "token F1" in table
    assert "chance" not in table
