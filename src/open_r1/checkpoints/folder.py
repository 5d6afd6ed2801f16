"""What a checkpoint folder holds: its family, its fingerprint, the run that made it, the base of an adapter."""

import hashlib
import re
from pathlib import Path
from typing import Any

from open_r1.checkpoints.families import FAMILIES, Family
from open_r1.checkpoints.names import ADAPTER, HUB_NAME, model_source
from open_r1.checkpoints.weight_files import WEIGHTS, read_json, weight_files
from open_r1.common.atomic_files import sha256_file
from open_r1.common.errors import UserError

RUN_FILE = "run.json"
_BY_HAND: dict[Path, Path] = {}
"""Adapter -> base, as `name_base` was told."""


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
    if not isinstance(kind, str) or kind not in FAMILIES:
        raise UserError(
            f"{folder / 'config.json'} has model_type {kind!r}, which is not supported; "
            f"known are: {', '.join(FAMILIES)}"
        )
    return FAMILIES[kind]


def run_record(folder: Path) -> dict[str, Any] | None:
    """run.json of the training run that made this checkpoint, from the folder or, for `checkpoint-N`, from above."""
    place = run_record_folder(folder)
    return None if place is None else read_json(place / RUN_FILE)


def run_record_folder(folder: Path) -> Path | None:
    """Where that run.json lies."""
    places = [folder, folder.parent] if re.fullmatch(r"checkpoint-\d+", folder.name) else [folder]
    return next((place for place in places if (place / RUN_FILE).is_file()), None)


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
    """A LoRA adapter, the adapters that it was trained on top of, and the whole model below them, from the top down.

    Raises:
        UserError: a base is not named or not there, or the adapters are each other's bases.
    """
    chain = [folder]
    while is_adapter(chain[-1]):
        base = _base(chain[-1], _BY_HAND.get(chain[-1].resolve()) or _BY_HAND.get(folder.resolve()))
        if any(base.samefile(earlier) for earlier in chain):
            names = " -> ".join(str(each) for each in [*chain, base])
            raise UserError(
                f"the LoRA adapters are each other's bases ({names}), so there is no model to put them on; correct "
                f"base_model_name_or_path in {chain[-1] / ADAPTER}"
            )
        chain.append(base)
    return chain


def base_names(folder: Path) -> list[str]:
    """What each adapter of `adapter_chain` names as its base, from the top down; none for a whole model."""
    return [str(read_json(each / ADAPTER)["base_model_name_or_path"]) for each in adapter_chain(folder)[:-1]]


def name_base(folder: Path, base: str) -> None:
    """Say for this process on which model an adapter stands, whatever adapter_config.json names.

    It takes the place of the whole model below the adapter, or of the first base that is not found.

    Raises:
        UserError: the folder holds no adapter, or there is no such model.
    """
    if not is_adapter(folder):
        raise UserError(f"--base {base} does nothing: {folder} is no LoRA adapter, it has weights of its own")
    _BY_HAND[folder.resolve()] = model_source(base)
    adapter_chain(folder)


def _base(folder: Path, by_hand: Path | None) -> Path:
    """The model that an adapter stands on: as it names it, or as `name_base` does."""
    try:
        recorded = _recorded_base(folder)
    except UserError:
        if by_hand is None:
            raise
        recorded = None
    if by_hand is None or (recorded is not None and is_adapter(recorded)):
        assert recorded is not None
        return recorded
    below = (run_record(folder) or {}).get("base_model_bases")
    if below and not is_adapter(by_hand):
        raise UserError(
            f"{folder} was trained on top of an adapter, which is not found, and --base {by_hand} is a whole model: "
            "what that adapter learnt would be missing; name the adapter with --base"
        )
    _BY_HAND[folder.resolve()] = by_hand
    return by_hand


def _recorded_base(folder: Path) -> Path:
    """The model that an adapter's files name as its base: adapter_config.json, or run.json as the command was typed."""
    name = read_json(folder / ADAPTER).get("base_model_name_or_path")
    if not isinstance(name, str) or not name:
        raise UserError(f"{folder / ADAPTER} names no base model; write it there as base_model_name_or_path")
    typed = (run_record(folder) or {}).get("base_model")
    for each in dict.fromkeys((name, typed)):
        if isinstance(each, str) and each and (found := _found_from(folder, each)) is not None:
            return found
    try:
        return model_source(name)
    except UserError as error:
        if isinstance(typed, str) and typed != name and HUB_NAME.fullmatch(typed) and not Path(name).is_dir():
            return model_source(typed)
        raise UserError(
            f"{folder} is a LoRA adapter, and its base model is not available: {error}; say where it is with --base"
        ) from error


def _found_from(folder: Path, name: str) -> Path | None:
    """A checkpoint folder by its whole path, or relative to the adapter's folder or to one above it."""
    path = Path(name).expanduser()
    own = folder.resolve()
    for place in [path] if path.is_absolute() else [above / path for above in (own, *own.parents)]:
        if ((place / "config.json").is_file() or (place / ADAPTER).is_file()) and place.resolve() != own:
            return place
    return None


def fingerprint(folder: Path) -> str:
    """SHA-256 over config.json and every byte of the weights (of an adapter: and of its base); 64 hex digits.

    Reads the whole checkpoint: about 1.5 GB per second and core where the processor has SHA instructions.
    """
    total = hashlib.sha256()
    parts = [folder / ADAPTER] if is_adapter(folder) else [folder / "config.json"]
    for file in [*parts, *weight_files(folder, whole_name(folder))]:
        total.update(f"{file.name} {sha256_file(file)}\n".encode())
    if is_adapter(folder):
        total.update(fingerprint(adapter_base(folder)).encode())
    return total.hexdigest()
