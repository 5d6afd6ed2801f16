"""cuDNN's attention is off where there is a GPU, and varlen attention serves where flash attention runs."""

from collections.abc import Iterator

import pytest
import torch

from open_r1.modeling.gpu_kernels import choose_attention_kernels, varlen_serves


@pytest.fixture(autouse=True)
def setting_as_before() -> Iterator[None]:
    before = torch.backends.cuda.cudnn_sdp_enabled()
    torch.backends.cuda.enable_cudnn_sdp(True)
    yield
    torch.backends.cuda.enable_cudnn_sdp(before)


@pytest.mark.parametrize("gpu", [True, False])
def test_cudnns_attention_is_switched_off_with_a_gpu_alone(gpu: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    choose_attention_kernels()
    assert torch.backends.cuda.cudnn_sdp_enabled() is not gpu
    assert torch.backends.cuda.flash_sdp_enabled()
    assert torch.backends.cuda.mem_efficient_sdp_enabled()


@pytest.mark.parametrize(
    ("device", "dtype", "capability", "serves"),
    [
        ("cuda", torch.bfloat16, (8, 0), True),
        ("cuda", torch.float16, (9, 0), True),
        ("cuda", torch.float32, (9, 0), False),
        ("cuda", torch.float16, (7, 5), False),  # a T4: flash attention does not run there
        ("cpu", torch.bfloat16, (9, 0), False),
    ],
)
def test_varlen_attention_serves_half_precision_on_a_gpu_with_flash_attention(
    device: str, dtype: torch.dtype, capability: tuple[int, int], serves: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    assert varlen_serves(torch.device(device), dtype) is serves
