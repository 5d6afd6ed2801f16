"""A training with rewards of one's own, a tiny model and real steps: recorded, stopped in one line, continued."""

import hashlib
import json
import sys
from pathlib import Path

import pytest
from judge_server import judge_server
from text_trainings import train

from open_r1.common.errors import UserError
from open_r1.data.text.prepare import write_set
from open_r1.data.text.questions import TextQuestion
from open_r1.rewards.custom import load_custom
from open_r1_testbed.tiny_models import build_tiny_checkpoint

SPREAD = """
def spread(completions, completion_ids, **kwargs):
    return [sum(tokens) % 7 / 7 for tokens in completion_ids]
"""
GOES_WRONG = """
calls = 0

def spread(completions, completion_ids, **kwargs):
    global calls
    calls += 1
    values = [sum(tokens) % 7 / 7 for tokens in completion_ids]
    return values if calls < 4 else {ending}
"""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_checkpoint(tmp_path_factory.mktemp("tiny") / "model", "qwen2")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("questions") / "set"
    questions = [TextQuestion(f"Which is {n}?", ("liver", "spleen"), "A", "Hand-written") for n in range(40)]
    write_set(folder, {"train": questions}, {}, {}, {})
    return folder


@pytest.mark.slow
def test_a_reward_file_trains_and_is_recorded(tmp_path, monkeypatch, checkpoint, data):
    path = tmp_path / "mine.py"
    path.write_text(SPREAD)
    step = train(monkeypatch, checkpoint, data, tmp_path / "run", "--reward_funcs", "accuracy", f"{path}:spread")
    assert step["rewards/spread/mean"] > 0
    (record,) = json.loads((tmp_path / "run" / "run.json").read_text())["custom_rewards"]
    assert record["name"] == f"{path}:spread"
    assert record["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ending", "message"),
    [
        ("values[:-1]", "returned 3 values for 4 completions"),
        ("[float('nan')] * len(values)", "gave nan for 4 of 4 completions"),
        ("1 / 0", "raised ZeroDivisionError"),
    ],
)
def test_a_reward_that_goes_wrong_stops_in_one_line_and_the_run_goes_on_from_its_checkpoint(
    tmp_path, monkeypatch, checkpoint, data, capsys, ending, message
):
    path, run = tmp_path / "mine.py", tmp_path / "run"
    path.write_text(GOES_WRONG.replace("{ending}", ending))
    flags = ["--reward_funcs", "accuracy", f"{path}:spread", "--max_steps", "4"]
    flags += ["--save_strategy", "steps", "--save_steps", "1", "--per_device_train_batch_size", "2"]
    with pytest.raises(UserError, match="the reward spread") as stop:
        train(monkeypatch, checkpoint, data, run, *flags)
    assert message in str(stop.value)
    assert "\n" not in str(stop.value)
    saved = sorted(run.glob("checkpoint-*"))
    assert saved, "what was trained before is kept"

    path.write_text(SPREAD)  # mended; the file is read anew, as in another process
    load_custom.cache_clear()
    _forget(path)
    train(monkeypatch, checkpoint, data, run, *flags)
    assert f"the reward {path}:spread has changed since this run began" in capsys.readouterr().out
    assert json.loads((run / "run.json").read_text())["status"] == "done"


@pytest.mark.slow
def test_a_judge_that_fails_now_and_then_loses_nothing(tmp_path, monkeypatch, checkpoint, capsys):
    """Every second call fails for good: those completions are rewarded by the other rewards alone."""
    monkeypatch.setattr("open_r1.grading.judge.endpoint._PAUSE", 0.0)
    rows = [{"problem": f"What is {n}?", "solution": "the liver", "answer_type": "open"} for n in range(16)]
    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def answer(prompt: str, _: int) -> str | tuple[int, str]:
        return (404, "no") if sum(prompt.encode()) % 2 else "DIFFERENT"

    with judge_server(answer) as server:
        flags = ["--reward_funcs", "judge", "spread.py:spread", "--judge", server.url, "m"]
        flags += ["--judge_cache", str(tmp_path / "cache.jsonl"), "--num_generations", "4"]
        (tmp_path / "spread.py").write_text(SPREAD)
        monkeypatch.chdir(tmp_path)
        step = train(monkeypatch, checkpoint, path, tmp_path / "run", *flags)
        assert server.requests
    assert step["rewards/spread/mean"] > 0
    assert step["rewards/judge_reward/mean"] == 0
    printed = capsys.readouterr().out
    assert "judge: no judgement on" in printed
    assert "liver" not in printed
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "done"


def _forget(path: Path) -> None:
    for name, module in list(sys.modules.items()):
        if name.startswith("_reward_file_") and getattr(module, "__file__", None) == str(path):
            del sys.modules[name]
