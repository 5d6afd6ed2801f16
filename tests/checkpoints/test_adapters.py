"""LoRA adapters of others: with names of early 2025, with a base that is named from elsewhere, and with --base."""

import json
import shutil
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from fine_tuning import fine_tune, text_questions
from safetensors.torch import load_file, save_file
from test_read_back import LORA

from open_r1.checkpoints import folder
from open_r1.checkpoints.folder import adapter_chain, name_base
from open_r1.checkpoints.loading import load_model
from open_r1.checkpoints.processors import load_processor
from open_r1.common.errors import UserError
from open_r1.data.text.prepare import write_set
from open_r1.evaluation.answering.run import infer
from open_r1.evaluation.answering.settings import InferenceSettings
from open_r1_testbed.tiny_models import build_tiny_checkpoint

FAMILIES = ("qwen2_vl", "qwen2_5_vl", "gemma3")


@pytest.fixture(autouse=True)
def nothing_said_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "_NAMED_BASES", {})


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("bases")
    return {family: build_tiny_checkpoint(root / family, family) for family in (*FAMILIES, "qwen2")}


def adapter(base: Path, folder: Path, named: str | None = None, **settings: Any) -> Path:
    """An adapter that changes the model, saved by PEFT."""
    model = load_model(base, dtype=torch.float32)
    model.name_or_path = named or str(base)
    torch.manual_seed(len(folder.name))
    lora = {"r": 2, "target_modules": ["q_proj", "up_proj", "qkv"], "init_lora_weights": False} | settings
    peft.get_peft_model(model, peft.LoraConfig(**lora)).save_pretrained(str(folder))
    return folder


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_model(folder, dtype=torch.float32).state_dict()


def equal(first: Path, second: Path) -> bool:
    first_weights, second_weights = weights(first), weights(second)
    return first_weights.keys() == second_weights.keys() and all(
        torch.equal(weight, second_weights[name]) for name, weight in first_weights.items()
    )


def old_name(family: str, name: str) -> str:
    """A name of transformers 4.51: in Gemma 3 the language model held a model of its own."""
    if family == "gemma3":
        name = name.replace("model.language_model.", "language_model.model.")
        return name.replace("model.vision_tower.", "vision_tower.vision_model.")
    return name.replace("model.language_model.", "model.").replace("model.visual.", "visual.")


@pytest.mark.slow
@pytest.mark.parametrize("targets", ["list", "pattern", "paths"])
@pytest.mark.parametrize("family", FAMILIES)
def test_an_adapter_with_the_names_of_early_2025_is_merged_as_one_of_today(bases, family, targets, tmp_path):
    today = adapter(bases[family], tmp_path / "today", alpha_pattern={"model.language_model.layers.0.mlp.up_proj": 5})
    old = Path(shutil.copytree(today, tmp_path / "old"))
    stored = load_file(today / "adapter_model.safetensors")
    prefix = "base_model.model."
    renamed = {prefix + old_name(family, name.removeprefix(prefix)): value for name, value in stored.items()}
    if (
        family == "gemma3"
    ):  # the vision tower's inner name has gone in 5.x, which its mapping does not undo for adapters
        renamed = {name.replace("vision_tower.vision_model.", "vision_tower."): v for name, v in renamed.items()}
    assert not renamed.keys() & stored.keys()
    save_file(renamed, old / "adapter_model.safetensors", {"format": "pt"})
    config = json.loads((old / "adapter_config.json").read_text())
    config["alpha_pattern"] = {old_name(family, "model.language_model.layers.0.mlp.up_proj"): 5}
    if targets == "pattern":
        config["target_modules"] = r"(visual|vision_tower|model|language_model)\..*(q_proj|up_proj|qkv)"
    elif targets == "paths":
        config["target_modules"] = sorted({name.removeprefix(prefix).partition(".lora_")[0] for name in renamed})
    (old / "adapter_config.json").write_text(json.dumps(config))
    assert not equal(today, bases[family])
    assert equal(old, today)


@pytest.mark.slow
def test_names_that_fit_nothing_are_still_refused_by_name(bases, tmp_path):
    folder = adapter(bases["qwen2_5_vl"], tmp_path / "A")
    stored = load_file(folder / "adapter_model.safetensors")
    renamed = {name.replace("language_model", "text_model"): value for name, value in stored.items()}
    save_file(renamed, folder / "adapter_model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"tensors of the adapter .* do not match its base model: .*text_model"):
        load_model(folder)


# --- where the base is -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_relative_base_is_found_from_anywhere(bases, tmp_path, monkeypatch):
    project = tmp_path / "project"
    shutil.copytree(bases["qwen2"], project / "checkpoints" / "base")
    beside = adapter(bases["qwen2"], project / "output" / "deep" / "A", "./checkpoints/base")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert adapter_chain(beside)[1].samefile(project / "checkpoints" / "base")
    load_processor(beside)
    assert not equal(beside, bases["qwen2"])
    moved = Path(shutil.move(project, tmp_path / "moved"))
    assert adapter_chain(moved / "output" / "deep" / "A")[1].samefile(moved / "checkpoints" / "base")


def test_a_tree_that_was_moved_is_found_as_the_command_was_typed(bases, tmp_path):
    project = tmp_path / "project"
    shutil.copytree(bases["qwen2"], project / "checkpoints" / "base")
    folder = adapter(bases["qwen2"], project / "output" / "A", str(tmp_path / "gone" / "checkpoints" / "base"))
    with pytest.raises(UserError, match=r"its base model is not available: .*say where it is with --base"):
        load_model(folder)
    (folder / "run.json").write_text(json.dumps({"base_model": "checkpoints/base"}))
    assert adapter_chain(folder)[1].samefile(project / "checkpoints" / "base")


@pytest.mark.slow
def test_a_base_that_is_said_by_hand_takes_the_place_of_the_whole_model(bases, tmp_path):
    first_adapter = adapter(bases["qwen2"], tmp_path / "first", "/nowhere/base")
    second = adapter(bases["qwen2"], tmp_path / "second", str(first_adapter))
    with pytest.raises(UserError, match="first is a LoRA adapter, and its base model is not available"):
        load_model(second)
    name_base(second, str(bases["qwen2"]))
    assert adapter_chain(second) == [second, first_adapter, bases["qwen2"]]
    expected = adapter(bases["qwen2"], tmp_path / "fir_t")  # the seed is the name's length: the same adapter
    (tmp_path / "second-known").mkdir()
    for file in second.iterdir():
        shutil.copy(file, tmp_path / "second-known")
    config = json.loads((second / "adapter_config.json").read_text()) | {"base_model_name_or_path": str(expected)}
    (tmp_path / "second-known" / "adapter_config.json").write_text(json.dumps(config))
    assert equal(second, tmp_path / "second-known")


def test_a_whole_model_is_no_base_of_what_was_trained_on_an_adapter(bases, tmp_path):
    second = adapter(bases["qwen2"], tmp_path / "second", "/nowhere/first")
    (second / "run.json").write_text(json.dumps({"base_model": "first", "base_model_bases": ["base"]}))
    with pytest.raises(UserError, match=r"was trained on top of another adapter, .* name the adapter with --base"):
        name_base(second, str(bases["qwen2"]))
    with pytest.raises(UserError, match="is not a LoRA adapter"):
        name_base(bases["qwen2"], str(bases["qwen2"]))


@pytest.mark.slow
def test_evaluation_and_training_take_a_base_by_hand(bases, tmp_path, monkeypatch):
    data = tmp_path / "words"
    write_set(data, {"train": text_questions(8)}, {}, {}, {})
    first_adapter = adapter(bases["qwen2"], tmp_path / "first", "/nowhere/base")
    answers = tmp_path / "answers.jsonl"
    settings = {"split": "train", "max_new_tokens": 2, "limit": 2}
    with pytest.raises(UserError, match="say where it is with --base"):
        infer(InferenceSettings(str(first_adapter), str(data), str(answers), **settings))
    assert (
        infer(InferenceSettings(str(first_adapter), str(data), str(answers), base=str(bases["qwen2"]), **settings)) == 0
    )
    folder._NAMED_BASES.clear()
    fine_tune(monkeypatch, first_adapter, data, tmp_path / "second", "--base", str(bases["qwen2"]), *LORA)
    assert adapter_chain(tmp_path / "second") == [tmp_path / "second", first_adapter, bases["qwen2"]]
