"""Flags and recipe keys that trl or transformers have renamed or dropped since the published recipes were written.

The recipes are of trl 0.14 and transformers 4.48. Each old key found is translated, with one line for the user.
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
