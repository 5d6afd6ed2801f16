"""The memory plan held against the same training on fake CUDA tensors, which count every byte that a GPU would hold."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from typing import Any
from unittest.mock import patch

import pytest
import torch
from fake_cuda import DEVICE, GIB, backward, fake_gpu
from fake_models import GRID, fake_model, fake_prompts, no_tiles, packed_log_probs, with_adapters
from published_configs import PUBLISHED, published_config

from open_r1.training.memory.activations import Batch, Numbers, Trained, copied_bytes, training_pass
from open_r1.training.memory.half_reference import store_in_half
from open_r1.training.memory.model_size import model_size
from open_r1.training.memory.plan import BY_MASK_UP_TO, Run, planned
from open_r1.training.setup.trainable_parts import freeze_vision_tower

TEXT = 114
"""Tokens of a prompt beside its image; with the image of 196 tokens a prompt has 310, as OmniMedVQA's have."""
BFLOAT16, FLOAT32 = torch.bfloat16, torch.float32


@contextmanager
def gpu_like_a_gpu() -> Iterator[Any]:
    """A fake GPU on which TRL's head writes over its tiles, as its Triton kernels do, and numbers compare equal."""
    with fake_gpu() as gpu, no_tiles(), patch("torch.equal", lambda *_: True):
        yield gpu


def held_by_a_pass(model: Any, gpu: Any, batch: Batch, grid: tuple[int, int, int] | None, bf16: bool) -> int:
    """Most bytes that a training pass holds beside weights and gradients, which are there already."""
    for weight in model.parameters():
        if weight.requires_grad:
            weight.grad = torch.zeros_like(weight)
    prompts = fake_prompts(model, batch.prompts, batch.prompt_tokens - batch.image_tokens, grid)
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


LONGEST = Batch(prompts=1, prompt_tokens=1024, image_tokens=512, group=4, completion_tokens=256)
"""Of the published no-think command: `--max_prompt_length 1024 --max_pixels 401408 --num_generations 4`."""
LONGEST_GRID = (1, 32, 64)
"""512 image tokens of 28 x 28 pixels are 401,408."""


def case(
    batch: Batch, grid: Any = GRID, dtype: torch.dtype = FLOAT32, bf16: bool = True, **how: bool
) -> tuple[Any, ...]:
    return batch, grid, dtype, bf16, how


AT_THE_LONGEST = [
    case(LONGEST, LONGEST_GRID),
    case(LONGEST, LONGEST_GRID, BFLOAT16, lora=True),
]
MORE = [
    case(LONGEST, LONGEST_GRID, BFLOAT16, bf16=False),
    case(LONGEST, LONGEST_GRID, bf16=False),
    case(LONGEST, LONGEST_GRID, lora=True),
    case(LONGEST, LONGEST_GRID, checkpointing=True),
    case(LONGEST, LONGEST_GRID, BFLOAT16, lora=True, checkpointing=True),
    case(replace(LONGEST, prompts=2), LONGEST_GRID),
    case(replace(LONGEST, prompts=8), LONGEST_GRID, checkpointing=True),
    case(batch_of(GRID)),
    case(batch_of(None), None),
    case(batch_of((1, 40, 48), length=10), (1, 40, 48)),
    case(batch_of(GRID, prompts=3, group=8, length=20)),
    case(batch_of(GRID), frozen=True),
    case(batch_of(GRID), checkpointing=True),
    case(batch_of(GRID), lora=True),
    case(batch_of(GRID), GRID, BFLOAT16, lora=True),
    case(batch_of(GRID), GRID, BFLOAT16, bf16=False),
    case(batch_of(GRID), GRID, BFLOAT16, bf16=False, checkpointing=True),
    case(batch_of(GRID), bf16=False),
]
CASES = [*AT_THE_LONGEST, *(pytest.param(*entry, marks=pytest.mark.slow) for entry in MORE)]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Qwen2-VL-2B", "Qwen2.5-VL-3B"])
@pytest.mark.parametrize(("batch", "grid", "dtype", "bf16", "how"), CASES)
def test_a_pass_of_a_few_layers_holds_what_was_counted(
    name: str, batch: Batch, grid: Any, dtype: torch.dtype, bf16: bool, how: dict[str, bool]
) -> None:
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
    lora, masked = how.get("lora", False), batch.group * batch.completion_tokens <= BY_MASK_UP_TO
    trained = Trained(adapters=lora, vision=not (lora or how.get("frozen")), dropout=lora)
    size = model_size(config.to_dict())
    counted = training_pass(size, batch, numbers, trained, how.get("checkpointing", False), masked)
    difference = counted.total / held - 1
    print(f"{name} {numbers} {batch} {how}: {held / GIB:.3f} GiB held, {counted.total / GIB:.3f} ({difference:+.1%})")
    assert abs(difference) < 0.05  # seen: -1.0 % to +3.2 %


PARTS = {
    "weights": ("weights, float32",),
    "gradients": ("gradients",),
    "optimizer": ("optimizer",),
    "reference": ("reference, bfloat16",),
    "pass": ("activations", "bfloat16 copies of the matrices", "gradient of the head"),
}
"""Lines of a plan by what is made, in this order."""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Qwen2-VL-2B", "Qwen2.5-VL-3B"])
def test_a_whole_run_holds_what_was_planned(name: str) -> None:
    """All layers: weights, gradients, AdamW, the reference in bfloat16, and the published command's longest pass."""
    config = published_config(name)
    with gpu_like_a_gpu() as gpu:
        live = [gpu.live]
        model = fake_model(config, FLOAT32)
        live.append(gpu.live)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, foreach=False)
        for weight in model.parameters():
            weight.grad = torch.zeros_like(weight)
        live.append(gpu.live)
        for weight in model.parameters():
            optimizer.state[weight] = {"exp_avg": torch.zeros_like(weight), "exp_avg_sq": torch.zeros_like(weight)}
        live.append(gpu.live)
        reference = fake_model(config, FLOAT32).requires_grad_(False)
        store_in_half(reference)
        live.append(gpu.live)
        with torch.no_grad(), torch.autocast("cuda", BFLOAT16):  # as sampling does
            model.lm_head(torch.zeros(1, config.text_config.hidden_size, device=DEVICE))
        head_copy = gpu.live - live[-1]
        held = held_by_a_pass(model, gpu, LONGEST, LONGEST_GRID, True) + head_copy
        copies = copied_bytes(model_size(config.to_dict()), LONGEST, Numbers.AUTOCAST)
        assert gpu.live == pytest.approx(live[-1] + head_copy + copies, rel=0.01)
    planned_items = {item.name: item.bytes for item in planned(Run(model_size(PUBLISHED[name]), LONGEST)).items}
    measured = [*(after - before for before, after in pairwise(live)), held]
    for (part, lines), held_bytes in zip(PARTS.items(), measured, strict=True):
        planned_bytes = sum(planned_items[line] for line in lines)
        difference = planned_bytes / held_bytes - 1
        print(f"{name} {part}: {held_bytes / GIB:.2f} GiB held, {planned_bytes / GIB:.2f} planned ({difference:+.2%})")
        assert abs(difference) < 0.05
