"""Rewards of one's own: found by file or module, checked with made-up completions, recorded with their hash."""

import hashlib
import logging
from pathlib import Path

import pytest
import torch

from open_r1.common.errors import UserError
from open_r1.common.library_messages import leave_out_library_messages
from open_r1.rewards.custom import load_custom, records_of
from open_r1.rewards.registry import require_rewards, rewards_for
from open_r1.training.recovery.resume import changes
from open_r1.training.recovery.reward_guard import RewardGuard
from open_r1.vocabulary.modes import Mode

GOOD = "def kindness(completions, **kwargs):\n    return [1.0 for _ in completions]\n"


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)

    def written(code: str, name: str = "mine.py") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(code)
        return path

    return written


def test_a_file_and_a_package_in_the_working_folder(write) -> None:
    path = write(GOOD)
    write(GOOD.replace("kindness", "mildness"), f"{path.parent.name.replace('-', '_')}_pkg/rewards.py")
    names = [f"{path}:kindness", f"{path.parent.name.replace('-', '_')}_pkg.rewards.mildness"]
    first, second, accuracy = rewards_for([*names, "accuracy"], Mode.THINK)
    assert first(["a", "b"]) == second(["a", "b"]) == [1.0, 1.0]
    assert accuracy.__name__ == "accuracy_reward"
    records = records_of([*names, "accuracy"])
    assert [record["name"] for record in records] == names
    assert records[0] == {
        "name": names[0],
        "file": str(path),
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }


def test_a_reward_is_called_as_trl_calls_it(write) -> None:
    path = write(
        "def odd(prompts, completions, completion_ids, trainer_state, log_metric, solution, answer_type, **kwargs):\n"
        "    assert prompts[0][0]['role'] == 'user' and completions[0][0]['role'] == 'assistant'\n"
        "    assert len(solution) == len(answer_type) == len(completion_ids) == len(kwargs['images']) == 2\n"
        "    log_metric('odd', 1.0)\n"
        "    return [None, len(completions[1][0]['content'])]\n"
    )
    assert load_custom(f"{path}:odd").function.__name__ == "odd"


@pytest.mark.parametrize(
    ("code", "name", "message"),
    [
        (None, "nowhere.py:f", "there is no file nowhere.py"),
        (None, "no_such_package.f", "no_such_package cannot be imported"),
        (GOOD, "mine.py:unkindness", "does not define 'unkindness'; its functions are kindness"),
        (GOOD, "mine.py:", "names no function"),
        ("1 / 0\n", "mine.py:f", "cannot be run (ZeroDivisionError"),
        ("f = 3\n", "mine.py:f", "is int, not a function"),
        ("class f:\n    pass\n", "mine.py:f", "not a function"),
        ("async def f(completions, **kwargs):\n    return [0]\n", "mine.py:f", "is async"),
        ("def f(completions):\n    return [0, 0]\n", "mine.py:f", "define it as (completions, **kwargs)"),
        ("def f(texts, **kwargs):\n    return [0, 0]\n", "mine.py:f", "takes (texts, kwargs)"),
        ("def f(completions, **kwargs):\n    return [0]\n", "mine.py:f", "returned 1 values for 2 completions"),
        ("def f(completions, **kwargs):\n    return None\n", "mine.py:f", "returned NoneType and no list"),
        ("def f(completions, **kwargs):\n    return 'ab'\n", "mine.py:f", "returned str and no list"),
        ("def f(completions, **kwargs):\n    return ['a', 1]\n", "mine.py:f", "returned 'a', which is no number"),
        ("def f(completions, **kwargs):\n    return [0, float('nan')]\n", "mine.py:f", "gave nan for 1 of 2"),
        ("import sys\nsys.exit(3)\n", "mine.py:f", "cannot be run (SystemExit: 3"),
        ("def f(completions, **kwargs):\n    raise SystemExit(3)\n", "mine.py:f", "raised SystemExit: 3"),
        ("def f(completions, **kwargs):\n    raise ValueError('a\\nb')\n", "mine.py:f", "raised ValueError: a b"),
        ("def f(completions, **kwargs):\n    completions.clear()\n    return [0, 0]\n", "mine.py:f", "(completions)"),
        ("def f(completions, **kwargs):\n    return [len(completions[0].pop()), 0]\n", "mine.py:f", "(completions)"),
        ("def f(completions, **kwargs):\n    return kwargs['mood']\n", "mine.py:f", "raised KeyError: 'mood'"),
    ],
)
def test_a_reward_that_cannot_be_used_is_refused_at_once(write, code: str | None, name: str, message: str) -> None:
    load_custom.cache_clear()
    if code is not None:
        name = name.replace("mine.py", str(write(code)))
    with pytest.raises(UserError) as refusal:
        require_rewards([name])
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_two_rewards_are_not_logged_under_one_name(write) -> None:
    path = write(GOOD.replace("kindness", "accuracy_reward"))
    with pytest.raises(UserError, match="called accuracy_reward"):
        require_rewards(["accuracy", f"{path}:accuracy_reward"])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1.0], "returned 1 values for 2 completions"),
        ([1.0, float("inf")], "gave inf for 1 of 2"),
        (None, "returned NoneType"),
        (["a", "b"], "which is no number"),
    ],
)
def test_a_reward_that_goes_wrong_in_training_is_one_error_and_the_batch_goes_on(values, message: str) -> None:
    guard = RewardGuard()

    def mine(completions, **_):
        return values

    assert guard.guarded(mine)(completions=["a", "b"]) == [0.0, 0.0]
    with pytest.raises(UserError) as stop:
        guard.require_sound("cpu")
    assert message in str(stop.value)
    assert "the reward mine" in str(stop.value)
    guard.require_sound("cpu")  # it is said once


def test_a_reward_that_leaves_python_or_empties_its_arguments_harms_no_other() -> None:
    guard, batch = RewardGuard(), {"completions": ["a", "b"], "problem": ["p", "q"]}

    def empties(completions, problem, **_):
        completions.clear()
        problem.sort(reverse=True)
        return [1.0, 2.0]

    def leaves(completions, **_):
        raise SystemExit(3)

    assert guard.guarded(empties)(**batch) == [1.0, 2.0]
    assert batch == {"completions": ["a", "b"], "problem": ["p", "q"]}
    guard.require_sound("cpu")
    assert guard.guarded(leaves)(**batch) == [0.0, 0.0]
    with pytest.raises(UserError, match="SystemExit: 3"):
        guard.require_sound("cpu")


def test_tensors_and_none_are_values() -> None:
    guard = RewardGuard()
    for values in (torch.tensor([1.0, 2.0]), [torch.tensor(1.0), None], [True, 2]):
        assert len(guard.guarded(lambda completions, values=values, **_: values)(completions=["a", "b"])) == 2
        guard.require_sound("cpu")


def test_trl_does_not_print_the_question_that_no_reward_speaks_about(caplog: pytest.LogCaptureFixture) -> None:
    leave_out_library_messages()
    logger = logging.getLogger("trl.trainer.grpo_trainer")
    logger.warning("All reward functions returned None for the following kwargs:\n{'problem': 'secret'}")
    logger.warning("Something else")
    assert "secret" not in caplog.text
    assert "Something else" in caplog.text


def test_a_continued_run_says_that_the_reward_has_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("open_r1.training.recovery.resume.checkpoint_manifest", lambda _: {"processes": 1})
    earlier = {"custom_rewards": [{"name": "mine.py:f", "file": "/x/mine.py", "sha256": "1"}]}
    same = list(changes(earlier, tmp_path, 1, earlier))
    now = {"custom_rewards": [{"name": "mine.py:f", "file": "/x/mine.py", "sha256": "2"}]}
    (line,) = changes(earlier, tmp_path, 1, now)
    assert not same
    assert "the reward mine.py:f has changed" in line
    assert list(changes({}, tmp_path, 1, now)) == []
