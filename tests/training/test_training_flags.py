"""What a training command judges before torch is loaded is what TRL's parser would say, only sooner and in one line."""

import argparse
import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest
from transformers import TrainingArguments
from trl import ModelConfig

from open_r1.common.errors import UserError
from open_r1.rewards.registry import REWARDS
from open_r1.training.command_line import library_flags
from open_r1.training.command_line.arguments import QuestionArguments, VQAArguments
from open_r1.training.command_line.flag_help import LIBRARY_HELP, THEMES, help_text
from open_r1.training.command_line.flags import (
    FLAG_CLASSES,
    Method,
    TrainingParser,
    check_training_flags,
    read_training_flags,
    require_files,
    require_sources,
)
from open_r1.training.command_line.grpo_config import GRPOTrainingConfig
from open_r1.training.command_line.legacy_flags import ELSEWHERE, OLD_KEYS
from open_r1.training.command_line.parsing import parse
from open_r1.training.sft_run import SFTTrainingConfig

NEEDED = ["--model_name_or_path", "org/model", "--dataset_name", "data"]
HEAVY = {
    "grpo": (VQAArguments, GRPOTrainingConfig, ModelConfig),
    "sft": (QuestionArguments, SFTTrainingConfig, ModelConfig),
}


def light_parser(method: Method) -> TrainingParser:
    ours = {field.name for of in FLAG_CLASSES[method] for field in dataclasses.fields(of)}
    kinds = {name: kind for name, kind in library_flags.library_kinds(method).items() if name not in ours}
    return TrainingParser((*FLAG_CLASSES[method], library_flags.as_dataclass(kinds)))


def test_the_table_is_that_of_the_installed_libraries() -> None:
    table = json.loads((Path(library_flags.__file__).parent / "library_flags.json").read_text())
    assert table == library_flags.described_libraries(), (
        "run `python -m open_r1.training.command_line.library_flags` after an upgrade"
    )


@pytest.mark.parametrize("method", ["grpo", "sft"])
def test_both_parsers_know_the_same_flags_with_the_same_values(method: Method) -> None:
    heavy, light = TrainingParser(HEAVY[method]), light_parser(method)
    assert light._option_string_actions.keys() == heavy._option_string_actions.keys(), (
        "a flag of ours that is not in arguments.py is not known before torch is loaded"
    )
    for option, action in heavy._option_string_actions.items():
        light_action = light._option_string_actions[option]
        assert (light_action.nargs, light_action.const, light_action.required) == (
            action.nargs,
            action.const,
            action.required,
        ), option
        if action.choices and light_action.choices:
            assert list(map(str, light_action.choices)) == list(map(str, action.choices)), option
        for kind in ("int", "float", "string_to_bool"):
            is_kind = [getattr(flag.type, "__name__", "") == kind for flag in (action, light_action)]
            assert is_kind[0] == is_kind[1], option


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--freeze_vision_modules true", "unknown flag --freeze_vision_modules; here it is --freeze_vision_tower"),
        ("--image_folders /data", "unknown flag --image_folders; here it is --image_root"),
        ("--data_file_paths a.jsonl", "unknown flag --data_file_paths; here it is --dataset_name"),
        ("--train_split train", "unknown flag --train_split; here it is --dataset_train_split"),
        ("--eval_split test", "unknown flag --eval_split; here it is --dataset_test_split, with --eval_strategy"),
        ("--problem_column question", "unknown flag --problem_column; --columns problem=question,solution=answer"),
        ("--columns question", "--columns question: 'question' names no column; write our name, = and the name"),
        ("--columns text=question", "--columns text=question: there is no column 'text'; ours are images, image"),
        ("--columns problem=a,problem=b", "--columns problem=a,problem=b: problem is named twice"),
        ("--reward_method default", "unknown flag --reward_method; here it is --reward_funcs"),
        ("--system_prompt x", "unknown flag --system_prompt; --mode chooses the prompt"),
        ("--lr 1e-6", "unknown flag --lr; here it is --learning_rate"),
        (
            "--num_gpus 2",
            "unknown flag --num_gpus; the launcher sets the number of processes: torchrun",
        ),
        ("--gradient_acumulation_steps 2", "unknown flag --gradient_acumulation_steps; did you mean --gradient_accumu"),
        ("--reward_funcs acuracy", "there is no reward 'acuracy'; choose from accuracy, format,"),
        ("--reward_funcs accuracy accuracy", "a reward is named twice"),
        ("--reward_funcs judge", "judge is the only reward"),
        ("--reward_funcs judge format", "--reward_funcs judge and --judge URL MODEL belong together"),
        ("--judge http://localhost:8000 m", "--reward_funcs judge and --judge URL MODEL belong together"),
        ("--reward_funcs judge format --judge localhost m", "--judge 'localhost' is no address"),
        ("--reward_funcs nowhere.py:f", "--reward_funcs nowhere.py:f: there is no file nowhere.py"),
        ("--mode tink", "--mode 'tink' does not exist; choose one of think, nothink, think_after"),
        ("--overlong_prompts cut", "--overlong_prompts takes drop or refuse, not 'cut'"),
        ("--lora_on eyes", "--lora_on 'eyes' does not exist; choose one of language, vision, both"),
        ("--curriculum hard", "--curriculum 'hard' does not exist"),
        ("--save_strategy sometimes", "argument --save_strategy/--save-strategy: invalid choice: 'sometimes'"),
        ("--dtype float33", "argument --dtype: invalid choice: 'float33'"),
        ("--learning_rate fast", "argument --learning_rate/--learning-rate: invalid float value: 'fast'"),
        ("--save_steps 2k", "argument --save_steps/--save-steps: invalid float value: '2k'"),
        ("--gradient_checkpointing maybe", "argument --gradient_checkpointing/--gradient-checkpointing: Truthy value"),
        ("--num_generations 1", "--num_generations 1: a group needs at least 2 completions"),
        ("--repetition_n_grams 0", "--repetition_n_grams 0 is not a number of words"),
        ("--config missing.yaml", "--config 'missing.yaml' is not a file"),
        ("--config=missing.yaml", "--config 'missing.yaml' is not a file"),
        ("--config", "--config None is not a file"),
        ("--image_root missing", "--image_root missing is not a folder"),
        ("--deepspeed missing.json", "--deepspeed missing.json is not a file"),
        ("--difficulty missing --curriculum easy_to_hard", "--difficulty missing is not a file"),
    ],
)
def test_what_can_be_mistyped_is_one_line_that_says_what_was_meant(flags: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        require_files(read_training_flags("grpo", [*NEEDED, *flags.split()]))
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ("learning_rat: 1.0e-6", "unknown key 'learning_rat' in the --config file; did you mean learning_rate?"),
        ("freeze_vision_modules: true", "unknown key 'freeze_vision_modules' in the --config file; here it is freeze_"),
        ("reward_funcs: [acuracy]", "there is no reward 'acuracy'"),
        ("reward_funcs: acuracy", "there is no reward 'acuracy'"),
        ("num_train_epochs: two", "argument --num_train_epochs/--num-train-epochs: invalid float value: 'two'"),
        ("- a list", "the flags or the --config file cannot be used: Config file"),
        ("a: [", "the flags or the --config file cannot be used: ParserError"),
    ],
)
def test_a_recipe_is_judged_like_the_command_line(tmp_path: Path, recipe: str, message: str) -> None:
    (tmp_path / "r.yaml").write_text(recipe)
    words = [*NEEDED, "--config", str(tmp_path / "r.yaml")]
    for read in (lambda: read_training_flags("grpo", words), lambda: parse(words)):
        with pytest.raises(UserError) as caught:
            read()
        assert str(caught.value).startswith(message)


def test_what_is_given_is_known_from_the_command_line_and_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("evaluation_strategy: steps\nseed: 3\n")
    words = [*NEEDED, "--config", str(tmp_path / "r.yaml"), "--max-steps=3", "--warmup_ratio", "0.1", "--bf16"]
    flags = read_training_flags("grpo", words, {"reward_funcs": ["format"]})
    names = {
        "model_name_or_path",
        "dataset_name",
        "config",
        "max_steps",
        "warmup_steps",
        "bf16",
        "eval_strategy",
        "seed",
    }
    assert flags.set_names == names
    assert (flags.library.seed, flags.library.max_steps, flags.library.warmup_steps) == (3, 3, 0.1)
    assert flags.script.reward_funcs == ["format"]  # type: ignore[attr-defined]


# ------------------------------------------------------------------------------------------------------ data and models


def judged(*words: str) -> None:
    require_sources(read_training_flags("grpo", list(words)))


def test_a_data_set_of_the_hub_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = ("--model_name_or_path", "org/model")
    with pytest.raises(UserError) as caught:
        judged(*model, "--dataset_name", "leonardPKU/clevr_cogen_a_train")
    command = "`hf download leonardPKU/clevr_cogen_a_train --repo-type dataset --local-dir data/clevr_cogen_a_train`"
    assert str(caught.value).startswith("--dataset_name leonardPKU/clevr_cogen_a_train is not there")
    assert command in str(caught.value)
    (tmp_path / "data").mkdir()
    with pytest.raises(UserError, match="--dataset_name data/CT_384 is not there; give a folder that scripts/prepare"):
        judged(*model, "--dataset_name", "data/CT_384")  # below a folder that is here: a path
    (tmp_path / "data" / "CT_384").mkdir()
    judged(*model, "--dataset_name", "data/CT_384")
    with pytest.raises(UserError, match="--eval_dataset_name data/MRI_384 is not there"):
        judged(*model, "--dataset_name", "data/CT_384", "--eval_dataset_name", "data/MRI_384")


def test_a_local_checkpoint_that_is_not_there_is_found_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    data = ("--dataset_name", "data")
    with pytest.raises(UserError, match=r"there is no checkpoint folder checkpoints/Qwen2\.5-VL-3B-Instruct; fetch it"):
        judged(*data, "--model_name_or_path", "checkpoints/Qwen2.5-VL-3B-Instruct")
    with pytest.raises(UserError, match=r"data holds no config\.json"):
        judged(*data, "--model_name_or_path", "data")
    with pytest.raises(UserError, match="--model_name_or_path is missing"):
        judged(*data)
    judged(*data, "--model_name_or_path", "Qwen/Qwen2.5-VL-3B-Instruct")  # on the hub: nothing is fetched


# ------------------------------------------------------------------------------------------------------------- --help


@pytest.mark.parametrize("method", ["grpo", "sft"])
def test_help_lists_our_flags_by_theme_with_their_choices(method: Method) -> None:
    text = help_text(method, "What it does.", {"reward_funcs": ["tag_count"]})
    ours = [field.name for of in FLAG_CLASSES[method] for field in dataclasses.fields(of)]
    listed = re.findall(r"^  --(\w+)", text, re.MULTILINE)
    assert set(ours) <= set(listed)
    assert len(listed) == len(set(listed))
    assert set(listed) - {"config"} <= {option[2:] for option in TrainingParser(HEAVY[method])._option_string_actions}
    assert len(text.splitlines()) < 240  # 960 with all of TRL's
    assert "--mode {think,nothink,think_after}" in text
    assert "--eval_strategy {no,steps,epoch}" in text
    assert "--bf16 {true,false}" in text
    if method == "grpo":
        assert all(name in text for name in REWARDS)
        assert "(default: tag_count)" in " ".join(text.split())


def test_help_tells_the_defaults_of_the_libraries_as_they_are() -> None:
    defaults: dict[str, Any] = {}
    for config in (TrainingArguments, ModelConfig, GRPOTrainingConfig):
        defaults |= {field.name: field.default for field in dataclasses.fields(config)}
    documented = {
        name: match[1] for name, text in LIBRARY_HELP.items() if (match := re.search(r"\(default: ([\w.]+)\)", text))
    }
    assert len(documented) > 10
    for name, text in documented.items():
        assert text == str(defaults[name]).lower() or float(text) == defaults[name], name
    themed = {name for names in THEMES.values() for name in names}
    assert LIBRARY_HELP.keys() <= themed


def test_the_two_helps(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["grpo.py", "--help"])
    with pytest.raises(SystemExit) as ended:
        check_training_flags("grpo", "About it.")
    assert ended.value.code == 0
    short = capsys.readouterr().out
    assert "About it." in short
    assert "--adam_beta1" not in short
    monkeypatch.setenv("LOCAL_RANK", "1")  # of several processes the first prints it
    with pytest.raises(SystemExit):
        check_training_flags("grpo", "About it.")
    assert capsys.readouterr().out == ""
    with pytest.raises(SystemExit):
        parse(["--help_all"])
    assert "--adam_beta1" in capsys.readouterr().out


# -------------------------------------------------------------------------------------------------------------- hints


def test_hints_name_flags_that_exist() -> None:
    options = {option for method in HEAVY for option in TrainingParser(HEAVY[method])._option_string_actions}
    for name, text in ELSEWHERE.items():
        assert f"--{name}" not in options, name
        assert name not in OLD_KEYS, name
        assert set(re.findall(r"--\w+", text)) <= options | {"--nproc_per_node"}, name


def test_the_private_parts_of_argparse_that_are_read_are_there() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--on", action="store_true")
    assert "--on" in parser._option_string_actions
    assert parser._subparsers is None
    assert any(isinstance(action, argparse._HelpAction) for action in parser._actions)
    assert argparse._StoreFalseAction
    assert argparse._StoreAction
