"""The weight files of a checkpoint, before anything is loaded from them: all there, all complete, no pickles.

A safetensors file starts with its header's length (8 bytes, little-endian) and a JSON header that says where every
tensor lies, so a file that was cut off or mixed up is found out in milliseconds, and named.
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


def weight_files(folder: Path, whole_name: str = WEIGHTS) -> list[Path]:
    """The safetensors files of a checkpoint, each complete and holding what belongs there, as far as headers tell.

    Raises:
        UserError: there are none (pickles are refused), a shard is absent, a file is cut off or damaged, shards hold
            other tensors than the index says, or a tensor holds whole numbers that no configuration explains.
    """
    whole, index = folder / whole_name, folder / INDEX
    if whole.is_file() and index.is_file():
        raise UserError(
            f"{folder} holds both {WEIGHTS} and {INDEX}: it is not clear which weights are meant; remove the old ones"
        )
    if whole.is_file():
        headers = {whole: _check_complete(whole)}
    elif index.is_file():
        headers = _checked_shards(folder, read_json(index))
    else:
        raise UserError(_no_weights(folder))
    for file, header in headers.items():
        _require_floats(folder, file, header)
    return list(headers)


def _checked_shards(folder: Path, index: dict[str, Any]) -> dict[Path, dict[str, Any]]:
    """The header of every shard; each holds exactly the tensors that the index places there.

    Libraries load whatever a shard holds, so a tensor that is in two of them may come from the wrong one.
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
    """Refuse tensors of whole numbers, unless config.json says how they are packed."""
    other = {name: str(entry.get("dtype")) for name, entry in header.items() if entry.get("dtype") not in _FLOATS}
    if not other or ((folder / "config.json").is_file() and "quantization_config" in read_json(folder / "config.json")):
        return
    kinds = ", ".join(sorted(set(other.values())))
    raise UserError(
        f"{file} holds {len(other)} tensors of {kinds} ({some(sorted(other))}) and config.json has no "
        "quantization_config that says what they mean; read as they are they would answer at random. Fetch the "
        "bfloat16 checkpoint"
    )


def _shards(folder: Path, placed: dict[str, Any]) -> list[Path]:
    names = sorted({str(name) for name in placed.values()})
    outside = [name for name in names if Path(name).name != name or not name.endswith(".safetensors")]
    if outside:
        raise UserError(f"{folder / INDEX} names {outside[0]!r}, which is no safetensors file beside it; refused")
    absent = [name for name in names if not (folder / name).is_file()]
    if absent:
        raise UserError(
            f"{len(absent)} of {len(names)} weight files of {folder} are absent ({some(absent)}); fetch them again"
        )
    return [folder / name for name in names]


def _no_weights(folder: Path) -> str:
    if pickles := pickles_among(path.name for path in folder.glob("*")):
        return pickle_refusal(folder, pickles)
    if any(folder.glob("model-*.safetensors")):
        return f"{folder} has shards but no {INDEX}, which says what belongs together; fetch that file too"
    return f"{folder} has no weights ({WEIGHTS} or {INDEX}); fetch them, checkpoints/README.md says how"


def pickles_among(names: Iterable[str]) -> list[str]:
    """Those of these file names that hold weights as pickles."""
    return sorted(name for name in names if any(fnmatchcase(name, pattern) for pattern in _PICKLES))


def pickle_refusal(where: str | Path, pickles: list[str]) -> str:
    """Why weights that are pickles are not loaded, and what to do."""
    return (
        f"{where} has weights only as {some(pickles)}: a pickle can run any code when it is loaded, so it is refused; "
        "fetch a safetensors copy, or convert it where you trust it (load it with transformers and save_pretrained it)"
    )


def _check_complete(file: Path) -> dict[str, Any]:
    """The header of a file that is as long as it says."""
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
    """One of a checkpoint's JSON files, which must hold an object.

    Raises:
        UserError: it is missing, no UTF-8, no JSON or no object.
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
    """The first few of many names, and how many more there are."""
    rest = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
