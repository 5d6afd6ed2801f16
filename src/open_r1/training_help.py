"""--help of the training commands: our own flags by theme, and those of TRL that nearly every run sets."""

import argparse
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields
from typing import Any, get_origin

from open_r1.arguments import GRPODefaults, QuestionArguments, SFTDefaults, VQAArguments

# Theme -> flags. One without a field of ours is transformers' or TRL's, described here.
THEMES: dict[str, tuple[str, ...]] = {
    "model, data, output": (
        *("model_name_or_path", "dataset_name", "image_root", "output_dir", "run_name", "config"),
        *("save_strategy", "save_steps", "save_only_model", "report_to", "logging_steps", "seed"),
    ),
    "questions": ("mode", "max_prompt_length", "overlong_prompts", "min_pixels", "max_pixels"),
    "completions and their rewards": (
        *("num_generations", "max_completion_length", "temperature", "reward_funcs", "reward_weights"),
        *("cosine_max_len", "cosine_max_value_correct", "cosine_min_value_correct", "cosine_min_value_wrong"),
        *("cosine_max_value_wrong", "repetition_n_grams", "repetition_max_penalty", "resample_dead_groups"),
    ),
    "optimization": (
        *("num_train_epochs", "max_steps", "per_device_train_batch_size", "gradient_accumulation_steps"),
        *("learning_rate", "lr_scheduler_type", "warmup_steps", "beta", "loss_type"),
    ),
    "what trains": ("freeze_vision_tower", "use_peft", "lora_on", "lora_r", "lora_alpha", "load_in_4bit"),
    "order of the questions": ("difficulty", "curriculum", "hard_fraction"),
    "questions asked while training": (
        *("eval_strategy", "eval_steps", "eval_dataset_name", "max_eval_samples", "per_device_eval_batch_size"),
    ),
    "speed and memory": (
        *("bf16", "attn_implementation", "gradient_checkpointing", "deepspeed", "shared_prefix"),
        *("verify_shared_prefix", "tokens_per_micro_batch", "try_longest_batch", "vision_cache_gib", "use_vllm"),
    ),
    "better left alone": ("remove_unused_columns", "log_multimodal", "max_length"),
}

# Flags of transformers and TRL in our words; only those of the method at hand are shown.
_LIBRARY = {
    "model_name_or_path": "Checkpoint to start from: folder, org/repo or org/repo:subfolder. Required.",
    "output_dir": "Folder of the run; the same command in the same folder continues it.",
    "run_name": "Name that trackers show.",
    "config": "YAML file with any of these flags; the command line wins.",
    "save_strategy": "When to save: no, steps or epoch (default: steps).",
    "save_steps": "Optimizer steps between checkpoints (default: 500).",
    "save_only_model": "Save weights alone; an interrupted run cannot be continued then (default: false).",
    "report_to": "Trackers: none, wandb, tensorboard, trackio (default: none). metrics.jsonl is always written.",
    "logging_steps": "Optimizer steps between logged numbers.",
    "seed": "Of weights, order and samples (default: 42).",
    "temperature": "Of sampling (default: 1.0).",
    "reward_weights": "A number for each of --reward_funcs (default: 1 each).",
    "num_train_epochs": "How often every question is seen (default: 3).",
    "max_steps": "Optimizer steps, whatever --num_train_epochs says.",
    "gradient_accumulation_steps": "Micro-batches per optimizer step (default: 1).",
    "lr_scheduler_type": "How the learning rate falls (default: linear).",
    "warmup_steps": "Steps of warm-up; below 1 a share of all steps (default: 0).",
    "use_peft": "Train LoRA adapters alone.",
    "lora_r": "Rank of the adapters (default: 16).",
    "lora_alpha": "Scale of the adapters (default: 32).",
    "load_in_4bit": "With --use_peft: hold the base in 4 bits (extra: quant).",
    "eval_strategy": "Ask test questions while training: no, steps or epoch (default: no).",
    "eval_steps": "Optimizer steps between evaluations (default: as --logging_steps).",
    "attn_implementation": "sdpa, eager or flash_attention_2 (default: the model's own).",
    "deepspeed": "DeepSpeed configuration, a JSON file.",
    "use_vllm": "Sample with vLLM (extra: vllm).",
}
_GRPO_ONLY = {"temperature", "reward_weights", "use_vllm"}


def help_text(method: str, description: str | None, defaults: Mapping[str, Any]) -> str:
    """What --help prints.

    Args:
        method: `grpo` or `sft`.
        description: the entry script's docstring.
        defaults: of the entry script, by flag.
    """
    classes = (VQAArguments, GRPODefaults) if method == "grpo" else (QuestionArguments, SFTDefaults)
    ours = {each.name: each for of in classes for each in fields(of)}
    parser = argparse.ArgumentParser(
        description=description, usage="%(prog)s FLAGS", add_help=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="--help_all lists these and all other flags of transformers and TRL, which have the usual meaning.",
    )  # fmt: skip
    for theme, names in THEMES.items():
        group = parser.add_argument_group(theme)
        for name in names:
            if name in ours:
                _add(group, ours[name], defaults.get(name, MISSING))
            elif name in _LIBRARY and not (method == "sft" and name in _GRPO_ONLY):
                group.add_argument(f"--{name}", metavar="VALUE", help=_LIBRARY[name].replace("%", "%%"))
    return parser.format_help()


def _add(group: Any, flag: Field, default: Any) -> None:
    if default is MISSING:
        default = flag.default if flag.default_factory is MISSING else flag.default_factory()
    if isinstance(default, bool):
        default = str(default).lower()
    said = " ".join(default) if isinstance(default, list) else str(default)
    text = flag.metadata["help"]
    if default not in (None, MISSING) and "default" not in text.lower():
        text += f" (default: {said})"
    if default is MISSING:
        text += " Required."
    several = {"nargs": "+"} if get_origin(flag.type) is list or "list" in str(flag.type) else {}
    metavar = flag.metadata.get("metavar", "VALUE")
    group.add_argument(f"--{flag.name}", metavar=metavar, help=text.replace("%", "%%"), **several)
