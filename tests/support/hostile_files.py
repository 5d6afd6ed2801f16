"""Image files that are made to cost whoever reads them."""

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from PIL import Image

from open_r1.data.images import ImageError


def encoded(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def reason_of(call: Callable[..., Any], *arguments: Any, **options: Any) -> str:
    """The reason of the error with which a call ends."""
    with pytest.raises(ImageError) as caught:
        call(*arguments, **options)
    return caught.value.reason


PNG = encoded(Image.new("RGB", (32, 32), "red"))


def chunk(kind: bytes, body: bytes = b"") -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def bomb(side: int) -> bytes:
    """A black 1-bit PNG of side x side pixels."""
    packer, line = zlib.compressobj(9), bytes(1 + side // 8)
    body = b"".join(packer.compress(line) for _ in range(side)) + packer.flush()
    head = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND")


def many_scans(side: int, count: int) -> bytes:
    """A progressive JPEG whose last scan is repeated; each makes the reader go over every pixel again."""
    data = encoded(Image.new("L", (side, side), 128), "JPEG", progressive=True)
    last_scan = data.rfind(b"\xff\xda")
    return data[:last_scan] + data[last_scan:-2] * count + data[-2:]


def animation(frames: int) -> bytes:
    """A GIF whose second frame is repeated."""
    image = Image.new("L", (8, 8), 0)
    data = encoded(image, "GIF", save_all=True, append_images=[Image.new("L", (8, 8), 255)])
    single = encoded(image, "GIF")
    at = data.rfind(b"!\xf9")
    assert len(data) > len(single)
    return data[:at] + data[at:-1] * (frames - 1) + data[-1:]
