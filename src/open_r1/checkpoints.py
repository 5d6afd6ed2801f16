"""A checkpoint's name -> its folder, its model and its processor; nothing is loaded that does not fit exactly.

A name is a local folder, `org/repo` or `org/repo:subfolder`. The model class comes from config.json's `model_type`
and from nothing else. Weights are read from safetensors only, and a tensor that is missing, left over or of another
shape is an error: a vision tower with random weights answers questions too, only not from the picture. Both key
layouts load: `visual.*`, `model.layers.*` (what transformers wrote before 4.52 and writes again in 5.x) and
`model.visual.*`, `model.language_model.*` (in between).
"""

import errno
import hashlib
import importlib
import importlib.util
import os
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from open_r1.errors import UserError
from open_r1.files import sha256_file
from open_r1.runs import HUB_REPOSITORY, matrix
from open_r1.weights import WEIGHTS, read_json, some, weight_files

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Family:
    """What the code needs to know about a model family; everything else is read from the checkpoint."""

    model_class: str
    """Class in `transformers`."""
    has_vision: bool
    """It is shown pictures here: its processor takes them, and its vision tower is `model.visual`."""
    has_mrope: bool
    """Positions are (time, height, width), from the model's own `get_rope_index`."""
    base: str
    """A published model of the family; every size of a family has the same processor."""


FAMILIES: dict[str, Family] = {
    "qwen2_vl": Family("Qwen2VLForConditionalGeneration", True, True, "Qwen/Qwen2-VL-2B-Instruct"),
    "qwen2_5_vl": Family("Qwen2_5_VLForConditionalGeneration", True, True, "Qwen/Qwen2.5-VL-3B-Instruct"),
    "qwen2": Family("Qwen2ForCausalLM", False, False, "Qwen/Qwen2.5-1.5B-Instruct"),
    # It has a vision tower, which nothing here feeds: text questions only, with the tokenizer alone.
    "gemma3": Family("Gemma3ForConditionalGeneration", False, False, "google/gemma-3-12b-it"),
}

# Entries of config.json that name tokens which stand for pictures. One of them in a completion makes the next
# forward pass fail with "image features and image tokens do not match" (R1-V#91, TRL#3847).
PICTURE_TOKENS = (
    *("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id"),
    *("boi_token_id", "eoi_token_id"),
)

ADAPTER = "adapter_config.json"
RUN_FILE = "run.json"
_TEXTS = ("*.json", "*.txt", "*.jinja")
_PROCESSOR = (
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
    "chat_template.json",
    "chat_template.jinja",
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
)
_HUB_NAME = re.compile(r"(?P<repo>\w[\w.-]*/\w[\w.-]*)(?::(?P<subfolder>\w[\w.-]*(?:/\w[\w.-]*)*))?")


# --- names -----------------------------------------------------------------------------------------------------------


def model_source(name: str | os.PathLike) -> Path:
    """The local folder of a checkpoint, downloaded from the hub first where `name` is no folder.

    Only safetensors, JSON, text and chat template files are fetched: no pickles, no optimizer states, no code.
    Without a network (or with HF_HUB_OFFLINE=1) the hub's local cache is used.

    Raises:
        UserError: no such folder or repository, not fetched yet and no network, or no checkpoint in it.
    """
    name = os.fspath(name)
    folder = Path(name).expanduser()
    if folder.is_dir():
        return _require_config(folder, name)
    if folder.exists():
        raise UserError(f"{name} is a file; a checkpoint is a folder with config.json and safetensors in it")
    hub = _HUB_NAME.fullmatch(name)
    if hub is None or _means_local(name):
        raise UserError(f"there is no checkpoint folder {name}; {_how_to_fetch(folder)}")
    repo, subfolder = hub["repo"], hub["subfolder"]
    if repo == HUB_REPOSITORY and subfolder is None:
        raise UserError(f"the root of {repo} holds no model; name one of its folders: {_released_names()}")
    return _require_config(_download(repo, subfolder), name)


def _means_local(name: str) -> bool:
    """`./x/y`, `~/x`, `/x/y`; and `checkpoints/x` where a folder `checkpoints` is here."""
    return name.startswith((".", "~", os.sep)) or Path(name).parts[0] == "checkpoints" or Path(name).parent.is_dir()


def _how_to_fetch(folder: Path) -> str:
    if re.fullmatch(r"Qwen2(\.5)?-VL-\d+B-Instruct", folder.name):
        return f"fetch it with: hf download Qwen/{folder.name} --local-dir {folder}"
    return "checkpoints/README.md says how to fetch each; a name on the hub is org/repo or org/repo:subfolder"


def _released_names() -> str:
    return ", ".join(run.checkpoint for run in matrix())


def _download(repo: str, subfolder: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    shown = f"{repo}:{subfolder}" if subfolder else repo
    allow, ignore = download_patterns(subfolder)
    try:
        root = Path(snapshot_download(repo, allow_patterns=allow, ignore_patterns=ignore))
    except GatedRepoError as error:
        raise UserError(f"{shown} is gated: accept its terms on the hub and run `hf auth login`") from error
    except RepositoryNotFoundError as error:
        raise UserError(f"{repo} is not on the hub, or private: check the spelling, or `hf auth login`") from error
    except LocalEntryNotFoundError as error:
        where = f"{repo} --include '{subfolder}/*'" if subfolder else repo
        raise UserError(
            f"{shown} is neither a folder here nor wholly in the hub's cache, and the hub cannot be reached; "
            f"with a network run: hf download {where} (and unset HF_HUB_OFFLINE)"
        ) from error
    except EntryNotFoundError as error:
        raise UserError(f"{shown} holds no checkpoint files{_other_names(repo)}") from error
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise UserError(f"the disk is full while fetching {shown}; free some space and run again") from error
        raise UserError(f"cannot fetch {shown}: {_one_line(error)}") from error
    except ValueError as error:
        raise UserError(f"{shown} is no name that the hub accepts: {_one_line(error)}") from error
    folder = root / subfolder if subfolder else root
    if not folder.is_dir():
        raise UserError(f"{repo} has no folder {subfolder}{_other_names(repo)}")
    return folder


def download_patterns(subfolder: str | None) -> tuple[list[str], list[str]]:
    """(allow, ignore) patterns for one checkpoint of a repository. The hub's `*` matches `/` too."""
    prefix = f"{subfolder}/" if subfolder else ""
    return [f"{prefix}{kind}" for kind in ("*.safetensors", *_TEXTS)], [f"{prefix}*/*"]


def _other_names(repo: str) -> str:
    return f"; known are: {_released_names()}" if repo == HUB_REPOSITORY else ""


def _require_config(folder: Path, name: str) -> Path:
    if (folder / "config.json").is_file() or (folder / ADAPTER).is_file():
        return folder
    below = sorted(str(path.parent.relative_to(folder)) for path in folder.glob("*/config.json"))
    below += sorted(str(path.parent.relative_to(folder)) for path in folder.glob("*/*/config.json"))
    hint = f"; it has checkpoints below it: {', '.join(below)}" if below else "; is it a checkpoint folder?"
    raise UserError(f"{name} holds no config.json{hint}")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]


# --- what a folder holds ---------------------------------------------------------------------------------------------


def read_config(folder: Path) -> dict[str, Any]:
    """config.json of a checkpoint folder.

    Raises:
        UserError: it is missing or no JSON object.
    """
    return read_json(folder / "config.json")


def read_family(folder: Path) -> Family:
    """The model family by config.json's `model_type`; of a LoRA adapter, that of its base.

    Raises:
        UserError: unknown or missing `model_type`.
    """
    if _is_adapter(folder):
        return read_family(adapter_base(folder))
    kind = read_config(folder).get("model_type")
    if not isinstance(kind, str) or kind not in FAMILIES:
        raise UserError(
            f"{folder / 'config.json'} has model_type {kind!r}, which is not supported; "
            f"known are: {', '.join(FAMILIES)}"
        )
    return FAMILIES[kind]


def forbidden_token_ids(config: Any) -> list[int]:
    """Ids that must never be generated: the tokens that stand for pictures. Empty for a text model.

    Args:
        config: the loaded model's `config`.
    """
    ids = (getattr(config, name, None) for name in PICTURE_TOKENS)
    return sorted({token for token in ids if isinstance(token, int)})


def windowed_layers(config: Any) -> int:
    """How many layers of the language model look back over a window of tokens only, as most of Gemma 3's do.

    Args:
        config: the loaded model's `config`.
    """
    kinds = getattr(config.get_text_config(), "layer_types", None) or []
    return sum(kind != "full_attention" for kind in kinds)


def run_record(folder: Path) -> dict[str, Any] | None:
    """run.json of the training run that made this checkpoint, from the folder or, for `checkpoint-N`, from above."""
    place = run_record_folder(folder)
    return None if place is None else read_json(place / RUN_FILE)


def run_record_folder(folder: Path) -> Path | None:
    """Where that run.json lies."""
    places = [folder, folder.parent] if re.fullmatch(r"checkpoint-\d+", folder.name) else [folder]
    return next((place for place in places if (place / RUN_FILE).is_file()), None)


def _is_adapter(folder: Path) -> bool:
    return (folder / ADAPTER).is_file() and not any(folder.glob("model*.safetensors"))


def _whole(folder: Path) -> str:
    """Name of the weight file where the weights are not sharded."""
    return "adapter_model.safetensors" if _is_adapter(folder) else WEIGHTS


def adapter_base(folder: Path) -> Path:
    """The folder of the model that a LoRA adapter was trained on, as its adapter_config.json names it."""
    name = read_json(folder / ADAPTER).get("base_model_name_or_path")
    if not isinstance(name, str) or not name:
        raise UserError(f"{folder / ADAPTER} names no base model; write it there as base_model_name_or_path")
    try:
        base = model_source(name)
    except UserError as error:
        raise UserError(f"{folder} is a LoRA adapter, and its base model cannot be had: {error}") from error
    if _is_adapter(base):
        raise UserError(f"{folder} is a LoRA adapter whose base {base} is an adapter too; merge that one first")
    return base


def fingerprint(folder: Path) -> str:
    """SHA-256 over config.json and every byte of the weights (of an adapter: and of its base); 64 hex digits.

    Reads the whole checkpoint: about 1.5 GB per second and core where the processor has SHA instructions.
    """
    total = hashlib.sha256()
    parts = [folder / ADAPTER] if _is_adapter(folder) else [folder / "config.json"]
    for file in [*parts, *weight_files(folder, _whole(folder))]:
        total.update(f"{file.name} {sha256_file(file)}\n".encode())
    if _is_adapter(folder):
        total.update(fingerprint(adapter_base(folder)).encode())
    return total.hexdigest()


# --- model -----------------------------------------------------------------------------------------------------------


def load_model(
    name: str | os.PathLike,
    dtype: "str | torch.dtype" = "auto",
    attn_implementation: str | None = None,
    device: "str | torch.device | None" = None,
    quantization: Any = None,
) -> Any:
    """The model of a checkpoint, in evaluation mode, with every weight taken from the files.

    Args:
        name: see `model_source`. A LoRA adapter is merged into its base.
        dtype: a torch dtype or its name; "auto" is bfloat16 on a GPU that has it and float32 otherwise.
        attn_implementation: see `attention_or_fallback`; what cannot be had here falls back with one line.
        device: where to put it; None leaves it on the CPU.
        quantization: a `transformers.BitsAndBytesConfig` that the weights are packed by while they load. They are then
            on the GPU, if there is one.

    Raises:
        UserError: no such checkpoint, unknown family, or weights that do not fit exactly.
    """
    folder = model_source(name)
    if _is_adapter(folder):
        if quantization is not None:
            raise UserError(f"{folder} is a LoRA adapter, which cannot be merged into a base of 4 bits; merge it first")
        return _load_adapter(folder, dtype, attn_implementation, device)
    import transformers

    family = read_family(folder)
    if method := (read_config(folder).get("quantization_config") or {}).get("quant_method"):
        raise UserError(f"{folder} is quantised ({method}), which is not supported; take the bfloat16 checkpoint")
    weight_files(folder, _whole(folder))
    attention, note = attention_or_fallback(attn_implementation, device)
    if note:
        print(note, file=sys.stderr)
    with _quiet_transformers():
        try:
            model, info = getattr(transformers, family.model_class).from_pretrained(
                folder,
                dtype=resolve_dtype(dtype, device),
                attn_implementation=attention,
                use_safetensors=True,
                trust_remote_code=False,
                ignore_mismatched_sizes=True,  # collected and reported below, all of them at once
                output_loading_info=True,
                **({} if quantization is None else {"quantization_config": quantization}),
            )
        except (OSError, RuntimeError, TypeError, ValueError, KeyError, AttributeError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(f"{folder} cannot be loaded as {family.model_class}: {_one_line(error)}") from error
        except Exception as error:
            if type(error).__name__ not in ("SafetensorError", "StrictDataclassFieldValidationError"):
                raise
            raise UserError(f"{folder} cannot be loaded as {family.model_class}: {_one_line(error)}") from error
    if quantization is not None:
        info["mismatched_keys"] = [*info["mismatched_keys"], *_packed_otherwise(model)]
    _require_exact(folder, info)
    return model if device is None else model.to(device)


def _packed_otherwise(model: Any) -> list[tuple[str, Any, Any]]:
    """Packed weights of another shape than config.json's: (name, shape in the file, config.json's).

    transformers 5.23 does not look at the shape of what it packs.
    """
    found = []
    for name, module in model.named_modules():
        packed = getattr(getattr(module, "weight", None), "quant_state", None)
        if packed is not None and tuple(packed.shape) != (wants := (module.out_features, module.in_features)):
            found.append((f"{name}.weight", packed.shape, wants))
    return found


def _require_exact(folder: Path, info: dict[str, Any]) -> None:
    """Refuse a model of which any weight did not come from the files, or the reverse."""
    wrong = []
    if missing := sorted(info["missing_keys"]):
        tower = sum(".visual." in f".{name}" for name in missing)
        part = f" ({tower} of them the vision tower's)" if tower else ""
        wrong.append(f"{len(missing)} missing{part}: {some(missing)}")
    if unexpected := sorted(info["unexpected_keys"]):
        wrong.append(f"{len(unexpected)} unexpected: {some(unexpected)}")
    if mismatched := sorted(info["mismatched_keys"]):
        shapes = [f"{name} {tuple(has)} instead of {tuple(wants)}" for name, has, wants in mismatched]
        wrong.append(f"{len(shapes)} of another shape: {some(shapes)}")
    if info.get("error_msgs"):
        wrong.append(" ".join(" ".join(info["error_msgs"]).split())[:300])
    if wrong:
        raise UserError(
            f"the weights of {folder} do not fit its config.json: {'; '.join(wrong)}. A model with random parts would "
            "answer all the same, so it is refused; fetch the checkpoint again"
        )


def _load_adapter(folder: Path, dtype: Any, attention: str | None, device: Any) -> Any:
    """The base model with a LoRA adapter merged in, every tensor of the adapter accounted for."""
    import peft

    weight_files(folder, _whole(folder))
    base = load_model(adapter_base(folder), dtype, attention)
    with _quiet_transformers(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Found missing adapter keys")  # an error below, with names
        try:
            model = peft.PeftModel.from_pretrained(base, folder)
        except (OSError, RuntimeError, TypeError, ValueError, KeyError) as error:
            raise UserError(f"the adapter {folder} does not fit its base: {_one_line(error)}") from error
    require_adapter(model, folder)
    merged: Any = model.merge_and_unload()
    return merged.eval() if device is None else merged.eval().to(device)


def require_adapter(model: Any, folder: Path) -> None:
    """Refuse a model whose adapter is not the one of `folder`, tensor by tensor.

    Args:
        model: a `peft.PeftModel` that has loaded it.
        folder: with adapter_model.safetensors.

    Raises:
        UserError: tensors are missing or left over.
    """
    import peft
    import torch

    stored = peft.load_peft_weights(str(folder), device="cpu")
    loaded = peft.get_peft_model_state_dict(model)
    strange = sorted(set(stored) ^ set(loaded))
    if strange:
        raise UserError(
            f"{len(strange)} tensors of the adapter {folder} do not match its base model: {some(strange)}; "
            "base_model_name_or_path in its adapter_config.json must name the model that it was trained on"
        )
    assert all(torch.equal(loaded[key].cpu(), stored[key].to(loaded[key].dtype)) for key in stored)


def torch_dtype(name: "str | torch.dtype | None") -> "str | torch.dtype":
    """A flag's value as `load_model` takes it: None and "auto" stay "auto", a name becomes the dtype.

    Raises:
        UserError: a name that is none of auto, float32, bfloat16, float16.
    """
    import torch

    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if name is None or name == "auto":
        return "auto"
    if isinstance(name, torch.dtype):
        return name
    if name not in known:
        raise UserError(f"there is no dtype {name!r} here; choose one of auto, {', '.join(known)}")
    return known[name]


def resolve_dtype(dtype: "str | torch.dtype", device: "str | torch.device | None" = None) -> "torch.dtype":
    """The dtype that "auto" means on `device` (None: the GPU if there is one): bfloat16 on a GPU, or float32."""
    import torch

    chosen = torch_dtype(dtype)
    if isinstance(chosen, torch.dtype):
        return chosen
    on_gpu = torch.cuda.is_available() if device is None else torch.device(device).type == "cuda"
    return torch.bfloat16 if on_gpu and torch.cuda.is_bf16_supported() else torch.float32


def attention_or_fallback(requested: str | None, device: "str | torch.device | None" = None) -> tuple[str, str | None]:
    """(implementation, note): what is asked for if it can be had here, otherwise "sdpa" and one line that says why.

    Raises:
        UserError: an implementation that transformers does not know.
    """
    if requested in (None, "sdpa", "eager"):
        return requested or "sdpa", None
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    if requested not in ALL_ATTENTION_FUNCTIONS:
        known = ", ".join(["eager", *sorted(ALL_ATTENTION_FUNCTIONS.keys())])
        raise UserError(f"there is no attention implementation {requested!r}; known are: {known}")
    module = {"flash_attention_2": "flash_attn", "flash_attention_3": "flash_attn_interface"}.get(requested)
    problem = _why_not(module, device) if module else None
    if problem is None:
        return requested, None
    return "sdpa", f"{requested}: {problem}; going on with sdpa, which computes the same"


def _why_not(module: str, device: "str | torch.device | None") -> str | None:
    import torch

    if not (torch.cuda.is_available() if device is None else torch.device(device).type == "cuda"):
        return "it needs a GPU and none is used here"
    try:
        importlib.import_module(module)
    except ImportError as error:
        if importlib.util.find_spec(module) is None:
            return f"{module} is not installed (`bash setup.sh --gpu` installs it)"
        return f"{module} is installed but does not load ({_one_line(error)}; `bash setup.sh --gpu` builds it anew)"
    return None


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """No progress bars or load reports of transformers: what matters in them we raise as an error."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


# --- processor -------------------------------------------------------------------------------------------------------


def load_processor(
    name: str | os.PathLike,
    min_pixels: int | None = None,
    max_pixels: int | None = None,
    processor: str | None = None,
) -> Any:
    """The processor of a checkpoint (of a text model: its tokenizer), padding on the left.

    A picture is resized so that both sides are multiples of 28 pixels and its area lies between the limits, rounding
    down: 112 * 112 shows a square picture at 84 x 84, 113 * 113 at 112 x 112.

    Args:
        name: see `model_source`.
        min_pixels: smallest area in pixels; None keeps the checkpoint's own.
        max_pixels: largest area in pixels; None keeps the checkpoint's own.
        processor: another checkpoint to take it from, for one that was saved without.

    Raises:
        UserError: there is no processor, it does not load, or the limits make no sense.
    """
    folder = model_source(name)
    family = read_family(folder)
    source = processor_source(folder, processor)
    loaded = _read_processor(source, family)
    tokenizer = loaded.tokenizer if family.has_vision else loaded
    tokenizer.padding_side = "left"  # generation continues at the right edge of every row
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if not getattr(loaded, "chat_template", None):
        loaded.chat_template = tokenizer.chat_template
    if not loaded.chat_template:
        raise UserError(f"{source} has no chat template; pass --processor {family.base}")
    if family.has_vision:
        _set_pixels(loaded.image_processor, min_pixels, max_pixels)
    return loaded


def _read_processor(source: Path, family: Family) -> Any:
    from transformers import AutoProcessor, AutoTokenizer

    kind = AutoProcessor if family.has_vision else AutoTokenizer
    with _quiet_transformers():
        try:
            loaded = kind.from_pretrained(source, trust_remote_code=False)
        except (OSError, ValueError, TypeError, KeyError, AttributeError, ImportError) as error:
            raise UserError(
                f"the processor in {source} does not load: {_one_line(error)}; pass --processor {family.base}"
            ) from error
    if family.has_vision and not hasattr(loaded, "image_processor"):
        raise UserError(f"{source} holds a tokenizer but no image processor; pass --processor {family.base}")
    return loaded


def processor_source(folder: Path, processor: str | None = None) -> Path:
    """The folder to read a checkpoint's processor from: `processor`, its own, its adapter base's, or the model's that
    its config.json says it was trained from.

    Raises:
        UserError: none of these holds one.
    """
    if processor is not None:
        named = _processor_folder(processor)
        if not _has_processor(named):
            raise UserError(f"--processor {processor} holds no tokenizer or no image processor files")
        return named
    vision = read_family(folder).has_vision
    if _has_processor(folder, vision):
        return folder
    if _is_adapter(folder):
        return processor_source(adapter_base(folder))
    if re.fullmatch(r"checkpoint-\d+", folder.name) and _has_processor(folder.parent, vision):
        return folder.parent
    parent = read_config(folder).get("_name_or_path")
    if isinstance(parent, str) and parent and Path(parent) != folder:
        try:
            found = _processor_folder(parent)
        except UserError:
            found = None
        if found is not None and _has_processor(found, vision):
            print(f"{folder} has no processor; taking the one of {parent}, which it was trained from", file=sys.stderr)
            return found
    raise UserError(
        f"{folder} has no processor (tokenizer.json, preprocessor_config.json); "
        f"pass --processor {read_family(folder).base} or copy these files from the model that it was trained from"
    )


def _processor_folder(name: str) -> Path:
    """Like `model_source`, but a folder that holds a processor and no model will do."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    hub = _HUB_NAME.fullmatch(name)
    if hub is None or _means_local(name):
        raise UserError(f"there is no folder {name} to take a processor from; {_how_to_fetch(folder)}")
    return _download_processor(hub["repo"], hub["subfolder"])


def _download_processor(repo: str, subfolder: str | None) -> Path:
    from huggingface_hub import snapshot_download

    allow, ignore = download_patterns(subfolder)
    try:
        root = snapshot_download(repo, allow_patterns=allow, ignore_patterns=[*ignore, "*.safetensors"])
    except (OSError, ValueError) as error:
        raise UserError(f"cannot fetch the processor of {repo}: {_one_line(error)}") from error
    return Path(root) / (subfolder or "")


def _has_processor(folder: Path, vision: bool = True) -> bool:
    words = ("tokenizer.json", "vocab.json")
    pictures = ("processor_config.json", "preprocessor_config.json")
    return any((folder / name).is_file() for name in words) and (
        not vision or any((folder / name).is_file() for name in pictures)
    )


def processor_fingerprint(source: Path) -> str:
    """SHA-256 over the files that decide how a prompt becomes tokens and a picture becomes patches; 64 hex digits."""
    total = hashlib.sha256()
    for name in _PROCESSOR:
        if (source / name).is_file():
            total.update(f"{name} {sha256_file(source / name)}\n".encode())
    return total.hexdigest()


def _set_pixels(image_processor: Any, min_pixels: int | None, max_pixels: int | None) -> None:
    side = image_processor.patch_size * image_processor.merge_size
    size = image_processor.size
    least = size["shortest_edge"] if min_pixels is None else min_pixels
    most = size["longest_edge"] if max_pixels is None else max_pixels
    if min_pixels is None and max_pixels is not None:
        least = min(least, most)
    if max_pixels is None and min_pixels is not None:
        most = max(least, most)
    if most < side * side:
        raise UserError(f"--max_pixels {most} is less than one token's {side} x {side} = {side * side} pixels")
    if least > most or least < 1:
        raise UserError(f"--min_pixels {least} must lie between 1 and --max_pixels {most}")
    image_processor.size = {"shortest_edge": least, "longest_edge": most}  # areas, in spite of their names (5.23)
