"""The images of a row: opening them, and keys that identify them."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from open_r1.data.images import SIZE, decode, open_image

Undecoded = Mapping[str, Any]
"""An image of a loaded row: its bytes, or None and the path of its file."""


def open_undecoded(image: Undecoded, owner: object = "?", size: tuple[int, int] | None = None) -> Image.Image:
    """An undecoded image as RGB.

    Without `size` an image from a file comes at 384 x 384, as prepared sets hold it, and a stored one as it is.

    Args:
        image: of a row of `load_rows`.
        owner: id of the row, for the message of an error.
        size: (width, height) in pixels.

    Raises:
        ImageError: it cannot be used.
    """
    assert isinstance(image, Mapping), "rows of load_rows hold undecoded images"
    if image["bytes"] is not None:
        return decode(image["bytes"], size, image.get("path") or f"the image of row {owner}")
    return open_image(Path(image["path"]), size=size or (SIZE, SIZE), resolved=True)


def row_images(row: Mapping[str, Any], size: tuple[int, int] | None = None) -> list[Image.Image]:
    """The images of one row of `load_rows` as RGB, in order; none for a text question. See `open_undecoded`.

    Raises:
        ImageError: one cannot be used.
    """
    return [open_undecoded(image, row.get("id", "?"), size) for image in row["images"]]


def key_of(image: Undecoded) -> str:
    """A key for an image in a loaded set: 16 digits of the bytes' SHA-256, or else the path."""
    if image["bytes"] is None:
        return str(image["path"])
    return hashlib.sha256(image["bytes"]).hexdigest()[:16]


def image_keys(row: Mapping[str, Any]) -> tuple[str, ...]:
    """The keys of the images of a row, in order."""
    return tuple(key_of(image) for image in row["images"])


def image_key(row: Mapping[str, Any]) -> str:
    """A key for the images of a row together: of one image its key, of several 16 digits of a hash of their keys.

    A text question has no image; its id is the key.
    """
    keys = image_keys(row)
    if not keys:
        return str(row["id"])
    return keys[0] if len(keys) == 1 else hashlib.sha256("\n".join(keys).encode()).hexdigest()[:16]
