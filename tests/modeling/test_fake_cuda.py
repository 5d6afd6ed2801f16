"""The fake GPU counts what a GPU would do: small things by hand, and gradients against torch's own engine."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_cuda import DEVICE, backward, fake_gpu
from fake_models import PUBLISHED, fake_model, fake_prompts, packed_log_probs, published_config
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint
from transformers import AutoConfig


def test_a_tensor_on_the_wrong_device_raises() -> None:
    with fake_gpu(), pytest.raises(RuntimeError, match="two devices"):
        torch.ones(3, device=DEVICE).add(torch.ones(3))


def test_launches_bytes_and_peak_of_a_matrix_product() -> None:
    with fake_gpu() as gpu:
        left, right = torch.ones(256, 128, device=DEVICE), torch.ones(128, 512, device=DEVICE)
        assert gpu.live == 4 * (256 * 128 + 128 * 512)
        before = gpu.live
        with gpu.measured() as cost:
            product = (left @ right).view(512, 256).relu_()  # a view launches nothing
        assert dict(cost.kernels) == {"mm": 1, "relu_": 1}
        assert cost.written == 2 * 4 * 256 * 512  # once new, once in place
        assert cost.peak - before == 4 * 256 * 512
        del product
        assert gpu.live == before


def test_writing_a_token_into_a_cache_counts_the_token() -> None:
    with fake_gpu() as gpu:
        cache, token = torch.zeros(2, 100, 8, device=DEVICE), torch.ones(2, 1, 8, device=DEVICE)
        with gpu.measured() as cost:
            cache.index_copy_(1, torch.tensor([5]).to(DEVICE, non_blocking=True), token)
        assert cost.kernels["index_copy_"] == 1
        assert cost.written == 4 * 2 * 8 + 8  # the token, and its place


def test_what_the_host_waits_for_is_counted() -> None:
    with fake_gpu() as gpu:
        ids = torch.tensor([[3, 0, 7], [0, 0, 9]]).to(DEVICE, non_blocking=True)
        with gpu.measured() as cost:
            assert int(ids.max()) == 9
            assert ids[ids > 0].tolist() == [3, 7, 9]
            assert (ids == 0).nonzero().tolist() == [[0, 1], [1, 0], [1, 1]]
            ids.cpu()
            torch.tensor([1.0]).to(DEVICE)
        expected = {"_local_scalar_dense": 1, "index by a mask": 1, "nonzero": 1, "tolist": 2, "download": 1}
        assert dict(cost.syncs) == expected | {"upload": 1}
        with gpu.measured() as cost:
            (ids + 1).clamp(max=4).masked_fill(ids == 0, 5)
        assert not cost.syncs


@pytest.mark.parametrize(
    ("half", "masked", "grouped", "kernel"),
    [
        (True, False, True, "flash"),
        (True, True, False, "efficient"),
        (True, True, True, "math"),
        (False, False, False, "efficient"),
    ],
)
def test_attention_goes_to_the_kernel_that_a_gpu_would_choose(
    half: bool, masked: bool, grouped: bool, kernel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cuda, "cudnn_sdp_enabled", lambda: False)
    with fake_gpu() as gpu:
        dtype = torch.bfloat16 if half else torch.float32
        query = torch.ones(1, 4, 16, 64, dtype=dtype, device=DEVICE)
        key = query[:, :2] if grouped else query
        mask = torch.ones(1, 1, 16, 16, dtype=torch.bool, device=DEVICE) if masked else None
        with gpu.measured() as cost:
            out = scaled_dot_product_attention(query, key, key, attn_mask=mask, enable_gqa=grouped)
    assert out.shape == query.shape
    assert dict(cost.attention) == {kernel: 1}


class _Twice(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, x: torch.Tensor) -> torch.Tensor:
        return 2 * x

    @staticmethod
    def backward(ctx: object, gradient: torch.Tensor) -> torch.Tensor:  # pyright: ignore
        return 2 * gradient


def test_backward_gives_the_gradients_of_torchs_engine() -> None:
    torch.manual_seed(0)
    layers = [torch.nn.Linear(8, 8), torch.nn.GELU(), torch.nn.LayerNorm(8), torch.nn.Linear(8, 8)]
    model = torch.nn.Sequential(*layers)
    x = torch.randn(5, 8)

    def loss(net: Any) -> torch.Tensor:
        y = net(x)
        parts = _Twice.apply(checkpoint(net[2], y, use_reentrant=False)).split(4, dim=1)  # pyright: ignore
        return (parts[0] * parts[1] + net[0].weight[:4, :4].sum()).mean() + y[0].exp().sum()

    mine, torchs = copy.deepcopy(model), model
    backward(loss(mine))
    loss(torchs).backward()
    pairs = list(zip(mine.parameters(), torchs.parameters(), strict=True))
    assert all(b.grad is not None and b.grad.abs().sum() > 0 for _, b in pairs)
    largest = max((a.grad - b.grad).abs().max().item() for a, b in pairs)  # pyright: ignore
    assert largest == 0.0  # the same operations in the same order


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_sizes_are_those_of_the_published_config(name: str, real_dir: Path) -> None:
    published = AutoConfig.from_pretrained(real_dir / "configs" / name).to_dict()
    written = published_config(name).to_dict()
    beside = {"architectures", "dtype", "_name_or_path", "transformers_version"}
    for part in ("text_config", "vision_config"):
        assert {k: v for k, v in written.pop(part).items() if k not in beside} == {
            k: v for k, v in published.pop(part).items() if k not in beside
        }
    assert {k: v for k, v in written.items() if k not in beside} == {
        k: v for k, v in published.items() if k not in beside
    }


@pytest.mark.slow
def test_a_packed_pass_of_a_published_model_runs_whole() -> None:
    with fake_gpu() as gpu:
        model = fake_model(published_config("qwen2_5_vl_3b", layers=2))
        prompts = fake_prompts(model)
        with gpu.measured() as cost:
            log_probs = packed_log_probs(model, prompts)
            assert log_probs.shape == (4, 10)
            assert log_probs.device == DEVICE
            loss = log_probs.mean()
            del log_probs
            backward(loss)
        assert all(weight.grad is not None for weight in model.parameters())
        # weights and their gradients, float32, remain, and copies of what is multiplied in bfloat16
        size = sum(weight.numel() for weight in model.parameters()) * 4
        copies = 2 * sum(weight.numel() for weight in model.parameters() if weight is not model.lm_head.weight)
        assert gpu.live == pytest.approx(2 * size + copies, rel=0.02)
        assert cost.peak > gpu.live
