"""--help of the training commands: our own flags by theme, and the most used ones of TRL."""

import argparse
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields
from typing import Any

from open_r1.common.command_line import one_of
from open_r1.training.command_line.arguments import GRPODefaults, QuestionArguments, SFTDefaults, VQAArguments
from open_r1.training.command_line.library_flags import as_dataclass, library_kinds

# Theme -> flags, ours and those of transformers and TRL; our flags without a theme come last.
THEMES: dict[str, tuple[str, ...]] = {
    "model, data, output": (
        *(
            "model_name_or_path",
            "dataset_name",
            "image_root",
            "dataset_train_split",
            "columns",
            "output_dir",
            "run_name",
            "config",
        ),
        *("save_strategy", "save_steps", "save_only_model", "report_to", "logging_steps", "seed"),
    ),
    "questions": ("mode", "max_prompt_length", "overlong_prompts", "min_pixels", "max_pixels", "exclude_overlap"),
    "completions and their rewards": (
        *("num_generations", "max_completion_length", "temperature", "reward_funcs", "reward_weights"),
        *("cosine_max_len", "cosine_max_value_correct", "cosine_min_value_correct", "cosine_min_value_wrong"),
        *("cosine_max_value_wrong", "repetition_n_grams", "repetition_max_penalty", "judge", "judge_cache"),
        *("resample_dead_groups", "scale_rewards"),
    ),
    "optimization": (
        *("num_train_epochs", "max_steps", "per_device_train_batch_size", "gradient_accumulation_steps"),
        *("learning_rate", "lr_scheduler_type", "warmup_steps", "beta", "loss_type"),
    ),
    "what trains": (
        "freeze_vision_tower",
        "vision_learning_rate",
        "use_peft",
        "lora_on",
        "lora_r",
        "lora_alpha",
        "load_in_4bit",
    ),
    "order of the questions": ("difficulty", "curriculum", "hard_fraction"),
    "evaluation during training": (
        *("eval_strategy", "eval_steps", "eval_dataset_name", "max_eval_samples", "per_device_eval_batch_size"),
    ),
    "watching the run": ("record", "stop_on_alarm", "probe_steps"),
    "speed and memory": (
        *("bf16", "attn_implementation", "gradient_checkpointing", "deepspeed", "shard_optimizer", "shared_prefix"),
        *("verify_shared_prefix", "tokens_per_micro_batch", "try_longest_batch", "vision_cache_gib", "use_vllm"),
        "plan",
    ),
}

# Help of flags of transformers and TRL; only those of the given method are shown.
LIBRARY_HELP = {
    "model_name_or_path": "Checkpoint to start from: folder, org/repo or org/repo:subfolder. Required.",
    "output_dir": "Folder of the run; the same command with the same folder resumes it.",
    "run_name": "Name in trackers.",
    "config": "YAML file with any of these flags; the command line takes precedence.",
    "save_strategy": "When to save: no, steps or epoch (default: steps).",
    "save_steps": "Optimizer steps between checkpoints (default: 500).",
    "save_only_model": "Save weights only, so that an interrupted run cannot be resumed (default: false).",
    "report_to": "Trackers: none, wandb, tensorboard, trackio (default: none). metrics.jsonl is always written.",
    "logging_steps": "Optimizer steps between log entries.",
    "seed": "Random seed of weights, order and sampling (default: 42).",
    "temperature": "Sampling temperature (default: 1.0).",
    "reward_weights": "One weight for each of --reward_funcs (default: 1 each).",
    "num_train_epochs": "Passes over the data (default: 3).",
    "max_steps": "Optimizer steps; overrides --num_train_epochs.",
    "gradient_accumulation_steps": "Micro-batches per optimizer step (default: 1).",
    "lr_scheduler_type": "Learning rate schedule (default: linear).",
    "warmup_steps": "Warm-up steps; below 1 a fraction of all steps (default: 0).",
    "use_peft": "Train LoRA adapters only.",
    "lora_r": "Rank of the adapters (default: 16).",
    "lora_alpha": "Scale of the adapters (default: 32).",
    "load_in_4bit": "With --use_peft: load the base model in 4 bits (extra: quant).",
    "eval_strategy": "When to evaluate test questions during training: no, steps or epoch (default: no).",
    "eval_steps": "Optimizer steps between evaluations (default: as --logging_steps).",
    "attn_implementation": "sdpa, eager or flash_attention_2 (default: the model's own).",
    "deepspeed": "DeepSpeed configuration (JSON file).",
    "use_vllm": "Sample with vLLM (extra: vllm).",
}


def help_text(method: str, description: str | None, defaults: Mapping[str, Any]) -> str:
    """The text of --help.

    Args:
        method: `grpo` or `sft`.
        description: the entry script's docstring.
        defaults: of the entry script, by flag.
    """
    classes = (VQAArguments, GRPODefaults) if method == "grpo" else (QuestionArguments, SFTDefaults)
    ours = {flag.name: flag for flag_class in classes for flag in fields(flag_class)}
    library = {flag.name: flag for flag in fields(as_dataclass(library_kinds(method)))}
    parser = argparse.ArgumentParser(
        description=description, usage="%(prog)s FLAGS", add_help=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="--help_all lists all flags, including those of transformers and TRL.",
    )  # fmt: skip
    unthemed = sorted(ours.keys() - {name for names in THEMES.values() for name in names})
    for theme, names in {**THEMES, "more": tuple(unthemed)}.items():
        group = parser.add_argument_group(theme)
        for name in names:
            if name in ours:
                text = _with_default(ours[name], defaults.get(name, MISSING))
                group.add_argument(f"--{name}", help=text, metavar=_metavar(ours[name], library.get(name)))
            elif name in LIBRARY_HELP and (name in library or name == "config"):
                value = "FILE" if name == "config" else _metavar(library[name])
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
    default_text = " ".join(default) if isinstance(default, list) else str(default)
    return f"{text} (default: {default_text.lower() if isinstance(default, bool) else default_text})"


def _metavar(flag: Field, library: Field | None = None) -> str:
    """Placeholder of a flag's value in --help: its choices or type; `library`: the library's flag that it overrides."""
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
