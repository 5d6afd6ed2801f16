"""Load the model that a training starts from, and set which weights train.

A LoRA adapter is merged with its base into a temporary folder in `--output_dir` while the trainer is built. TRL loads
the reference model of the KL term from disk, ZeRO-3 shards weights and `--load_in_4bit` quantizes them while reading:
all three need the merged weights, not the adapter's base.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from peft import LoraConfig
from transformers import BitsAndBytesConfig
from trl import ModelConfig

from open_r1.checkpoints.folder import is_adapter
from open_r1.checkpoints.loading import attention_or_fallback, load_model, resolve_dtype, torch_dtype, unsharded_loading
from open_r1.checkpoints.names import local_source, model_source
from open_r1.checkpoints.processors import quiet_transformers
from open_r1.modeling.agreement import on_first_process, stop_everywhere
from open_r1.modeling.gpu_kernels import choose_attention_kernels
from open_r1.training.command_line.arguments import QuestionArguments
from open_r1.training.recovery.resumable_trainer import full_disk_in_one_line
from open_r1.training.setup.trainable_parts import freeze_vision_tower, lora_config, train_all

MERGED = ".merged-start"


@contextmanager
def starting_model(
    script: QuestionArguments,
    training: Any,
    model_config: ModelConfig,
    quantization: BitsAndBytesConfig | None,
    say: Callable[[str], object],
) -> Iterator[tuple[Any, LoraConfig | None]]:
    """Yield the model of `--model_name_or_path` and the settings of new adapters (None without `--use_peft`).

    The trainer must be built within the block.

    Args:
        script: the flags; `freeze_vision_tower` if there is one.
        training: training arguments.
        model_config: the checkpoint and how to load it.
        quantization: settings of 4-bit weights, or None.
        say: prints a line if the attention implementation is not available.

    Raises:
        UserError: if the checkpoint cannot be loaded, or no weight would train.
    """
    name = str(model_config.model_name_or_path)
    dtype = torch_dtype(model_config.dtype)
    attention, note = attention_or_fallback(model_config.attn_implementation)
    if note:
        say(note)
    choose_attention_kernels()
    with _merged_folder(name, training, dtype) as folder:
        model = load_model(folder, dtype=dtype, attn_implementation=attention, quantization=quantization)
        # PEFT writes this name into adapter_config.json as the base of new adapters
        model.name_or_path = recorded_name(name)
        train_all(model)
        if getattr(script, "freeze_vision_tower", False):
            freeze_vision_tower(model)
        yield model, lora_config(model, script, model_config)


def recorded_name(name: str) -> str:
    """A checkpoint's name that is valid in any working directory: the name on the hub, or the absolute path."""
    folder = local_source(name)
    return name if folder is None else os.path.abspath(folder)


@contextmanager
def _merged_folder(name: str, training: Any, dtype: Any) -> Iterator[Path]:
    """The folder of a checkpoint; for a LoRA adapter a temporary folder with the merged weights."""
    source, merged = model_source(name), Path(training.output_dir) / MERGED
    if not is_adapter(source):
        yield source
        return

    def merge() -> None:
        shutil.rmtree(merged, ignore_errors=True)  # left by a killed run
        with unsharded_loading(), full_disk_in_one_line(merged), quiet_transformers():
            load_model(source, dtype=resolve_dtype(dtype)).save_pretrained(merged)

    try:
        on_first_process(merge, training.device)
        yield merged
        stop_everywhere(None, training.device)  # waits until all have read it
    finally:
        if training.process_index == 0:
            shutil.rmtree(merged, ignore_errors=True)
