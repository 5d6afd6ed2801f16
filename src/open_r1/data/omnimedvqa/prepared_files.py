"""Small facts about the files of a prepared set: version, size, digest."""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from open_r1.data.images import ImageError, resolve

FORMAT_VERSION = 2
"""Raised when the same inputs and settings come to mean other bytes. 2 reads answers that 1 dropped."""


def _version(manifest: dict[str, Any]) -> Any:
    """The format of a complete set; one of version 1 that dropped nothing is as version 2 makes it."""
    version = manifest.get("version")
    return FORMAT_VERSION if version == 1 and not manifest.get("report", {}).get("dropped") else version


def _number(text: str) -> int:
    return int(hashlib.sha256(text.encode()).hexdigest()[:16], 16)


def _digest(lines: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line.encode() + b"\n")
    return digest.hexdigest()


def _size(reference: str, root: Path) -> int:
    try:
        return os.stat(resolve(reference, root)).st_size
    except ImageError:
        return -1
    except OSError:
        return -1
