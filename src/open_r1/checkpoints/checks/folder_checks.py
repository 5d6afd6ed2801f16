"""A checkpoint's folder before anything is made of it: files that can be read, and numbers that a model can have.

What a library would do with a broken folder is not waited for: it ends in many kinds of traceback, and in some cases
takes all of the memory first. Each finding is one line that names the file.
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
"""Entries that count something -> the largest number that one of them may be; the smallest is 1."""
_POSITIVE = ("rope_theta", "rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon", "rescale_factor", "image_std")
"""Entries that are divided by, or whose root is drawn."""


def require_sound(folder: Path) -> None:
    """Refuse a checkpoint folder with files that cannot be read, are no JSON, or hold numbers that cannot be.

    Costs a few milliseconds: of weights and of a large tokenizer.json the first byte is read.

    Raises:
        UserError: the first finding.
    """
    try:
        files = sorted(path for path in folder.iterdir() if path.suffix in _READ and path.is_file())
        for path in files:
            with open(path, "rb") as file:
                file.read(1)
    except OSError as error:
        raise UserError(
            f"{error.filename or folder} cannot be read: {error.strerror}; ask its owner for the right to "
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
    """Every entry of nested objects; a list of numbers gives each of them."""
    waiting = [value]
    while waiting:
        for name, inner in waiting.pop().items():
            if isinstance(inner, dict):
                waiting.append(inner)
            else:
                yield from ((name, each) for each in (inner if isinstance(inner, list) else [inner]))


def _require_possible(path: Path, name: str, value: Any) -> None:
    if value is None:
        return
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if name in _LIMITS and not (isinstance(value, int) and is_number and 1 <= value <= _LIMITS[name]):
        raise UserError(
            f"{path} says {name} = {str(value)[:40]}, which must be a whole number from 1 to {_LIMITS[name]:,}; "
            "no model can be made of that: fetch the file again"
        )
    if name in _POSITIVE and not (is_number and math.isfinite(value) and value > 0):
        raise UserError(f"{path} says {name} = {str(value)[:40]}, which must be a positive number: fetch it again")


def require_pixels(where: Path, size: Any) -> None:
    """Refuse areas that no image is scaled to.

    Args:
        where: for the message.
        size: an image processor's, with shortest_edge and longest_edge, areas in pixels in spite of their names.

    Raises:
        UserError: they are no whole numbers from 1 to 2**28 in this order.
    """
    least, most = size.get("shortest_edge"), size.get("longest_edge")
    if not (isinstance(least, int) and isinstance(most, int) and 1 <= least <= most <= 2**28 and least <= 2**24):
        raise UserError(
            f"the processor in {where} scales images to {str(least)[:40]} to {str(most)[:40]} pixels, which cannot "
            "be; copy preprocessor_config.json of the base into the folder, or name the base with --processor"
        )
