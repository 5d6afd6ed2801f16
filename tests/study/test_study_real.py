"""A study for real: phantoms, a tiny model, torchrun, eval/infer.py and the report, from one command."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from open_r1.data.omnimedvqa.prepare import Preparation, prepare
from open_r1.data.preparation.encoded_images import Encoding
from open_r1.evaluation.scoring.results import read_results
from open_r1.vocabulary.labels import Modality
from open_r1_testbed.phantoms import make_phantoms
from open_r1_testbed.tiny_models import build_tiny_checkpoint

pytestmark = pytest.mark.slow

Study = Callable[..., subprocess.CompletedProcess[str]]
TRAINING = "--num_generations 2 --max_completion_length 4 --save_strategy no"


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Study:
    """Runs scripts/run_matrix.py on two phantom modalities; folders are relative to a place of its own."""
    folder = tmp_path_factory.mktemp("study")
    phantoms = make_phantoms(folder / "phantoms", 2, 1, 0, [Modality.CT, Modality.MRI])
    prepare(
        Preparation(
            folder / "data", splits_dir=phantoms / "splits", image_root=phantoms, by=("modality",),
            encoding=Encoding(112),
        )
    )  # fmt: skip
    build_tiny_checkpoint(folder / "base")

    def call(*arguments: str, training: str = TRAINING) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(repository / "scripts" / "run_matrix.py"), "--base", "base", "--data", "data"]
        command += ["--modes", "nothink", "--by", "modality", "--no-zero_shot", "--output_dir", "output/study"]
        command += ["--train_args", training, "--infer_args", "--max_new_tokens 4", *arguments]
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)

    call.folder = folder  # type: ignore[attr-defined]
    return call


def test_a_typo_in_a_training_flag_is_found_before_the_first_run(study: Any) -> None:
    process = study(training="--max_stepz 3")
    assert process.returncode == 2
    assert process.stderr.strip().splitlines()[-1].startswith("error: --train_args: ")
    assert "--max_stepz" in process.stderr
    assert not (study.folder / "output").exists()


def test_one_command_trains_tests_and_reports_and_the_next_one_finds_it_done(study: Any) -> None:
    process = study("--only", "ct")
    assert process.returncode == 0, process.stdout + process.stderr
    folder = study.folder / "output" / "study"
    record = json.loads((folder / "runs" / "CT-grpo-nothink" / "run.json").read_text())
    # 10 questions, 4 a step: 2 whole steps in each of the 2 published epochs; the plan says the same
    assert (record["status"], record["steps"], record["prompts_per_step"]) == ("done", 4, 4)
    assert next(line for line in process.stdout.splitlines() if line.startswith("CT-grpo")).split()[1:3] == ["10", "4"]
    cells = {path.name: read_results(path) for path in (folder / "cells" / "CT-grpo-nothink").iterdir()}
    # one image with five questions in each test set
    assert {name: len(result_file.results) for name, result_file in cells.items()} == {
        "CT_112.jsonl": 5,
        "MRI_112.jsonl": 5,
    }
    assert {(result_file.manifest["trained_on"], result_file.manifest["method"]) for result_file in cells.values()} == {
        ("CT", "grpo")
    }
    summary = (folder / "report" / "summary.md").read_text()
    assert "grpo (nothink), same set | grpo (nothink), other sets |" in summary
    assert (folder / "report" / "trained_on_x_tested_on_modality_nothink.png").is_file()
    assert "2 of 4 cells are complete; report: output/study/report/report.html" in process.stdout
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    again = study("--only", "ct")
    assert again.returncode == 0, again.stdout + again.stderr
    assert "2 of 2 items are done" in again.stdout
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()} == before
