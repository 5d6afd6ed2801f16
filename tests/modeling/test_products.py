"""Products by copies of weights against those of autocast, and no copy that is older than its weight."""

import copy
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from fake_cuda import FakeGpu, backward, fake_gpu
from fake_models import fake_model, fake_prompts, packed_log_probs, published_config
from peft import LoraConfig, get_peft_model
from transformers import Qwen2_5_VLConfig
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLMLP, Qwen2_5_VLVisionBlock

from open_r1.modeling import lean_layers, products
from open_r1.modeling.lean_layers import adapt_layers
from open_r1.modeling.products import Copy, multiply_copies

WIDTH = 27


@pytest.fixture
def copies_on_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU."""
    monkeypatch.setattr(products, "DEVICES", {"cpu"})


def bfloat16() -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16)


def layers() -> torch.nn.Sequential:
    torch.manual_seed(0)
    linears = [torch.nn.Linear(16, 32), torch.nn.Linear(32, 24, bias=False), torch.nn.Linear(24, 8)]
    return torch.nn.Sequential(linears[0], torch.nn.SiLU(), linears[1], torch.nn.SiLU(), linears[2])


def trained(model: torch.nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> list[float]:
    """Losses of a few steps of two micro-batches each, under autocast."""
    numbers, losses = torch.Generator().manual_seed(1), []
    for _ in range(steps):
        for _ in range(2):
            x = torch.randn(4, 6, 16, generator=numbers)
            with bfloat16():
                loss = model(x).float().pow(2).mean()
            loss.backward()
            losses.append(loss.item())
        optimizer.step()
        optimizer.zero_grad()
    return losses


@pytest.mark.parametrize("options", [{"fused": True}, {"foreach": True}, {"foreach": False}], ids=str)
@pytest.mark.usefixtures("copies_on_cpus")
def test_training_is_that_of_autocast_to_the_bit(options: Any) -> None:
    stock = layers()
    ours = copy.deepcopy(stock)
    multiply_copies(ours)
    optimizers = [torch.optim.AdamW(model.parameters(), lr=1e-2, **options) for model in (stock, ours)]
    expected, losses = trained(stock, optimizers[0], 5), trained(ours, optimizers[1], 5)
    assert losses == expected
    for mine, theirs in zip(ours.parameters(), stock.parameters(), strict=True):
        # a bias's gradient is summed in float32 here
        assert torch.allclose(mine, theirs, rtol=0, atol=1e-3 if mine.ndim == 1 else 0)


def loaded(layer: Any) -> None:
    layer.load_state_dict({"weight": torch.randn(8, 16), "bias": torch.randn(8)})


def assigned(layer: Any) -> None:
    layer.load_state_dict({"weight": torch.randn(8, 16), "bias": torch.randn(8)}, assign=True)


def stepped(layer: Any) -> None:
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1, fused=True)
    layer(torch.ones(1, 16)).sum().backward()
    version = layer.weight._version
    optimizer.step()
    assert layer.weight._version == version  # so that versions alone would not tell


def replaced(layer: Any) -> None:
    layer.weight.data = torch.randn(8, 16)


def written(layer: Any) -> None:
    with torch.no_grad():
        layer.weight.mul_(3)
        layer.bias.add_(3)


@pytest.mark.parametrize("change", [loaded, assigned, stepped, replaced, written])
@pytest.mark.usefixtures("copies_on_cpus")
def test_a_copy_is_never_older_than_its_weight(change: Callable[[Any], None]) -> None:
    layer: Any = torch.nn.Sequential(torch.nn.Linear(16, 8))
    multiply_copies(layer)
    x = torch.randn(3, 16)
    with torch.inference_mode(), bfloat16():
        layer(x)
        memory = layer[0].copies[0]._copy.data_ptr()
    change(layer[0])
    with torch.inference_mode(), bfloat16():
        out = layer(x)
        expected = torch.nn.functional.linear(x, layer[0].weight, layer[0].bias)
    assert torch.equal(out, expected)
    assert layer[0].copies[0]._copy.data_ptr() == memory  # where a recorded graph reads it


@pytest.mark.usefixtures("copies_on_cpus")
def test_merged_adapters_are_in_the_copy() -> None:
    model: Any = get_peft_model(layers(), LoraConfig(r=4, target_modules=["0", "2"], init_lora_weights=False))
    multiply_copies(model)
    x = torch.randn(3, 16)
    with torch.no_grad(), bfloat16():
        model(x)
        model.merge_adapter()
        merged = model(x)
        model.unmerge_adapter()
        apart = model(x)
    assert 0 < (merged - apart).abs().max() < 0.05 * apart.abs().max()


@pytest.mark.usefixtures("copies_on_cpus")
def test_a_weight_that_is_as_products_need_it_is_not_copied() -> None:
    weight = torch.nn.Parameter(torch.randn(8, 16, dtype=torch.bfloat16))
    assert Copy(None).of(weight, torch.bfloat16, (8, 16)).data_ptr() == weight.data_ptr()


def test_copies_are_no_part_of_what_is_saved() -> None:
    model = layers()
    names = set(model.state_dict())
    multiply_copies(model)
    assert set(model.state_dict()) == names


@pytest.fixture
def forced_width(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Fills up the width of a gated MLP on a CPU too; the widths of what goes into `down_proj`."""
    widths: list[int] = []
    monkeypatch.setattr(lean_layers, "aligned_width", lambda width, _: width + 5)
    return widths


def vision_block() -> Any:
    torch.manual_seed(0)
    config = Qwen2_5_VLConfig(vision_config={"num_heads": 4, "hidden_size": 64, "intermediate_size": WIDTH})
    return Qwen2_5_VLVisionBlock(config.vision_config)


def out_and_gradients(mlp: Any, x: torch.Tensor, autocast: bool) -> tuple[torch.Tensor, list[torch.Tensor]]:
    x = x.clone().requires_grad_()
    with bfloat16() if autocast else nullcontext():
        out = mlp(x)
    (out.float() * torch.linspace(-1, 1, out.numel()).view_as(out)).sum().backward()
    return out.detach().float(), [x.grad, *(weight.grad for weight in mlp.parameters())]  # type: ignore[list-item]


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.usefixtures("copies_on_cpus")
def test_zeros_beside_a_matrix_change_neither_values_nor_gradients(autocast: bool, forced_width: list[int]) -> None:
    block = vision_block()
    stock: Qwen2_5_VLMLP = copy.deepcopy(block.mlp)
    adapt_layers(block)
    block.mlp.down_proj.register_forward_pre_hook(lambda _, args: forced_width.append(args[0].size(-1)))
    x = torch.randn(9, 64)
    expected, expected_gradients = out_and_gradients(stock, x, autocast)
    out, gradients = out_and_gradients(block.mlp, x, autocast)
    assert forced_width == [WIDTH + 5]
    assert (out - expected).abs().max() < (1e-2 if autocast else 1e-6) * expected.abs().max()
    for mine, theirs in zip(gradients, expected_gradients, strict=True):
        assert mine.shape == theirs.shape
        cosine = torch.nn.functional.cosine_similarity(mine.double().flatten(), theirs.double().flatten(), dim=0)
        assert cosine > 1 - (1e-4 if autocast else 1e-10)


def multiplied_shapes(model: Any, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Shapes of the weights that a pass multiplies by."""
    shapes: list[tuple[int, ...]] = []
    linear = torch.nn.functional.linear

    def seen(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        shapes.append(tuple(weight.shape))
        return linear(x, weight, bias)

    monkeypatch.setattr(products, "linear", seen)
    backward(packed_log_probs(model, fake_prompts(model), bf16=model.dtype == torch.float32).mean())
    return shapes


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_on_a_gpu_no_product_has_a_width_that_kernels_are_slow_with(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    with fake_gpu():
        model = fake_model(published_config("qwen2_5_vl_3b", layers=2), dtype)
        shapes = multiplied_shapes(model, monkeypatch)
        gradients = [weight.grad for weight in model.model.visual.parameters()]
        assert all(gradient is not None and gradient.dtype == dtype for gradient in gradients)
    assert (3456, 1280) in shapes
    assert (1280, 3456) in shapes
    assert all(size % 8 == 0 for shape in shapes for size in shape)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["qwen2_5_vl_3b", "qwen2_vl_2b"])
def test_no_weight_is_rounded_in_a_pass_after_the_first(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with fake_gpu() as gpu:
        model = fake_model(published_config(name, layers=2))
        shapes = {tuple(w.shape) for w in model.parameters() if w.ndim == 2 and w is not model.lm_head.weight}
        rounded: list[tuple[int, ...]] = []
        dispatch = type(gpu).__torch_dispatch__

        def watched(self: FakeGpu, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = dispatch(self, func, types, args, kwargs)
            if func._schema.name in ("aten::_to_copy", "aten::copy_") and out.dtype == torch.bfloat16:
                source = args[1] if func._schema.name == "aten::copy_" else args[0]
                rounded.extend([tuple(source.shape)] if source.dtype == torch.float32 else [])
            return out

        monkeypatch.setattr(type(gpu), "__torch_dispatch__", watched)
        counts = []
        for _ in range(2):
            rounded.clear()
            backward(packed_log_probs(model, fake_prompts(model)).mean())
            counts.append(sum(shape in shapes for shape in rounded))
    assert counts[0] > 2 * 7
    assert counts[1] == 0
