"""Alarms in real runs: what is planted is said in the log, in both files and, on request, by the end of the run."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from published_sets import save_published_form
from tiny_trainers import PROBLEMS, make_trainer

from open_r1.common.errors import EXIT_ALARM, UserError
from open_r1.common.metrics_log import ALARMS, read_lines, read_metrics
from open_r1.training.grpo_run import train_grpo
from open_r1.training.recovery.stop_signals import StopOnSignal
from open_r1.training.setup.tracking import MetricsLog
from open_r1.training.watching.alarm_watch import answer_metrics, watch_groups
from open_r1.training.watching.group_recorder import Group
from open_r1.vocabulary.modes import Mode
from open_r1_testbed.tiny_models import build_tiny_checkpoint

THOUGHTS = "<think>The answer is {}</think><answer>{}</answer>"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_checkpoint(tmp_path_factory.mktemp("tiny"))


def constant(value: float) -> Any:
    def accuracy_reward(completions: list[Any], **_: Any) -> list[float]:
        return [value] * len(completions)

    return accuracy_reward


def by_place(completions: list[Any], **_: Any) -> list[float]:
    return [float(place % 2) for place in range(len(completions))]


def planted(checkpoint: Path, output: Path, steps: int, text_of: Any = None, **settings: Any) -> list[dict[str, Any]]:
    """Train; returns the entries of metrics.jsonl.

    `text_of` gives the text of completion number `place` in a step, in place of sampling.
    """
    settings = {"max_completion_length": 40, "beta": 0.0, "learning_rate": 1e-6, "verify": False, **settings}
    trainer = make_trainer(checkpoint, output, [0, 1], max_steps=steps, **settings)
    plain = trainer.train_dataset
    rows = plain.with_format(None).add_column("solution", ["<answer> A </answer>", "<answer> B </answer>"])
    trainer.train_dataset = rows.with_transform(plain.format["format_kwargs"]["transform"])

    def complete(prompt_ids: list[list[int]], *_: Any, **__: Any) -> tuple[list[list[int]], None]:
        texts = [text_of(trainer.state.global_step + 1, place) for place in range(len(prompt_ids))]
        tokenizer = trainer.processing_class.tokenizer
        return [[*tokenizer(text)["input_ids"], tokenizer.eos_token_id] for text in texts], None

    if text_of is not None:
        trainer._generate_single_turn = complete
    trainer.add_callback(MetricsLog())
    watch_groups(trainer, "all")
    trainer.train()
    return read_metrics(output) or []


def fired(folder: Path) -> dict[str, int]:
    return {line["alarm"]: line["step"] for line in read_lines(folder / ALARMS)}


@pytest.mark.slow
def test_a_run_that_earns_nothing_says_so_with_two_completions(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entries = planted(checkpoint, tmp_path, 21, reward=constant(0.0), max_completion_length=6)
    assert fired(tmp_path) == {"dead_groups": 11, "no_reward": 20}
    assert [entry["step"] for entry in entries if "alarms/no_reward" in entry] == [20]
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("alarm no_reward, step 20: ")]
    message = list(read_lines(tmp_path / ALARMS))[-1]["message"]
    assert line == f"alarm no_reward, step 20: {message}"
    assert "(rewards: accuracy). Two completions: " in message


@pytest.mark.slow
def test_letters_and_thoughts_that_disagree_are_seen(checkpoint: Path, tmp_path: Path) -> None:
    entries = planted(checkpoint, tmp_path, 12, lambda step, place: THOUGHTS.format("BA"[place % 2], "A"),
                      reward=by_place)  # fmt: skip
    assert entries[0]["answers/against_reasoning"] == 0.5
    assert entries[0]["answers/letter_excess"] == 0.5
    alarms = fired(tmp_path)
    assert alarms["against_reasoning"] <= 20
    assert alarms["letter_favoured"] <= 20


@pytest.mark.slow
def test_completions_that_collapse_are_seen(checkpoint: Path, tmp_path: Path) -> None:
    def text(step: int, place: int) -> str:
        return "a" if step > 11 else "a long completion of many"

    planted(checkpoint, tmp_path, 18, text, reward=by_place)
    assert 12 <= fired(tmp_path)["length_collapse"] <= 18


@pytest.mark.slow
def test_a_jump_of_weights_is_a_spike(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from open_r1.training.watching.group_recorder import GroupRecorder

    written = GroupRecorder.on_step_end

    def shaken(recorder: GroupRecorder, args: Any, state: Any, control: Any, **more: Any) -> None:
        written(recorder, args, state, control, **more)
        if state.global_step == 12:
            with torch.no_grad():
                for parameter in recorder._trainer.model.parameters():
                    parameter.mul_(3.0)

    monkeypatch.setattr(GroupRecorder, "on_step_end", shaken)
    entries = planted(checkpoint, tmp_path, 14, reward=by_place, beta=0.04, max_completion_length=6)
    assert fired(tmp_path)["kl_spike"] == 13
    assert entries[12]["alarms/kl_spike"] == 1.0


def train(monkeypatch: pytest.MonkeyPatch, folder: Path, *flags: str) -> int:
    arguments = "--num_generations 2 --max_completion_length 4 --logging_steps 1 --save_strategy no --max_steps 14"
    paths = ["--model_name_or_path", str(folder / "tiny"), "--dataset_name", str(folder / "CT")]
    run = ["--output_dir", str(folder / "run"), "--reward_funcs", "accuracy", "--report_to", "none"]
    monkeypatch.setattr(sys, "argv", ["grpo", *paths, *run, *arguments.split(), *flags])
    return train_grpo(Mode.NOTHINK)


@pytest.mark.slow
def test_an_alarm_ends_the_run_once_and_for_all_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    build_tiny_checkpoint(tmp_path / "tiny")
    save_published_form(tmp_path / "CT", 4)
    assert train(monkeypatch, tmp_path, "--stop_on_alarm", "kl_spike", "dead_groups") == EXIT_ALARM == 77
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (record["status"], record["alarm"], record["steps"]) == ("stopped by an alarm", "dead_groups", 11)
    assert (tmp_path / "run" / "checkpoint-11" / "manifest.json").is_file()
    assert "stopped by the alarm dead_groups after step 11" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"alarm dead_groups stopped the run in .* after step 11.*--stop_on_alarm"):
        train(monkeypatch, tmp_path, "--stop_on_alarm", "dead_groups")
    assert train(monkeypatch, tmp_path, "--stop_on_alarm", "kl_spike") == 0
    assert fired(tmp_path / "run") == {"dead_groups": 11}, "the state of an alarm is continued"
    metrics = read_metrics(tmp_path / "run") or []
    assert [entry["step"] for entry in metrics if "alarms/dead_groups" in entry] == [11]
    assert sorted({line["step"] for line in read_lines(tmp_path / "run" / "groups.jsonl")}) == list(range(1, 15))


def test_between_two_uses_of_completions_a_stop_waits() -> None:
    may_save, saved = [False], []
    signals = StopOnSignal("cpu", lambda: may_save[0], lambda: saved.append(True))
    control = SimpleNamespace(should_save=False, should_training_stop=False)
    signals.stop_soon(SimpleNamespace(global_step=3, max_steps=9), control)
    assert (control.should_training_stop, signals.stopped) == (False, False)
    may_save[0] = True
    signals.on_step_end(None, SimpleNamespace(global_step=4, max_steps=9), control)
    assert (control.should_save, control.should_training_stop, saved) == (True, True, [True])
    last = StopOnSignal("cpu", lambda: True, lambda: None)
    last.stop_soon(SimpleNamespace(global_step=9, max_steps=9), control)
    assert not last.stopped


def test_a_name_that_is_no_alarm_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"--stop_on_alarm 'entropy': .* choose from length_collapse, "):
        train(monkeypatch, tmp_path, "--stop_on_alarm", "entropy")


def group(texts: list[str], problem: str = PROBLEMS[1], solution: str = "A") -> Group:
    row = {"problem": problem, "solution": f"<answer> {solution} </answer>", "answer_type": "choice"}
    return Group(row, texts, [1] * len(texts), [False] * len(texts), [], False, [])


def test_what_completions_answer_by_hand() -> None:
    texts = [THOUGHTS.format("A", "B"), THOUGHTS.format("B", "B"), "<think></think><answer>B</answer>", "nothing"]
    metrics = answer_metrics([group(texts), group(["<answer>A</answer>"] * 2)])
    assert metrics["answers/against_reasoning"] == 0.5
    assert metrics["answers/letter_excess"] == pytest.approx(3 / 5)  # B: 3 of 5 answers, never right
    assert answer_metrics([group(["x"], "What is shown?", "a cyst")]) == {}
    assert answer_metrics([Group({"problem": "x", "solution": None}, ["x"], [1], [False], [], False, [])]) == {}
