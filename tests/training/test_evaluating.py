"""Evaluation during training (`--eval_strategy`) does not change the training, and overlap is reported."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
from published_sets import questions, save_published_form
from safetensors.torch import load_file

from open_r1.common.atomic_files import sha256_file
from open_r1.common.errors import UserError
from open_r1.training import grpo_run
from open_r1.training.command_line.grpo_config import GRPOTrainingConfig
from open_r1.training.grpo.step_meter import StepMeter
from open_r1.training.grpo_run import train_grpo
from open_r1.training.sft_run import train_sft
from open_r1.vocabulary.modes import Mode
from open_r1_testbed.forked_runs import small_set
from open_r1_testbed.tiny_models import build_tiny_checkpoint

FLAGS = (
    "grpo --model_name_or_path tiny --dataset_name set --num_generations 2 --max_completion_length 4 --max_steps 3 "
    "--logging_steps 1 --save_steps 1 --learning_rate 1e-3 --report_to none --disable_tqdm true --output_dir"
)
EVALUATING = ["--eval_strategy", "steps", "--eval_steps", "1", "--per_device_eval_batch_size", "3"]
Train = Callable[..., Path]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluating")
    build_tiny_checkpoint(folder / "tiny")
    small_set(folder / "set", 4)
    save_published_form(folder / "same", 4)
    return folder


@pytest.fixture
def train(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Train:
    """Trains with GRPO in this process; completions earn by their letters, so that groups differ."""
    monkeypatch.chdir(workplace)

    def spread(completions: list[Any], **_: Any) -> list[float]:
        return [turn["content"].count("e") + len(turn["content"]) / 10 for (turn,) in completions]

    def run(output: str, *flags: str) -> Path:
        monkeypatch.setattr(grpo_run, "rewards_for", lambda *_: [spread])
        monkeypatch.setattr(sys, "argv", [*FLAGS.split(), output, *flags])
        assert train_grpo(Mode.NOTHINK) == 0
        return workplace / output

    return run


@pytest.fixture
def evaluated(train: Train, workplace: Path) -> Path:
    """The folder of a run with three evaluations, trained once."""
    folder = workplace / "evaluated"
    return folder if (folder / "trainer_state.json").exists() else train(folder.name, *EVALUATING)


def evaluations(folder: Path) -> list[dict[str, Any]]:
    log = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    return [entry for entry in log if "eval_loss" in entry]


@pytest.mark.slow
def test_an_evaluation_changes_nothing_of_the_training(train: Train, evaluated: Path) -> None:
    without = train("without")
    assert sha256_file(evaluated / "model.safetensors") == sha256_file(without / "model.safetensors")
    entries = evaluations(evaluated)
    assert [entry["step"] for entry in entries] == [1, 2, 3]
    assert len({entry["eval_loss"] for entry in entries}) == 3, "three models give the same"
    story = json.loads((evaluated / "run.json").read_text())["data"]["evaluation"]
    assert (story["prompts"], story["asked"], story["trained_on_too"]) == (4, 3, 0)  # one batch of 3
    logged = [json.loads(line) for line in (evaluated / "metrics.jsonl").read_text().splitlines()]
    assert sum("eval_reward" in entry for entry in logged) == 3


@pytest.mark.slow
def test_the_shared_prefix_evaluates_as_stock_rows_do(train: Train) -> None:
    ours, stock = (
        evaluations(train(f"shared-{way}", *EVALUATING, "--shared_prefix", way, "--eval_on_start", "true"))[0]
        for way in ("true", "false")
    )
    assert ours["eval_reward"] == stock["eval_reward"] != 0
    assert ours["eval_rewards/spread/std"] == stock["eval_rewards/spread/std"]
    assert ours["eval_loss"] == pytest.approx(stock["eval_loss"], abs=1e-6)


@pytest.mark.slow
def test_a_part_of_the_questions_can_be_asked(train: Train, evaluated: Path) -> None:
    folder = train("part", *EVALUATING, "--max_eval_samples", "2")  # fewer than the 3 of a batch
    assert json.loads((folder / "run.json").read_text())["data"]["evaluation"]["asked"] == 2
    all_questions, some_questions = evaluations(evaluated)[0], evaluations(folder)[0]
    per_second = [entry["eval_samples_per_second"] * entry["eval_runtime"] for entry in (all_questions, some_questions)]
    assert per_second == pytest.approx([3, 2], rel=0.05)


@pytest.mark.slow
def test_the_best_checkpoint_is_loaded_whole(train: Train) -> None:
    # the accuracy of a random model is 0 after each step, and the first of equals is the best
    flags = ["--load_best_model_at_end", "true", "--metric_for_best_model", "completions/mean_length"]
    folder = train("best", *EVALUATING, *flags, "--greater_is_better", "true", "--save_only_model", "true")
    final = load_file(folder / "model.safetensors")
    after_step_1, after_step_3 = (load_file(folder / f"checkpoint-{step}" / "model.safetensors") for step in (1, 3))
    assert all(value.equal(after_step_1[name]) for name, value in final.items())
    assert any(not value.equal(after_step_3[name]) for name, value in final.items())


@pytest.mark.parametrize(
    ("questions", "processes", "batch", "evaluated", "new_batch"),
    [(100, 1, 8, 96, 8), (100, 2, 8, 96, 8), (5, 1, 8, 5, 5), (5, 2, 8, 4, 2), (1, 2, 8, 1, 1), (16, 2, 8, 16, 8)],
)
def test_every_question_counts_the_same(
    questions: int, processes: int, batch: int, evaluated: int, new_batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = GRPOTrainingConfig(output_dir="x", num_generations=4, per_device_eval_batch_size=batch)
    monkeypatch.setattr(GRPOTrainingConfig, "world_size", processes)
    assert training.filled_evaluation(questions) == evaluated
    assert training.per_device_eval_batch_size == 4 * new_batch


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([*EVALUATING, "--dataset_name", "same"], "all 4 questions for evaluation are also training questions"),
        ([*EVALUATING, "--eval_dataset_name", "nowhere"], "nowhere is not there"),
        (["--max_eval_samples", "3"], "do nothing without --eval_strategy"),
        ([*EVALUATING, "--max_eval_samples", "0"], "--max_eval_samples 0 would evaluate nothing"),
    ],
    ids=["same", "absent", "no strategy", "none"],
)
def test_what_cannot_be_asked_is_refused(train: Train, workplace: Path, flags: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        train("refused", *flags)
    assert not (workplace / "refused").exists()


@pytest.mark.slow
def test_questions_that_are_trained_on_too_are_counted(
    train: Train, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = datasets.Dataset.from_dict(questions(6), features=datasets.Features(_FEATURES))
    datasets.DatasetDict({"train": rows.select(range(4)), "test": rows.select(range(2, 6))}).save_to_disk(
        str(workplace / "overlapping")
    )
    train("overlap", *EVALUATING, "--dataset_name", "overlapping")
    assert (
        "evaluation during training: 3 of 4 questions of overlapping; 2 of all are training questions too"
        in capsys.readouterr().out
    )


@pytest.mark.slow
def test_supervised_training_evaluates_too(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workplace)
    flags = "sft --model_name_or_path tiny --dataset_name set --max_steps 2 --per_device_train_batch_size 2 "
    flags += "--gradient_accumulation_steps 1 --logging_steps 1 --save_strategy no --report_to none --output_dir sft"
    monkeypatch.setattr(sys, "argv", [*flags.split(), *EVALUATING])
    assert train_sft() == 0
    losses = [entry["eval_loss"] for entry in evaluations(workplace / "sft")]
    assert len(losses) == 2
    assert losses[1] < losses[0]


def test_what_an_evaluation_costs_is_no_part_of_the_step() -> None:
    meter = StepMeter()
    with meter.phase("rollout"):
        meter.count("prompts", 2)
    before = meter.flush()
    with meter.paused(), meter.phase("rollout"):
        meter.count("computed", 500)
    assert before["seconds/rollout"] > 0
    after = meter.flush()
    assert (after["seconds/rollout"], after["tokens/computed"]) == (0, 0)


_FEATURES = {"image": datasets.Image(), "problem": datasets.Value("string"), "solution": datasets.Value("string")}
