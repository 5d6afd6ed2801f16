"""The weight files of a checkpoint, before anything is loaded from them: all there, all complete, no pickles.

A safetensors file starts with its header's length (8 bytes, little-endian) and a JSON header that says where every
tensor lies, so a file that was cut off or mixed up is found out in milliseconds, and named.
"""

from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from open_r1.errors import UserError
from open_r1.files import parse_json

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
_PICKLES = ("pytorch_model*.bin", "adapter_model.bin", "*.pt", "*.pth", "*.ckpt")
_HEADER_LIMIT = 100_000_000  # bytes; the limit of the safetensors library itself
_SHOWN = 5


def weight_files(folder: Path, whole_name: str = WEIGHTS) -> list[Path]:
    """The safetensors files of a checkpoint, each complete as far as its header tells.

    Raises:
        UserError: there are none (pickles are refused), a shard is absent, or a file is cut off or damaged.
    """
    whole, index = folder / whole_name, folder / INDEX
    if whole.is_file() and index.is_file():
        raise UserError(
            f"{folder} holds both {WEIGHTS} and {INDEX}: it is not clear which weights are meant; remove the old ones"
        )
    if whole.is_file():
        files = [whole]
    elif index.is_file():
        files = _shards(folder, read_json(index))
    else:
        raise UserError(_no_weights(folder))
    for file in files:
        _check_complete(file)
    return files


def _shards(folder: Path, index: dict[str, Any]) -> list[Path]:
    placed = index.get("weight_map")
    if not isinstance(placed, dict) or not placed:
        raise UserError(f"{folder / INDEX} has no weight_map; fetch it again")
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


def _check_complete(file: Path) -> None:
    header, start = _read_header(file)
    try:
        end = start + max((entry["data_offsets"][1] for entry in header.values()), default=0)
    except (TypeError, KeyError, IndexError) as error:
        raise UserError(f"{file} has a damaged header; fetch it again") from error
    if file.stat().st_size != end:
        raise UserError(f"{file} has {file.stat().st_size:,} bytes, its header says {end:,}; fetch it again")


def _read_header(file: Path) -> tuple[dict[str, Any], int]:
    """Tensor name -> dtype, shape and data_offsets, and the byte that these offsets count from."""
    size = file.stat().st_size
    with open(file, "rb") as handle:
        length = int.from_bytes(handle.read(8), "little")
        if not 2 <= length <= min(_HEADER_LIMIT, size - 8):
            raise UserError(f"{file} ({size:,} bytes) is cut off or no safetensors file; fetch it again")
        text = handle.read(length)
    try:
        header = parse_json(text)
    except ValueError as error:
        raise UserError(f"{file} has a damaged header ({error}); fetch it again") from error
    if not isinstance(header, dict):
        raise UserError(f"{file} has a damaged header; fetch it again")
    header.pop("__metadata__", None)
    return header, 8 + length


def read_json(path: Path) -> dict[str, Any]:
    """One of a checkpoint's JSON files, which must hold an object.

    Raises:
        UserError: it is missing, no UTF-8, no JSON or no object.
    """
    try:
        value = parse_json(path.read_text(encoding="utf-8"))
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
