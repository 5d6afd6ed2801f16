"""Supervised fine-tuning, run as its users run it."""

from pathlib import Path

import pytest

from open_r1.data.text.questions import TextQuestion
from open_r1.training.sft_run import train_sft

WORDS = ["liver", "kidney", "lung", "heart", "spleen", "brain"]


def text_questions(count: int) -> list[TextQuestion]:
    """Six words, four offered, the right one is named in the question."""
    rows = []
    for number in range(count):
        options = [WORDS[(number + step) % 6] for step in range(4)]
        gold = (number * 7) % 4
        rows.append(
            TextQuestion(f"Case {number}: which is the {options[gold]}?", tuple(options), "ABCD"[gold], "Words")
        )
    return rows


def fine_tune(monkeypatch: pytest.MonkeyPatch, checkpoint: Path, data: Path, out: Path, *more: str) -> None:
    """Two steps of what sft.py does, in this process."""
    required = ["--model_name_or_path", str(checkpoint), "--dataset_name", str(data), "--output_dir", str(out)]
    small = ["--max_steps", "2", "--per_device_train_batch_size", "4", "--gradient_accumulation_steps", "1"]
    quiet = ["--report_to", "none", "--save_strategy", "no", "--disable_tqdm", "true", "--learning_rate", "0.01"]
    monkeypatch.setattr("sys.argv", ["sft.py", *required, *small, *quiet, *more])
    train_sft()
