"""Recorded groups: how they are read, which of them a page holds, and what its sections count."""

import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from recorded_runs import group_line, made_log, write_lines, write_run
from report_files import block_of

from open_r1.evaluation.reporting.items.packing import unpack
from open_r1.evaluation.reporting.trainings import group_browser
from open_r1.evaluation.reporting.trainings.group_browser import build_browser
from open_r1.evaluation.reporting.trainings.group_sections import group_sections
from open_r1.evaluation.reporting.trainings.page import training_page
from open_r1.evaluation.reporting.trainings.reading import Training, read_trainings

TEXTS = ["<answer>B</answer>", "<answer>A</answer>", "a", "b"]


def read(folder: Path, groups: list[dict[str, Any]]) -> Training:
    return read_trainings([write_run(folder, made_log(3), groups)])[0]


def test_the_last_line_of_a_step_and_question_counts(tmp_path):
    lines = [group_line(1, "q1", [1, 0, 0, 0]), group_line(2, "q2", [0, 0, 0, 0]), group_line(1, "q1", [1, 1, 0, 0])]
    del lines[2]["problem"], lines[2]["solution"]
    run = read(tmp_path / "CT", lines)
    assert [(group.step, group.id) for group in run.groups] == [(1, "q1"), (2, "q2")]
    assert run.rights(run.groups[0]) == [True, True, False, False]
    assert [group.is_dead for group in run.groups] == [False, True]
    assert run.questions["q1"] == ("q1: what is it? A) a cyst, B) none", "B")


def test_lines_that_are_no_group_are_counted_and_unknown_keys_are_not_read(tmp_path):
    good = group_line(1, "q1", [1, 0], TEXTS[:2], an_own_key={"x": 1}, modality="CT")
    bad = [
        *({**good, "id": 7}, {**good, "advantages": []}, {**good, "advantages": [1.0]}),
        *({**good, "rewards": [1.0, 0.0]}, {**good, "completions": "text"}, {**good, "lengths": [1]}),
    ]
    run = write_run(tmp_path / "CT", made_log(3), [good, *bad])
    with (run / "groups.jsonl").open("a") as file:
        file.write('[1, 2]\n\n{"step": 3, "id": "q')
    (training,) = read_trainings([run])
    assert [group.id for group in training.groups] == ["q1"]
    assert training.unread == len(bad)
    assert "6 lines of CT&#39;s groups.jsonl are no groups and are left out." in training_page([run]).decode()


@pytest.mark.parametrize(
    ("rewards", "named", "rights"),
    [
        ({"format": [0.0, 1.0], "accuracy": [1.0, None]}, "accuracy", [True, None]),
        ({"format_reward": [0.5, 1.0]}, "format", [False, True]),
        ({"judge": [1.0, 0.0], "closed": [None, 1.0]}, "closed", [None, True]),
    ],
)
def test_right_is_what_earns_the_reward_for_right_answers(tmp_path, rewards, named, rights):
    run = read(tmp_path / "CT", [group_line(1, "q", [1, 0], rewards=rewards)])
    assert run.outcome_reward == named
    assert run.rights(run.groups[0]) == rights


def test_a_page_too_full_holds_the_groups_of_evenly_spread_steps(tmp_path, monkeypatch):
    run = read(tmp_path / "CT", [group_line(step, f"q{step}-{k}", [1, 0]) for step in range(1, 101) for k in range(3)])
    whole = build_browser([run])
    assert whole is not None
    assert whole.notes == ["A completion counts as right where its reward 'accuracy' is 1."]
    assert len(unpack(whole.packed_index)["step"]) == 300
    monkeypatch.setattr(group_browser, "MOST_GROUPS", 36)
    part = build_browser([run])
    assert part is not None
    steps = unpack(part.packed_index)["step"]
    assert steps == sorted([1, 10, 19, 28, 37, 46, 55, 64, 73, 82, 91, 100] * 3)  # 12 of 100 steps, 9 apart
    assert part.notes[1].startswith("36 of 300 recorded groups are in this page, those of evenly spread steps")


def test_texts_that_would_make_the_page_too_large_are_of_fewer_steps(tmp_path, monkeypatch):
    monkeypatch.setattr(group_browser, "TEXT_BYTES", 40_000)
    texts = [" ".join(f"{(step * 7919 + k * 104729) % 99991}" for k in range(300)) for step in range(200)]
    run = read(tmp_path / "CT", [group_line(step, "q", [1, 0], texts[step : step + 2]) for step in range(1, 150)])
    part = build_browser([run])
    assert part is not None
    assert 20_000 < sum(map(len, part.blocks)) <= 40_000
    steps = unpack(part.packed_index)["step"]
    assert (steps[0], steps[-1]) == (1, 149)
    gaps = {second - first for first, second in pairwise(steps)}
    assert max(gaps) - min(gaps) <= 1


def test_questions_of_two_runs_are_one_where_their_texts_agree(tmp_path):
    first = read(tmp_path / "a", [group_line(1, "row 1", [1, 0]), group_line(1, "row 2", [1, 0], problem="mine")])
    second = read(tmp_path / "b", [group_line(1, "row 1", [0, 0]), group_line(1, "row 2", [1, 0], problem="other")])
    scores = read(tmp_path / "c", [{k: v for k, v in group_line(1, "row 1", [1, 1]).items() if k != "problem"}])
    browser = build_browser([first, second, scores])
    assert browser is not None
    index = unpack(browser.packed_index)
    assert index["questions"]["id"] == ["row 1", "row 2", "row 2"]
    assert index["question"] == [0, 1, 0, 2, 0]  # scores without texts belong to the question with this id
    assert index["rights"] == ["10", "10", "00", "10", "11"]
    assert index["dead"] == [0, 0, 1, 0, 1]


def test_what_the_sections_count(tmp_path):
    """Three questions: q1 alive once, q2 never (all right), q3 never (all wrong, then equal by format)."""
    lines = [
        *(group_line(1, "q1", [1, 0, 0, 0]), group_line(2, "q1", [0, 0, 0, 0], left_out=True)),
        *(group_line(1, "q2", [1, 1, 1, 1]), group_line(5, "q2", [1, 1, 1, 1]), group_line(3, "q3", [0, 0, 0, 0])),
    ]
    lines[0]["rewards"]["format"] = [1.0, 0.0, 0.0, 1.0]
    gradient, rewards, lengths = group_sections([read(tmp_path / "CT", lines)])
    assert gradient.texts == [
        "CT: 4 of 5 (80.0 %) recorded groups are dead: their completions all earned the same, so nothing is learned "
        "from them (2 all right, 2 all wrong). 2 of 3 (66.7 %) questions had dead groups alone, "
        "1 of them more than one."
    ]
    assert gradient.sheets[0].rows == [["q2", "CT", "2", "2", "0", "1 to 5"]]
    # accuracy 9 of 20, format 18 of 20, both right 9: phi = (9 * 2 - 0 * 9) / sqrt(9 * 11 * 18 * 2) = 0.3015
    assert rewards.sheets[0].rows == [["accuracy and format", "0.30 (20)"]]
    # lengths 10 to 40 in each group: right ones 10 + 2 (10 + 20 + 30 + 40) over 9
    assert lengths.texts == ["CT: mean tokens of completions: right ones 23.3 (n 9), wrong ones 26.4 (n 11)."]
    assert [(row[0], row[1], row[3]) for row in lengths.sheets[0].rows] == [
        *(("10 to 19", "5", "0.0"), ("20 to 29", "5", "0.0"), ("30 to 40", "10", "50.0")),
    ]
    assert lengths.sheets[0].rows[0][2].startswith("60.0 ± ")  # q1 once of two, q2 twice


def test_scores_alone_and_no_groups_are_handled(tmp_path):
    scores = group_line(1, "q1", [1, 0])
    del scores["problem"], scores["solution"]
    page = tmp_path / "page.html"
    page.write_bytes(training_page([write_run(tmp_path / "scores", made_log(2), [scores])]))
    assert unpack(block_of(page, "completions"))[0][0] is None
    page.write_bytes(training_page([write_run(tmp_path / "empty", made_log(2), [])]))
    assert 'id="groups"' not in page.read_text()
    assert "No groups.jsonl" not in page.read_text()


def test_a_link_leads_from_a_question_without_a_gradient_to_it(tmp_path):
    run = write_run(tmp_path / "CT", made_log(2), [group_line(step, "row 1&2", [1, 1]) for step in (1, 2)])
    assert '<a href="#list=questions&amp;item=row%201%262">row 1&amp;2</a>' in training_page([run]).decode()


def test_no_text_is_markup(tmp_path):
    hostile = "</script><img src=x onerror=alert(1)>"
    line = group_line(1, hostile, [1, 1], [hostile] * 2, problem=hostile, modality=hostile)
    line["rewards"][hostile] = [1.0, 0.0]
    alarm = {"step": 1, "alarm": hostile, "value": 1, "message": hostile}
    run = write_run(tmp_path / "CT", made_log(2), [line], [alarm], base_model=hostile)
    text = training_page([run]).decode()
    assert hostile not in text
    assert text.count("</script>") == 4  # three blocks of data and the script
    assert not re.search(r"<img", text)
    assert json.loads((run / "groups.jsonl").read_text())["id"] == hostile
    write_lines(run / "groups.jsonl", [])
