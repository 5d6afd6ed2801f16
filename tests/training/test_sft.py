"""Fine-tuning: only the solution is learnt, from the prompt of GRPO, on images, on text and on both."""

import json
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from fine_tuning import fine_tune, text_questions
from safetensors.torch import load_file

from open_r1.checkpoints.loading import load_model
from open_r1.checkpoints.processors import load_processor
from open_r1.common.errors import UserError
from open_r1.data.loading import load_rows
from open_r1.data.text.prepare import write_set
from open_r1.training.sft_run import SFTTrainingConfig, build_trainer, train_sft
from open_r1.vocabulary.labels import Modality
from open_r1.vocabulary.modes import Mode
from open_r1.vocabulary.prompts import build_messages
from open_r1_testbed.phantoms import make_phantoms, save_prepared
from open_r1_testbed.tiny_models import TINY_BASE, build_tiny_checkpoint


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> datasets.Dataset:
    folder = tmp_path_factory.mktemp("phantoms")
    drawn = make_phantoms(folder / "drawn", 8, 1, modalities=[Modality.CT], workers=1)
    return load_rows(save_prepared(drawn, folder / "set"), "train")[0]


@pytest.fixture(scope="module")
def text_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("text") / "words"
    write_set(folder, {"train": text_questions(32)}, {}, {}, {})
    return folder


@pytest.fixture(scope="module")
def text_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_checkpoint(tmp_path_factory.mktemp("model") / "tiny", "qwen2")


def config(folder: Path, **changes: Any) -> SFTTrainingConfig:
    settings: dict[str, Any] = {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 1, "max_steps": 12}
    settings |= {
        "learning_rate": 1e-2,
        "logging_steps": 1,
        "report_to": [],
        "save_strategy": "no",
        "disable_tqdm": True,
    }
    return SFTTrainingConfig(output_dir=str(folder), **(settings | changes))


def learnt(batch: dict[str, Any], tokenizer: Any) -> list[str]:
    """What the labels of each row of a batch hold, decoded."""
    return [tokenizer.decode(row[row != -100]) for row in batch["labels"]]


def losses(trainer: Any) -> list[float]:
    return [float(entry["loss"]) for entry in trainer.state.log_history if "loss" in entry]


@pytest.mark.slow
def test_labels_hold_the_solution_and_nothing_else_on_images(phantoms, tmp_path):
    processor, model = load_processor(TINY_BASE), load_model(TINY_BASE, dtype=torch.float32)
    trainer = build_trainer(model, processor, phantoms, Mode.NOTHINK, config(tmp_path))
    batch = next(iter(trainer.get_train_dataloader()))
    assert len(batch["labels"]) == 8
    assert {text.strip() for text in learnt(batch, processor.tokenizer)} <= {
        f"<answer> {letter} </answer><|im_end|>" for letter in "ABCD"
    }
    # what precedes the learnt tokens is the prompt of GRPO, token for token, the image's places filled in
    problems = {str(row["problem"]): row for row in phantoms}  # type: ignore[index, call-overload]
    for ids, labels, mask in zip(batch["input_ids"], batch["labels"], batch["attention_mask"], strict=True):
        prompt = processor.tokenizer.decode(ids[(labels == -100) & mask.bool()])
        problem = next(text for text in problems if text in prompt)
        template = processor.apply_chat_template(
            build_messages(problem, Mode.NOTHINK), tokenize=False, add_generation_prompt=True
        )
        assert prompt.replace("<|image_pad|>", "") == template.replace("<|image_pad|>", "")
        assert prompt.count("<|image_pad|>") == 16


@pytest.mark.slow
def test_a_few_steps_lower_the_loss_on_phantoms(phantoms, tmp_path):
    processor, model = load_processor(TINY_BASE), load_model(TINY_BASE, dtype=torch.float32)
    trainer = build_trainer(model, processor, phantoms, Mode.NOTHINK, config(tmp_path, max_steps=8))
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    trainer.train()
    step_losses = losses(trainer)
    print("losses on phantoms", [round(loss, 3) for loss in step_losses])
    assert step_losses[-1] < 0.5 * step_losses[0]
    assert [name for name, weight in model.named_parameters() if torch.equal(weight, before[name])] == []


@pytest.mark.slow
def test_text_questions_train_a_text_model_and_a_vision_model(text_folder, text_checkpoint, tmp_path):
    rows, _ = load_rows(text_folder, "train")
    for checkpoint in (text_checkpoint, TINY_BASE):
        processor, model = load_processor(checkpoint), load_model(checkpoint, dtype=torch.float32)
        trainer = build_trainer(model, processor, rows, Mode.NOTHINK, config(tmp_path))
        tokenizer = getattr(processor, "tokenizer", processor)
        decoded = learnt(next(iter(trainer.get_train_dataloader())), tokenizer)
        assert {text.strip() for text in decoded} <= {f"<answer> {letter} </answer><|im_end|>" for letter in "ABCD"}
        trainer.train()
        step_losses = losses(trainer)
        print("losses on text", [round(loss, 3) for loss in step_losses])
        assert step_losses[-1] < 0.5 * step_losses[0]


@pytest.mark.slow
def test_images_and_text_mix_in_one_batch(phantoms, text_folder, tmp_path):
    rows, _ = load_rows(text_folder, "train")
    mixed = datasets.concatenate_datasets([phantoms.select(range(2)), rows.select(range(2))])
    processor, model = load_processor(TINY_BASE), load_model(TINY_BASE, dtype=torch.float32)
    training = config(tmp_path, per_device_train_batch_size=4, max_steps=2)
    trainer = build_trainer(model, processor, mixed, Mode.NOTHINK, training)
    batch = next(iter(trainer.get_train_dataloader()))
    images = [(row == processor.tokenizer.convert_tokens_to_ids("<|image_pad|>")).sum() for row in batch["input_ids"]]
    assert sorted(int(count) for count in images) == [0, 0, 16, 16]
    trainer.train()
    assert len(losses(trainer)) == 2


def test_a_image_for_a_model_that_sees_none_is_one_line(phantoms, text_checkpoint, tmp_path):
    processor, model = load_processor(text_checkpoint), load_model(text_checkpoint, dtype=torch.float32)
    with pytest.raises(UserError, match="this model takes none"):
        build_trainer(model, processor, phantoms, Mode.NOTHINK, config(tmp_path))


def test_defaults_are_those_of_the_published_baseline_and_nothing_is_cut(tmp_path):
    training = SFTTrainingConfig(output_dir=str(tmp_path))
    assert (training.learning_rate, training.lr_scheduler_type, training.warmup_steps) == (2e-5, "cosine", 0.1)
    assert (training.num_train_epochs, training.prompts_per_step) == (1, 128)
    assert training.max_length is None
    with pytest.raises(UserError, match="--max_prompt_length"):
        config(tmp_path, max_length=512)
    with pytest.raises(UserError, match="--packing"):
        config(tmp_path, packing=True)


@pytest.mark.slow
def test_the_entry_writes_a_checkpoint_and_a_run_that_says_sft(
    text_folder, text_checkpoint, tmp_path, monkeypatch, capsys
):
    required = ["--model_name_or_path", str(text_checkpoint), "--dataset_name", str(text_folder), "--report_to", "none"]
    out = tmp_path / "out"
    settings = ["--output_dir", str(out), "--max_steps", "1", "--save_strategy", "no", "--warmup_ratio", "0.2"]
    monkeypatch.setattr("sys.argv", ["sft.py", *required, *settings])
    train_sft()
    output = capsys.readouterr().out
    assert "128 questions per optimizer step" in output
    assert "--warmup_ratio: read as warmup_steps: 0.2" in output
    story = json.loads((out / "run.json").read_text())
    assert (story["method"], story["mode"], story["status"], story["steps"]) == ("sft", "nothink", "done", 1)
    load_model(out, dtype=torch.float32)
    with pytest.raises(UserError, match="holds a finished run"):
        train_sft()


def test_a_prompt_that_asks_for_thoughts_is_refused(text_folder, text_checkpoint, tmp_path, monkeypatch):
    required = ["--model_name_or_path", str(text_checkpoint), "--dataset_name", str(text_folder), "--mode", "think"]
    monkeypatch.setattr("sys.argv", ["sft.py", *required, "--output_dir", str(tmp_path / "out")])
    with pytest.raises(UserError, match="has none to learn from"):
        train_sft()


@pytest.mark.slow
@pytest.mark.parametrize("family", ["qwen2", "qwen2_5_vl", "gemma3"])
def test_adapters_go_where_grpo_puts_them_whatever_the_family(family, text_folder, tmp_path, monkeypatch):
    checkpoint = build_tiny_checkpoint(tmp_path / "tiny", family)
    fine_tune(monkeypatch, checkpoint, text_folder, tmp_path / "run", "--use_peft", "--lora_r", "4")
    weights = load_file(tmp_path / "run" / "adapter_model.safetensors")
    # A and B of q, k, v, o, gate, up and down in two layers of the language model
    assert len(weights) == 2 * 7 * 2
    assert not [name for name in weights if "visual" in name or "vision" in name]
    assert all(bool(weight.any()) for weight in weights.values())  # B begins at zero


def test_a_tower_that_is_not_there_is_refused(text_folder, text_checkpoint, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="use --lora_on language"):
        fine_tune(monkeypatch, text_checkpoint, text_folder, tmp_path / "a", "--use_peft", "--lora_on", "vision")


@pytest.mark.slow
def test_a_gemma_trains_whole(text_folder, tmp_path, monkeypatch):
    checkpoint = build_tiny_checkpoint(tmp_path / "tiny", "gemma3")
    fine_tune(monkeypatch, checkpoint, text_folder, tmp_path / "run")
    before, after = (load_model(folder, dtype=torch.float32) for folder in (checkpoint, tmp_path / "run"))
    pairs = zip(before.named_parameters(), after.parameters(), strict=True)
    still = [name for (name, old), new in pairs if torch.equal(old, new)]
    assert [name for name in still if "language_model" in name] == []
