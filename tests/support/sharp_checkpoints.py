"""Tiny checkpoints whose answers depend on what they are shown."""

from collections.abc import Iterable
from pathlib import Path

import torch

from open_r1.checkpoints.loading import load_model
from open_r1_testbed.tiny_models import build_tiny_checkpoint


def sharp_checkpoint(folder: Path, family: str = "qwen2_5_vl") -> Path:
    """A tiny checkpoint with weights large enough that images and questions change its answers."""
    build_tiny_checkpoint(folder, family, seed=1)
    model = load_model(folder)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim >= 2:
                weight.mul_(6)
    model.save_pretrained(folder)
    return folder


def sharp_families(root: Path, families: Iterable[str]) -> dict[str, Path]:
    """One such checkpoint of each family, in a folder of its name."""
    return {family: sharp_checkpoint(root / family, family) for family in families}
