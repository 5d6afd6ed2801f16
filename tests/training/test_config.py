"""The published commands mean what they meant, and a wrong flag is one line."""

import shlex
from typing import Any

import pytest

from open_r1.common.errors import UserError
from open_r1.training.command_line import grpo_config
from open_r1.training.command_line.parsing import parse
from open_r1.training.setup import tracking

PUBLISHED = (
    "--output_dir ./output/Modality_CT --model_name_or_path ./checkpoints/Qwen2.5-VL-3B-Instruct "
    "--dataset_name ./data/VQA/CT_384 --max_prompt_length 1024 --per_device_train_batch_size 1 "
    "--gradient_accumulation_steps 2 --logging_steps 1 --bf16 --report_to wandb --gradient_checkpointing false "
    "--attn_implementation flash_attention_2 --max_pixels 401408 --num_train_epochs 2 "
    "--run_name Qwen2.5-VL-3B-GRPO-CT --save_steps 200 --save_only_model true --num_generations 4"
)


@pytest.fixture(autouse=True)
def quiet_wandb_for_this_test_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """`--report_to wandb` sets the environment variables that keep wandb quiet; they are gone with the test."""
    for name in tracking._QUIET_WANDB:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


def parsed(extra: str = "", base: str = PUBLISHED) -> tuple[Any, Any, Any]:
    return parse(shlex.split(f"{base} {extra}"))


def test_published_command_makes_4_prompts_and_16_completions_per_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grpo_config.GRPOTrainingConfig, "world_size", property(lambda self: 2))
    script, training, model = parsed()
    # 1 prompt per device x 2 devices x 2 accumulation steps = 4 prompts, x 4 completions = 16
    assert (training.prompts_per_step, training.completions_per_step) == (4, 16)
    # TRL counts completions: 1 prompt x 4 = 4 rows per device and micro-batch, 4 x 2 x 2 = 16 per generation batch
    assert training.per_device_train_batch_size == 4
    assert training.generation_batch_size == 16
    assert script.max_pixels == 401408
    assert script.max_prompt_length == 1024
    assert model.attn_implementation == "flash_attention_2"


def test_defaults_are_those_of_the_published_runs() -> None:
    _, training, model = parsed()
    assert training.learning_rate == 1e-6
    assert training.lr_scheduler_type == "linear"
    assert training.optim.startswith("adamw")
    assert training.beta == 0.04
    assert training.max_completion_length == 256
    assert training.temperature == 1.0
    assert (training.top_k, training.top_p) == (0, 1.0)
    assert training.loss_type == "grpo"
    assert training.scale_rewards == "group"
    assert training.num_iterations == 1
    assert training.gradient_checkpointing is False
    assert model.dtype == "float32"


@pytest.mark.skipif(grpo_config.torch.cuda.is_available(), reason="there is a GPU here, where bf16 is honoured")
def test_bf16_without_a_gpu_is_one_line_and_float32() -> None:
    _, training, _ = parsed()
    assert training.bf16 is False
    assert training.use_cpu is True
    assert [note for note in training.notes if "--bf16" in note] == [
        "--bf16: no GPU here, so this run computes in float32"
    ]


def test_saving_weights_only_says_what_it_costs() -> None:
    _, training, _ = parsed()
    assert training.save_only_model is True
    assert any("cannot be resumed" in note for note in training.notes)


def test_wandb_without_a_login_goes_offline_with_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setattr(tracking, "_wandb_login", lambda: False)
    _, training, _ = parsed()
    import os

    assert os.environ["WANDB_MODE"] == "offline"
    assert len([note for note in training.notes if "wandb" in note]) == 1


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ("--no_such_flag 3", "no_such_flag"),
        ("--mode backwards", "'backwards'"),
        ("--mode direct", "--mode direct is only for evaluating models that were not trained here"),
        ("--num_generations 1", "at least 2"),
        ("--max_prompt_length 0", "max_prompt_length 0"),
        ("--overlong_prompts cut", "'cut'"),
        ("--learning_rate fast", "learning_rate"),
        ("--config no_such_file.yaml", "no_such_file.yaml"),
    ],
)
def test_a_wrong_flag_is_one_line_that_names_it(extra: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        parsed(extra)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_checkpoint_flag_is_named() -> None:
    with pytest.raises(UserError, match="model_name_or_path"):
        parse(["--dataset_name", "x", "--output_dir", "y"])
