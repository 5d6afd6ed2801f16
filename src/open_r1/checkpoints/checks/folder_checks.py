"""Checks a checkpoint folder before it is loaded: files are readable, and numbers are possible for a model.

Libraries answer a broken folder with many kinds of traceback, in some cases after filling the memory. Here each
problem is a one-line error that names the file.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from open_r1.checkpoints.names import ADAPTER
from open_r1.checkpoints.weight_files import read_json
from open_r1.common.errors import UserError

_READ = (".json", ".jinja", ".txt", ".safetensors")
_LARGE = "tokenizer.json"  # 33 MB in Gemma 3; the tokenizers library reads it
_LARGEST_TOKENIZER = 2**28  # bytes

_SIDES = dict.fromkeys(("patch_size", "spatial_patch_size", "temporal_patch_size", "merge_size", "image_size"), 2**16)
_LIMITS: dict[str, int] = {
    **dict.fromkeys(("num_hidden_layers", "num_layers", "depth"), 1000),
    **dict.fromkeys(("num_attention_heads", "num_key_value_heads", "num_heads", "head_dim"), 2**16),
    **dict.fromkeys(("hidden_size", "embed_dim", "out_hidden_size", "intermediate_size"), 2**24),
    **dict.fromkeys(("in_channels", "in_chans", "num_channels", "spatial_merge_size"), 2**10),
    **dict.fromkeys(("window_size", "tokens_per_second", "r"), 2**20),
    **dict.fromkeys(("vocab_size", "max_position_embeddings"), 2**31),
    **_SIDES,
}
"""Entries that are counts -> largest value allowed; the smallest is 1."""
_POSITIVE = ("rope_theta", "rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon", "rescale_factor", "image_std")
"""Entries that are divisors or under a square root."""


def require_sound(folder: Path) -> None:
    """Refuse a checkpoint folder with files that are unreadable, not JSON, or hold impossible numbers.

    Takes a few milliseconds: only the first byte of weights and of a large tokenizer.json is read.

    Raises:
        UserError: the first problem.
    """
    try:
        files = sorted(path for path in folder.iterdir() if path.suffix in _READ and path.is_file())
        for path in files:
            with open(path, "rb") as file:
                file.read(1)
    except OSError as error:
        raise UserError(
            f"{error.filename or folder} cannot be read: {error.strerror}; ask its owner for read permission "
            "(chmod a+rX of the folder), or copy the checkpoint"
        ) from error
    for path in files:
        if path.name == _LARGE:
            if path.stat().st_size > _LARGEST_TOKENIZER:
                raise UserError(f"{path} has {path.stat().st_size:,} bytes, more than any tokenizer; fetch it again")
        elif path.name in ("config.json", ADAPTER, "preprocessor_config.json", "processor_config.json"):
            for name, value in _entries(read_json(path)):
                _require_possible(path, name, value)
        elif path.suffix == ".json" and path.name.startswith(
            ("tokenizer", "generation", "video_", "chat_", "special_")
        ):
            read_json(path)


def _entries(value: Any) -> Iterator[tuple[str, Any]]:
    """Every entry of nested objects; of a list each item."""
    unvisited = [value]
    while unvisited:
        for name, inner in unvisited.pop().items():
            if isinstance(inner, dict):
                unvisited.append(inner)
            else:
                yield from ((name, item) for item in (inner if isinstance(inner, list) else [inner]))


def _require_possible(path: Path, name: str, value: Any) -> None:
    if value is None:
        return
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if name in _LIMITS and not (isinstance(value, int) and is_number and 1 <= value <= _LIMITS[name]):
        raise UserError(
            f"{path} says {name} = {str(value)[:40]}, which must be a whole number from 1 to {_LIMITS[name]:,}; "
            "no model can be built with it: fetch the file again"
        )
    if name in _POSITIVE and not (is_number and math.isfinite(value) and value > 0):
        raise UserError(f"{path} says {name} = {str(value)[:40]}, which must be a positive number: fetch it again")


def require_pixels(where: Path, size: Any) -> None:
    """Refuse impossible limits for the area of images.

    Args:
        where: for the message.
        size: an image processor's, with shortest_edge and longest_edge, areas in pixels in spite of their names.

    Raises:
        UserError: they are not whole numbers from 1 to 2**28 in this order.
    """
    smallest, largest = size.get("shortest_edge"), size.get("longest_edge")
    if not (
        isinstance(smallest, int)
        and isinstance(largest, int)
        and 1 <= smallest <= largest <= 2**28
        and smallest <= 2**24
    ):
        raise UserError(
            f"the processor in {where} scales images to {str(smallest)[:40]} to {str(largest)[:40]} pixels, which is "
            "impossible; copy preprocessor_config.json of the base into the folder, or name the base with --processor"
        )
