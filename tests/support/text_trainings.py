"""GRPO on text questions, run as its users run it."""

import json
from pathlib import Path
from typing import Any

import pytest

from open_r1.rewards.registry import PUBLISHED
from open_r1.training.grpo_run import train_grpo
from open_r1.vocabulary.modes import Mode


def train(monkeypatch: pytest.MonkeyPatch, checkpoint: Path, data: Path, out: Path, *more: str) -> dict[str, Any]:
    """What grpo.py does, in this process; returns the last logged step that has a reward."""
    required = ["--model_name_or_path", str(checkpoint), "--dataset_name", str(data), "--output_dir", str(out)]
    small = ["--max_steps", "2", "--num_generations", "2", "--max_completion_length", "6", "--logging_steps", "1"]
    quiet = ["--report_to", "none", "--save_strategy", "no", "--disable_tqdm", "true"]
    monkeypatch.setattr("sys.argv", ["grpo.py", *required, *small, *quiet, *more])
    train_grpo(Mode.THINK, reward_funcs=list(PUBLISHED))
    history = json.loads((out / "trainer_state.json").read_text())["log_history"]
    return [entry for entry in history if "reward" in entry][-1]
