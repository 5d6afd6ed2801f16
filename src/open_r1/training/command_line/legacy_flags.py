"""Translate old flags and recipe keys of trl and transformers; hints for flags of other systems.

The published recipes are for trl 0.14 and transformers 4.48. Every old key is translated, with one line for the user. A
flag of R1-V, VLM-R1 or open-r1 without a counterpart is an error with a hint.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Replacement:
    """The new key of an old one (None: no longer needed), and the reason."""

    key: str | None
    reason: str
    value: Any = None
    """Value of the new key if the old key was a switch; None keeps the old value."""


OLD_KEYS: dict[str, Replacement] = {
    "torch_dtype": Replacement("dtype", "renamed in trl"),
    "evaluation_strategy": Replacement("eval_strategy", "renamed in transformers"),
    "warmup_ratio": Replacement("warmup_steps", "transformers 5 takes a number below 1 as a fraction of all steps"),
    "no_cuda": Replacement("use_cpu", "renamed in transformers"),
    "per_gpu_train_batch_size": Replacement("per_device_train_batch_size", "renamed in transformers"),
    "group_by_length": Replacement("train_sampling_strategy", "a sampler in transformers 5", "group_by_length"),
    "max_seq_length": Replacement("max_length", "renamed in trl"),
    "use_liger_loss": Replacement("use_liger_kernel", "trl 1 has one switch for both"),
    "vllm_max_model_len": Replacement("vllm_max_model_length", "renamed in trl"),
    "vllm_guided_decoding_regex": Replacement("vllm_structured_outputs_regex", "renamed in trl"),
    "vllm_device": Replacement(
        None, "vLLM runs beside the training (--vllm_mode colocate) or as `trl vllm-serve` (server)"
    ),
    "vllm_dtype": Replacement(None, "vLLM uses the data type of the training"),
    "num_processes": Replacement(None, "accelerate launch --num_processes sets it"),
    "dataset_configs": Replacement(None, "a prepared folder has one configuration; on the hub it is org/name:folder"),
    "dataset_config": Replacement(None, "a prepared folder has one configuration; on the hub it is org/name:folder"),
    "overwrite_output_dir": Replacement(None, "an existing run is never overwritten"),
    "logging_dir": Replacement(None, "since transformers 5 every tracker has its own setting"),
    "save_safetensors": Replacement(None, "transformers 5 always does"),
}

_PROMPT = "--mode chooses the prompt, with the published wording"
_TRAIN = "here it is --dataset_train_split"
_TEST = "here it is --dataset_test_split, with --eval_strategy"
_COLUMNS = "--columns problem=question,solution=answer names the columns of the data"
_PROCESSES = "the launcher sets the number of processes: torchrun --nproc_per_node=N before the script"

# Flags of other systems without an equivalent here -> what to do instead.
ELSEWHERE: dict[str, str] = {
    **dict.fromkeys(("system_prompt", "prompt_template", "question_template", "chat_template", "task_type"), _PROMPT),
    **dict.fromkeys(("train_split", "split", "dataset_split"), _TRAIN),
    **dict.fromkeys(("test_split", "val_split_ratio", "eval_split"), _TEST),
    **dict.fromkeys(("dataset_prompt_column", "dataset_solution_column", "image_column", "problem_column"), _COLUMNS),
    **dict.fromkeys(("nproc_per_node", "num_gpus", "gpus", "ngpus", "nnodes"), _PROCESSES),
    "dataset_mixture": "--dataset_name takes several data sets",
    "dataset_streaming": "prepared data sets are always read from disk as needed",
    "arrow_cache_dir": "prepared data sets are read without a cache",
    "is_reward_customized_from_vlm_module": "choose rewards by name with --reward_funcs",
    "vllm_gpu_ratio": "in trl it is --vllm_gpu_memory_utilization",
    "max_anyres_num": "scale images with --min_pixels and --max_pixels",
    "wandb_project": "set it in the environment: WANDB_PROJECT=name before the command",
    "wandb_entity": "set it in the environment: WANDB_ENTITY=name before the command",
    "overwrite_hub_revision": "--push_to_hub publishes a finished run under --hub_model_id",
    "push_to_hub_revision": "--push_to_hub publishes a finished run under --hub_model_id",
    "hub_model_revision": "--push_to_hub publishes a finished run under --hub_model_id",
    "ignore_bias_buffers": "only old models needed it; leave it out",
}


def translated(config: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Translate the old keys of a recipe; returns the recipe, and one line per old key. A new key takes precedence.

    Unknown keys stay, so that the parser refuses them.
    """
    result: dict[str, Any] = {key: value for key, value in config.items() if key not in OLD_KEYS}
    notes = []
    for old in (key for key in config if key in OLD_KEYS):
        new = OLD_KEYS[old]
        switched_off = new.value is not None and not config[old]
        if new.key is None or switched_off:
            notes.append(f"{old}: ignored; {new.reason}")
            continue
        value = config[old] if new.value is None else new.value
        result.setdefault(new.key, value)
        notes.append(f"{old}: read as {new.key}: {result[new.key]}; {new.reason}")
    return result, notes


def translated_flags(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Translate a command line in the same way: `--old VALUE` and `--old=VALUE`; a flag without a value is a switch."""
    result: list[str] = []
    notes = []
    position = 0
    while position < len(arguments):
        flag, equals, inline = arguments[position].partition("=")
        values = [inline] if equals else []
        position += 1
        old = flag.removeprefix("--")
        if not flag.startswith("--") or old not in OLD_KEYS:
            result.append(arguments[position - 1])
            continue
        while not equals and position < len(arguments) and not arguments[position].startswith("--"):
            values.append(arguments[position])
            position += 1
        off = values == ["false"] or values == ["False"]
        config, lines = translated({old: values if not off else []})
        for key, value in config.items():
            result += [f"--{key}", *(value if isinstance(value, list) else [value])]
        notes += [f"--{line.replace(str(values), ' '.join(values))}" for line in lines]
    return result, notes
