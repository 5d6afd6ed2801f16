"""Attention in two merged calls against one softmax under the packed mask, in float64, and its gradients."""

from typing import Any

import pytest
import torch
from fake_cuda import DEVICE, GIB, backward, fake_gpu
from fake_models import fake_model, fake_prompts, packed_log_probs, published_config
from groups import IDS, make_groups, packed_logps
from reference_flash import ReferenceKernel
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask
from trl.trainer.utils import add_fused_lm_head

from open_r1.modeling import cascade_attention, segment_attention
from open_r1.modeling.cascade_attention import Spans, attend_in_cascade
from open_r1.modeling.packed_rows import packed_mask
from open_r1.modeling.segment_attention import ATTENTION, prepare_model
from open_r1_testbed.tiny_models import Shape, build_model

PROMPTS = {"one prompt": [9], "equal prompts": [6, 6], "padded prompts": [4, 9, 2]}


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> ReferenceKernel:
    reference = ReferenceKernel()
    monkeypatch.setattr(cascade_attention, "KERNEL", reference)
    return reference


@pytest.mark.parametrize("lengths", PROMPTS.values(), ids=PROMPTS)
def test_output_and_gradients_are_those_of_one_masked_softmax(lengths: list[int], kernel: ReferenceKernel) -> None:
    torch.manual_seed(0)
    group, length, heads, key_heads, size = 3, 5, 4, 2, 8
    rows, width = len(lengths), max(lengths)
    mask = torch.arange(width) >= width - torch.tensor(lengths)[:, None]
    tokens = width - 1 + group * length
    shapes = ((rows, heads, tokens, size), *[(rows, key_heads, tokens, size)] * 2)
    states = [torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    spans = Spans(tuple(lengths), width - 1, group, length, torch.device("cpu"))
    query, key, value = states
    out = attend_in_cascade(query, key, value, spans, size**-0.5)

    key, value = (x.repeat_interleave(heads // key_heads, 1) for x in (key, value))
    scores = (query @ key.transpose(2, 3) * size**-0.5).masked_fill(~packed_mask(mask, group, length), -torch.inf)
    expected = (scores.softmax(-1) @ value).transpose(1, 2)

    real = torch.cat([mask[:, :-1], torch.ones(rows, group * length, dtype=torch.bool)], 1)
    weights = torch.randn_like(out) * real[..., None, None]  # padding sees other padding here, and nothing comes of it
    gradients = torch.autograd.grad((out * weights).sum(), states)
    expected_gradients = torch.autograd.grad((expected * weights).sum(), states)
    difference = ((out - expected).abs() * real[..., None, None]).max().item()
    largest = max((a - b).abs().max().item() for a, b in zip(gradients, expected_gradients, strict=True))
    print(f"output differs by {difference:.1e}, gradients by {largest:.1e}")
    assert difference < 1e-13  # observed: 8e-16
    assert largest < 1e-13  # observed: 4e-15
    # two calls: everything over its own span; then the segments over the real tokens of the prefixes
    assert kernel.calls == [
        (True, rows * tokens, rows * tokens),
        (False, rows * group * length, sum(lengths) - rows),
    ]


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen2"])
def test_a_model_scores_the_same_in_cascade(
    family: str, checkpointing: bool, kernel: ReferenceKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The path of a GPU, but for the kernel, against masked attention."""
    model: Any = build_model(family, Shape(), 320, IDS, seed=0).double()
    add_fused_lm_head(model, outputs=("log_probs", "entropy"))
    prepare_model(model)
    model.train()
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    grids = [[(1, 8, 8)], [(1, 14, 14)]] if family == "qwen2_5_vl" else [[], []]
    groups = make_groups(model.config, grids, [60, 33], [[20, 10, 33], [5, 40, 12]])

    def run(in_cascade: bool) -> tuple[torch.Tensor, list[torch.Tensor]]:
        monkeypatch.setattr(segment_attention, "varlen_serves", lambda *_: in_cascade)
        model.zero_grad(set_to_none=True)
        log_probs, _ = packed_logps(model, groups, by_segment=True)
        (log_probs * groups.completion_mask.flatten(0, 1)).sum().backward()
        return log_probs.detach(), [p.grad for p in model.parameters() if p.grad is not None]

    expected, expected_gradients = run(False)
    assert not kernel.calls
    log_probs, gradients = run(True)
    assert kernel.calls
    difference = (log_probs - expected).abs().max().item()
    pairs = zip(gradients, expected_gradients, strict=True)
    largest = max(((a - b).norm() / b.norm().clamp(min=1e-9)).item() for a, b in pairs)
    print(f"log-probabilities differ by {difference:.1e}, gradients by {largest:.1e}")
    assert difference < 1e-5
    assert largest < 1e-5


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen2"])
def test_transformers_makes_no_mask_where_segments_say_what_is_visible(family: str) -> None:
    model: Any = build_model(family, Shape(), 320, IDS, seed=0)
    add_fused_lm_head(model, outputs=("log_probs", "entropy"))
    prepare_model(model)
    masks = []

    def watched(*args: Any, **kwargs: Any) -> Any:
        masks.append(sdpa_mask(*args, **kwargs))
        return masks[-1]

    AttentionMaskInterface.register(ATTENTION, watched)
    try:
        packed_logps(model, make_groups(model.config, [[]], [60], [[90, 100, 100]]), by_segment=True)
    finally:
        AttentionMaskInterface.register(ATTENTION, sdpa_mask)
    assert masks == []


@pytest.mark.slow
def test_on_a_gpu_long_completions_attend_in_two_calls_without_a_mask() -> None:
    with fake_gpu() as gpu:
        model = fake_model(published_config("qwen2_5_vl_3b", layers=2))
        prompts = fake_prompts(model, 2)
        with gpu.measured() as cost:
            log_probs = packed_log_probs(model, prompts, group=4, length=300)
            loss = log_probs.mean()
            del log_probs
            backward(loss)
        assert loss.device == DEVICE
        # one call in each layer of the tower, two in each of the language model
        assert dict(cost.attention) == {"varlen": 2 + 2 * 2}
        assert cost.kernels["_flash_attention_backward"] == 2 * 2


@pytest.mark.slow
def test_four_completions_of_4096_tokens_of_a_3b_fit_80_gb_with_checkpointing() -> None:
    with fake_gpu() as gpu:
        model = fake_model(published_config("qwen2_5_vl_3b"))
        model.gradient_checkpointing_enable({"use_reentrant": False})
        for weight in model.parameters():
            weight.grad = torch.zeros_like(weight)
        weights_and_gradients = gpu.live
        prompts = fake_prompts(model)
        with gpu.measured() as cost:
            log_probs = packed_log_probs(model, prompts, group=4, length=4096)
            loss = log_probs.mean()
            del log_probs
            backward(loss)
    adam = weights_and_gradients  # two numbers per weight, float32
    print(f"beyond weights and gradients {(cost.peak - weights_and_gradients) / GIB:.1f} GiB")
    assert (cost.peak + adam) / GIB < 75  # 69.2: 28.0 of weights and gradients, 28.0 of Adam, 13.2 of the pass
    assert dict(cost.attention) == {"varlen": 2 * (32 + 2 * 36)}  # every layer is computed twice
