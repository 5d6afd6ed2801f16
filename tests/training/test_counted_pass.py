"""Passes counted on the class of an image-text model, held against TRL's rows on fake CUDA tensors."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_cuda import DEVICE, GIB, backward, fake_gpu
from fake_models import no_tiles, with_adapters
from transformers import AutoConfig, AutoModelForImageTextToText
from transformers.initialization import no_init_weights
from trl.trainer.utils import add_fused_lm_head

from open_r1.modeling.prompt_batch import upload
from open_r1.training.memory.activations import Batch, Numbers, Trained
from open_r1.training.memory.counted_pass import counted_pass
from open_r1.training.memory.flags_of_run import run_of
from open_r1.training.memory.model_size import ImageShape, NoSize, model_size
from open_r1.training.memory.plan import longest_pass, planned
from open_r1.training.memory.plan_command import size_of
from open_r1.training.setup.trainable_parts import freeze_vision_tower
from open_r1_testbed.tiny_models import build_tiny_checkpoint

IMAGE = 7
"""Token that stands for an image."""
SIGLIP = {"hidden_size": 1152, "intermediate_size": 4304, "num_attention_heads": 16, "vision_use_head": False}
CLIP = {"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16, "projection_dim": 768}
QWEN = {"model_type": "qwen2", "hidden_size": 2048, "intermediate_size": 11008, "num_attention_heads": 16}
LLAMA = {"model_type": "llama", "hidden_size": 4096, "intermediate_size": 11008, "num_attention_heads": 32}
CONFIGS: dict[str, dict[str, Any]] = {
    "gemma3": {  # google/gemma-3-4b-it
        "text_config": {"hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 34},
        "vision_config": SIGLIP | {"num_hidden_layers": 27, "image_size": 896, "patch_size": 14},
        "mm_tokens_per_image": 256,
        "image_token_index": IMAGE,
    },
    "internvl": {  # OpenGVLab/InternVL3-2B's tower with a language model of 3 billion weights
        "text_config": QWEN | {"num_key_value_heads": 2, "vocab_size": 151674, "num_hidden_layers": 36},
        "vision_config": {
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_hidden_layers": 24,
            "layer_norm_eps": 1e-6,
        }
        | {"num_attention_heads": 16, "image_size": [448, 448], "patch_size": [14, 14]},
        "image_token_id": IMAGE,
    },
    "llava": {  # llava-hf/llava-1.5-7b-hf
        "text_config": LLAMA | {"num_key_value_heads": 32, "vocab_size": 32064, "num_hidden_layers": 32},
        "vision_config": CLIP
        | {"model_type": "clip_vision_model", "num_hidden_layers": 24}
        | {"image_size": 336, "patch_size": 14},
        "image_token_id": IMAGE,
    },
}
"""Sizes of published models."""
IMAGES = {
    "gemma3": ImageShape((1, 3, 896, 896), 256),
    "internvl": ImageShape((1, 3, 448, 448), 256),
    "llava": ImageShape((1, 3, 336, 336), 576),
}


def config_of(family: str, layers: int | None) -> Any:
    config: Any = AutoConfig.for_model(family, **CONFIGS[family])
    if layers is not None:
        config.text_config.num_hidden_layers = config.vision_config.num_hidden_layers = layers
        if hasattr(config.text_config, "layer_types"):
            config.text_config.layer_types = config.text_config.layer_types[:layers]
    return config


def held_by_rows(config: Any, batch: Batch, image: ImageShape, how: dict[str, Any]) -> int:
    """Most bytes that TRL's rows hold on a GPU, beside weights and gradients."""
    with fake_gpu() as gpu, no_tiles():
        with DEVICE, no_init_weights():
            model: Any = AutoModelForImageTextToText.from_config(config, dtype=how.get("dtype", torch.float32))
        model.tie_weights()
        add_fused_lm_head(model, outputs=("log_probs", "entropy"))
        model.train()
        if how.get("frozen"):
            freeze_vision_tower(model)
        if how.get("checkpointing"):
            model.gradient_checkpointing_enable({"use_reentrant": False})
        if how.get("lora"):
            model = with_adapters(model)
        for weight in model.parameters():
            weight.grad = torch.zeros_like(weight) if weight.requires_grad else None
        ids = torch.tensor([[IMAGE] * batch.image_tokens + [1] * (batch.row - batch.image_tokens)] * batch.rows)
        labels = ids.clone()
        labels[:, : batch.prompt_tokens] = -100
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}
        if config.model_type == "gemma3":
            inputs["token_type_ids"] = (ids == IMAGE).long()
        inputs = {name: upload(values, DEVICE) for name, values in inputs.items()}
        pixels = torch.randn(batch.seen // image.tokens * image.pixels[0], *image.pixels[1:], device=DEVICE)
        before = gpu.live
        with gpu.measured() as cost:
            with torch.autocast("cuda", torch.bfloat16, enabled=how.get("dtype") is None):
                out = model(**inputs, pixel_values=pixels, fused_lm_head=True)
            loss = out.log_probs.sum()
            del out
            backward(loss)
    return cost.peak - before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "layers", "how"),
    [
        ("gemma3", None, {}),
        ("internvl", None, {}),
        ("llava", None, {}),
        ("internvl", None, {"checkpointing": True}),
        ("gemma3", 8, {"frozen": True}),
        ("gemma3", 8, {"lora": True}),
        ("internvl", 8, {"dtype": torch.bfloat16}),
    ],
)
def test_a_pass_holds_what_was_counted(family: str, layers: int | None, how: dict[str, Any]) -> None:
    config, image = config_of(family, layers), IMAGES[family]
    batch = Batch(1, image.tokens + 384, image.tokens, group=4, completion_tokens=128, shares_prefix=False)
    held = held_by_rows(config, batch, image, how)
    size = replace(model_size(config.to_dict()), image=image)
    numbers = Numbers.HALF if "dtype" in how else Numbers.AUTOCAST
    lora = how.get("lora", False)
    trained = Trained(adapters=lora, vision=not (lora or how.get("frozen")), dropout=lora)
    counted = counted_pass(size, batch, numbers, trained, how.get("checkpointing", False))
    difference = counted.total / held - 1
    print(f"{family} {layers} {how}: {held / GIB:.3f} GiB held, {counted.total / GIB:.3f} counted ({difference:+.1%})")
    assert abs(difference) < 0.05


@pytest.mark.slow
@pytest.mark.parametrize(("family", "tiles", "image_tokens"), [("gemma3", 1, 12), ("internvl", 10, 40)])
def test_an_image_is_what_the_checkpoints_processor_makes_of_it(
    family: str, tiles: int, image_tokens: int, tmp_path: Path
) -> None:
    """Both tiny checkpoints show 56 x 56 pixels as 4 tokens, InternVL in nine tiles and a small view of all: in 60 of
    100 tokens there is room for three images of the one and a single one of the other."""
    folder = build_tiny_checkpoint(tmp_path / family, family)
    size = size_of(str(folder))
    assert size.image == ImageShape((tiles, 3, 56, 56), 4 * tiles)
    run = run_of({"max_prompt_length": 100, "num_generations": 4, "max_pixels": 10**6}, size, 1, images=3)
    assert (run.batch.image_tokens, run.batch.rows, run.batch.row) == (image_tokens, 4, 356)
    alone = replace(run, batch=replace(run.batch, image_tokens=0))
    frozen = replace(run, vision_trains=False)
    held = [longest_pass(entry).total for entry in (alone, frozen, run)]
    assert held[0] <= held[1] < held[2]  # the tower's pass is kept where the tower trains
    assert planned(run).gib > 0


def test_a_pass_that_needs_values_is_one_line() -> None:
    size = replace(model_size(config_of("llava", 1).to_dict()), config='{"model_type": "llava", "vision_config": 3}')
    batch = Batch(1, 64, 0, group=2, completion_tokens=8, shares_prefix=False)
    with pytest.raises(NoSize, match="a pass of a llava cannot be counted: "):
        counted_pass(size, batch, Numbers.WHOLE, Trained(), False)
