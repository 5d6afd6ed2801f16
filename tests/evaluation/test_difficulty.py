"""Grading a data set by pass rate, as the command does it, and training by what it found."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from open_r1.common.errors import UserError
from open_r1.data.difficulty_file import read_difficulty
from open_r1.evaluation.scoring.difficulty import Thresholds, grade_answers
from open_r1.evaluation.scoring.results import read_results
from open_r1.grading.grader import Outcome
from open_r1.training.grpo_run import train_grpo
from open_r1.vocabulary.modes import Mode
from open_r1_testbed.riddles import make_riddles
from open_r1_testbed.tiny_models import build_tiny_checkpoint

pytestmark = pytest.mark.slow  # a checkpoint is trained until its answers differ


@pytest.fixture(scope="module")
def riddles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_riddles(tmp_path_factory.mktemp("riddles") / "set", 24, 24)


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory, riddles: Path, load_script: Callable[[str], Any]) -> Path:
    """A tiny text model that writes the form with letters at random: pass rates between 0 and 1."""
    folder = tmp_path_factory.mktemp("models")
    base = build_tiny_checkpoint(folder / "base", "qwen2")
    flags = ["--model_name_or_path", str(base), "--dataset_name", str(riddles), "--output_dir", str(folder / "taught")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["teach_format.py", *flags, "--max_steps", "100", "--learning_rate", "3e-3"])
        load_script("scripts/teach_format.py").main()
    return folder / "taught"


@pytest.fixture(scope="module")
def grade_command(load_script: Callable[[str], Any], taught: Path, riddles: Path) -> Callable[..., int]:
    script = load_script("scripts/grade_difficulty.py")

    def grade(output: Path, *flags: str) -> int:
        command = ["--model_path", str(taught), "--prompt_path", str(riddles), "--output_path", str(output)]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("sys.argv", ["grade_difficulty.py", *command, "--max_new_tokens", "8", *flags])
            return script.main()

    return grade


@pytest.fixture(scope="module")
def graded(tmp_path_factory: pytest.TempPathFactory, grade_command: Callable[..., int]) -> Path:
    output = tmp_path_factory.mktemp("graded") / "riddles.difficulty"
    assert grade_command(output, "--samples", "4") == 0
    return output


def test_the_pass_rate_is_the_share_of_right_samples(graded: Path, riddles: Path) -> None:
    difficulties = read_difficulty(graded)
    train = [json.loads(line)["id"] for line in (riddles / "train.jsonl").read_text().splitlines()]
    assert {*difficulties} == {*train}  # the train split, every question once
    answers = read_results(graded.with_name("riddles.difficulty.answers.jsonl"))
    for result in answers.results:
        outcomes = [sample.outcome for sample in result.samples or []]
        question = difficulties[result.id]
        assert (question.correct, question.samples) == (outcomes.count(Outcome.CORRECT), 4)
        assert question.pass_rate == question.correct / 4
        # labels as the defaults state them: 0/4 and 1/4 hard, 2/4 medium, 3/4 and 4/4 easy
        assert question.label == ["hard", "hard", "medium", "easy", "easy"][question.correct]
    assert len({question.pass_rate for question in difficulties.values()}) >= 3


def test_the_file_says_what_it_was_made_from(graded: Path) -> None:
    manifest = json.loads(graded.read_text().splitlines()[0])["manifest"]
    assert manifest["thresholds"] == {"easy_from": 0.75, "hard_to": 0.25}
    assert sum(manifest["counts"].values()) == 24
    assert (manifest["answers"]["split"], manifest["answers"]["samples"]) == ("train", 4)
    assert manifest["answers"]["temperature"] == 1.0
    assert len(manifest["answers"]["checkpoint_sha256"]) == 64


def test_an_interrupted_run_goes_on_where_it_ended_and_ends_the_same(
    graded: Path, grade_command: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / graded.name
    answers = graded.with_name(graded.name + ".answers.jsonl")
    lines = answers.read_bytes().splitlines(keepends=True)
    (tmp_path / answers.name).write_bytes(b"".join(lines[:11]) + lines[11][:40])  # 10 answers and a torn one
    assert grade_command(output, "--samples", "4") == 0
    assert "14 of 24 questions to ask" in capsys.readouterr().err
    again, expected = read_difficulty(output), read_difficulty(graded)
    assert again == expected


def test_other_thresholds_cost_no_answer(graded: Path, tmp_path: Path) -> None:
    answers = graded.with_name(graded.name + ".answers.jsonl")
    strict = grade_answers(answers, tmp_path / "strict", Thresholds(easy_from=1.0, hard_to=0.0))
    assert {question.pass_rate for question in strict if question.label == "hard"} <= {0.0}
    assert {question.pass_rate for question in strict if question.label == "medium"} <= {0.25, 0.5, 0.75}


def test_one_sample_is_no_rate(grade_command: Callable[..., int], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--samples 1: a pass rate needs at least 2"):
        grade_command(tmp_path / "d", "--samples", "1")


def test_training_takes_the_file(
    graded: Path, taught: Path, riddles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [
        "--model_name_or_path",
        str(taught),
        "--dataset_name",
        str(riddles),
        "--output_dir",
        str(tmp_path / "run"),
    ]
    small = ["--per_device_train_batch_size", "4", "--num_generations", "2", "--max_completion_length", "8"]
    quiet = ["--report_to", "none", "--save_strategy", "no", "--disable_tqdm", "true", "--num_train_epochs", "1"]
    curriculum = ["--difficulty", str(graded), "--curriculum", "mixed", "--hard_fraction", "0.25"]
    monkeypatch.setattr("sys.argv", ["grpo.py", *command, *small, *quiet, *curriculum])
    train_grpo(Mode.NOTHINK)
    story = json.loads((tmp_path / "run" / "run.json").read_text())
    hard = sum(question.label == "hard" for question in read_difficulty(graded).values())
    # windows of 4 prompts with 1 hard and 3 others each, until either side ends
    assert story["steps"] == min(hard, (24 - hard) // 3)
    assert story["data"]["curriculum"].startswith(f"curriculum mixed: {hard} of 24 questions are hard, 1 in every")
    assert story["script_arguments"]["difficulty"] == str(graded)
