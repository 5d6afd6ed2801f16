"""Which weights train: a frozen vision tower, LoRA on one tower or both, and the table that says so."""

import re
from typing import Any

from torch import nn

from open_r1.arguments import TOWERS
from open_r1.errors import UserError

VISION = ("visual", "vision_tower", "multi_modal_projector")
"""What the parts that see are called: the first in Qwen, the others in Gemma."""


def freeze_vision_tower(model: Any) -> None:
    """Stop the vision tower and its merger from training.

    Raises:
        UserError: the model has no vision tower.
    """
    parts = [part for name in VISION if (part := getattr(model.model, name, None)) is not None]
    if not parts:
        raise UserError(f"--freeze_vision_tower: a {model.config.model_type} has no vision tower; leave the flag out")
    for part in parts:
        part.requires_grad_(False)


def lora_targets(model: Any, towers: str) -> str:
    """A pattern of the linear layers that LoRA adapts, as PEFT's `target_modules` takes it.

    Args:
        model: the policy, before LoRA.
        towers: language, vision (with the merger) or both. The head and the embeddings are never adapted.

    Raises:
        UserError: an unknown name, or a vision tower that the model does not have.
    """
    if towers not in TOWERS:
        raise UserError(f"--lora_on {towers!r} does not exist; choose one of {', '.join(TOWERS)}")
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Linear) and "layers." in name]
    found = {"language": [name for name in names if not _is_vision(name)], "vision": []}
    found["vision"] = [
        name for name, module in model.named_modules() if isinstance(module, nn.Linear) and _is_vision(name)
    ]
    wanted = ["language", "vision"] if towers == "both" else [towers]
    if "vision" in wanted and not found["vision"]:
        raise UserError(f"--lora_on {towers}: a {model.config.model_type} has no vision tower; use --lora_on language")
    patterns = sorted(
        {re.sub(r"\\\.\d+\\\.", r"\\.\\d+\\.", re.escape(name)) for each in wanted for name in found[each]}
    )
    return "|".join(patterns)


def _is_vision(name: str) -> bool:
    return any(f".{part}." in f".{name}" for part in VISION)


def trainable_table(model: Any) -> str:
    """Weights by part of the model and how many of them train, one line each, and their sum."""
    parts: dict[str, list[int]] = {"vision tower": [0, 0], "language model": [0, 0], "embeddings and head": [0, 0]}
    for name, weight in model.named_parameters():
        part = "vision tower" if _is_vision(name) else "language model" if "layers." in name else "embeddings and head"
        if name.endswith("norm.weight") and not _is_vision(name):
            part = "language model"
        packed = getattr(weight, "quant_state", None)  # of two weights to a byte
        count = packed.shape.numel() if packed is not None else weight.numel()
        count = getattr(weight, "ds_numel", count)  # ZeRO-3 leaves an empty tensor behind
        parts[part][0] += count
        parts[part][1] += count if weight.requires_grad else 0
    rows = [(part, counts[0], counts[1]) for part, counts in parts.items() if counts[0]]
    rows.append(("all", sum(counts[0] for counts in parts.values()), sum(counts[1] for counts in parts.values())))
    return "\n".join(
        f"  {part:<20}{weights:>15,} weights{trained:>15,} train ({trained / weights:.2%})"
        for part, weights, trained in rows
    )
