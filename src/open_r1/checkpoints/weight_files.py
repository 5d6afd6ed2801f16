"""Checks the weight files of a checkpoint before loading: all present, all complete, no pickles.

A safetensors file starts with the length of its header (8 bytes, little-endian) and a JSON header with the offsets of
every tensor, so a truncated or exchanged file is detected in milliseconds.
"""

from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from open_r1.common.atomic_files import parse_json
from open_r1.common.errors import UserError

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
_PICKLES = ("pytorch_model*.bin", "adapter_model.bin", "*.pt", "*.pth", "*.ckpt")
_HEADER_LIMIT = 2**24  # bytes, for about 100,000 tensors; the largest model that is supported has 2,000
_JSON_LIMIT = 2**26  # bytes
_FLOATS = ("F64", "F32", "F16", "BF16")
_SHOWN = 5


def weight_files(folder: Path, single_name: str = WEIGHTS) -> list[Path]:
    """The safetensors files of a checkpoint; by their headers, each is complete and holds the expected tensors.

    Raises:
        UserError: there are none (pickles are refused), a shard is missing, a file is truncated or damaged, shards
            hold other tensors than the index says, or a tensor holds integers without a quantization_config.
    """
    single_file, index = folder / single_name, folder / INDEX
    if single_file.is_file() and index.is_file():
        raise UserError(
            f"{folder} holds both {WEIGHTS} and {INDEX}: it is not clear which weights are meant; remove the old ones"
        )
    if single_file.is_file():
        headers = {single_file: _check_complete(single_file)}
    elif index.is_file():
        headers = _checked_shards(folder, read_json(index))
    else:
        raise UserError(_no_weights(folder))
    for file, header in headers.items():
        _require_floats(folder, file, header)
    return list(headers)


def _checked_shards(folder: Path, index: dict[str, Any]) -> dict[Path, dict[str, Any]]:
    """The header of every shard; each must hold exactly the tensors that the index assigns to it.

    Libraries load every tensor of a shard, so a tensor that is in two shards may come from the wrong one.
    """
    placed = index.get("weight_map")
    if not isinstance(placed, dict) or not placed:
        raise UserError(f"{folder / INDEX} has no weight_map; fetch it again")
    headers = {}
    for file in _shards(folder, placed):
        header = headers[file] = _check_complete(file)
        expected = {name for name, place in placed.items() if place == file.name}
        if differing := sorted(header.keys() ^ expected):
            elsewhere = sum(placed.get(name, file.name) != file.name for name in header)
            raise UserError(
                f"{file} holds {len(header)} tensors and {INDEX} places {len(expected)} there; {len(differing)} differ"
                f"{f', {elsewhere} belong into another file' * bool(elsewhere)}: {some(differing)}. Which weights are "
                "meant is not clear; fetch the files again"
            )
    return headers


def _require_floats(folder: Path, file: Path, header: dict[str, Any]) -> None:
    """Refuse tensors of integers, unless config.json says how they are quantised."""
    unusual = {name: str(entry.get("dtype")) for name, entry in header.items() if entry.get("dtype") not in _FLOATS}
    if not unusual or (
        (folder / "config.json").is_file() and "quantization_config" in read_json(folder / "config.json")
    ):
        return
    kinds = ", ".join(sorted(set(unusual.values())))
    raise UserError(
        f"{file} holds {len(unusual)} tensors of {kinds} ({some(sorted(unusual))}) and config.json has no "
        "quantization_config that says what they mean; read as they are they would answer at random. Fetch the "
        "bfloat16 checkpoint"
    )


def _shards(folder: Path, placed: dict[str, Any]) -> list[Path]:
    names = sorted({str(name) for name in placed.values()})
    outside = [name for name in names if Path(name).name != name or not name.endswith(".safetensors")]
    if outside:
        raise UserError(f"{folder / INDEX} names {outside[0]!r}, which is no safetensors file beside it; refused")
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise UserError(
            f"{len(missing)} of {len(names)} weight files of {folder} are absent ({some(missing)}); fetch them again"
        )
    return [folder / name for name in names]


def _no_weights(folder: Path) -> str:
    if pickles := pickles_among(path.name for path in folder.glob("*")):
        return pickle_refusal(folder, pickles)
    if any(folder.glob("model-*.safetensors")):
        return f"{folder} has shards but no {INDEX}, which says what belongs together; fetch that file too"
    return f"{folder} has no weights ({WEIGHTS} or {INDEX}); fetch them, checkpoints/README.md says how"


def pickles_among(names: Iterable[str]) -> list[str]:
    """The file names that are pickled weights."""
    return sorted(name for name in names if any(fnmatchcase(name, pattern) for pattern in _PICKLES))


def pickle_refusal(where: str | Path, pickles: list[str]) -> str:
    """The message that refuses pickled weights."""
    return (
        f"{where} has weights only as {some(pickles)}: a pickle can run any code when it is loaded, so it is refused; "
        "fetch a safetensors copy, or convert it where you trust it (load it with transformers and save_pretrained it)"
    )


def _check_complete(file: Path) -> dict[str, Any]:
    """The header of a file; its size must match the header."""
    header, start = _read_header(file)
    try:
        end = start + max((entry["data_offsets"][1] for entry in header.values()), default=0)
    except (TypeError, KeyError, IndexError) as error:
        raise UserError(f"{file} has a damaged header; fetch it again") from error
    if file.stat().st_size != end:
        raise UserError(f"{file} has {file.stat().st_size:,} bytes, its header says {end:,}; fetch it again")
    return header


def _read_header(file: Path) -> tuple[dict[str, Any], int]:
    """Tensor name -> dtype, shape and data_offsets, and the byte that these offsets count from."""
    size = file.stat().st_size
    with open(file, "rb") as handle:
        length = int.from_bytes(handle.read(8), "little")
        if not 2 <= length <= size - 8:
            raise UserError(f"{file} ({size:,} bytes) is cut off or no safetensors file; fetch it again")
        if length > _HEADER_LIMIT:
            raise UserError(
                f"{file} has a header of {length:,} bytes, for far more tensors than any model that is supported has "
                f"(limit: {_HEADER_LIMIT:,}); fetch it again"
            )
        text = handle.read(length)
    try:
        header = parse_json(text)
    except ValueError as error:
        raise UserError(f"{file} has a damaged header ({error}); fetch it again") from error
    if not isinstance(header, dict) or not all(isinstance(entry, dict) for entry in header.values()):
        raise UserError(f"{file} has a damaged header; fetch it again")
    header.pop("__metadata__", None)
    return header, 8 + length


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file of a checkpoint.

    Raises:
        UserError: the file is missing, not UTF-8, not JSON or not an object.
    """
    try:
        if (size := path.stat().st_size) > _JSON_LIMIT:
            raise UserError(f"{path} has {size:,} bytes, more than such a file has; fetch it again")
        value = parse_json(path.read_text(encoding="utf-8"))
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}; the checkpoint is incomplete") from error
    except ValueError as error:
        raise UserError(f"{path} is no JSON ({error}); fetch it again") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} holds a {type(value).__name__}, not an object; it is no file of a checkpoint")
    return value


def some(names: list[str]) -> str:
    """The first names of many, and the number of the remaining ones."""
    remaining = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {remaining} more" if remaining > 0 else "")
