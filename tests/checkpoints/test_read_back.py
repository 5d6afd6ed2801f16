"""What is saved is what was trained: two LoRA stages in a row, every engine; a folder that was spoilt is noticed."""

import json
import os
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from accelerate.state import AcceleratorState
from fine_tuning import fine_tune, text_questions
from gemma_flags import MOVES
from launch_variables import launch_variables
from published_sets import save_published_form
from safetensors.torch import load_file, save_file
from text_trainings import train
from transformers.integrations import deepspeed

from open_r1.checkpoints.checks import read_back as module
from open_r1.checkpoints.folder import adapter_chain
from open_r1.checkpoints.loading import load_model, unsharded_loading
from open_r1.checkpoints.model_card import CARD
from open_r1.checkpoints.processors import load_processor
from open_r1.common.errors import UserError
from open_r1.data.text.prepare import write_set
from open_r1.training import run_lifecycle
from open_r1.training.setup.starting_model import MERGED
from open_r1_testbed.forked_runs import start
from open_r1_testbed.tiny_models import build_tiny_checkpoint

LORA = ("--use_peft", "--lora_r", "4")
QUIET = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def text_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("text") / "words"
    write_set(folder, {"train": text_questions(32)}, {}, {}, {})
    return folder


@pytest.fixture(scope="module")
def text_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_checkpoint(tmp_path_factory.mktemp("model") / "tiny", "qwen2")


@pytest.fixture(scope="module")
def first_stage(text_folder: Path, text_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("first") / "A"
    with pytest.MonkeyPatch.context() as patch:
        fine_tune(patch, text_checkpoint, text_folder, out, *LORA)
    return out


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_model(folder, dtype=torch.float32).state_dict()


def deltas(adapter: Path) -> dict[str, torch.Tensor]:
    """scaling * B A of every adapted layer, by the layer's weight; LoRA's alpha is 32 and r is 4 here."""
    stored = load_file(adapter / "adapter_model.safetensors")
    names = {name.split(".lora_")[0] for name in stored}
    updates = {n: 8 * stored[f"{n}.lora_B.weight"] @ stored[f"{n}.lora_A.weight"] for n in names}
    return {f"{name.removeprefix('base_model.model.')}.weight": value for name, value in updates.items()}


@pytest.mark.slow
def test_a_second_lora_stage_keeps_the_first(first_stage, text_folder, text_checkpoint, tmp_path, monkeypatch, capsys):
    second = tmp_path / "B"
    monkeypatch.chdir(first_stage.parent)
    fine_tune(monkeypatch, Path("A"), text_folder, second, *LORA)
    monkeypatch.chdir(tmp_path)
    output = capsys.readouterr().out
    assert "loads, every tensor is the one that was trained, logits agree within" in output
    assert adapter_chain(second) == [second, first_stage, text_checkpoint]
    base, merged, first_delta, second_delta = (
        weights(text_checkpoint),
        weights(second),
        deltas(first_stage),
        deltas(second),
    )
    difference = max(
        (merged[name] - base[name] - first_delta[name] - second_delta[name]).abs().max().item() for name in first_delta
    )
    assert min(value.abs().max() for value in first_delta.values()) > 1e-3  # what the first stage learnt
    assert difference < 1e-6  # measured: 7e-9
    assert not (second / MERGED).exists()
    card = (second / CARD).read_text()
    assert "A LoRA adapter for `A`" in card
    assert "| base | A, itself a LoRA adapter on tiny |" in card


@pytest.mark.slow
def test_every_file_of_a_run_has_the_mode_of_the_umask(text_folder, text_checkpoint, tmp_path, monkeypatch):
    before = os.umask(0o027)
    try:
        for name, flags in (("full", ()), ("lora", LORA)):
            saving = ("--save_strategy", "steps", "--save_steps", "1")
            fine_tune(monkeypatch, text_checkpoint, text_folder, tmp_path / name, *flags, *saving)
    finally:
        os.umask(before)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert sum(path.suffix == ".safetensors" for path in files) == 2 * 3  # two checkpoints and the end
    assert {path.name: oct(path.stat().st_mode & 0o777) for path in files if path.stat().st_mode & 0o777 != 0o640} == {}


@pytest.mark.slow
def test_full_training_from_an_adapter_trains_every_weight(first_stage, text_folder, tmp_path, monkeypatch, capsys):
    fine_tune(monkeypatch, first_stage, text_folder, tmp_path / "sft")
    assert " train (100.00%)" in capsys.readouterr().out.split("  all ")[1].splitlines()[0]
    train(monkeypatch, first_stage, text_folder, tmp_path / "grpo", "--beta", "0.1", "--learning_rate", "0.01", *MOVES)
    start = weights(first_stage)
    for run in ("sft", "grpo"):
        after = weights(tmp_path / run)
        assert [name for name in after if torch.equal(after[name], start[name])] == []


@pytest.mark.slow
def test_the_reference_of_a_run_from_an_adapter_is_where_it_started(first_stage, text_folder, tmp_path, monkeypatch):
    from open_r1.training import grpo_run

    references: list[dict[str, torch.Tensor]] = []

    class Watched(grpo_run.SharedPrefixGRPOTrainer):
        def __init__(self, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            reference: Any = self.ref_model
            references.append({name: value.clone() for name, value in reference.state_dict().items()})

    monkeypatch.setattr(grpo_run, "SharedPrefixGRPOTrainer", Watched)
    train(monkeypatch, first_stage, text_folder, tmp_path / "run", "--beta", "0.1", "--max_completion_length", "8")
    start = weights(first_stage)
    assert all(torch.equal(value, start[name]) for name, value in references[0].items())


@pytest.mark.parametrize("method", ["sft", "grpo"])
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--lora_target_modules", "query"], "linear layers are down_proj, gate_proj, k_proj"),
        (["--lora_target_modules", "input_layernorm"], "input_layernorm not found"),
        (["--lora_r", "0"], "positive"),
    ],
)
def test_adapters_that_go_nowhere_are_one_line(
    method, flags, message, text_folder, text_checkpoint, tmp_path, monkeypatch
):
    run = fine_tune if method == "sft" else train
    with pytest.raises(UserError, match=message) as refused:
        run(monkeypatch, text_checkpoint, text_folder, tmp_path / "run", "--use_peft", *flags)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "run" / "run.json").exists()


@pytest.mark.slow
def test_adapters_that_are_each_others_bases_are_refused_by_name(first_stage, tmp_path):
    for name, base in (("A", "B"), ("B", "A")):
        (tmp_path / name).mkdir()
        config = json.loads((first_stage / "adapter_config.json").read_text())
        config["base_model_name_or_path"] = str(tmp_path / base)
        (tmp_path / name / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"each other's bases \(.*/A -> .*/B -> .*/A\)"):
        load_processor(tmp_path / "A")


def spoil(folder: Path, change: str) -> None:
    """Write something else than was trained, as a library that saves wrongly would."""
    file = next(folder.glob("*model.safetensors"))
    tensors = load_file(file)
    name = next(name for name in sorted(tensors) if "lora_B" in name or "up_proj" in name)
    if change == "value":
        tensors[name].view(-1)[0] += 1e-6
        save_file(tensors, file, {"format": "pt"})
    elif change == "config":
        config = json.loads((folder / "config.json").read_text())
        config["rope_parameters"]["rope_theta"] = 50.0
        (folder / "config.json").write_text(json.dumps(config))
    elif change == "processor":
        (folder / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")
    else:
        config = json.loads((folder / "adapter_config.json").read_text())
        config["base_model_name_or_path"] = change
        (folder / "adapter_config.json").write_text(json.dumps(config))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "change", "message"),
    [
        ((), "value", r"1 tensors differ \(model\.layers\.0\.mlp\.up_proj\.weight\)"),
        (LORA, "value", r"1 tensors differ \(.*lora_B\.weight\)"),
        (LORA, "base", r"tensors differ \(model\.layers\.0\.self_attn\.q_proj\.weight"),
        ((), "config", r"logits differ by .*config\.json must differ"),
        ((), "processor", "encodes a prompt differently"),
    ],
)
def test_a_folder_that_holds_something_else_ends_the_run_and_stays(
    flags, change, message, first_stage, text_checkpoint, text_folder, tmp_path, monkeypatch
):
    def spoilt(trainer: Any, folder: Path) -> str:
        spoil(folder, str(text_checkpoint) if change == "base" else change)
        return module.read_back(trainer, folder)

    monkeypatch.setattr("open_r1.training.run_lifecycle.read_back", spoilt)
    start = first_stage if change == "base" else text_checkpoint
    with pytest.raises(UserError, match=message) as refused:
        fine_tune(monkeypatch, start, text_folder, tmp_path / "run", *flags)
    assert "\n" not in str(refused.value)
    story = json.loads((tmp_path / "run" / "run.json").read_text())
    assert story["status"] == "not read back"
    assert not (tmp_path / "run" / CARD).exists() or "medical" not in (tmp_path / "run" / CARD).read_text()
    assert any((tmp_path / "run").glob("*model.safetensors"))
    with pytest.raises(UserError, match="would be overwritten"):
        fine_tune(monkeypatch, start, text_folder, tmp_path / "run", *flags)


@pytest.mark.slow
def test_without_room_for_a_second_copy_the_files_are_compared(
    text_checkpoint, text_folder, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(module, "available_memory", lambda: 1000)
    fine_tune(monkeypatch, text_checkpoint, text_folder, tmp_path / "good")
    assert "it was not loaded whole, because that needs" in capsys.readouterr().out

    def spoilt(trainer: Any, folder: Path) -> str:
        spoil(folder, "value")
        return module.read_back(trainer, folder)

    monkeypatch.setattr("open_r1.training.run_lifecycle.read_back", spoilt)
    for name, flags in (("full", ()), ("lora", LORA)):
        with pytest.raises(UserError, match="1 tensors differ"):
            fine_tune(monkeypatch, text_checkpoint, text_folder, tmp_path / name, *flags)


@pytest.mark.slow
def test_names_of_files_follow_from_names_in_memory_in_every_family(tmp_path):
    for family in ("qwen2", "qwen2_vl", "qwen2_5_vl", "gemma3"):
        model = load_model(build_tiny_checkpoint(tmp_path / family, family), dtype=torch.float32)
        model.save_pretrained(tmp_path / f"{family}-again")
        with module._from_files(tmp_path / f"{family}-again", model) as stored:
            for name, weight in model.named_parameters():
                saved = stored(name)
                assert saved is not None, (family, name)
                assert torch.equal(weight, saved), (family, name)


@pytest.mark.slow
def test_a_packed_base_is_compared_too(first_stage, text_folder, text_checkpoint, tmp_path, monkeypatch, capsys):
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed (pip install '.[quant]')")
    packed = (*LORA, "--load_in_4bit", "--bnb_4bit_quant_type", "nf4", "--use_bnb_nested_quant")
    fine_tune(monkeypatch, first_stage, text_folder, tmp_path / "B", *packed)
    assert "loads, and every tensor is the one that was trained" in capsys.readouterr().out
    assert adapter_chain(tmp_path / "B") == [tmp_path / "B", first_stage, text_checkpoint]

    def spoilt(trainer: Any, folder: Path) -> str:
        spoil(folder, str(text_checkpoint))
        return module.read_back(trainer, folder)

    monkeypatch.setattr("open_r1.training.run_lifecycle.read_back", spoilt)
    with pytest.raises(UserError, match="14 tensors differ"):
        fine_tune(monkeypatch, first_stage, text_folder, tmp_path / "C", *packed)


def test_loading_for_one_process_leaves_the_engine_as_it_was():
    class Settings:
        def is_zero3(self) -> bool:
            return True

    settings = Settings()
    deepspeed.set_hf_deepspeed_config(settings)
    try:
        with unsharded_loading():
            assert not deepspeed.is_deepspeed_zero3_enabled()
        assert deepspeed.is_deepspeed_zero3_enabled()
    finally:
        deepspeed.unset_hf_deepspeed_config()
    with unsharded_loading():
        assert not deepspeed.is_deepspeed_zero3_enabled()


def launched(engine: str, repository: Path, place: Path, *words: str) -> str:
    """What two processes say that train GRPO for a step, as `accelerate launch` with the recipe of an engine starts
    them; they are forks, because importing everything anew would take most of the test."""

    def before(rank: int) -> None:
        AcceleratorState._reset_state(reset_partial_state=True)  # of the tests before
        os.chdir(place)
        run_lifecycle.read_back = naming_engine

    def naming_engine(trainer: Any, folder: Path) -> str:
        plugin = trainer.accelerator.state.deepspeed_plugin
        print(f"engine: {trainer.accelerator.distributed_type.value}{plugin.zero_stage if plugin else ''}")
        return module.read_back(trainer, folder)

    recipe = repository / "recipes" / "accelerate_configs" / f"{engine}_cpu.yaml"
    small = "--dataset_name CT --num_generations 2 --max_completion_length 4 --max_steps 1 --save_strategy no"
    log = place / f"{'-'.join([engine, *words[-4:]])}.log".replace("/", "_")
    variables = launch_variables(recipe, 2) | QUIET | {"DS_ACCELERATOR": "cpu"}
    codes = start([*small.split(), *words], log, 2, before, environment=variables).wait()
    assert codes == [0, 0], log.read_text()[-5000:]
    return log.read_text()


@pytest.fixture(scope="module")
def with_images(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    """A folder with questions about images, a base, and an adapter that has learnt something."""
    place = tmp_path_factory.mktemp("with_images")
    save_published_form(place / "CT", 4)
    base = load_model(build_tiny_checkpoint(place / "tiny"), dtype=torch.float32)
    base.name_or_path = str(place / "tiny")
    config = peft.LoraConfig(r=2, target_modules=["q_proj", "up_proj"], init_lora_weights=False)
    peft.get_peft_model(base, config).save_pretrained(str(place / "A"))
    return place


ENGINES = {"ddp": "MULTI_CPU", "zero2": "DEEPSPEED2", "zero3": "DEEPSPEED3", "fsdp": "FSDP"}


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_every_engine_saves_what_it_has_trained(engine, repository, with_images):
    ways = {"lora": LORA} if engine in ("ddp", "zero2") else {"full": (), "lora": LORA}
    for name, flags in ways.items():
        out = f"{engine}-{name}"
        output = launched(engine, repository, with_images, "--model_name_or_path", "A", "--output_dir", out, *flags)
        line = next(line for line in output.splitlines() if line.startswith("read back: "))
        assert "every tensor is the one that was trained, logits agree within" in line
        assert output.count(f"engine: {ENGINES[engine]}\n") == 2
        assert output.count("read back: ") == 1
        assert json.loads((with_images / out / "run.json").read_text())["status"] == "done"
    assert adapter_chain(with_images / f"{engine}-lora")[1:] == [with_images / "A", with_images / "tiny"]
