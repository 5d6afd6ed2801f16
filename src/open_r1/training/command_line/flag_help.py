"""--help of the training commands: our own flags by theme, and those of TRL that nearly every run sets."""

import argparse
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields
from typing import Any

from open_r1.common.command_line import one_of
from open_r1.training.command_line.arguments import GRPODefaults, QuestionArguments, SFTDefaults, VQAArguments
from open_r1.training.command_line.library_flags import as_dataclass, library_kinds

# Theme -> flags. One without a field of ours is transformers' or TRL's; fields that no theme names stand at the end.
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
}

# Flags of transformers and TRL in our words; only those of the method at hand are shown.
LIBRARY_HELP = {
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


def help_text(method: str, description: str | None, defaults: Mapping[str, Any]) -> str:
    """What --help prints.

    Args:
        method: `grpo` or `sft`.
        description: the entry script's docstring.
        defaults: of the entry script, by flag.
    """
    classes = (VQAArguments, GRPODefaults) if method == "grpo" else (QuestionArguments, SFTDefaults)
    ours = {each.name: each for of in classes for each in fields(of)}
    library = {each.name: each for each in fields(as_dataclass(library_kinds(method)))}
    parser = argparse.ArgumentParser(
        description=description, usage="%(prog)s FLAGS", add_help=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="--help_all lists these and all other flags of transformers and TRL, which have their usual meaning.",
    )  # fmt: skip
    more = tuple(ours.keys() - {name for names in THEMES.values() for name in names})
    for theme, names in {**THEMES, "more": tuple(sorted(more))}.items():
        group = parser.add_argument_group(theme)
        for name in names:
            if name in ours:
                text = _with_default(ours[name], defaults.get(name, MISSING))
                group.add_argument(f"--{name}", help=text, metavar=_value(ours[name], library.get(name)))
            elif name in LIBRARY_HELP and (name in library or name == "config"):
                value = "FILE" if name == "config" else _value(library[name])
                group.add_argument(f"--{name}", help=LIBRARY_HELP[name], metavar=value)
    return parser.format_help()


def _with_default(flag: Field, default: Any) -> str:
    text = flag.metadata["help"]
    if default is MISSING:
        default = flag.default if flag.default_factory is MISSING else flag.default_factory()
    if default is MISSING:
        return f"{text} Required."
    if default is None or "default" in text.lower():
        return text
    shown = " ".join(default) if isinstance(default, list) else str(default)
    return f"{text} (default: {shown.lower() if isinstance(default, bool) else shown})"


def _value(flag: Field, library: Field | None = None) -> str:
    """What stands for the value of a flag: its choices, or its kind; `library`: the flag that it overrides."""
    if library is not None and "choices" in library.metadata:
        flag = library
    kind = str(flag.type)
    if "metavar" in flag.metadata:
        value = flag.metadata["metavar"]
    elif "choices" in flag.metadata:
        value = one_of(flag.metadata["choices"])
    elif "bool" in kind:
        value = one_of(("true", "false"))
    else:
        value = "N" if "int" in kind else "NUMBER" if "float" in kind else "VALUE"
    return f"{value} ..." if "list" in kind else value
