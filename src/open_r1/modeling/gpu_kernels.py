"""Which of a GPU's attention kernels are used."""

import torch


def choose_attention_kernels() -> None:
    """Switch cuDNN's attention off where there is a GPU; every entry point calls this before it loads a model.

    torch prefers it on Hopper and Blackwell. It compiles a plan for every new pair of lengths, which takes 20 to 37 ms:
    a prompt, a packed row and every decoded token have other lengths, so that plans would be made all the time. Flash
    and memory-efficient attention have none.
    """
    if torch.cuda.is_available():
        torch.backends.cuda.enable_cudnn_sdp(False)


def varlen_serves(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether torch's varlen attention serves: half precision on an NVIDIA GPU that flash attention runs on."""
    if device.type != "cuda" or dtype not in (torch.float16, torch.bfloat16):
        return False
    return torch.version.cuda is not None and torch.cuda.get_device_capability(device) >= (8, 0)
