"""The report with a judge model: marked numbers beside the rules', agreement, and what an order changes."""

import sys
from pathlib import Path

import pytest
from judge_server import judge_server, texts_in
from report_files import answers, rows_of, write

from open_r1.evaluation.reporting.report import write_report
from open_r1.evaluation.scoring.results import graded_result
from open_r1.grading.judge import endpoint as endpoints
from open_r1.grading.judge.judgements import JUDGED, judge_of

ANSWERS = {  # answer -> (right by rule, what this judge says)
    "left lung": (True, "same"),
    "sinister lung": (False, "same"),
    "right lung": (False, "different"),
    "lung": (False, "inconsistent"),
    "heart": (False, "nonsense"),
    "kidney": (False, "failed"),
    "": (False, "not asked"),
}


def reply(prompt: str, _: int) -> str | tuple[int, str]:
    texts = texts_in(prompt)
    pair = [texts["answer 1"], texts["answer 2"]]
    if "heart" in pair:
        return "I am only a model."
    if "kidney" in pair:
        return 500, "broken"
    if "lung" in pair:
        return "SAME" if pair[0] == "lung" else "DIFFERENT"
    return "SAME" if "right lung" not in pair else "DIFFERENT"


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoints, "_PAUSE", 0.0)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    row = {"problem": "Where?", "solution": "left lung", "answer_type": "open"}
    free = [
        graded_result(row | {"id": f"open-{n}"}, f"image-{n}", f"<answer>{text}</answer>", tokens=3)
        for n, text in enumerate(ANSWERS)
    ]
    return write(tmp_path / "results.jsonl", [*answers("CT", 20), *free], mode="think", checkpoint="x")


@pytest.mark.slow
def test_judgements_stand_beside_the_rules(tmp_path: Path, results: Path) -> None:
    with judge_server(reply) as server:
        judge = judge_of([server.url, "medgemma"], tmp_path / "cache.jsonl")
        before = results.read_bytes()
        summary = write_report([results], tmp_path / "report", judge=judge)
        asked = len(server.requests)
    assert results.read_bytes() == before
    assert f"## {JUDGED}: closed and open questions" in summary
    assert "2 answers have no judgement" in summary
    (row,) = rows_of(tmp_path / "report" / "judged.csv")
    names = ("same", "different", "inconsistent", "nonsense", "failed", "unread")
    assert [row[name] for name in names] == ["2", "1", "1", "1", "1", "1"]
    assert (row["questions"], row["judged"], row["only_judge"], row["only_rule"]) == ("7", "3", "1", "0")
    assert (row["JUDGED_right"], row["rule_right"]) == ("50.00", "25.00")  # of three judged and one without an answer
    assert float(row["agreement"]) == pytest.approx(100 * 2 / 3, abs=0.01)
    assert float(row["agreement_low"]) < 30 < 90 < float(row["agreement_high"])
    by_question = rows_of(tmp_path / "report" / "judged_by_question.csv")
    assert [row["JUDGED"] for row in by_question] == [verdict for _, verdict in ANSWERS.values()]
    assert [row["rule"] == "correct" for row in by_question] == [right for right, _ in ANSWERS.values()]
    assert asked == 1 + 2 * 4 + 2 * 3  # in two orders, but for what is equal; the failing one three times


@pytest.mark.slow
def test_the_same_report_asks_only_what_failed(tmp_path: Path, results: Path) -> None:
    with judge_server(reply) as server:
        write_report([results], tmp_path / "1", judge=judge_of([server.url, "m"], tmp_path / "cache.jsonl"))
        asked = len(server.requests)
        write_report([results], tmp_path / "2", judge=judge_of([server.url, "m"], tmp_path / "cache.jsonl"))
        assert len(server.requests) - asked == 2 * 3
    assert rows_of(tmp_path / "1" / "judged.csv") == rows_of(tmp_path / "2" / "judged.csv")


def test_without_closed_and_open_questions_nobody_is_asked(tmp_path: Path) -> None:
    path = write(tmp_path / "choice.jsonl", answers("CT", 20), mode="think")
    with judge_server(reply) as server:
        write_report([path], tmp_path / "report", judge=judge_of([server.url, "m"], tmp_path / "cache.jsonl"))
        assert server.requests == []
    assert not (tmp_path / "report" / "judged.csv").exists()


@pytest.mark.slow
def test_the_command_takes_an_address_and_a_name(
    tmp_path: Path, results: Path, repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    import importlib.util

    spec = importlib.util.spec_from_file_location("report_command", repository / "eval" / "report.py")
    assert spec is not None
    assert spec.loader is not None
    command = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(command)
    with judge_server(reply) as server:
        words = [str(results), "--output_dir", str(tmp_path / "report"), "--judge", server.url, "m"]
        monkeypatch.setattr(sys, "argv", ["report.py", *words, "--judge_cache", str(tmp_path / "cache")])
        assert command.main() == 0
    assert JUDGED in capsys.readouterr().out
