"""Blocks of JSON that a page carries: deflated, and as base64, so that nothing in them is markup.

The page inflates them with the browser's own `DecompressionStream` (Chromium 103, Firefox 113, Safari 16.4 or later).
"""

import base64
import json
import zlib
from typing import Any


def pack(value: Any) -> str:
    """A value as base64 of raw deflate (RFC 1951) of its JSON in UTF-8."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    deflater = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS)
    # half a surrogate pair is no UTF-8; with the backslash it is JSON's own escape
    data = deflater.compress(text.encode("utf-8", "backslashreplace")) + deflater.flush()
    return base64.b64encode(data).decode("ascii")


def unpack(block: str) -> Any:
    """The value of a block of `pack`.

    Raises:
        ValueError, zlib.error: it is none.
    """
    return json.loads(zlib.decompress(base64.b64decode(block, validate=True), -zlib.MAX_WBITS))
