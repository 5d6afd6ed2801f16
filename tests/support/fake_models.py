"""Models of published sizes on a fake GPU, and passes through them by the product's own functions."""

import copy
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import torch
from fake_cuda import DEVICE
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText
from trl.trainer.utils import add_fused_lm_head

from open_r1.modeling.prompt_batch import PromptBatch, upload
from open_r1.modeling.segment_attention import prepare_model
from open_r1.training.grpo.packed_scoring import score_groups
from open_r1.training.setup.trainable_parts import lora_targets

_TEXT = {
    "rms_norm_eps": 1e-6,
    "hidden_act": "silu",
    "num_key_value_heads": 2,
    "vocab_size": 151936,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
    "use_sliding_window": False,
    "tie_word_embeddings": True,
    "bos_token_id": 151643,
    "eos_token_id": 151645,
}
_TOKENS = {
    "image_token_id": 151655,
    "video_token_id": 151656,
    "vision_start_token_id": 151652,
    "vision_end_token_id": 151653,
    "tie_word_embeddings": True,
}
_TOWER = {"num_heads": 16, "patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2, "in_channels": 3}
PUBLISHED: dict[str, dict[str, Any]] = {
    "qwen2_5_vl_3b": {
        **_TOKENS,
        "model_type": "qwen2_5_vl",
        "text_config": {
            **_TEXT,
            "model_type": "qwen2_5_vl_text",
            "hidden_size": 2048,
            "intermediate_size": 11008,
            "num_hidden_layers": 36,
            "num_attention_heads": 16,
            "max_position_embeddings": 128000,
        },
        "vision_config": {
            **_TOWER,
            "model_type": "qwen2_5_vl",
            "depth": 32,
            "hidden_size": 1280,
            "intermediate_size": 3420,
            "out_hidden_size": 2048,
            "window_size": 112,
            "fullatt_block_indexes": [7, 15, 23, 31],
            "tokens_per_second": 2,
            "hidden_act": "silu",
        },
    },
    "qwen2_vl_2b": {
        **_TOKENS,
        "model_type": "qwen2_vl",
        "text_config": {
            **_TEXT,
            "model_type": "qwen2_vl_text",
            "hidden_size": 1536,
            "intermediate_size": 8960,
            "num_hidden_layers": 28,
            "num_attention_heads": 12,
            "max_position_embeddings": 32768,
        },
        "vision_config": {
            **_TOWER,
            "model_type": "qwen2_vl",
            "depth": 32,
            "embed_dim": 1280,
            "hidden_size": 1536,
            "mlp_ratio": 4,
            "hidden_act": "quick_gelu",
        },
    },
}
"""Sizes from the config.json of Qwen/Qwen2.5-VL-3B-Instruct and Qwen/Qwen2-VL-2B-Instruct."""

GRID = (1, 28, 28)
"""Patches of the images of OmniMedVQA, 384 x 384 pixels scaled to 392 x 392: 196 tokens."""


def published_config(name: str, layers: int | None = None) -> Any:
    """The config of a model in `PUBLISHED`, with only so many layers in language model and vision tower.

    With few layers, the tower's second one is of the kind that attends over the whole image, where it has such.
    """
    sizes = copy.deepcopy(PUBLISHED[name])
    if layers is not None:
        sizes["text_config"]["num_hidden_layers"] = sizes["vision_config"]["depth"] = layers
        if "fullatt_block_indexes" in sizes["vision_config"]:
            sizes["vision_config"]["fullatt_block_indexes"] = [1]
    return AutoConfig.for_model(**sizes)


def fake_model(config: Any, dtype: torch.dtype = torch.float32, attention: str = "sdpa") -> Any:
    """A model on the fake GPU as a training prepares it; to be called within `fake_gpu()`."""
    kind = AutoModelForImageTextToText if hasattr(config, "vision_config") else AutoModelForCausalLM
    with DEVICE:
        model = kind.from_config(config, dtype=dtype, attn_implementation=attention)
    add_fused_lm_head(model, outputs=("log_probs", "entropy"))
    prepare_model(model)
    return model.train()


def fake_prompts(model: Any, count: int = 1, text: int = 114, grid: tuple[int, int, int] | None = GRID) -> PromptBatch:
    """`count` prompts of `text` tokens and an image each (none where `grid` is None), on the fake GPU.

    The tokens, the mask and the grids have values; the pixels have none.
    """
    config = model.config
    tokens = 0 if grid is None else grid[0] * grid[1] * grid[2] // config.vision_config.spatial_merge_size**2
    placeholders = [] if grid is None else [config.image_token_id] * tokens
    ids = torch.tensor([[1] * (text // 2) + placeholders + [1] * (text - text // 2)] * count)
    mask = torch.ones_like(ids)
    vision = {}
    if grid is not None:
        tower = config.vision_config
        channels = getattr(tower, "in_channels", 3)
        patches = count * grid[0] * grid[1] * grid[2]
        features = channels * tower.temporal_patch_size * tower.patch_size**2
        vision = {
            "pixel_values": torch.randn(patches, features, device=DEVICE),
            "image_grid_thw": torch.tensor([list(grid)] * count),
            "mm_token_type_ids": (ids == config.image_token_id).long(),
        }
    images = [0 if grid is None else 1] * count
    return PromptBatch(upload(ids, DEVICE), upload(mask, DEVICE), images, vision, mask.sum(1).tolist())


@dataclass
class FakeAccelerator:
    """What `score_groups` asks of accelerate's."""

    bf16: bool = True

    def unwrap_model(self, model: Any) -> Any:
        """The model, which nothing wraps."""
        return model

    def autocast(self) -> AbstractContextManager[Any]:
        """As `--bf16` has it."""
        return torch.autocast("cuda", dtype=torch.bfloat16) if self.bf16 else nullcontext()


def packed_log_probs(
    model: Any, prompts: PromptBatch, group: int = 4, length: int = 10, bf16: bool = True
) -> torch.Tensor:
    """(B * group, length) log-probabilities of completions, by the training's own pass."""
    completions = torch.zeros(len(prompts.ids), group, length, dtype=torch.long, device=DEVICE)
    log_probs, _ = score_groups(
        FakeAccelerator(bf16), model, prompts, completions, torch.ones_like(completions), len(prompts.ids), False, False
    )
    return log_probs


@contextmanager
def no_tiles() -> Iterator[None]:
    """TRL's head writes over its tiles, as its Triton kernels do."""
    with (
        patch("trl.kernels.chunked_logprob._forward_tile", lambda *_, **__: None),
        patch("trl.kernels.chunked_logprob._backward_tile", lambda *_, **__: None),
    ):
        yield


def with_adapters(model: Any) -> Any:
    """LoRA as `--use_peft` has it; PEFT moves modules between devices, which fake tensors cannot."""
    settings = LoraConfig(r=16, lora_dropout=0.05, target_modules=lora_targets(model, "language"))
    move = "peft.tuners.tuners_utils.BaseTunerLayer._move_adapter_to_device_of_base_layer"
    stays = patch("torch.nn.Module.to", lambda module, *_, **__: module)
    with stays, patch(move, lambda *_, **__: None), DEVICE:
        return get_peft_model(model, settings, autocast_adapter_dtype=False).train()
