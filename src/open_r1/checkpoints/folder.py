"""Reads a checkpoint folder: its family, its fingerprint, the run that made it, the base of an adapter."""

import hashlib
import re
from pathlib import Path
from typing import Any

from open_r1.checkpoints.families import Family, family_of
from open_r1.checkpoints.names import ADAPTER, HUB_NAME, model_source
from open_r1.checkpoints.weight_files import WEIGHTS, read_json, weight_files
from open_r1.common.atomic_files import sha256_file
from open_r1.common.errors import UserError

RUN_FILE = "run.json"
_NAMED_BASES: dict[Path, Path] = {}
"""Adapter -> base, set by `name_base`."""


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
    if is_adapter(folder):
        return read_family(adapter_base(folder))
    kind = read_config(folder).get("model_type")
    family = family_of(kind)
    if family is None:
        raise UserError(
            f"{folder / 'config.json'} has model_type {kind!r}, for which transformers builds no causal language model "
            "and no image-text model; take a checkpoint in transformers' form (config.json and safetensors)"
        )
    return family


def run_record(folder: Path) -> dict[str, Any] | None:
    """run.json of the training run that made this checkpoint, from the folder or, for `checkpoint-N`, from above."""
    place = run_record_folder(folder)
    return None if place is None else read_json(place / RUN_FILE)


def run_record_folder(folder: Path) -> Path | None:
    """The folder of that run.json."""
    candidates = [folder, folder.parent] if re.fullmatch(r"checkpoint-\d+", folder.name) else [folder]
    return next((candidate for candidate in candidates if (candidate / RUN_FILE).is_file()), None)


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds a LoRA adapter and no weights of its own."""
    return (folder / ADAPTER).is_file() and not any(folder.glob("model*.safetensors"))


def whole_name(folder: Path) -> str:
    """Name of the weight file where the weights are not sharded."""
    return "adapter_model.safetensors" if is_adapter(folder) else WEIGHTS


def adapter_base(folder: Path) -> Path:
    """The folder of the model that a LoRA adapter was trained on, which may be an adapter itself.

    Raises:
        UserError: see `adapter_chain`.
    """
    return adapter_chain(folder)[1]


def adapter_chain(folder: Path) -> list[Path]:
    """A LoRA adapter, the adapters that it was trained on top of, and the full model below them, from the top down.

    Raises:
        UserError: a base is not named or not available, or the adapters are each other's bases.
    """
    chain = [folder]
    while is_adapter(chain[-1]):
        base = _base(chain[-1], _NAMED_BASES.get(chain[-1].resolve()) or _NAMED_BASES.get(folder.resolve()))
        if any(base.samefile(earlier) for earlier in chain):
            names = " -> ".join(str(link) for link in [*chain, base])
            raise UserError(
                f"the LoRA adapters are each other's bases ({names}), so there is no model to put them on; correct "
                f"base_model_name_or_path in {chain[-1] / ADAPTER}"
            )
        chain.append(base)
    return chain


def base_names(folder: Path) -> list[str]:
    """The base that each adapter of `adapter_chain` names, from the top down; empty for a full model."""
    return [str(read_json(adapter / ADAPTER)["base_model_name_or_path"]) for adapter in adapter_chain(folder)[:-1]]


def name_base(folder: Path, base: str) -> None:
    """Set the base of an adapter for this process, whatever adapter_config.json names.

    It replaces the full model below the adapter, or the first base that is not available.

    Raises:
        UserError: the folder holds no adapter, or the base does not exist.
    """
    if not is_adapter(folder):
        raise UserError(f"--base {base} has no effect: {folder} is not a LoRA adapter but a full model; remove --base")
    _NAMED_BASES[folder.resolve()] = model_source(base)
    adapter_chain(folder)


def _base(folder: Path, named_base: Path | None) -> Path:
    """The base of an adapter: the one that its files name, or that `name_base` has set."""
    try:
        recorded = _recorded_base(folder)
    except UserError:
        if named_base is None:
            raise
        recorded = None
    if named_base is None or (recorded is not None and is_adapter(recorded)):
        assert recorded is not None
        return recorded
    recorded_bases = (run_record(folder) or {}).get("base_model_bases")
    if recorded_bases and not is_adapter(named_base):
        raise UserError(
            f"{folder} was trained on top of another adapter, which is not available, and --base {named_base} is a "
            "full model: what that adapter learnt would be missing; name the adapter with --base"
        )
    _NAMED_BASES[folder.resolve()] = named_base
    return named_base


def _recorded_base(folder: Path) -> Path:
    """The base that an adapter's files name: in adapter_config.json, or in run.json as it was typed."""
    name = read_json(folder / ADAPTER).get("base_model_name_or_path")
    if not isinstance(name, str) or not name:
        raise UserError(f"{folder / ADAPTER} names no base model; write it there as base_model_name_or_path")
    typed_name = (run_record(folder) or {}).get("base_model")
    for base in dict.fromkeys((name, typed_name)):
        if isinstance(base, str) and base and (base_folder := _find_base(folder, base)) is not None:
            return base_folder
    try:
        return model_source(name)
    except UserError as error:
        if (
            isinstance(typed_name, str)
            and typed_name != name
            and HUB_NAME.fullmatch(typed_name)
            and not Path(name).is_dir()
        ):
            return model_source(typed_name)
        raise UserError(
            f"{folder} is a LoRA adapter, and its base model is not available: {error}; say where it is with --base"
        ) from error


def _find_base(folder: Path, name: str) -> Path | None:
    """A checkpoint folder by its absolute path, or relative to the adapter's folder or a parent of it."""
    path = Path(name).expanduser()
    adapter_folder = folder.resolve()
    for candidate in (
        [path] if path.is_absolute() else [above / path for above in (adapter_folder, *adapter_folder.parents)]
    ):
        if (
            (candidate / "config.json").is_file() or (candidate / ADAPTER).is_file()
        ) and candidate.resolve() != adapter_folder:
            return candidate
    return None


def fingerprint(folder: Path) -> str:
    """SHA-256 over config.json and every byte of the weights (of an adapter: and of its base); 64 hex digits.

    Reads the whole checkpoint: about 1.5 GB per second and core where the processor has SHA instructions.
    """
    total = hashlib.sha256()
    config_files = [folder / ADAPTER] if is_adapter(folder) else [folder / "config.json"]
    for file in [*config_files, *weight_files(folder, whole_name(folder))]:
        total.update(f"{file.name} {sha256_file(file)}\n".encode())
    if is_adapter(folder):
        total.update(fingerprint(adapter_base(folder)).encode())
    return total.hexdigest()
