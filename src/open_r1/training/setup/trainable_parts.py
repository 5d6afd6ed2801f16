"""Which weights train: frozen vision tower, LoRA on one tower or both; and a table of them."""

import re
from collections.abc import Collection
from copy import deepcopy
from typing import Any, cast

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from trl import ModelConfig, get_peft_config

from open_r1.checkpoints.loading import unsharded_loading
from open_r1.common.errors import UserError
from open_r1.training.command_line.arguments import TOWERS, QuestionArguments

VISION = ("visual", "vision_tower", "multi_modal_projector", "vision_model", "connector")
"""Names of modules that process images: the first in Qwen, the second and third in Gemma and InternVL."""


def train_all(model: Any) -> None:
    """Let every weight train; weights with a merged adapter are loaded frozen.

    Call before the flags freeze a vision tower or the base of new adapters.
    """
    for weight in model.parameters():
        weight.requires_grad_(weight.is_floating_point())


def require_trainable(model: Any) -> None:
    """Refuse a model without trainable weights.

    Raises:
        UserError: if no weight requires a gradient.
    """
    if not any(weight.requires_grad for weight in model.parameters()):
        raise UserError(
            f"nothing would train: all weights of the {model.config.model_type} are frozen; with --use_peft choose "
            "layers by --lora_on or --lora_target_modules, without it leave out the flag that freezes them"
        )


def freeze_vision_tower(model: Any) -> None:
    """Freeze the vision tower and its merger.

    Raises:
        UserError: if the model has no vision tower.
    """
    modules = [module for name in VISION if (module := getattr(model.model, name, None)) is not None]
    if not modules:
        raise UserError(f"--freeze_vision_tower: a {model.config.model_type} has no vision tower; leave the flag out")
    for module in modules:
        module.requires_grad_(False)


def lora_targets(model: Any, towers: str) -> str:
    """Pattern of the linear layers that LoRA adapts, for PEFT's `target_modules`.

    Args:
        model: the policy, before LoRA.
        towers: language, vision (with the merger) or both. The head and the embeddings are never adapted.

    Raises:
        UserError: for an unknown name, or a vision tower that the model does not have.
    """
    if towers not in TOWERS:
        raise UserError(f"--lora_on {towers!r} does not exist; choose one of {', '.join(TOWERS)}")
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Linear) and "layers." in name]
    layers = {"language": [name for name in names if not _is_vision(name)], "vision": []}
    layers["vision"] = [
        name for name, module in model.named_modules() if isinstance(module, nn.Linear) and _is_vision(name)
    ]
    chosen = ["language", "vision"] if towers == "both" else [towers]
    if "vision" in chosen and not layers["vision"]:
        raise UserError(f"--lora_on {towers}: a {model.config.model_type} has no vision tower; use --lora_on language")
    patterns = sorted(
        {re.sub(r"\\\.\d+\\\.", r"\\.\\d+\\.", re.escape(name)) for tower in chosen for name in layers[tower]}
    )
    return "|".join(patterns)


def lora_config(model: Any, script: QuestionArguments, model_config: ModelConfig) -> LoraConfig | None:
    """LoRA settings of the flags, on the layers of `--lora_on` or `--lora_target_modules`.

    Raises:
        UserError: for `--lora_on` without `--use_peft`, with `--lora_target_modules`, or on a missing tower; or for
            settings that PEFT refuses or that would train nothing.
    """
    config = cast(LoraConfig | None, get_peft_config(model_config))
    if config is None:
        if script.lora_on:
            raise UserError(f"--lora_on {script.lora_on} does nothing without --use_peft; add it or leave the flag out")
        return None
    if model_config.lora_target_modules:
        if script.lora_on:
            raise UserError("--lora_on and --lora_target_modules both choose the layers to adapt; leave one out")
    else:
        config.target_modules = lora_targets(model, script.lora_on or "language")
    _require_adapters(model, config)
    return config


def _require_adapters(model: Any, config: LoraConfig) -> None:
    """Add the adapters to a copy of the model without weight values, to see whether PEFT accepts them."""
    with unsharded_loading(), torch.device("meta"):
        copy = type(model)(model.config)
    try:
        adapted: Any = get_peft_model(copy, deepcopy(config), low_cpu_mem_usage=True)
    except (ValueError, TypeError, AttributeError, RuntimeError) as error:
        layers = sorted(
            {name.rpartition(".")[2] for name, module in copy.named_modules() if isinstance(module, nn.Linear)}
        )
        raise UserError(
            f"LoRA adapters cannot be added to this {model.config.model_type}: {' '.join(str(error).split())[:300]} "
            f"(its linear layers are {', '.join(layers)}); correct --lora_target_modules, or leave it out and "
            "choose with --lora_on"
        ) from error
    require_trainable(adapted)


def groups_with_vision_rate(model: Any, decayed: Collection[str], weight_decay: float, rate: float) -> list[Any]:
    """Parameter groups of an optimizer in which the vision tower and its merger learn at a rate of their own.

    Args:
        model: the policy.
        decayed: names of the weights that decay.
        weight_decay: of these; the others have none.
        rate: learning rate of the vision tower at the peak of the schedule, which scales all rates alike.

    Raises:
        UserError: if no weight of a vision tower trains.
    """
    trained = [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]
    groups = []
    for is_vision in (False, True):
        for decays in (True, False):
            chosen = [w for name, w in trained if _is_vision(name) == is_vision and (name in decayed) == decays]
            own_rate = {"lr": rate} if is_vision else {}
            groups.append({"params": chosen, "weight_decay": weight_decay if decays else 0.0} | own_rate)
    if not any(_is_vision(name) for name, _ in trained):
        raise UserError(
            f"--vision_learning_rate {rate:g}: no weight of a vision tower trains in this {model.config.model_type}; "
            "leave the flag out, or let the tower train (--freeze_vision_tower false, --lora_on vision or both)"
        )
    return [group for group in groups if group["params"]]


def _is_vision(name: str) -> bool:
    return any(f".{module}." in f".{name}" for module in VISION)


def search_only_where_weights_are_unused(trainer: Any, images: str, flag: bool | None) -> None:
    """Turn off DDP's search for weights without a gradient where every pass reaches all weights that train.

    TRL turns it on for every vision model, because a batch without images does not reach the tower. DDP then searches
    in each step and prints a warning if it finds none.

    Args:
        trainer: not trained yet.
        images: whether all, some or none of the training rows have an image.
        flag: `--ddp_find_unused_parameters` of the command line; unless it is None, it holds.
    """
    handler = trainer.accelerator.ddp_handler
    trains_vision = any(weight.requires_grad and _is_vision(name) for name, weight in trainer.model.named_parameters())
    if flag is None and handler is not None and (images == "all" or not trains_vision):
        handler.find_unused_parameters = False


def trainable_table(model: Any) -> str:
    """Table of all and trainable weights by component of the model."""
    counts: dict[str, list[int]] = {"vision tower": [0, 0], "language model": [0, 0], "embeddings and head": [0, 0]}
    for name, weight in model.named_parameters():
        component = (
            "vision tower" if _is_vision(name) else "language model" if "layers." in name else "embeddings and head"
        )
        if name.endswith("norm.weight") and not _is_vision(name):
            component = "language model"
        quantized = getattr(weight, "quant_state", None)  # two weights per byte
        count = quantized.shape.numel() if quantized is not None else weight.numel()
        count = getattr(weight, "ds_numel", count)  # under ZeRO-3 the tensor itself is empty
        counts[component][0] += count
        counts[component][1] += count if weight.requires_grad else 0
    rows = [(component, total, trained) for component, (total, trained) in counts.items() if total]
    rows.append(("all", sum(total for _, total, _ in rows), sum(trained for _, _, trained in rows)))
    return "\n".join(
        f"  {component:<20}{total:>15,} weights{trained:>15,} train ({trained / total:.2%})"
        for component, total, trained in rows
    )
