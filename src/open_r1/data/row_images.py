"""The image of a row: opening it, and a key that identifies it."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from open_r1.data.images import SIZE, decode, open_image


def row_image(row: Mapping[str, Any], size: tuple[int, int] | None = None) -> Image.Image:
    """The image of one row of `load_rows` as RGB; `size` is (width, height) in pixels.

    Without `size` an image from a file comes at 384 x 384, as prepared sets hold it, and a stored one as it is.

    Raises:
        ImageError: it cannot be used.
    """
    value = row["image"]
    assert isinstance(value, Mapping), "rows of load_rows hold undecoded images"
    if value["bytes"] is not None:
        return decode(value["bytes"], size, value.get("path") or f"the image of row {row.get('id', '?')}")
    return open_image(Path(value["path"]), size=size or (SIZE, SIZE), resolved=True)


def opened_row_images(row: Mapping[str, Any]) -> list[Image.Image]:
    """The images of one row as `row_image` opens them; none for a text-only row.

    Raises:
        ImageError: one cannot be used.
    """
    return [] if row["image"] is None else [row_image(row)]


def image_key(row: Mapping[str, Any]) -> str:
    """A key for the image of a row in a loaded set: 16 digits of the bytes' SHA-256, or else the path.

    A text question has no image; its id is the key.
    """
    value = row["image"]
    if value is None:
        return str(row["id"])
    if value["bytes"] is None:
        return str(value["path"])
    return hashlib.sha256(value["bytes"]).hexdigest()[:16]
