"""Every recipe parses, means what was published, and old keys are translated with one line each."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from accelerate.commands.config.config_args import ClusterConfig, load_config_from_file

from open_r1.common.errors import UserError
from open_r1.rewards.registry import rewards_for
from open_r1.training.command_line.flags import read_training_flags
from open_r1.training.command_line.legacy_flags import OLD_KEYS, translated, translated_flags
from open_r1.training.command_line.parsing import parse
from open_r1.vocabulary.modes import Mode

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
ACCELERATE = sorted((RECIPES / "accelerate_configs").glob("*.yaml"))
TRAINING = sorted(RECIPES.glob("*/grpo/*.yaml"))
VISION = RECIPES / "Qwen2.5-VL-3B-Instruct" / "grpo"
ITS_OWN = {"output_dir", "logging_dir", "run_name", "model_name_or_path", "save_only_model", "notes"}
PARTS = ("1_text", "2_image")
HUATUO = RECIPES / "HuatuoGPT-o1" / "grpo" / "config_medxpert_usmle.yaml"


def named(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(RECIPES)) for path in paths]


def test_the_recipes_that_the_readme_promises_are_there():
    assert {path.stem for path in ACCELERATE} >= {"zero2", "zero3", "ddp", "fsdp", "ddp_cpu", "zero2_cpu", "zero3_cpu"}
    models = {path.parts[-3] for path in TRAINING}
    assert models >= {"HuatuoGPT-o1", "Gemma-3-12b-it", *(f"Qwen2.5-{size}-Instruct" for size in ("1.5B", "3B", "7B"))}


@pytest.mark.parametrize("path", ACCELERATE, ids=named(ACCELERATE))
def test_accelerate_takes_every_launch_configuration(path):
    config = load_config_from_file(str(path))
    assert isinstance(config, ClusterConfig)
    kind = {"zero2": "DEEPSPEED", "zero3": "DEEPSPEED", "ddp": "MULTI_GPU", "fsdp": "FSDP"}
    assert str(config.distributed_type).split(".")[-1] == kind[path.stem.removesuffix("_cpu")]
    # with use_cpu accelerate 1.15 drops DeepSpeed without a word, and starts one process for plain data parallel
    assert config.use_cpu is False
    assert config.mixed_precision == ("no" if path.stem.endswith("_cpu") else "bf16")


@pytest.mark.slow
def test_the_cpu_configuration_starts_as_many_processes_as_asked(tmp_path):
    # a file each: what two processes print at once may be mixed
    script = "import os, sys\nopen(sys.argv[1] + os.environ['RANK'], 'w').write(os.environ['WORLD_SIZE'])\n"
    (tmp_path / "who.py").write_text(script)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = RECIPES / "accelerate_configs" / "ddp_cpu.yaml"
    flags = ["--num_processes", "2", "--main_process_port", str(port), "--config_file", str(config)]
    launch = [sys.executable, "-m", "accelerate.commands.launch", *flags, str(tmp_path / "who.py")]
    subprocess.run([*launch, str(tmp_path / "rank")], capture_output=True, text=True, timeout=600, check=True)
    assert {path.name: path.read_text() for path in tmp_path.glob("rank*")} == {"rank0": "2", "rank1": "2"}


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_every_deepspeed_file_is_of_its_stage_and_takes_its_numbers_from_the_flags(stage, tmp_path):
    """tests/training/test_distributed.py trains with them."""
    path = RECIPES / "deepspeed" / f"zero{stage}.json"
    settings = json.loads(path.read_text())
    assert settings["zero_optimization"]["stage"] == stage
    assert settings["data_types"] == {"grad_accum_dtype": "fp32"}
    named_by_flags = ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "bf16")
    assert all(settings[name] in ("auto", {"enabled": "auto"}) for name in named_by_flags)
    base = ["--model_name_or_path", "m", "--dataset_name", "d", "--output_dir", str(tmp_path)]
    assert read_training_flags("grpo", [*base, "--deepspeed", str(path)]).library.deepspeed == str(path)


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_deepspeed_reads_its_file_with_numbers_in_place_of_auto(stage):
    """DeepSpeed's own class, for a process with 2 prompts of 4 completions and 3 micro-batches a step."""
    from deepspeed.runtime.config import DeepSpeedConfig

    settings = json.loads((RECIPES / "deepspeed" / f"zero{stage}.json").read_text())
    numbers = {"train_batch_size": 24, "train_micro_batch_size_per_gpu": 8, "gradient_accumulation_steps": 3}
    numbers |= {"gradient_clipping": 1.0}
    assert all(settings[name] == "auto" for name in numbers)
    sizes = {name: 4096 for name, value in settings["zero_optimization"].items() if value == "auto"}
    filled = settings | numbers | {"bf16": {"enabled": True}, "fp16": {"enabled": False}}
    filled["zero_optimization"] = settings["zero_optimization"] | sizes
    assert "auto" not in json.dumps(filled)
    config = DeepSpeedConfig(filled)
    assert config.zero_optimization_stage == stage
    assert (config.train_batch_size, config.gradient_accumulation_steps) == (24, 3)  # 8 x 3
    assert config.bfloat16_config.enabled
    assert config.gradient_clipping == 1.0


def test_zero3_shards_everything_and_offloads():
    config = load_config_from_file(str(RECIPES / "accelerate_configs" / "zero3.yaml"))
    assert isinstance(config, ClusterConfig)
    settings = config.deepspeed_config
    assert settings is not None
    assert settings["zero_stage"] == 3
    assert settings["offload_optimizer_device"] == settings["offload_param_device"] == "cpu"


@pytest.mark.parametrize("path", TRAINING, ids=named(TRAINING))
def test_every_training_recipe_parses_without_an_old_key(path):
    script, training, model = parse(["--config", str(path)])
    assert rewards_for(script.reward_funcs, Mode.THINK, script, training.max_completion_length)
    assert not [key for key in yaml.safe_load(path.read_text()) if key in OLD_KEYS]
    assert training.warmup_steps == (0 if "Qwen2.5-VL" in path.parts[-3] else 0.1)
    assert model.use_peft == ("lora" in path.stem)
    assert model.load_in_4bit == ("qlora" in path.stem)


def test_the_omnimedvqa_recipe_is_the_published_command_of_the_readme():
    page = (RECIPES.parent / "README.md").read_text().replace("\\\n", " ")
    command = next(line for line in page.splitlines() if "src/open_r1/grpo_vqa_nothink.py --output_dir" in line)
    command = command[command.index("--output_dir") :].split()
    published, recipe = parse(command), parse(["--config", str(VISION / "config_omnimedvqa.yaml")])
    for ours, theirs in zip(recipe, published, strict=True):
        names = vars(theirs).keys() - ITS_OWN
        different = {name for name in names if vars(ours)[name] != vars(theirs)[name]}
        assert not {name for name in different if isinstance(vars(theirs)[name], str | int | float | list)}


def test_the_second_recipe_of_text_then_image_starts_from_the_first():
    first, second = (parse(["--config", str(VISION / f"config_text_then_image_{part}.yaml")]) for part in PARTS)
    assert second[2].model_name_or_path == first[1].output_dir


def test_the_mixture_pays_for_every_type_of_answer():
    script, training, _ = parse(["--config", str(VISION / "config_closed_open.yaml")])
    assert [Path(name).name for name in script.dataset_name] == ["vqa_rad", "slake_en", "pathvqa"]
    rewards = rewards_for(script.reward_funcs, Mode.THINK, script, training.max_completion_length)
    row = {"problem": ["Is it?"], "solution": ["yes"], "answer_type": ["closed"]}
    values = [reward(completions=["<think>x</think><answer>yes</answer>"], **row) for reward in rewards]
    assert values == [[1.0], [1.0], [1.0]]
    assert training.reward_weights == [1.0, 0.5, 0.5]


def test_the_published_recipe_means_what_was_published():
    script, training, model = parse(["--config", str(HUATUO)])
    assert (training.num_generations, training.num_train_epochs) == (3, 6)
    assert (training.learning_rate, training.lr_scheduler_type) == (2e-5, "cosine")
    assert (training.prompts_per_device, training.gradient_accumulation_steps) == (2, 16)
    assert (script.max_prompt_length, training.max_completion_length) == (1024, 8192)
    assert model.attn_implementation == "flash_attention_2"
    assert model.model_name_or_path == "FreedomIntelligence/HuatuoGPT-o1-7B"
    assert training.gradient_checkpointing is True
    assert (training.seed, training.save_strategy) == (42, "epoch")
    assert training.beta == 0.04  # the default of trl 0.14, which the recipe relied on


def test_the_command_line_wins_over_the_recipe_and_the_recipe_over_the_entry():
    defaults = {"reward_funcs": ["format"], "max_prompt_length": 7}
    script, training, _ = parse(["--config", str(HUATUO), "--num_generations", "5"], defaults)
    assert training.num_generations == 5
    assert script.reward_funcs == ["medical_accuracy", "soft_format", "strict_format", "tag_count"]
    assert script.max_prompt_length == 1024
    bare = ["--model_name_or_path", "m", "--dataset_name", "d", "--output_dir", "o"]
    script, _, _ = parse(bare, defaults)
    assert (script.reward_funcs, script.max_prompt_length) == (["format"], 7)
    assert parse(bare)[0].reward_funcs == ["accuracy", "format"]


OLD = {
    "model_name_or_path": "m",
    "dataset_name": "d",
    "output_dir": "o",
    "torch_dtype": "bfloat16",
    "warmup_ratio": 0.1,
    "dataset_configs": ["all"],
    "num_processes": 7,
    "vllm_device": "auto",
    "overwrite_output_dir": True,
    "evaluation_strategy": "no",
    "push_to_hub": False,
}


def test_a_recipe_of_trl_0_14_is_read_with_one_line_per_old_key(tmp_path):
    (tmp_path / "old.yaml").write_text(yaml.safe_dump(OLD))
    _, training, model = parse(["--config", str(tmp_path / "old.yaml")])
    assert (model.dtype, training.warmup_steps, training.eval_strategy) == ("bfloat16", 0.1, "no")
    old = [key for key in OLD if key in OLD_KEYS]
    assert len(old) == 7
    for key in old:
        assert len([note for note in training.notes if note.startswith(f"{key}: ")]) == 1


def test_old_flags_are_read_like_old_keys():
    base = ["--model_name_or_path", "m", "--dataset_name", "d", "--output_dir", "o"]
    _, training, model = parse([*base, "--torch_dtype", "bfloat16", "--warmup_ratio=0.2", "--overwrite_output_dir"])
    assert (model.dtype, training.warmup_steps) == ("bfloat16", 0.2)
    assert len([note for note in training.notes if note.startswith("--")]) >= 3
    assert translated_flags(["--seed", "1", "--dataset_configs", "all", "more", "--bf16"])[0] == [
        "--seed",
        "1",
        "--bf16",
    ]


def test_a_key_in_both_forms_keeps_the_new_one_and_a_switch_that_is_off_stays_off():
    assert translated({"torch_dtype": "float16", "dtype": "float32"})[0] == {"dtype": "float32"}
    assert translated({"group_by_length": False})[0] == {}
    assert translated({"group_by_length": True})[0] == {"train_sampling_strategy": "group_by_length"}


def test_an_unknown_key_is_an_error_that_names_it(tmp_path):
    (tmp_path / "new.yaml").write_text(yaml.safe_dump(OLD | {"learning_rat": 1e-5}))
    with pytest.raises(UserError, match="learning_rat"):
        parse(["--config", str(tmp_path / "new.yaml")])


def test_every_translation_leads_to_a_key_that_exists():
    from dataclasses import fields

    from trl import ModelConfig

    from open_r1.training.command_line.arguments import VQAArguments
    from open_r1.training.command_line.grpo_config import GRPOTrainingConfig
    from open_r1.training.sft_run import SFTTrainingConfig

    classes = (VQAArguments, GRPOTrainingConfig, ModelConfig, SFTTrainingConfig)
    current_keys = {field.name for flag_class in classes for field in fields(flag_class)}
    assert {new.key for new in OLD_KEYS.values() if new.key} <= current_keys
    assert not current_keys & OLD_KEYS.keys()
