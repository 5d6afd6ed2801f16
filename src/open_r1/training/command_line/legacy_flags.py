"""Flags and recipe keys of training that go by another name here: old ones of trl and transformers, and other systems'.

The published recipes are of trl 0.14 and transformers 4.48. Each old key is translated, with one line for the user. A
flag of R1-V, VLM-R1 or open-r1 that has no counterpart is an error that says how the same is done here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Today:
    """What an old key is now: `key` (None: nothing), and why or what to know."""

    key: str | None
    why: str
    value: Any = None
    """What to set the new key to where the old one was a switch; None keeps the old value."""


OLD_KEYS: dict[str, Today] = {
    "torch_dtype": Today("dtype", "renamed in trl"),
    "evaluation_strategy": Today("eval_strategy", "renamed in transformers"),
    "warmup_ratio": Today("warmup_steps", "transformers 5 takes a number below 1 as a share of all steps"),
    "no_cuda": Today("use_cpu", "renamed in transformers"),
    "per_gpu_train_batch_size": Today("per_device_train_batch_size", "renamed in transformers"),
    "group_by_length": Today("train_sampling_strategy", "one of the samplers in transformers 5", "group_by_length"),
    "max_seq_length": Today("max_length", "renamed in trl"),
    "use_liger_loss": Today("use_liger_kernel", "trl 1 has one switch for both"),
    "vllm_max_model_len": Today("vllm_max_model_length", "renamed in trl"),
    "vllm_guided_decoding_regex": Today("vllm_structured_outputs_regex", "renamed in trl"),
    "vllm_device": Today(None, "vLLM runs beside the training (--vllm_mode colocate) or as `trl vllm-serve` (server)"),
    "vllm_dtype": Today(None, "vLLM takes the training's number format"),
    "num_processes": Today(None, "accelerate launch --num_processes sets it"),
    "dataset_configs": Today(None, "a prepared folder has one configuration"),
    "dataset_config": Today(None, "a prepared folder has one configuration"),
    "overwrite_output_dir": Today(None, "a folder that holds a run is refused, never overwritten"),
    "logging_dir": Today(None, "trackers have settings of their own since transformers 5"),
    "save_safetensors": Today(None, "transformers 5 writes nothing else"),
}

_PROMPT = "the prompt follows --mode, word for word as it was published"
_TRAIN = "the train split of every --dataset_name is trained on"
_TEST = "with --eval_strategy the test split of --eval_dataset_name (default: --dataset_name) is asked while training"
_COLUMNS = "the columns are image, problem and solution; data/README.md says how a set is prepared"
_PROCESSES = "processes are the launcher's: torchrun --nproc_per_node=N before the script"

# Other systems' flags without a flag of ours that means the same -> what to do instead.
ELSEWHERE: dict[str, str] = {
    **dict.fromkeys(("system_prompt", "prompt_template", "question_template", "chat_template", "task_type"), _PROMPT),
    **dict.fromkeys(("dataset_train_split", "train_split", "split", "dataset_split"), _TRAIN),
    **dict.fromkeys(("dataset_test_split", "test_split", "val_split_ratio", "eval_split"), _TEST),
    **dict.fromkeys(("dataset_prompt_column", "dataset_solution_column", "image_column", "problem_column"), _COLUMNS),
    **dict.fromkeys(("nproc_per_node", "num_gpus", "gpus", "ngpus", "nnodes"), _PROCESSES),
    "dataset_mixture": "several sets after --dataset_name are trained on together",
    "dataset_streaming": "a prepared set is read from the disk as it is needed",
    "arrow_cache_dir": "a prepared set is read where it lies",
    "is_reward_customized_from_vlm_module": "rewards are chosen by name with --reward_funcs",
    "vllm_gpu_ratio": "trl calls it --vllm_gpu_memory_utilization",
    "max_anyres_num": "images are scaled by --min_pixels and --max_pixels",
    "wandb_project": "wandb reads it from the environment: WANDB_PROJECT=name before the command",
    "wandb_entity": "wandb reads it from the environment: WANDB_ENTITY=name before the command",
    "overwrite_hub_revision": "--push_to_hub publishes a finished run under --hub_model_id",
    "push_to_hub_revision": "--push_to_hub publishes a finished run under --hub_model_id",
    "hub_model_revision": "--push_to_hub publishes a finished run under --hub_model_id",
    "ignore_bias_buffers": "it was for the data-parallel wrapper of old models; leave it out",
}


def translated(config: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """A recipe with today's keys, and one line for each that was translated. A key given in both forms stays as new.

    Unknown keys are kept, for the parser to refuse.
    """
    result: dict[str, Any] = {key: value for key, value in config.items() if key not in OLD_KEYS}
    notes = []
    for old in (key for key in config if key in OLD_KEYS):
        today = OLD_KEYS[old]
        switched_off = today.value is not None and not config[old]
        if today.key is None or switched_off:
            notes.append(f"{old}: left out; {today.why}")
            continue
        value = config[old] if today.value is None else today.value
        result.setdefault(today.key, value)
        notes.append(f"{old}: read as {today.key}: {result[today.key]}; {today.why}")
    return result, notes


def translated_flags(arguments: list[str]) -> tuple[list[str], list[str]]:
    """The same for a command line: `--old VALUE` and `--old=VALUE`; a flag without a value is a switch."""
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
