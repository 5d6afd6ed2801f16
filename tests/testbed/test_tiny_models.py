"""Tiny checkpoints are real: they load whole, offline, through Auto*; same arguments, same bytes."""

import random
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor, AutoTokenizer

from open_r1.checkpoints.loading import load_model
from open_r1.checkpoints.processors import load_processor
from open_r1.common.errors import UserError
from open_r1.evaluation.answering.perturbations import shuffle_options
from open_r1.grading.problems import solution_letter
from open_r1.vocabulary.labels import Modality, Task
from open_r1_testbed.phantom_images import draw
from open_r1_testbed.phantom_questions import question, sample_phantoms
from open_r1_testbed.tiny_models import CHAT_TEMPLATE, SPECIAL_TOKENS, TINY_BASE, build_tiny_checkpoint

torch.set_num_threads(1)

VISION = {
    "qwen2_5_vl": ("Qwen2_5_VLForConditionalGeneration", "Qwen2_5_VLProcessor"),
    "qwen2_vl": ("Qwen2VLForConditionalGeneration", "Qwen2VLProcessor"),
}
MESSAGES = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Why? A)x, B)y"}]}]


def digest(folder: Path) -> dict[str, str]:
    return {file.name: sha256(file.read_bytes()).hexdigest() for file in sorted(folder.iterdir())}


def load_reporting(auto: Any, folder: Path) -> tuple[Any, dict[str, Any]]:
    return auto.from_pretrained(folder, output_loading_info=True)


@pytest.mark.slow
@pytest.mark.parametrize("family", VISION)
def test_vision_checkpoint_loads_whole_and_generates(family: str, tmp_path: Path) -> None:
    folder = build_tiny_checkpoint(tmp_path / "model", family)
    processor = AutoProcessor.from_pretrained(folder)
    model, report = load_reporting(AutoModelForImageTextToText, folder)
    assert (type(model).__name__, type(processor).__name__) == VISION[family]
    assert not any(report.values()), report
    text = processor.apply_chat_template(MESSAGES, tokenize=False, add_generation_prompt=True)
    inputs = processor(text=[text], images=[Image.new("RGB", (384, 384))], return_tensors="pt")
    # 384 x 384 becomes 112 x 112: (112 / 28) ** 2 = 16 image tokens
    assert (inputs["input_ids"] == model.config.image_token_id).sum() == 16
    output = model.generate(**inputs, max_new_tokens=2)
    assert output.shape[1] - inputs["input_ids"].shape[1] in (1, 2)


def test_text_checkpoint_loads_whole(tmp_path: Path) -> None:
    folder = build_tiny_checkpoint(tmp_path / "model", "qwen2")
    model, report = load_reporting(AutoModelForCausalLM, folder)
    assert type(model).__name__ == "Qwen2ForCausalLM"
    assert not any(report.values()), report
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.decode(tokenizer.encode("Größe <answer> A </answer>")) == "Größe <answer> A </answer>"


def test_generation_ends_at_both_of_qwens_end_tokens(tmp_path: Path) -> None:
    folder = build_tiny_checkpoint(tmp_path / "model")
    model = AutoModelForImageTextToText.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ends = [tokenizer.convert_tokens_to_ids(token) for token in ("<|im_end|>", "<|endoftext|>")]
    assert model.generation_config.eos_token_id == ends
    assert tokenizer.eos_token_id == ends[0]
    assert tokenizer.pad_token_id == ends[1]


def test_every_special_token_is_one_token(tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(build_tiny_checkpoint(tmp_path / "model", "qwen2"))
    for token in SPECIAL_TOKENS:
        assert len(tokenizer.encode(token)) == 1, token


@pytest.mark.slow
def test_same_seed_same_bytes_other_seed_other_weights(tmp_path: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first = digest(build_tiny_checkpoint(tmp_path / "a", seed=1))
    assert torch.rand(1) == expected  # the caller's random state is untouched
    assert first == digest(build_tiny_checkpoint(tmp_path / "b", seed=1))
    other = digest(build_tiny_checkpoint(tmp_path / "c", seed=2))
    assert [name for name in first if first[name] != other[name]] == ["model.safetensors"]


@pytest.mark.slow
def test_real_processor_is_copied_and_sizes_the_embedding(real_dir: Path, tmp_path: Path) -> None:
    source = real_dir / "qwen2_5_vl_processor"
    folder = build_tiny_checkpoint(tmp_path / "model", processor=source)
    model = AutoModelForImageTextToText.from_pretrained(folder)
    assert model.config.image_token_id == 151655
    assert model.generation_config.eos_token_id == [151645, 151643]
    assert model.get_input_embeddings().weight.shape == (151680, 64)
    copied = digest(folder)
    assert all(copied[name] == value for name, value in digest(source).items())


def test_chat_template_is_the_published_one(real_dir: Path) -> None:
    published = (real_dir / "qwen2_5_vl_processor" / "chat_template.jinja").read_text(encoding="utf-8")
    assert published == CHAT_TEMPLATE


def test_unknown_family_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'vit'"):
        build_tiny_checkpoint(tmp_path, "vit")


# Made by scripts/build_tiny_base.py; a new base means a new hash here and new figures in docs/results.md.
TINY_BASE_SHA256 = "edec0cafd1887c47b1b7b45cadc18916c39ee6a7b8c5b1dd7213ae3c7e0b2600"


def tiny_base_sha256() -> str:
    """One hash over the names and contents of the shipped files."""
    lines = [f"{name} {value}\n" for name, value in digest(TINY_BASE).items()]
    return sha256("".join(lines).encode()).hexdigest()


def test_shipped_base_is_the_recorded_one_and_small() -> None:
    assert tiny_base_sha256() == TINY_BASE_SHA256
    assert sum(file.stat().st_size for file in TINY_BASE.iterdir()) <= 6_000_000


@pytest.mark.slow
def test_shipped_base_loads_whole_in_float32() -> None:
    model, report = load_reporting(AutoModelForImageTextToText, TINY_BASE)
    assert not any(report.values()), report
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    ours = load_model(TINY_BASE)
    for (name, weight), other in zip(ours.named_parameters(), model.parameters(), strict=True):
        assert torch.equal(weight, other), name


def own_answers(questions: list[tuple[Any, str]]) -> list[str]:
    """The letters that the shipped base gives to each image and problem under its own prompt: `It is cyst B.`"""
    model, processor = load_model(TINY_BASE), load_processor(TINY_BASE)
    texts = [
        processor.apply_chat_template(
            [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": problem}]}],
            tokenize=False,
            add_generation_prompt=True,
        )
        for _, problem in questions
    ]
    inputs = processor(text=texts, images=[image for image, _ in questions], padding=True, return_tensors="pt")
    tokens = model.generate(**inputs, max_new_tokens=7)
    written = processor.batch_decode(tokens[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return [text.rstrip(".")[-1:] for text in written]


@pytest.mark.slow
def test_shipped_base_knows_unseen_images_and_reads_the_options_under_its_own_prompt() -> None:
    rng = random.Random(0)
    drawn = [phantom for modality in Modality for phantom in sample_phantoms(modality, 2, [2026, 1])]
    rows = [(draw(phantom), question(phantom, task, rng)) for phantom in drawn for task in Task]
    shuffled = [shuffle_options(row["problem"], str(number), seed=0) for number, (_, row) in enumerate(rows)]
    plain = own_answers([(image, row["problem"]) for image, row in rows])
    other = own_answers([(image, view.problem) for (image, _), view in zip(rows, shuffled, strict=True)])
    hits = [letter == solution_letter(row["solution"]) for letter, (_, row) in zip(plain, rows, strict=True)]
    # a guess is right in 20 of these 80, give or take 4; seen 73
    assert sum(hits) >= 56, (sum(hits), plain[:5])
    same = [view.letters.get(new) == old for new, old, view in zip(other, plain, shuffled, strict=True)]
    moved = [new != old for new, old in zip(other, plain, strict=True)]
    assert sum(same) >= 72, sum(same)  # the same option in another place; seen 80
    assert sum(moved) >= 40, sum(moved)  # 60 of 80 change places on average; seen 65
