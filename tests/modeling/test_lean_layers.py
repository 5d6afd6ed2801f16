"""Layers with fewer operations against transformers' own: values, gradients, and launches of whole models."""

import copy
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch
from fake_cuda import DEVICE, Cost, FakeGpu, backward, fake_gpu
from fake_models import fake_model, fake_prompts, packed_log_probs, published_config
from groups import IDS
from peft import LoraConfig, get_peft_model
from transformers import DynamicCache

from open_r1.modeling.decoding.attention import one_token_attention
from open_r1.modeling.lean_layers import adapt_layers, additive
from open_r1.modeling.vision_attention import adapt_vision
from open_r1_testbed.tiny_models import Shape, build_model

FAMILIES = ("qwen2_5_vl", "qwen2_vl", "qwen2")
GRIDS = torch.tensor([[1, 12, 16], [1, 8, 8]])


def tiny_model(family: str) -> Any:
    model: Any = build_model(family, Shape(), 320, IDS, seed=0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(3.0) if weight.ndim >= 2 else weight.add_(0.1 * torch.randn_like(weight))
    return model


def inputs_for(model: Any) -> dict[str, torch.Tensor]:
    """Two rows of 90 tokens, with an image each where the model sees images."""
    torch.manual_seed(1)
    ids = torch.randint(0, 300, (2, 90))
    inputs = {"input_ids": ids, "attention_mask": torch.ones(2, 1, 90, 90, dtype=torch.bool).tril()}
    if hasattr(model.config, "vision_config"):
        for row, grid in enumerate(GRIDS):
            ids[row, 3 : 3 + int(grid.prod()) // 4] = model.config.image_token_id
        inputs |= {"pixel_values": torch.randn(int(GRIDS.prod(1).sum()), 3 * 2 * 14 * 14), "image_grid_thw": GRIDS}
        inputs["position_ids"] = (torch.arange(90) * torch.tensor([1, 2, 3])[:, None, None]).expand(3, 2, 90)
    return inputs


def logits_and_gradients(model: Any, inputs: Any, autocast: bool = False) -> tuple[torch.Tensor, dict[str, Any]]:
    with torch.autocast("cpu", torch.bfloat16) if autocast else nullcontext():
        logits = model(**inputs).logits.float()
    weights = torch.linspace(-1, 1, logits.numel()).view_as(logits)
    (logits.log_softmax(-1) * weights).sum().backward()
    return logits.detach(), {name: w.grad for name, w in model.named_parameters() if w.grad is not None}


def adapted(model: Any) -> Any:
    ours = copy.deepcopy(model)
    inner = ours.get_base_model() if hasattr(ours, "get_base_model") else ours
    adapt_vision(inner.model)
    adapt_layers(ours)
    return ours


def least_cosine(ours: dict[str, Any], theirs: dict[str, Any]) -> float:
    assert ours.keys() == theirs.keys()
    cosine = torch.nn.functional.cosine_similarity
    pairs = [(ours[name].double().flatten(), theirs[name].double().flatten()) for name in ours]
    return min(cosine(mine, other, dim=0).item() for mine, other in pairs if other.norm() > 1e-6)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_logits_and_gradients_are_those_of_transformers(family: str, checkpointing: bool) -> None:
    stock = tiny_model(family).train()
    ours, inputs = adapted(stock), inputs_for(stock)
    if checkpointing:
        ours.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    expected, expected_gradients = logits_and_gradients(stock, inputs)
    logits, gradients = logits_and_gradients(ours, inputs)
    difference = ((logits - expected).abs().max() / expected.abs().max()).item()
    cosine = least_cosine(gradients, expected_gradients)
    print(f"{family}: logits differ by {difference:.1e} of the largest, cosine 1 - {1 - cosine:.1e}")
    assert difference < 1e-6
    assert cosine > 1 - 1e-10


@pytest.mark.parametrize("family", FAMILIES)
def test_under_autocast_they_differ_as_little_as_rounding(family: str) -> None:
    stock = tiny_model(family).train()
    ours, inputs = adapted(stock), inputs_for(stock)
    exact, _ = logits_and_gradients(copy.deepcopy(stock), inputs)
    expected, _ = logits_and_gradients(stock, inputs, autocast=True)
    logits, _ = logits_and_gradients(ours, inputs, autocast=True)
    mine, theirs = (logits - exact).norm().item(), (expected - exact).norm().item()
    print(f"{family}: {mine:.3f} from float32, transformers' own {theirs:.3f}")
    assert mine < 1.1 * theirs


def test_adapters_work_within_adapted_layers() -> None:
    base = tiny_model("qwen2_5_vl")
    settings = LoraConfig(r=4, target_modules=["q_proj", "v_proj", "gate_proj", "down_proj", "qkv"])
    stock: Any = get_peft_model(base, settings).train()
    with torch.no_grad():
        for name, weight in stock.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.1)
    ours, inputs = adapted(stock), inputs_for(stock)
    expected, expected_gradients = logits_and_gradients(stock, inputs)
    logits, gradients = logits_and_gradients(ours, inputs)
    assert (logits - expected).abs().max() < 1e-6 * expected.abs().max()
    assert least_cosine(gradients, expected_gradients) > 1 - 1e-10


def test_tokens_decoded_with_a_cache_are_those_of_transformers() -> None:
    stock = tiny_model("qwen2_5_vl").eval()
    ours = adapted(stock)
    ids = torch.randint(0, 300, (3, 12), generator=torch.Generator().manual_seed(0))
    expected, tokens = (
        model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False)
        for model in (stock, ours)
    )
    assert torch.equal(tokens, expected)


def test_a_second_call_changes_nothing() -> None:
    model = adapted(tiny_model("qwen2_5_vl"))
    inputs = inputs_for(model)
    before = model(**inputs).logits
    adapt_layers(model)
    assert torch.equal(model(**inputs).logits, before)


def test_a_masks_rows_are_aligned_and_its_numbers_those_of_the_mask() -> None:
    mask = torch.ones(2, 1, 5, 5, dtype=torch.bool).tril()
    added = additive(mask, torch.bfloat16)
    assert added.shape == mask.shape
    assert torch.equal(added == 0, mask)
    assert bool((added[~mask] == -torch.inf).all())
    assert all(stride % 16 == 0 for stride in added.stride()[:-1])


def cost_of_a_pass(gpu: FakeGpu, model: Any) -> Cost:
    """Of the second pass; the first one makes copies of weights."""
    for _ in range(2):
        for weight in model.parameters():
            weight.grad = None
        with gpu.measured() as cost:
            loss = packed_log_probs(model, fake_prompts(model)).mean()
            backward(loss)
    return cost


def cost_of_a_token(gpu: FakeGpu, model: Any, autocast: AbstractContextManager[Any]) -> Cost:
    """Of the model's part of a decoded token in 32 rows, with a mask of numbers as the decoding loop has it."""
    ids = torch.ones(32, 300, dtype=torch.long).to(DEVICE)
    positions = torch.arange(301).expand(3, 32, 301).to(DEVICE)
    mask = torch.zeros(32, 1, 1, 301, dtype=torch.bfloat16, device=DEVICE)
    with torch.no_grad(), autocast:
        cache = DynamicCache(config=model.config)
        options = {"past_key_values": cache, "use_cache": True, "logits_to_keep": 1}
        model(input_ids=ids, position_ids=positions[..., :300], attention_mask=torch.ones_like(ids), **options)
        with one_token_attention(model), gpu.measured() as cost:
            model(input_ids=ids[:, :1], position_ids=positions[..., 300:], attention_mask=mask, **options)
    return cost


@pytest.mark.slow
@pytest.mark.parametrize(("name", "launches", "of_a_token"), [("qwen2_5_vl_3b", 4350, 820), ("qwen2_vl_2b", 3800, 650)])
def test_launches_of_whole_models(name: str, launches: int, of_a_token: int) -> None:
    """Before: 9,908 and 7,060 in a pass, 1,760 and 1,380 for a token."""
    with fake_gpu() as gpu:
        model = fake_model(published_config(name))
        cost = cost_of_a_pass(gpu, model)
        token = cost_of_a_token(gpu, model.eval(), torch.autocast("cuda", torch.bfloat16))
        del model
        half = cost_of_a_token(gpu, fake_model(published_config(name), torch.bfloat16).eval(), nullcontext())
    print(f"{name}: {cost.launches} in a pass, {token.launches} for a token, {half.launches} in bfloat16")
    assert cost.launches <= launches
    assert token.launches <= of_a_token
    assert half.launches <= of_a_token


@pytest.mark.slow
@pytest.mark.parametrize("name", ["qwen2_5_vl_3b", "qwen2_vl_2b"])
def test_launches_of_a_layer(name: str) -> None:
    costs = []
    for layers in (2, 3):
        with fake_gpu() as gpu:
            costs.append(cost_of_a_pass(gpu, fake_model(published_config(name, layers))))
    of_a_layer = costs[1].launches - costs[0].launches
    print(f"{name}: {of_a_layer} launches for a layer of the language model and a block of the tower")
    assert of_a_layer <= {"qwen2_5_vl_3b": 125, "qwen2_vl_2b": 120}[name]
    assert not costs[1].syncs
