"""Which weights train: a frozen vision tower, LoRA on one tower or both, and the table that says so."""

import re
from copy import deepcopy
from typing import Any, cast

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from trl import ModelConfig, get_peft_config

from open_r1.checkpoints.loading import unsharded_loading
from open_r1.common.errors import UserError
from open_r1.training.command_line.arguments import TOWERS, QuestionArguments

VISION = ("visual", "vision_tower", "multi_modal_projector")
"""What the parts that see are called: the first in Qwen, the others in Gemma."""


def train_all(model: Any) -> None:
    """Let every weight train, however it was loaded: what an adapter was merged into comes frozen.

    What stays frozen (a vision tower, the base of new adapters) is frozen after this, as the flags say.
    """
    for weight in model.parameters():
        weight.requires_grad_(weight.is_floating_point())


def require_trainable(model: Any) -> None:
    """Refuse to run with nothing to train.

    Raises:
        UserError: no weight requires a gradient.
    """
    if not any(weight.requires_grad for weight in model.parameters()):
        raise UserError(
            f"nothing would train: of the {model.config.model_type}'s weights every one is frozen; with --use_peft "
            "name layers by --lora_on or --lora_target_modules, without it leave out what freezes the rest"
        )


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


def lora_config(model: Any, script: QuestionArguments, model_config: ModelConfig) -> LoraConfig | None:
    """The LoRA settings of the flags, on the layers that `--lora_on` or `--lora_target_modules` names.

    Raises:
        UserError: `--lora_on` without `--use_peft`, beside `--lora_target_modules`, or on a tower that is not there;
            or settings that PEFT refuses or that would train nothing.
    """
    config = cast(LoraConfig | None, get_peft_config(model_config))
    if config is None:
        if script.lora_on:
            raise UserError(f"--lora_on {script.lora_on} does nothing without --use_peft; add it or leave the flag out")
        return None
    if model_config.lora_target_modules:
        if script.lora_on:
            raise UserError("--lora_on and --lora_target_modules both name the layers to adapt; leave one out")
    else:
        config.target_modules = lora_targets(model, script.lora_on or "language")
    _require_adapters(model, config)
    return config


def _require_adapters(model: Any, config: LoraConfig) -> None:
    """Put the adapters on a copy of the model that holds no numbers: PEFT itself says whether they go there."""
    with unsharded_loading(), torch.device("meta"):
        copy = type(model)(model.config)
    try:
        adapted: Any = get_peft_model(copy, deepcopy(config), low_cpu_mem_usage=True)
    except (ValueError, TypeError, AttributeError, RuntimeError) as error:
        layers = sorted({name.rpartition(".")[2] for name, part in copy.named_modules() if isinstance(part, nn.Linear)})
        raise UserError(
            f"no LoRA adapters can be put on this {model.config.model_type}: {' '.join(str(error).split())[:300]} "
            f"(its linear layers are called {', '.join(layers)}); correct --lora_target_modules, or leave it out and "
            "choose with --lora_on"
        ) from error
    require_trainable(adapted)


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
