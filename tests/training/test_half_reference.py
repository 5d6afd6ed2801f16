"""A reference stored in bfloat16 gives the log-probabilities of a float32 one to the bit, in half the memory."""

import copy
from typing import Any

import pytest
import torch
from groups import make_groups, packed_logps, stock_logps
from trl.trainer.utils import add_fused_lm_head

from open_r1.modeling.segment_attention import adapt_backbone, prepare_model
from open_r1.training.memory.half_reference import store_in_half
from open_r1_testbed.tiny_models import Shape, build_model

IDS = {"<|endoftext|>": 300, "<|im_start|>": 301, "<|im_end|>": 302, "<|vision_start|>": 303, "<|vision_end|>": 304}
IDS |= {"<|image_pad|>": 305, "<|video_pad|>": 306}


def reference(family: str, published: bool) -> Any:
    """A float32 model; `published`: each weight is a bfloat16 number, as in the checkpoints that were published."""
    model: Any = build_model(family, Shape(), 320, IDS, seed=3)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_((weight * 3 + 0.01).bfloat16().float() if published else weight * 3 + 0.01)
    return model.eval()


def scored(model: Any, way: Any) -> torch.Tensor:
    grids = [[(1, 12, 16)], [(1, 16, 16)]] if hasattr(model.config, "vision_config") else [[], []]
    groups = make_groups(model.config, grids, [40, 33], [[3, 10, 7], [12, 2, 5]])
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        return way(model, groups)[0]


def size(model: Any) -> int:
    return sum(weight.nbytes for weight in model.parameters())


@pytest.mark.parametrize("published", [True, False])
@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen2_vl", "qwen2"])
@pytest.mark.parametrize("way", [packed_logps, stock_logps])
def test_same_log_probabilities_to_the_bit(family: str, published: bool, way: Any) -> None:
    whole = reference(family, published)
    half = copy.deepcopy(whole)
    store_in_half(half)
    for model in (whole, half):
        add_fused_lm_head(model, temperature=1.0, outputs=("log_probs", "entropy"))
        adapt_backbone(model.model) if way is stock_logps else prepare_model(model)
    first, second = scored(whole, way), scored(half, way)
    assert first.std() > 0.1
    assert torch.equal(first, second), (first - second).abs().max()
    print(f"{family}: {size(half) / size(whole):.3f} of the memory")
    assert size(half) < (0.55 if published else 0.75) * size(whole)


def test_stored_in_bfloat16_as_a_whole_it_would_differ() -> None:
    """Why norms and the stream between the layers stay float32: with all in bfloat16 the numbers are others."""
    whole = reference("qwen2_5_vl", True)
    rounded = copy.deepcopy(whole).bfloat16()
    for model in (whole, rounded):
        add_fused_lm_head(model, temperature=1.0, outputs=("log_probs", "entropy"))
        prepare_model(model)
    difference = (scored(whole, packed_logps) - scored(rounded, packed_logps)).abs().max().item()
    print(f"all in bfloat16: {difference:.1e} off")
    assert difference > 1e-3
