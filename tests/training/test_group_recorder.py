"""groups.jsonl: true to what was sampled and used, bounded, whole after kills, and without effect on the training."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny_trainers import PROBLEMS, make_trainer, weights

from open_r1.common.metrics_log import read_lines, start_lines
from open_r1.training.watching.alarm_watch import watch_groups
from open_r1.training.watching.group_recorder import GROUPS, LIMITS, STEP_BYTES, Group, GroupRecorder
from open_r1_testbed.tiny_models import build_tiny_checkpoint

TIMES = ("seconds", "per_second", "time", "runtime")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_checkpoint(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def text_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_checkpoint(tmp_path_factory.mktemp("text"), "qwen2")


def by_question() -> Callable[..., list[float]]:
    """A reward under which the first question's completions all earn the same: its groups are dead."""

    def accuracy_reward(completions: list[Any], problem: list[str], **_: Any) -> list[float]:
        return [
            0.0 if question == PROBLEMS[0] else float(place % 2)
            for place, (_, question) in enumerate(zip(completions, problem, strict=True))
        ]

    return accuracy_reward


CASES: dict[str, dict[str, Any]] = {
    "shared": {},
    "stock": {"shared_prefix": False},
    "stock sampling": {"share_rollout": False},
    "reused": {"num_iterations": 2, "max_steps": 4},
    "accumulated": {"gradient_accumulation_steps": 2},
    "several steps of a rollout": {"steps_per_generation": 2, "gradient_accumulation_steps": 1},
    "left out": {"beta": 0.0, "reward": by_question()},
    "resampled": {"resample_dead_groups": 4, "reward": by_question(), "beta": 0.0},
    "text": {"text": True},
}


def numbers(trainer: Any) -> list[dict[str, Any]]:
    history = trainer.state.log_history
    return [{key: v for key, v in entry.items() if not any(word in key for word in TIMES)} for entry in history]


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_a_recorded_run_equals_another_to_the_bit(
    case: str, checkpoint: Path, text_checkpoint: Path, tmp_path: Path
) -> None:
    settings = {"max_steps": 2, **CASES[case]}
    is_text = settings.pop("text", False)
    trainers = []
    for name in ("plain", "recorded"):
        base, images = (text_checkpoint, [None] * 4) if is_text else (checkpoint, [0, 1, 2, None])
        if case.startswith("stock"):
            images = [0, 1, 2, 3]
        trainer = make_trainer(base, tmp_path / name, images, **settings)
        if name == "recorded":
            watch_groups(trainer, "all")
        trainer.train()
        trainers.append(trainer)
    plain, recorded = trainers
    before, after = weights(plain), weights(recorded)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert numbers(plain) == numbers(recorded)
    assert not (tmp_path / "plain" / GROUPS).exists()

    lines = list(read_lines(tmp_path / "recorded" / GROUPS))
    steps = [line["step"] for line in lines]
    per_step = 2 * settings.get("gradient_accumulation_steps", 1)
    expected = [1, 3] if case == "reused" else [1, 2]
    if case == "several steps of a rollout":
        assert sorted(set(steps)) == [1, 2]
    else:
        assert steps == [step for step in expected for _ in range(per_step)]
    logged = [entry for entry in recorded.state.log_history if "reward" in entry]
    for line in lines:
        assert len(line["completions"]) == len(line["lengths"]) == len(line["cut_off"]) == len(line["advantages"]) == 3
        assert line["cut_off"] == [length == 6 for length in line["lengths"]]
    replaced = [sum(line["replaced"] for line in lines if line["step"] == step) for step in (1, 2)]
    if case != "resampled":
        assert sum(replaced) == 0
    else:
        assert replaced == [2 * entry["groups_replaced"] for entry in logged]
        assert sum(replaced) > 0
        assert all(line["rewards"]["accuracy"] != [0, 0, 0] for line in lines)
    if case in ("shared", "stock", "text"):  # all groups are recorded: their mean is the logged one
        (name,) = lines[0]["rewards"]
        means = [v for line in lines if line["step"] == 1 for v in line["rewards"][name]]
        assert sum(means) / len(means) == pytest.approx(logged[0]["reward"], rel=1e-3)
        texts = [len(text) / 10 for line in lines for text in line["completions"]]
        assert texts == [value for line in lines for value in line["rewards"][name]]
    if case == "left out":
        dead = {line["problem"]: line["left_out"] for line in lines if "problem" in line}
        assert dead[PROBLEMS[0]] is True
        assert not all(dead.values())
    else:
        assert not any(line["left_out"] for line in lines)


def recorder(what: str = "all", size: int = 2, names: tuple[str, ...] = ("accuracy_reward",)) -> GroupRecorder:
    trainer = SimpleNamespace(
        num_generations=size, eos_token_ids=[9], reward_func_names=list(names), beta=0.04, _entropy_bonus_enabled=False
    )
    return GroupRecorder(trainer, what)


def events(folder: Path, step: int) -> tuple[Any, Any, Any]:
    return SimpleNamespace(output_dir=str(folder)), SimpleNamespace(global_step=step), None


def feed(to: GroupRecorder, rows: list[dict[str, Any]], texts: list[str], reward: float = 1.0) -> None:
    """A rollout of these questions, all of it used at once."""
    size = to._trainer.num_generations
    completions = [[{"role": "assistant", "content": text}] for text in texts]
    tokens = [[5] * (len(text) - 1) + [9 if place % 2 else 5] for place, text in enumerate(texts)]
    values = torch.tensor([[reward if place % 2 else float("nan")] for place in range(len(texts))])
    to.add_rewarded([row for row in rows for _ in range(size)], completions, tokens, values)
    to.add_used(to.add_advantages(torch.linspace(-1, 1, len(texts)) / 3))


ROW = {
    **{"id": "omni-1", "modality": "CT", "task": "Anatomy", "problem": "Which? A)x, B)y", "images": [b"jpeg"]},
    **{"solution": "<answer> B </answer>", "answer_type": "choice"},
}


def test_a_line_says_what_the_format_promises(tmp_path: Path) -> None:
    writer = recorder()
    writer.on_train_begin(*events(tmp_path, 0))
    feed(writer, [ROW], ["short \ud800", "x" * 5000])
    writer.on_step_end(*events(tmp_path, 1))
    feed(writer, [ROW], ["a", "b"])
    writer.on_step_end(*events(tmp_path, 2))
    first, second = read_lines(tmp_path / GROUPS)
    completions = first.pop("completions")
    assert completions[0] == "short ?", "half a character has no UTF-8"
    assert len(completions[1]) == LIMITS[0]
    assert completions[1].count(" … ") == 1
    assert first == {
        **{"step": 1, "id": "omni-1", "modality": "CT", "task": "Anatomy", "problem": ROW["problem"], "solution": "B"},
        **{"lengths": [7, 5000], "cut_off": [True, False], "rewards": {"accuracy": [None, 1.0]}},
        **{"advantages": [-0.3333, 0.3333], "left_out": False, "replaced": False},
    }
    assert "problem" not in second
    assert "jpeg" not in (tmp_path / GROUPS).read_text()


def test_scores_hold_neither_completions_nor_problems(tmp_path: Path) -> None:
    for what in ("scores", "none"):
        writer = recorder(what)
        writer.on_train_begin(*events(tmp_path / what, 0))
        feed(writer, [ROW], ["secret", "secret"])
        writer.on_step_end(*events(tmp_path / what, 1))
    (line,) = read_lines(tmp_path / "scores" / GROUPS)
    assert {"completions", "problem"} & line.keys() == set()
    assert line["rewards"] == {"accuracy": [None, 1.0]}
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(("groups", "size", "length"), [(4, 4, 900), (64, 8, 60), (1, 64, 3000), (2, 100, 10)])
def test_a_thousand_steps_take_at_most_five_megabytes(tmp_path: Path, groups: int, size: int, length: int) -> None:
    writer = recorder(size=size)
    writer.on_train_begin(*events(tmp_path, 0))
    path, before, positions = tmp_path / GROUPS, 0, set()
    for step in range(1, 21):
        rows = [{**ROW, "id": f"{step} {place}", "problem": "é" * 3000} for place in range(groups)]
        feed(writer, rows, ["ü" * length] * (groups * size))
        writer.on_step_end(*events(tmp_path, step))
        assert path.stat().st_size - before <= STEP_BYTES
        before = path.stat().st_size
    lines = list(read_lines(path))
    positions = {int(line["id"].split()[1]) for line in lines}
    assert {line["step"] for line in lines} == set(range(1, 21)), "each step has a group"
    assert len(positions) >= min(groups, 20), "which groups are shown rotates"


def test_a_half_written_line_spoils_no_later_one(tmp_path: Path) -> None:
    path = tmp_path / GROUPS
    writer = recorder()
    writer.on_train_begin(*events(tmp_path, 0))
    feed(writer, [ROW], ["a", "b"])
    writer.on_step_end(*events(tmp_path, 1))
    with open(path, "a") as file:
        file.write('{"step": 2, "id": "omni-2", "problem": "Wh')  # killed while writing
    resumed = recorder()
    resumed.on_train_begin(*events(tmp_path, 1))
    for step in (2, 3):
        feed(resumed, [ROW, {**ROW, "id": "omni-2"}], ["a", "b"] * 2)
        resumed.on_step_end(*events(tmp_path, step))
    lines = list(read_lines(path))
    assert [(line["step"], line["id"]) for line in lines] == [
        (1, "omni-1"), (2, "omni-1"), (2, "omni-2"), (3, "omni-2"), (3, "omni-1")
    ]  # fmt: skip
    assert [(line["step"], line["id"]) for line in lines if "problem" in line] == [(1, "omni-1"), (2, "omni-2")]
    start_lines(path, anew=True)
    assert path.read_text() == ""


def test_a_full_disk_ends_the_record_and_not_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    writer = recorder()
    writer.on_train_begin(*events(tmp_path, 0))
    with monkeypatch.context() as patch:
        patch.setattr("os.write", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        feed(writer, [ROW], ["a", "b"])
        writer.on_step_end(*events(tmp_path, 1))
    assert capsys.readouterr().out.startswith(f"warning: {GROUPS} ends here: cannot write")
    feed(writer, [ROW], ["a", "b"])
    writer.on_step_end(*events(tmp_path, 2))
    assert json.loads(f"[{(tmp_path / GROUPS).read_text()}]") == []


def test_a_question_without_an_id_has_one_of_its_text() -> None:
    group = Group({"problem": "Which?"}, ["a"], [1], [False], [[1.0]], False, [0.0])
    line = recorder()._line(group, 1, 100, set())
    assert line["id"] == recorder()._line(group, 2, 100, set())["id"]
    assert line["id"].startswith("row ")
    assert "solution" not in line
