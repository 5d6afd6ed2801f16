"""A run's flags as what decides its memory."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from open_r1.training.memory.activations import Batch
from open_r1.training.memory.model_size import ModelSize, NoSize, VisionSize
from open_r1.training.memory.plan import Adapters, Division, Method, Run

SFT_COMPLETION = 16
"""Tokens of `<answer> X </answer>` with the end of the turn, rounded up."""
TEXT_AROUND = 40
"""Tokens that a prompt has at least beside its image."""

# Numbers that an optimizer keeps for each weight, in units of the weight: two moments unless its name says otherwise.
_STATES = {"adafactor": 0.0, "sgd": 0.0, "lomo": 0.0, "adalomo": 0.0, "adagrad": 1.0, "rmsprop": 1.0, "lion": 1.0}
_STATES |= {"ademamix": 3.0}


def run_of(
    values: Mapping[str, Any],
    size: ModelSize,
    processes: int,
    *,
    supervised: bool = False,
    prompt_tokens: int | None = None,
    images: int = 1,
) -> Run:
    """What a run holds, as far as its flags decide it.

    Args:
        values: flags by name; None where one is not given. `per_device_train_batch_size` counts prompts.
        size: of the model.
        processes: of the run.
        supervised: SFT, one row per question and no reference.
        prompt_tokens: of the longest prompt; None for as many as `--max_prompt_length` lets through.
        images: most images of one question; 0 if none has any.
    """

    def value(name: str, otherwise: Any) -> Any:
        return _value(values, name, otherwise)

    method = Method.FULL
    if value("use_peft", False):
        method = Method.QLORA if value("load_in_4bit", False) else Method.LORA
    towers, accumulation = value("lora_on", "language"), int(value("gradient_accumulation_steps", 1))
    division, offloads = _division(values, processes)
    images = images if size.vision is not None else 0
    colocates = value("use_vllm", False) and value("vllm_mode", "colocate") == "colocate"
    return Run(
        size=size,
        batch=_longest_batch(values, size, supervised, prompt_tokens, images),
        processes=processes,
        method=method,
        division=division,
        half_products=bool(value("bf16", False) or value("fp16", False)),
        half_weights=str(value("dtype", "float32")) in ("bfloat16", "float16", "auto"),
        has_reference=not supervised and float(value("beta", 0.04)) != 0,
        rounds_reference=bool(value("bf16", False))
        and not (value("sync_ref_model", False) or value("cast_lm_head_to_fp32", False)),
        states=states_per_weight(str(value("optim", "adamw_torch_fused"))),
        accumulates=accumulation > 1,
        sampled_at_once=int(value("steps_per_generation", accumulation)),
        checkpointing=bool(value("gradient_checkpointing", False)),
        vision_trains=not value("freeze_vision_tower", False),
        adapters=Adapters(
            rank=int(value("lora_r", 16)),
            language=towers in ("language", "both"),
            vision=towers in ("vision", "both"),
            dropout=float(value("lora_dropout", 0.05)) > 0,
        ),
        offloads=offloads,
        vllm_share=float(value("vllm_gpu_memory_utilization", 0.3)) if colocates else 0.0,
    )


def _value(values: Mapping[str, Any], name: str, otherwise: Any) -> Any:
    given = values.get(name)
    return otherwise if given is None else given


def _longest_batch(
    values: Mapping[str, Any], size: ModelSize, supervised: bool, prompt_tokens: int | None, images: int
) -> Batch:
    """The largest micro-batch: images take as much of the prompt as `--max_pixels` and the text around them leave."""
    prompt = prompt_tokens or int(_value(values, "max_prompt_length", 1024))
    image_tokens = 0
    if images:
        image_tokens = _image_tokens(size, int(_value(values, "max_pixels", 10**9)), images, prompt - TEXT_AROUND)
    return Batch(
        prompts=int(_value(values, "per_device_train_batch_size", 1)),
        prompt_tokens=prompt,
        image_tokens=image_tokens,
        group=1 if supervised else int(_value(values, "num_generations", 4)),
        completion_tokens=SFT_COMPLETION if supervised else int(_value(values, "max_completion_length", 256)),
        shares_prefix=not supervised and not size.config and bool(_value(values, "shared_prefix", True)),
        token_budget=values.get("tokens_per_micro_batch"),
    )


def _image_tokens(size: ModelSize, max_pixels: int, images: int, room: int) -> int:
    """Tokens of so many images in a prompt with room for so many; an image that is not cut into patches stays whole."""
    if isinstance(size.vision, VisionSize):
        return max(1, min(max_pixels // size.vision.pixels_per_token * images, room))
    if size.image is None:
        raise NoSize(f"how many tokens an image takes in a {size.family} is not known without its processor")
    return size.image.tokens * max(1, min(images, room // size.image.tokens))


def states_per_weight(optimizer: str) -> float:
    """How many numbers of a weight's format `--optim` keeps for it."""
    name = optimizer.rpartition(".")[2].lower()
    plain = name.removeprefix("paged_").removesuffix("_8bit").removesuffix("_32bit").removesuffix("_bnb")
    states = next((states for start, states in _STATES.items() if plain.startswith(start)), 2.0)
    return states * (0.25 if name.endswith("8bit") else 0.125 if name.endswith("4bit") else 1.0)


def _division(values: Mapping[str, Any], processes: int) -> tuple[Division, bool]:
    """What divides a run's weights or state by its flags or its launcher, and whether to the host's memory."""
    stage, offloads = 0, False
    if settings := values.get("deepspeed"):
        zero = _deepspeed_settings(settings).get("zero_optimization", {})
        stage = int(zero.get("stage", 0))
        offloads = any((zero.get(name) or {}).get("device") in ("cpu", "nvme") for name in _OFFLOADED)
    elif os.environ.get("ACCELERATE_USE_DEEPSPEED", "false") == "true":
        stage = int(os.environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE", "2"))
        offloads = os.environ.get("ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE", "none") in ("cpu", "nvme")
    if stage:
        return (Division.ZERO1, Division.ZERO2, Division.ZERO3)[stage - 1], offloads
    if values.get("fsdp") or os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true":
        return Division.FSDP, False
    return (Division.OPTIMIZER if values.get("shard_optimizer") and processes > 1 else Division.NOTHING), False


_OFFLOADED = ("offload_optimizer", "offload_param")


def _deepspeed_settings(settings: Any) -> dict[str, Any]:
    if isinstance(settings, Mapping):
        return dict(settings)
    text = str(settings)
    return json.loads(text if text.lstrip().startswith("{") else Path(text).read_text(encoding="utf-8"))
