"""Images of training: encoded as the processor does, opened once, several per prompt; towers frozen or adapted."""

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tiny_trainers import colours, make_trainer, open_colour, weights

from open_r1.checkpoints.loading import load_model
from open_r1.checkpoints.processors import load_processor
from open_r1.common.errors import UserError
from open_r1.modeling.image_tokens import encode_prompts
from open_r1.training.grpo.image_feed import ImageFeed
from open_r1.training.grpo.options import shared_prefix_line
from open_r1.training.setup.trainable_parts import freeze_vision_tower, lora_targets, trainable_table
from open_r1.vocabulary.modes import Mode
from open_r1.vocabulary.prompts import build_messages
from open_r1_testbed.tiny_models import build_tiny_checkpoint


@pytest.fixture(scope="module", params=["qwen2_5_vl", "qwen2_vl"])
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_checkpoint(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_checkpoint(tmp_path_factory.mktemp("tiny"))


@pytest.mark.parametrize("images", [[0, 1, 2], [0, None, 1], [None, None]], ids=str)
def test_prompts_are_encoded_as_the_processor_encodes_them(checkpoint: Path, images: list[int | None]) -> None:
    processor = load_processor(checkpoint)
    messages = [
        build_messages("Is it? A)yes, B)no" * (i + 1), Mode.NOTHINK, x is not None) for i, x in enumerate(images)
    ]
    texts = [processor.apply_chat_template(m, tokenize=False, add_generation_prompt=True) for m in messages]
    feed = ImageFeed(open_colour, None, processor.image_processor, torch.device("cpu"))
    rows = [{"image": image} for image in images]
    ours = encode_prompts(texts, feed(rows), processor, torch.device("cpu"))
    opened = [opened_image for row in rows for opened_image in open_colour(row)]
    with_images = {"images": opened} if opened else {}
    theirs = processor(text=texts, padding=True, padding_side="left", return_tensors="pt", **with_images)
    assert torch.equal(ours.ids, theirs["input_ids"])
    assert torch.equal(ours.mask, theirs["attention_mask"])
    for name in ("pixel_values", "image_grid_thw", "mm_token_type_ids") if opened else ():
        assert torch.equal(ours.vision[name], theirs[name]), name


def test_a_image_that_several_questions_share_is_opened_once(tiny: Path) -> None:
    opened_images = []

    def opened(row: dict[str, Any]) -> list[Image.Image]:
        opened_images.append(row["image"])
        return open_colour(row)

    feed = ImageFeed(opened, colours, load_processor(tiny).image_processor, torch.device("cpu"))
    images = feed([{"image": 0}, {"image": 1}, {"image": 0}])
    assert sorted(opened_images) == [0, 1]
    assert images[0][0].values is images[2][0].values
    assert not torch.equal(images[0][0].values, images[1][0].values)


def test_a_image_in_several_lists_is_processed_once_and_lists_keep_their_order(tiny: Path) -> None:
    processor = load_processor(tiny).image_processor
    feed = ImageFeed(open_colour, colours, processor, torch.device("cpu"))
    rows: list[dict[str, Any]] = [{"image": numbers} for numbers in ([2, 0], [0, 1, 2], [], [1], [3, 3])]
    assert feed.problems(rows) == {}
    images = feed(rows)
    assert feed.processed == 4
    alone = ImageFeed(open_colour, None, processor, torch.device("cpu"))(rows)
    assert [[image.grid.tolist() for image in row] for row in images] == [
        [image.grid.tolist() for image in row] for row in alone
    ]
    for row, other in zip(images, alone, strict=True):
        for image, expected in zip(row, other, strict=True):
            assert torch.equal(image.values, expected.values)
    assert images[0][0].values is images[1][2].values


def two_images(row: dict[str, Any]) -> list[Image.Image]:
    """Two images for the questions about image 0, one or none for the others."""
    images = open_colour(row)
    return [*images, *open_colour({"image": 1})] if row["image"] == 0 else images


@pytest.mark.slow
def test_several_images_per_prompt_make_stock_trls_step(checkpoint: Path, tmp_path: Path) -> None:
    logs = []
    for shared in (True, False):
        trainer = make_trainer(checkpoint, tmp_path / str(shared), [0, 2], shared_prefix=shared)
        trainer.images._open, trainer.images._keys = two_images, None
        rows = list(trainer.train_dataset)
        rows[0]["prompt"] = [
            {"role": "user", "content": [{"type": "image"}, {"type": "image"}, *rows[0]["prompt"][0]["content"][1:]]}
        ]
        trainer.model.train()
        torch.manual_seed(3)
        trainer.current_gradient_accumulation_steps = 1
        batch = trainer._generate_and_score_completions([row for row in rows for _ in range(3)])
        loss = trainer._compute_loss(trainer.model, batch)
        loss.backward()
        gradient = torch.cat([p.grad.flatten().double() for p in trainer.model.parameters() if p.grad is not None])
        logs.append((batch["completion_ids"].flatten(0, -2), loss.item(), gradient))
        if shared:
            assert trainer._buffered_prompts["train"].images_per_prompt == [2, 1]
    (ids, loss, gradient), (stock_ids, stock_loss, stock_gradient) = logs
    assert torch.equal(ids, stock_ids)
    assert loss == pytest.approx(stock_loss, abs=1e-6)
    assert torch.cosine_similarity(gradient, stock_gradient, dim=0) > 1 - 1e-9


def frozen(checkpoint: Path) -> Any:
    model = load_model(checkpoint, dtype=torch.float32)
    freeze_vision_tower(model)
    return model


@pytest.mark.slow
def test_a_frozen_tower_looks_at_each_image_once_and_the_step_stays_the_same(checkpoint: Path, tmp_path: Path) -> None:
    settings = {"max_steps": 3, "learning_rate": 1e-5}
    cached = make_trainer(checkpoint, tmp_path / "kept", [0, 1], model=frozen(checkpoint), **settings)
    looks = []
    inner = cached.model.model
    encode = inner.get_image_features

    def counted(pixels: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        if pixels.size(-1) == 1176:  # patches, not features
            looks.append(len(pixels))
        return encode(pixels, *args, **kwargs)

    inner.get_image_features = counted
    cached.train()
    assert len(looks) == 2
    assert cached.images.processed == 2
    plain = make_trainer(checkpoint, tmp_path / "plain", [0, 1], **settings)
    freeze_vision_tower(plain.model)  # after the trainer has looked: it looks at every image in every step
    plain.train()
    assert plain.images.processed == 6
    for ours, theirs in zip(cached.state.log_history[:3], plain.state.log_history[:3], strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], abs=1e-6)
        assert ours["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=1e-4)
    before = weights(make_trainer(checkpoint, tmp_path / "start", [0]))
    moved = {name for name, value in weights(cached).items() if not torch.equal(value, before[name])}
    assert moved
    assert not any(".visual." in name for name in moved)
    assert "once per image and run" in shared_prefix_line(cached)


@pytest.mark.slow
def test_features_beyond_their_memory_are_made_again(tiny: Path, tmp_path: Path, capsys: Any) -> None:
    settings = {"max_steps": 2, "model": frozen(tiny), "vision_cache_gib": 1e-9}
    trainer = make_trainer(tiny, tmp_path, [0, 1], **settings)
    trainer.train()
    assert trainer.images.processed == 4
    assert capsys.readouterr().out.count("the cache of vision features is full with 0 images") <= 1


@pytest.mark.parametrize("towers", ["language", "vision", "both"])
def test_lora_adapts_the_tower_that_is_named(checkpoint: Path, towers: str) -> None:
    from peft import LoraConfig, get_peft_model

    model = load_model(checkpoint, dtype=torch.float32)
    layers = [n for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and n != "lm_head"]
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=lora_targets(model, towers)))
    adapted_layers = {
        n.split(".lora_A")[0].removeprefix("base_model.model.") for n, _ in adapted.named_modules() if "lora_A." in n
    }
    expected = {n for n in layers if towers == "both" or (".visual." in n) == (towers == "vision")}
    assert adapted_layers == expected
    table = trainable_table(adapted)
    rows = {line[2:22].strip(): line for line in table.splitlines()}
    assert ("(0.00%)" in rows["vision tower"]) == (towers == "language")
    assert ("(0.00%)" in rows["language model"]) == (towers == "vision")


def test_table_counts_every_weight_once(tiny: Path) -> None:
    model = frozen(tiny)
    count = sum(p.numel() for p in model.parameters())
    trains = sum(p.numel() for n, p in model.named_parameters() if ".visual." not in n)
    sum_line = trainable_table(model).splitlines()[-1].split()
    assert sum_line[:5] == ["all", f"{count:,}", "weights", f"{trains:,}", "train"]


def test_towers_that_are_not_there_are_refused(tmp_path: Path) -> None:
    model = load_model(build_tiny_checkpoint(tmp_path, "qwen2"), dtype=torch.float32)
    with pytest.raises(UserError, match="has no vision tower"):
        freeze_vision_tower(model)
    with pytest.raises(UserError, match="use --lora_on language"):
        lora_targets(model, "both")
    with pytest.raises(UserError, match="does not exist"):
        lora_targets(model, "eyes")
