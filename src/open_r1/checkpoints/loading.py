"""Loads the model of a checkpoint by name; a checkpoint whose weights do not fit exactly is refused.

A name is a local folder, `org/repo` or `org/repo:subfolder`. The model class comes only from config.json's
`model_type`. Weights are read from safetensors only, and a tensor that is missing, unexpected or of another shape is
an error: a model with a random vision tower also answers questions, but not from the image. Both key
layouts load: `visual.*`, `model.layers.*` (what transformers wrote before 4.52 and writes again in 5.x) and
`model.visual.*`, `model.language_model.*` (in between).

`python -m open_r1.checkpoints fetch NAME` brings one from the hub.
"""

import importlib
import importlib.util
import os
import sys
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from open_r1.checkpoints.adapter_names import names_of_today
from open_r1.checkpoints.checks.folder_checks import require_sound
from open_r1.checkpoints.families import FAMILIES, Family, forbidden_token_ids
from open_r1.checkpoints.folder import (
    RUN_FILE,
    adapter_base,
    adapter_chain,
    fingerprint,
    is_adapter,
    name_base,
    read_config,
    read_family,
    run_record,
    run_record_folder,
    whole_name,
)
from open_r1.checkpoints.hub import download_patterns, one_line
from open_r1.checkpoints.names import ADAPTER, local_source, model_source
from open_r1.checkpoints.processors import load_processor, processor_fingerprint, processor_source, quiet_transformers
from open_r1.checkpoints.weight_files import some, weight_files
from open_r1.common.errors import UserError
from open_r1.common.exhausted.full_memory import out_of_memory
from open_r1.modeling.sharding import unsharded_loading

if TYPE_CHECKING:
    import torch

_SLACK = 10**8
"""Weights that a config.json may describe beyond those in the files without being refused at once."""

__all__ = [
    "ADAPTER",
    "FAMILIES",
    "RUN_FILE",
    "Family",
    "adapter_base",
    "adapter_chain",
    "attention_or_fallback",
    "download_patterns",
    "fingerprint",
    "forbidden_token_ids",
    "is_adapter",
    "load_model",
    "load_processor",
    "local_source",
    "merge_adapter",
    "model_source",
    "name_base",
    "processor_fingerprint",
    "processor_source",
    "read_config",
    "read_family",
    "resolve_dtype",
    "run_record",
    "run_record_folder",
    "torch_dtype",
    "unsharded_loading",
]


def load_model(
    name: str | os.PathLike,
    dtype: "str | torch.dtype" = "auto",
    attn_implementation: str | None = None,
    device: "str | torch.device | None" = None,
    quantization: Any = None,
) -> Any:
    """The model of a checkpoint, in evaluation mode, with every weight taken from the files.

    Args:
        name: see `model_source`. A LoRA adapter is merged into its base, which may be a base with adapters itself.
        dtype: a torch dtype or its name; "auto" is bfloat16 on a GPU that has it and float32 otherwise.
        attn_implementation: see `attention_or_fallback`; if it is not available here, a line says so.
        device: where to put it; None leaves it on the CPU.
        quantization: a `transformers.BitsAndBytesConfig` to quantise the weights with while they load. They are
            then on the GPU, if there is one.

    Raises:
        UserError: no such checkpoint, unknown family, or weights that do not fit exactly.
    """
    folder = model_source(name)
    if is_adapter(folder):
        if quantization is not None:
            raise UserError(f"{folder} is a LoRA adapter, which cannot be merged into a base of 4 bits; merge it first")
        return _load_adapter(folder, dtype, attn_implementation, device)
    import transformers

    require_sound(folder)
    family = read_family(folder)
    if method := (read_config(folder).get("quantization_config") or {}).get("quant_method"):
        raise UserError(f"{folder} is quantised ({method}), which is not supported; take the bfloat16 checkpoint")
    weight_files(folder, whole_name(folder))
    attention, note = attention_or_fallback(attn_implementation, device)
    if note:
        print(note, file=sys.stderr)
    kind = getattr(transformers, family.model_class)
    with quiet_transformers():
        try:
            _require_size(folder, kind)
            model, info = kind.from_pretrained(
                folder,
                dtype=resolve_dtype(dtype, device),
                attn_implementation=attention,
                use_safetensors=True,
                trust_remote_code=False,
                ignore_mismatched_sizes=True,  # collected and reported below, all of them at once
                output_loading_info=True,
                **({} if quantization is None else {"quantization_config": quantization}),
            )
        except UserError:
            raise
        except Exception as error:  # whatever a library makes of files that somebody else wrote
            if out_of_memory(error):
                raise
            raise UserError(f"{folder} cannot be loaded as {family.model_class}: {one_line(error)}") from error
    if quantization is not None:
        info["mismatched_keys"] = [*info["mismatched_keys"], *_packed_otherwise(model)]
    _require_exact(folder, info)
    _require_finite(folder, model, quantization is not None)
    return model if device is None else model.to(device)


def _require_size(folder: Path, kind: Any) -> None:
    """Refuse a config.json of a far larger model than the files hold, which would fill the memory."""
    import torch
    from transformers.initialization import no_init_weights

    config = kind.config_class.from_pretrained(folder)
    with unsharded_loading(), torch.device("meta"), no_init_weights():
        described = sum(weight.numel() for weight in kind(config).parameters())
    stored = sum(file.stat().st_size for file in weight_files(folder))  # at most one weight a byte
    if described > 2 * stored + _SLACK:
        raise UserError(
            f"{folder / 'config.json'} describes a model of {described:,} weights, and the files have {stored:,} "
            "bytes; fetch both again"
        )


def _require_finite(folder: Path, model: Any, packed: bool) -> None:
    """Refuse weights that are NaN or infinite, by name; for quantised models the weights in the files are checked."""
    from safetensors import safe_open

    wrong: list[str] = []
    for file in weight_files(folder) if packed else []:
        with safe_open(file, "pt") as tensors:
            wrong += not_finite((name, tensors.get_tensor(name)) for name in tensors.keys())  # noqa: SIM118
    wrong += not_finite(model.named_parameters())
    if wrong:
        raise UserError(
            f"{len(wrong)} tensors of {folder} hold NaN or infinite numbers as {model.dtype} ({some(wrong)}): every "
            "answer would be noise, which an accuracy does not show. Take an earlier checkpoint, fetch it again, or"
            " choose another number format with --dtype"
        )


def not_finite(tensors: "Iterable[tuple[str, torch.Tensor]]") -> list[str]:
    """Names of the tensors that hold NaN or infinite numbers. About 2 GB a second and core, without a copy."""
    import torch

    wrong = []
    for name, tensor in tensors:
        local = getattr(tensor, "ds_tensor", tensor).detach()  # the shard of this process under ZeRO-3
        if local.is_floating_point() and local.numel() and not torch.stack(torch.aminmax(local)).isfinite().all():
            wrong.append(name)
    return wrong


def _packed_otherwise(model: Any) -> list[tuple[str, Any, Any]]:
    """Quantised weights of another shape than in config.json: (name, shape in the file, shape in config.json).

    transformers 5.17 does not check the shape of weights that it quantises.
    """
    mismatched = []
    for name, module in model.named_modules():
        packed = getattr(getattr(module, "weight", None), "quant_state", None)
        if packed is not None and tuple(packed.shape) != (wants := (module.out_features, module.in_features)):
            mismatched.append((f"{name}.weight", packed.shape, wants))
    return mismatched


def _require_exact(folder: Path, info: dict[str, Any]) -> None:
    """Refuse a model if a weight is not in the files, or a tensor in the files is not in the model."""
    problems = []
    if missing := sorted(info["missing_keys"]):
        tower = sum(".visual." in f".{name}" for name in missing)
        tower_note = f" ({tower} of them the vision tower's)" if tower else ""
        problems.append(f"{len(missing)} missing{tower_note}: {some(missing)}")
    if unexpected := sorted(info["unexpected_keys"]):
        problems.append(f"{len(unexpected)} unexpected: {some(unexpected)}")
    if mismatched := sorted(info["mismatched_keys"]):
        shapes = [f"{name} {tuple(has)} instead of {tuple(wants)}" for name, has, wants in mismatched]
        problems.append(f"{len(shapes)} of another shape: {some(shapes)}")
    if info.get("error_msgs"):
        problems.append(" ".join(" ".join(info["error_msgs"]).split())[:300])
    if problems:
        raise UserError(
            f"the weights of {folder} do not fit its config.json: {'; '.join(problems)}. Parts of the model would be "
            "random without a visible error, so it is refused; fetch the checkpoint again"
        )


def _load_adapter(folder: Path, dtype: Any, attention: str | None, device: Any) -> Any:
    """The base model with a LoRA adapter, and the adapters that it was trained on top of, merged in."""
    require_sound(folder)
    weight_files(folder, whole_name(folder))
    merged = merge_adapter(load_model(adapter_base(folder), dtype, attention), folder)
    return merged if device is None else merged.to(device)


def merge_adapter(base: Any, folder: Path) -> Any:
    """A model with a LoRA adapter merged in, in evaluation mode; every tensor of the adapter must be used.

    Args:
        base: the model that the adapter was trained on, which is changed.
        folder: the adapter's.

    Raises:
        UserError: the adapter does not fit.
    """
    import peft

    with quiet_transformers(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Found missing adapter keys")  # an error below, with names
        try:
            config, names = names_of_today(base, folder)
            # low_cpu_mem_usage: not initialized first in whatever size adapter_config.json says
            model = peft.PeftModel.from_pretrained(
                base, folder, config=config, key_mapping=names, low_cpu_mem_usage=True
            )
        except Exception as error:  # whatever a library makes of files that somebody else wrote
            if out_of_memory(error):
                raise
            raise UserError(f"the adapter {folder} does not fit its base: {one_line(error)}") from error
    require_adapter(model, folder, names)
    merged: Any = model.merge_and_unload()
    return merged.eval()


def require_adapter(model: Any, folder: Path, names: dict[str, str] | None = None) -> None:
    """Refuse a model whose adapter is not the one of `folder`, tensor by tensor.

    Args:
        model: a `peft.PeftModel` that has loaded it.
        folder: with adapter_model.safetensors.
        names: PEFT's `key_mapping`, where the stored names are old ones.

    Raises:
        UserError: tensors are missing or left over, or hold numbers that are not finite.
    """
    import peft
    import torch

    stored = peft.load_peft_weights(str(folder), device="cpu", key_mapping=names)
    loaded = peft.get_peft_model_state_dict(model)
    differing = sorted(set(stored) ^ set(loaded))
    if differing:
        raise UserError(
            f"{len(differing)} tensors of the adapter {folder} do not match its base model: {some(differing)}; "
            "base_model_name_or_path in its adapter_config.json must name the model that it was trained on"
        )
    if wrong := not_finite(stored.items()):
        raise UserError(
            f"{len(wrong)} tensors of the adapter {folder} hold NaN or infinite numbers ({some(wrong)}): every answer "
            "would be noise, which an accuracy does not show. Take an earlier checkpoint"
        )
    assert all(torch.equal(loaded[key].cpu(), stored[key].to(loaded[key].dtype)) for key in stored)


def torch_dtype(name: "str | torch.dtype | None") -> "str | torch.dtype":
    """A flag's value as `load_model` takes it: None and "auto" stay "auto", a name becomes the dtype.

    Raises:
        UserError: a name that is none of auto, float32, bfloat16, float16.
    """
    import torch

    dtypes = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if name is None or name == "auto":
        return "auto"
    if isinstance(name, torch.dtype):
        return name
    if name not in dtypes:
        raise UserError(f"the dtype {name!r} is not supported; choose one of auto, {', '.join(dtypes)}")
    return dtypes[name]


def resolve_dtype(dtype: "str | torch.dtype", device: "str | torch.device | None" = None) -> "torch.dtype":
    """The dtype that "auto" means on `device` (None: the GPU if there is one): bfloat16 on a GPU, or float32."""
    import torch

    chosen = torch_dtype(dtype)
    if isinstance(chosen, torch.dtype):
        return chosen
    on_gpu = torch.cuda.is_available() if device is None else torch.device(device).type == "cuda"
    return torch.bfloat16 if on_gpu and torch.cuda.is_bf16_supported() else torch.float32


# What an attention implementation of transformers imports, and how to get it.
FLASH_MODULES = {
    "flash_attention_2": ("flash_attn", "`bash setup.sh --gpu` builds it"),
    "flash_attention_3": ("flash_attn_interface", "it is built from the sources of flash-attention, folder hopper"),
    "flash_attention_4": ("flash_attn.cute", "`pip install flash-attn-4==4.0.0b36`, without a compiler"),
}


def attention_or_fallback(requested: str | None, device: "str | torch.device | None" = None) -> tuple[str, str | None]:
    """(implementation, note): the requested one if it is available here, otherwise "sdpa" and a line that says why.

    Raises:
        UserError: transformers does not know the implementation.
    """
    if requested in (None, "sdpa", "eager"):
        return requested or "sdpa", None
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    if requested not in ALL_ATTENTION_FUNCTIONS:
        names = ", ".join(["eager", *sorted(ALL_ATTENTION_FUNCTIONS.keys())])
        raise UserError(f"there is no attention implementation {requested!r}; known are: {names}")
    module, remedy = FLASH_MODULES.get(requested, (None, ""))
    problem = _why_not(module, remedy, device) if module else None
    if problem is None:
        return requested, None
    return "sdpa", f"{requested}: {problem}; using sdpa instead, which computes the same"


def _why_not(module: str, remedy: str, device: "str | torch.device | None") -> str | None:
    import torch

    if not (torch.cuda.is_available() if device is None else torch.device(device).type == "cuda"):
        return "it needs a GPU and none is used here"
    try:
        importlib.import_module(module)
    except ImportError as error:
        if importlib.util.find_spec(module.partition(".")[0]) is None:
            return f"{module} is not installed ({remedy})"
        return f"{module} is installed but does not load ({one_line(error)}; {remedy})"
    return None
