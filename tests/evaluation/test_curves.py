"""Training curves: what a log holds is drawn, and nothing else."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from open_r1.common.errors import UserError
from open_r1.drawing.training_curves import curves_figure, panels, read_log, series, smoothed
from open_r1.evaluation.reporting.trainings.reading import read_logs


def write(folder: Path, steps: range, **values: float) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    log = [
        {
            **{"step": step, "reward": 1 + step / 100, "rewards/accuracy_reward/mean": step / 100, "kl": 0.01 * step},
            **{"completions/mean_length": 80 - step / 2, "completions/min_length": 20, "completions/max_length": 99},
            **values,
        }
        for step in steps
    ]
    (folder / "trainer_state.json").write_text(json.dumps({"log_history": [*log, {"step": 99, "train_runtime": 1.0}]}))
    return folder


@pytest.mark.slow
def test_curves_of_two_runs_are_overlaid(tmp_path, load_script, monkeypatch):
    runs = [write(tmp_path / "CT", range(1, 61)), write(tmp_path / "MRI", range(1, 11), entropy=0.5)]
    logs = read_logs(runs)
    assert list(logs) == ["CT", "MRI"]
    figure = curves_figure(logs)
    assert figure is not None
    titles = [axes.get_title("left") for axes in figure.axes if axes.get_visible()]
    assert titles == [
        *("reward", "reward: accuracy", "completion length (tokens): mean, least to most"),
        *("KL to the start (nats per token)", "entropy (nats per token)"),
    ]
    lines = figure.axes[0].get_lines()
    assert np.asarray(lines[0].get_ydata()).tolist() == [
        1 + step / 100 for step in range(1, 61)
    ]  # as logged, and smoothed above it
    assert np.asarray(lines[-1].get_ydata()).tolist() == [1 + step / 100 for step in range(1, 11)]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["CT", "MRI"]
    main = load_script("eval/curves.py").main
    monkeypatch.setattr("sys.argv", ["curves.py", *map(str, runs), "--output", str(tmp_path / "curves.png")])
    assert main() == 0
    with Image.open(tmp_path / "curves.png") as image:
        assert image.size == (1440, 600)


def test_running_mean_by_hand():
    assert smoothed([0.0, 3.0, 6.0, 0.0]) == [1.5, 3.0, 3.0, 3.0]
    values = [float(k) for k in range(80)]
    assert smoothed(values)[10] == 10  # a line stays a line
    assert smoothed(values)[0] == 1  # mean of 0, 1, 2


def test_what_is_no_number_is_left_out():
    log = [
        {"step": 1, "kl": math.nan},
        {"step": 2, "kl": 0.5},
        {"step": 3},
        {"step": 4, "kl": "x"},
        {"step": 5, "kl": True},
    ]
    assert series(log, "kl") == ([2], [0.5])
    assert panels({"a": [{"step": 1, "num_tokens": [3]}]}) == []
    assert curves_figure({"a": []}) is None


def test_newest_checkpoint_speaks_where_the_run_is_not_finished(tmp_path):
    write(tmp_path / "checkpoint-20", range(1, 21))
    write(tmp_path / "checkpoint-100", range(1, 101))
    assert len(read_log(tmp_path)) == 101
    write(tmp_path, range(1, 3))
    assert len(read_log(tmp_path)) == 3


def test_a_folder_without_a_log_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"holds no metrics\.jsonl or trainer_state\.json"):
        read_log(tmp_path)
    (tmp_path / "trainer_state.json").write_text('{"log_history": 3}')
    with pytest.raises(UserError, match="cannot be read"):
        read_log(tmp_path)


def test_what_was_asked_while_training_is_dashed(tmp_path):
    log = [{"step": step, "reward": step / 10, "loss": 0.1} for step in range(1, 7)]
    log += [{"step": 3, "eval_reward": 0.2, "eval_loss": 0.3}, {"step": 6, "eval_reward": 0.5, "eval_loss": 0.2}]
    figure = curves_figure({"run": log}, "grpo (think)")
    assert figure is not None
    assert figure.get_suptitle() == "grpo (think)"
    assert [axes.get_title("left") for axes in figure.axes] == ["reward", "loss"]
    trained, dashed = figure.axes[0].get_lines()
    assert (trained.get_linestyle(), dashed.get_linestyle()) == ("-", "--")
    assert (list(np.asarray(dashed.get_xdata())), list(np.asarray(dashed.get_ydata()))) == ([3, 6], [0.2, 0.5])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "run",
        "on evaluation questions during training",
    ]
