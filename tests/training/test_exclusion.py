"""--exclude_overlap: training leaves out what is tested elsewhere, says so, and a continued run must do the same."""

import json
import sys
from pathlib import Path
from typing import Any

import datasets
import pytest

from open_r1.common.errors import UserError
from open_r1.training.sft_run import train_sft
from open_r1_testbed.forked_runs import small_set
from open_r1_testbed.tiny_models import build_tiny_checkpoint

FLAGS = (
    "sft --model_name_or_path tiny --dataset_name set --dataset_train_split test --max_steps 2 --save_steps 1 "
    "--per_device_train_batch_size 2 --gradient_accumulation_steps 1 --logging_steps 1 --report_to none "
    "--output_dir run"
)


@pytest.mark.slow
def test_training_leaves_out_what_another_set_tests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    build_tiny_checkpoint(Path("tiny"))
    saved: Any = datasets.load_from_disk(str(small_set(Path("set"), 6)))
    datasets.DatasetDict({"test": saved["test"].select([1, 4])}).save_to_disk("other")
    monkeypatch.setattr(sys, "argv", [*FLAGS.split(), "--exclude_overlap", "other"])
    assert train_sft() == 0
    assert "2 questions show an image of other test and are left out (2 images the same" in capsys.readouterr().out
    record = json.loads(Path("run/run.json").read_text())
    assert record["data"]["prompts"] == 4
    assert record["data"]["excluded"]["questions"] == 2
    monkeypatch.setattr(sys, "argv", [*FLAGS.replace("--max_steps 2", "--max_steps 3").split()])
    with pytest.raises(UserError, match="exclude_overlap was"):
        train_sft()
