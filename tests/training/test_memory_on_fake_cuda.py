"""The memory plan held against the same training on fake CUDA tensors, which count every byte that a GPU would hold."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import pytest
import torch
from fake_cuda import DEVICE, GIB, backward, fake_gpu
from fake_models import GRID, fake_model, fake_prompts, packed_log_probs
from peft import LoraConfig, get_peft_model
from published_configs import PUBLISHED, published_config

from open_r1.training.memory.activations import Batch, Numbers, Trained, training_pass
from open_r1.training.memory.half_reference import store_in_half
from open_r1.training.memory.model_size import model_size
from open_r1.training.memory.plan import CONTEXT, Run, planned
from open_r1.training.setup.trainable_parts import freeze_vision_tower, lora_targets

TEXT = 114
"""Tokens of a prompt beside its image; with the image of 196 tokens a prompt has 310, as OmniMedVQA's have."""
BFLOAT16, FLOAT32 = torch.bfloat16, torch.float32


@contextmanager
def gpu_like_a_gpu() -> Iterator[Any]:
    """A fake GPU on which TRL's head writes over its tiles, as its Triton kernels do, and numbers compare equal."""
    with (
        fake_gpu() as gpu,
        patch("trl.kernels.chunked_logprob._forward_tile", lambda *_, **__: None),
        patch("trl.kernels.chunked_logprob._backward_tile", lambda *_, **__: None),
        patch("torch.equal", lambda *_: True),
    ):
        yield gpu


def held_by_a_pass(model: Any, gpu: Any, batch: Batch, grid: tuple[int, int, int] | None, bf16: bool) -> int:
    """Most bytes that a training pass holds beside weights and gradients, which are there already."""
    for weight in model.parameters():
        if weight.requires_grad:
            weight.grad = torch.zeros_like(weight)
    prompts = fake_prompts(model, batch.prompts, TEXT, grid)
    before = gpu.live
    with gpu.measured() as cost:
        log_probs = packed_log_probs(model, prompts, batch.group, batch.completion_tokens, bf16)
        loss = log_probs.sum()
        del log_probs
        backward(loss)
    return cost.peak - before


def batch_of(grid: tuple[int, int, int] | None, prompts: int = 1, group: int = 4, length: int = 60) -> Batch:
    image = 0 if grid is None else grid[1] * grid[2] // 4
    return Batch(prompts, TEXT + image, image, group, length)


CASES = [
    (FLOAT32, True, GRID, {}, {}),
    (FLOAT32, True, None, {}, {}),
    (FLOAT32, True, (1, 40, 48), {"length": 10}, {}),
    (FLOAT32, True, GRID, {"prompts": 3, "group": 8, "length": 20}, {}),
    (FLOAT32, True, GRID, {}, {"frozen": True}),
    (FLOAT32, True, GRID, {}, {"checkpointing": True}),
    (FLOAT32, True, GRID, {}, {"lora": True}),
    (BFLOAT16, True, GRID, {}, {"lora": True}),
    (BFLOAT16, False, GRID, {}, {}),
    (BFLOAT16, False, GRID, {}, {"checkpointing": True}),
    (FLOAT32, False, GRID, {}, {}),
]


@pytest.mark.parametrize("name", ["Qwen2-VL-2B", "Qwen2.5-VL-3B"])
@pytest.mark.parametrize(("dtype", "bf16", "grid", "sizes", "how"), CASES)
def test_a_pass_of_a_few_layers_holds_what_was_counted(
    name: str, dtype: torch.dtype, bf16: bool, grid: Any, sizes: dict[str, int], how: dict[str, bool]
) -> None:
    batch = batch_of(grid, **sizes)
    config = published_config(name, layers=4)
    with gpu_like_a_gpu() as gpu:
        model = fake_model(config, dtype)
        if how.get("frozen"):
            freeze_vision_tower(model)
        if how.get("checkpointing"):
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        if how.get("lora"):
            model = with_adapters(model)
        held = held_by_a_pass(model, gpu, batch, grid, bf16)
    numbers = Numbers.HALF if dtype == BFLOAT16 else Numbers.AUTOCAST if bf16 else Numbers.WHOLE
    lora = how.get("lora", False)
    trained = Trained(adapters=lora, vision=not (lora or how.get("frozen")), dropout=lora)
    checkpointing = how.get("checkpointing", False)
    counted = training_pass(model_size(config.to_dict()), batch, numbers, trained, checkpointing, True)
    print(f"{name} {numbers} {sizes} {how}: {held / GIB:.3f} GiB held, {counted.total / GIB:.3f} counted")
    # torch's engine holds the gradient of a tied head until the embeddings' comes, beside the layer that is computed
    # again; the fake one does not
    assert counted.total == pytest.approx(held, rel=0.1 if checkpointing else 0.02)


def with_adapters(model: Any) -> Any:
    """LoRA as `--use_peft` has it; PEFT moves modules between devices, which fake tensors cannot."""
    settings = LoraConfig(r=16, lora_dropout=0.05, target_modules=lora_targets(model, "language"))
    move = "peft.tuners.tuners_utils.BaseTunerLayer._move_adapter_to_device_of_base_layer"
    stays = patch("torch.nn.Module.to", lambda module, *_, **__: module)
    with stays, patch(move, lambda *_, **__: None), DEVICE:
        return get_peft_model(model, settings, autocast_adapter_dtype=False).train()


@pytest.mark.parametrize("name", ["Qwen2-VL-2B", "Qwen2.5-VL-3B"])
def test_a_whole_run_holds_what_was_planned(name: str) -> None:
    """All layers: weights, gradients, AdamW, the reference in bfloat16, and the longest pass beside them."""
    batch, config = batch_of(GRID), published_config(name)
    with gpu_like_a_gpu() as gpu:
        model = fake_model(config, FLOAT32)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, foreach=False)
        for weight in model.parameters():
            weight.grad = torch.zeros_like(weight)
            state = optimizer.state[weight]
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(weight), torch.zeros_like(weight)
        reference = fake_model(config, FLOAT32).requires_grad_(False)
        store_in_half(reference)
        fixed = gpu.live
        held = fixed + held_by_a_pass(model, gpu, batch, GRID, True)
        assert gpu.live == pytest.approx(fixed, rel=0.01)
    plan = planned(Run(model_size(PUBLISHED[name]), batch))
    difference = plan.gib - CONTEXT - held / GIB
    print(f"{name}: {held / GIB:.2f} GiB held, {plan.gib - CONTEXT:.2f} planned ({difference / held * GIB:+.2%})")
    assert plan.gib - CONTEXT == pytest.approx(held / GIB, rel=0.02)
