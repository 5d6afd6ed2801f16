"""Rewards of closed and open answers, and of a judge: by hand, with None where a reward says nothing."""

from pathlib import Path
from typing import Any

import pytest
from judge_server import judge_server, texts_in

from open_r1.common.errors import UserError
from open_r1.grading.judge import endpoint as endpoints
from open_r1.rewards.accuracy import accuracy_reward, medical_accuracy_reward
from open_r1.rewards.answers import closed_reward, exact_reward, rouge_l_reward, token_f1_reward
from open_r1.rewards.registry import rewards_for
from open_r1.rewards.settings import RewardSettings
from open_r1.rewards.shaping import cosine_reward
from open_r1.vocabulary.modes import Mode

ROWS: dict[str, list[Any]] = {
    "problem": ["What? A)CT, B)MRI", "Is it?", "Where?", "Where?", "Where?"],
    "solution": ["<answer> A </answer>", "yes", "left lung", "left lung", "left lung"],
    "answer_type": ["choice", "closed", "open", "open", "open"],
    "aliases": [[], [], ["lung on the left"], [], []],
}
TEXTS = ["<answer>A</answer>", "Yes, there is.", "<answer>lung on the left</answer>", "right lung", "<think>left lung"]


def test_accuracy_grades_by_answer_type() -> None:
    assert accuracy_reward(TEXTS, **ROWS) == [1.0, 1.0, 1.0, 0.0, 0.0]


def test_rewards_say_nothing_of_other_questions() -> None:
    assert closed_reward(TEXTS, **ROWS) == [None, 1.0, None, None, None]
    assert exact_reward(TEXTS, **ROWS) == [None, 1.0, 1.0, 0.0, 0.0]
    assert token_f1_reward(TEXTS, **ROWS) == [None, pytest.approx(0.5), 1.0, 0.5, 0.0]
    assert rouge_l_reward(TEXTS, **ROWS) == [None, pytest.approx(0.5), 1.0, 0.5, 0.0]
    assert medical_accuracy_reward(TEXTS, **ROWS) == [2.0, None, None, None, None]


def test_length_is_rewarded_by_what_is_right_of_any_type() -> None:
    values = cosine_reward(RewardSettings(), 10)(TEXTS, completion_ids=[[1] * 10] * 5, **ROWS)
    assert [value > 0.25 for value in values] == [True, True, True, False, False]


def test_without_the_column_a_row_is_of_choice() -> None:
    columns = {"problem": ["What? A)CT, B)MRI"], "solution": ["<answer> A </answer>"]}
    assert accuracy_reward(["A"], **columns) == [1.0]
    assert exact_reward(["A"], **columns) == [None]
    with pytest.raises(UserError, match="no options"):
        accuracy_reward(["yes"], problem=["Is it?"], solution=["yes"])


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoints, "_PAUSE", 0.0)


def judged(url: str, cache: Path, texts: list[str], rows: dict[str, list[Any]] = ROWS) -> list[float | None]:
    settings = RewardSettings(judge=[url, "m"], judge_cache=str(cache))
    judge, _ = rewards_for(["judge", "format"], Mode.THINK, settings)
    return list(judge(texts, **rows))


@pytest.mark.usefixtures("no_pauses")
def test_a_judge_is_asked_where_the_rule_does_not_decide(tmp_path: Path) -> None:
    def same(prompt: str, _: int) -> str:
        return "SAME" if "sinister" in prompt else "DIFFERENT"

    texts = [TEXTS[0], "yes", "left lungs", "the sinister lung", "the heart"]
    with judge_server(same) as server:
        assert judged(server.url, tmp_path / "cache", texts) == [None, 1.0, 1.0, 1.0, 0.0]
    assert {frozenset(texts_in(prompt).values()) for prompt in server.prompts} == {
        frozenset({"Where?", "left lung", answer}) for answer in ("the sinister lung", "the heart")
    }


@pytest.mark.usefixtures("no_pauses")
def test_a_call_that_fails_is_none_and_counted_and_never_0(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with judge_server(lambda prompt, _: (500, "broken") if "heart" in prompt else "DIFFERENT") as server:
        texts = [TEXTS[0], "yes", "the heart", "right lung", ""]
        assert judged(server.url, tmp_path / "cache", texts) == [None, 1.0, None, 0.0, 0.0]
    assert "no judgement on 1 of 2 answers (HTTP 500)" in capsys.readouterr().out
    with judge_server(lambda *_: "perhaps") as server:
        assert judged(server.url, tmp_path / "cache", texts)[2] is None
    assert "neither SAME nor DIFFERENT" in capsys.readouterr().out


def test_a_judge_needs_an_address_and_another_reward() -> None:
    with pytest.raises(UserError, match="--judge URL MODEL"):
        rewards_for(["judge", "format"], Mode.THINK)
    with pytest.raises(UserError, match="name another beside it"):
        rewards_for(["judge"], Mode.THINK, RewardSettings(judge=["http://localhost", "m"]))
    with pytest.raises(UserError, match="no address"):
        RewardSettings(judge=["localhost", "m"]).check()
