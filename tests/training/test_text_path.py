"""The text path as a user walks it: raw files, data_prepare, grpo.py's settings, infer on the prepared folders."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from text_sets import medqa_row, write_lines, xpert_row
from text_trainings import train

from open_r1.common.errors import UserError
from open_r1.evaluation.answering.run import infer
from open_r1.evaluation.answering.settings import InferenceSettings
from open_r1.evaluation.reporting.report import write_report
from open_r1.evaluation.scoring.results import read_results
from open_r1.rewards.registry import PUBLISHED
from open_r1_testbed.tiny_models import TINY_BASE, build_tiny_checkpoint


def script(repository: Path, name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, repository / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    """A folder as the published command makes it, word for word, from files in the published layout."""
    folder = tmp_path_factory.mktemp("text")
    write_lines(folder / "medqa" / "train.jsonl", [medqa_row(n) for n in range(1100)])
    write_lines(folder / "xpert" / "Text" / "test.jsonl", [xpert_row(n, "Reasoning") for n in range(10)])
    roots = ["--medxpertqa_root", str(folder / "xpert"), "--medqa_usmle_root", str(folder / "medqa")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["data_prepare.py", *roots, "--output_dir", str(folder / "set")])
        script(repository, "data_prepare").main()
    return folder / "set"


def test_the_published_command_makes_1090_and_a_fifth_of_medxpertqa(prepared):
    manifest = json.loads((prepared / "manifest.json").read_text())
    assert manifest["rows"]["train"]["source"] == {"MedQA": 1090, "MedXpertQA": 2}
    assert manifest["rows"]["test"]["source"] == {"MedXpertQA": 8}


@pytest.mark.slow
def test_a_text_model_trains_on_prepared_questions_and_answers_the_held_out_ones(prepared, tmp_path, monkeypatch):
    checkpoint = build_tiny_checkpoint(tmp_path / "tiny", "qwen2")
    step = train(monkeypatch, checkpoint, prepared, tmp_path / "run")
    assert {f"rewards/{name}_reward/mean" for name in PUBLISHED} <= step.keys()
    story = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (story["method"], story["mode"], story["status"], story["steps"]) == ("grpo", "think", "done", 2)
    assert story["data"]["prompts"] == 1092
    results = tmp_path / "answers.jsonl"
    settings = InferenceSettings(str(tmp_path / "run"), str(prepared), str(results), batch_size=4, max_new_tokens=4)
    assert infer(settings) == 0
    answered = read_results(results)
    assert answered.manifest["mode"] == "think"  # as trained
    assert len(answered.results) == 8
    assert {result.source for result in answered.results} == {"MedXpertQA"}


@pytest.mark.slow
def test_the_published_recipe_runs_under_accelerate_with_a_cpu_configuration(prepared, tmp_path, repository):
    checkpoint = build_tiny_checkpoint(tmp_path / "tiny", "qwen2")
    launch = "-m accelerate.commands.launch --num_processes 2 --main_process_port 0"
    configuration = "--config_file recipes/accelerate_configs/zero3_cpu.yaml"
    recipe = "src/open_r1/grpo.py --config recipes/HuatuoGPT-o1/grpo/config_medxpert_usmle.yaml"
    small = "--use_vllm false --report_to none --max_completion_length 6 --max_steps 2 --gradient_accumulation_steps 1"
    files = [
        "--model_name_or_path",
        str(checkpoint),
        "--dataset_name",
        str(prepared),
        "--output_dir",
        f"{tmp_path}/run",
    ]
    process = subprocess.run(
        [sys.executable, *f"{launch} {configuration} {recipe} {small} --logging_steps 1".split(), *files],
        cwd=repository,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"},
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert process.returncode == 0, process.stdout[-2000:] + process.stderr[-3000:]
    story = json.loads((tmp_path / "run" / "run.json").read_text())
    # the recipe's 2 prompts x 3 completions on each of 2 processes
    assert (story["status"], story["steps"], story["completions_per_step"]) == ("done", 2, 12)
    assert story["script_arguments"]["reward_funcs"] == list(PUBLISHED)


@pytest.mark.slow
def test_a_vision_model_trains_on_text_questions_with_weighted_rewards(prepared, tmp_path, monkeypatch):
    flags = ["--reward_funcs", "tag_count", "cosine", "--reward_weights", "0.5", "2", "--cosine_max_len", "6"]
    step = train(monkeypatch, TINY_BASE, prepared, tmp_path / "run", *flags)
    tags, cosine = (step[f"rewards/{name}_reward/mean"] for name in ("tag_count", "cosine"))
    # the reward is the weighted sum: 0.5 * tags + 2 * cosine
    assert step["reward"] == pytest.approx(0.5 * tags + 2 * cosine, abs=1e-6)
    assert cosine != 0


def test_a_flag_that_would_be_ignored_is_refused(prepared, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="--load_in_8bit is not supported"):
        train(monkeypatch, TINY_BASE, prepared, tmp_path / "run", "--use_peft", "--load_in_8bit")


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vllm is installed here")
@pytest.mark.parametrize("mode", ["server", "colocate"])
def test_vllm_where_it_is_not_installed_is_one_line_before_anything_is_loaded(mode, tmp_path, monkeypatch):
    nowhere = tmp_path / "nowhere"
    with pytest.raises(UserError, match=r"--use_vllm true: vllm is not installed; pip install '\.\[vllm\]'.*") as error:
        train(monkeypatch, nowhere, nowhere, tmp_path / "run", "--use_vllm", "--vllm_mode", mode)
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_real_questions_go_from_raw_files_to_a_report_without_a_hand_made_step(
    real_dir, repository, tmp_path, monkeypatch
):
    roots = ["--medxpertqa_root", str(real_dir / "medxpertqa"), "--medqa_usmle_root", str(real_dir / "medqa_usmle")]
    flags = [*roots, "--output_dir", str(tmp_path / "set"), "--usmle_nums", "150"]
    monkeypatch.setattr("sys.argv", ["data_prepare.py", *flags])
    script(repository, "data_prepare").main()
    checkpoint = build_tiny_checkpoint(tmp_path / "tiny", "qwen2", processor=real_dir / "qwen2_5_vl_processor")
    train(monkeypatch, checkpoint, tmp_path / "set", tmp_path / "run", "--max_steps", "20")
    story = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (story["status"], story["steps"]) == ("done", 20)
    data = story["data"]
    # with the real vocabulary one of the 198 prompts is over the published limit of 1,024 tokens
    assert (data["prompts"], len(data["too_long"])) == (197, 1)
    results = tmp_path / "answers.jsonl"
    settings = InferenceSettings(
        str(tmp_path / "run"), str(tmp_path / "set"), str(results), batch_size=4, max_new_tokens=4, limit=8
    )
    assert infer(settings) == 0
    assert "| MedXpertQA | 8 | " in write_report([results], tmp_path / "report")  # n stands beside the accuracy
