"""After the final save, the folder is loaded with the code that users load it with and compared with the trained model.

Every tensor must be equal to the bit, and the logits of a short prompt (with an image, if the model takes images) must
agree. For adapters, the base that the folder names is compared with the base that was trained on: on another base an
adapter would run too, but without what that base had learnt. 4-bit bases are quantised again to compare them.

This needs memory for a second copy of the model. If it does not fit, tensors are compared file by file.
"""

import importlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import peft
import psutil
import torch
from PIL import Image
from safetensors import safe_open
from transformers.core_model_loading import revert_weight_conversion

from open_r1.checkpoints.folder import adapter_base, is_adapter, whole_name
from open_r1.checkpoints.hub import in_gigabytes
from open_r1.checkpoints.loading import load_model, merge_adapter, resolve_dtype, unsharded_loading
from open_r1.checkpoints.processors import load_processor
from open_r1.checkpoints.weight_files import some, weight_files
from open_r1.common.errors import UserError
from open_r1.modeling.agreement import on_first_process
from open_r1.modeling.sharding import gathered_weights, weights_are_sharded
from open_r1.vocabulary.modes import Mode
from open_r1.vocabulary.prompts import build_messages

LOGITS_LIMIT = 1e-3
"""Largest relative difference of the logits, both in float32 on a CPU. Measured on tiny models: 3.1e-7 at most."""
LOGITS_LIMIT_ELSEWHERE = 0.1
"""The same in half precision or on a GPU. All tensors are equal, so only a wrong configuration must be noticed."""
_ROOM = 1.3  # times the weights must be free in memory
_ADAPTER_PARTS = (".lora_", ".modules_to_save.")

Stored = Callable[[str], torch.Tensor | None]
"""A weight's name in the model -> the stored tensor on the CPU; None if there is none."""
NOT_COMPARED: Stored = dict[str, torch.Tensor]().get


def read_back(trainer: Any, folder: Path) -> str:
    """Compare a saved folder with the model of a trainer. All processes call it; the first one compares.

    Args:
        trainer: `ResumableTrainer`, after training.
        folder: with the final weights, the configuration and the processor.

    Returns:
        One line that says what was compared; empty on the other processes.

    Raises:
        UserError: the folder does not load, or does not hold the trained model.
    """
    model = trainer.accelerator.unwrap_model(trainer.model, keep_torch_compile=False)
    device = trainer.accelerator.device
    sample = sample_inputs(trainer.processing_class)
    expected = _logits(trainer.model_wrapped if weights_are_sharded() else model, sample, device)
    if _is_packed(model):
        model.state_dict()  # undoes the layout in which bitsandbytes 0.50 computes on a CPU
    with ExitStack() as files:
        source = on_first_process(lambda: _open(folder, model, files), device)
        differing, adapters = _differing(model, source[0] if source else None)
    if source is None:
        return ""
    if is_adapter(folder):
        differing += _differing_adapters(model, adapters, folder)
    if differing:
        raise UserError(
            f"{folder} is not the model that was trained: {len(differing)} tensors differ ({some(differing)}). The "
            "folder is kept and not published; the checkpoints of this run are as they were saved"
        )
    _require_same_inputs(folder, sample)
    loaded = source[1]
    if loaded is None:
        return (
            f"read back: {folder} holds every tensor that was trained; it was not loaded whole, because that needs "
            f"{in_gigabytes(_needed(model))} of memory and {in_gigabytes(available_memory())} are free"
        )
    loaded = merge_adapter(loaded, folder) if is_adapter(folder) else loaded
    if _is_packed(model):  # which computes otherwise than the whole base that is loaded
        return f"read back: {folder} loads, and every tensor is the one that was trained"
    difference = _require_close(trainer, folder, expected, _logits(loaded, sample, torch.device("cpu")))
    return f"read back: {folder} loads, every tensor is the one that was trained, logits agree within {difference:.0e}"


def sample_inputs(processor: Any) -> Any:
    """A short prompt as model inputs, with an image if the processor takes images."""
    has_vision = hasattr(processor, "image_processor")
    messages = build_messages("What is shown? A)CT, B)MRI", Mode.NOTHINK, images=int(has_vision))
    text = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    if not has_vision:
        return processor([text], return_tensors="pt")
    image = Image.linear_gradient("L").resize((112, 84)).convert("RGB")
    return processor(text=[text], images=[[image]], return_tensors="pt")


@torch.no_grad()
def _logits(model: Any, sample: Any, device: torch.device) -> torch.Tensor:
    """Logits (tokens, vocabulary) in float32 on the CPU; the model is put into evaluation mode meanwhile."""
    was_training = model.training
    model.eval()
    try:
        inputs = {name: value.to(device) for name, value in sample.items()}
        return model(**inputs, use_cache=False).logits[0].float().cpu()
    finally:
        model.train(was_training)


def _open(folder: Path, model: Any, files: ExitStack) -> tuple[Stored, Any]:
    """A reader of stored tensors, and the loaded model (of an adapter: its base), None if memory does not suffice."""
    with unsharded_loading():
        if _needed(model) <= available_memory():
            loaded = load_model(adapter_base(folder) if is_adapter(folder) else folder, dtype=_loaded_dtype(model))
            return dict(loaded.named_parameters()).get, loaded
    if is_adapter(folder):
        return NOT_COMPARED, None  # its base was not written by this run
    return files.enter_context(_from_files(folder, model)), None


def _needed(model: Any) -> int:
    """Bytes of memory for a second copy of the model."""
    return int(sum(_count(weight) for weight in model.parameters()) * _loaded_dtype(model).itemsize * _ROOM)


def _loaded_dtype(model: Any) -> torch.dtype:
    """The number format that the model was loaded in; saving it leaves its name in the configuration."""
    return resolve_dtype(model.config.dtype)


def _count(weight: Any) -> int:
    state = getattr(weight, "quant_state", None)
    return getattr(weight, "ds_numel", weight.numel()) if state is None else state.shape.numel()


def available_memory() -> int:
    """Bytes of host memory that this process can still allocate, within the machine and its control group."""
    free = psutil.virtual_memory().available
    group = Path("/sys/fs/cgroup")
    try:
        limit = (group / "memory.max").read_text().strip()
        used = int((group / "memory.current").read_text())
    except (OSError, ValueError):
        return free
    return free if limit == "max" else min(free, int(limit) - used)


@contextmanager
def _from_files(folder: Path, model: Any) -> Iterator[Stored]:
    """A reader of single tensors from the files, by their names in the model."""
    with ExitStack() as stack:
        files = [stack.enter_context(safe_open(file, "pt")) for file in weight_files(folder, whole_name(folder))]
        places = {name: file for file in files for name in file.keys()}  # noqa: SIM118 (it is no dict)

        def stored(name: str) -> torch.Tensor | None:
            key = next(iter(revert_weight_conversion(model, {name: torch.empty(0)})))
            return places[key].get_tensor(key) if key in places else None

        yield stored


def _differing(model: Any, stored: Stored | None) -> tuple[list[str], dict[str, torch.Tensor]]:
    """Names of the weights (for adapters: of the base) that differ from the stored ones, and the adapters' tensors."""
    differing, adapters = [], {}
    for name, weight in gathered_weights(model):
        if stored is None:
            continue
        if any(marker in name for marker in _ADAPTER_PARTS):
            adapters[name] = weight.cpu().clone()
            continue
        if stored is NOT_COMPARED:
            continue
        plain = name.removeprefix("base_model.model.").replace(".base_layer.", ".").replace(".original_module.", ".")
        saved = stored(plain)
        if saved is None or not _equal(weight, saved):
            differing.append(plain)
    return differing, adapters


def _equal(weight: Any, saved: torch.Tensor) -> bool:
    """Whether a stored tensor equals a weight in memory, in the weight's number format."""
    if not hasattr(weight, "quant_state"):
        return torch.equal(saved.to(weight.dtype), weight.cpu())
    state = weight.quant_state
    packed, _ = importlib.import_module("bitsandbytes.functional").quantize_4bit(
        saved.to(weight.device),
        blocksize=state.blocksize,
        compress_statistics=state.nested,
        quant_type=state.quant_type,
        quant_storage=weight.dtype,
    )
    return torch.equal(packed, weight)


def _differing_adapters(model: Any, adapters: dict[str, torch.Tensor], folder: Path) -> list[str]:
    trained = peft.get_peft_model_state_dict(model, state_dict=adapters)
    saved = peft.load_peft_weights(str(folder), device="cpu")
    equal = {name for name in trained.keys() & saved.keys() if _equal(trained[name], saved[name])}
    return sorted((trained.keys() | saved.keys()) - equal)


def _is_packed(model: Any) -> bool:
    return any(hasattr(weight, "quant_state") for weight in model.parameters())


def _require_same_inputs(folder: Path, sample: Any) -> None:
    inputs = sample_inputs(load_processor(folder))
    if inputs.keys() != sample.keys() or not all(torch.equal(inputs[name], sample[name]) for name in inputs):
        raise UserError(
            f"the processor saved in {folder} encodes a prompt differently from the one used in training; the "
            "folder is kept and not published: copy the processor files of the base into it"
        )


def _require_close(trainer: Any, folder: Path, expected: torch.Tensor, actual: torch.Tensor) -> float:
    """The relative difference of the logits.

    Raises:
        UserError: it is over the limit.
    """
    exact = expected.isfinite().all() and trainer.accelerator.mixed_precision == "no"
    exact = exact and trainer.accelerator.device.type == "cpu" and trainer.model.dtype == torch.float32
    difference = ((actual - expected).norm() / expected.norm()).item()
    limit = LOGITS_LIMIT if exact else LOGITS_LIMIT_ELSEWHERE
    if not difference <= limit:
        raise UserError(
            f"{folder} does not compute the same as the trained model: logits differ by {difference:.1e} (limit "
            f"{limit:.0e}) although all tensors are equal, so its config.json must differ. The folder is "
            "kept and not published"
        )
    return difference
