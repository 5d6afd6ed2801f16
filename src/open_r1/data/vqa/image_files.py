"""The images of a published set: files below a folder, or bytes that its rows hold.

Names in rows are seldom paths: `xmlab1/source.jpg` lies below `imgs`, `train_0422` has no extension, `MM-26-a.jpg` may
be `MM-26-a.JPG` on the disk. Bytes (Parquet, base64) are written to files first, named by their content, so that all
images are encoded, resumed and compared in the same way.
"""

import base64
import binascii
import hashlib
import os
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from open_r1.data.images import MAX_BYTES, ImageError, check_reference, read_file, resolve, shown
from open_r1.data.key_table import key_of

_REMEMBERED = 2**12  # names whose files are not looked up again: questions on one image stand close together
_EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".gif", ".webp")


class ImageFiles:
    """Where the images of a set are, and the reference below `root` of each.

    Args:
        named_root: folder that image names are relative to, directly or within one of `folders`.
        folders: folders below it in which to look, the most likely first; "" is the root itself.
        unpacked: folder for the images whose bytes stand in rows; None if the set's images are files.
    """

    def __init__(self, named_root: Path, folders: Sequence[str] = ("",), unpacked: Path | None = None):
        self.named_root, self.folders, self.unpacked = named_root, tuple(folders) or ("",), unpacked
        self._by_stem: _FilesByStem | None = None
        self._reference = lru_cache(_REMEMBERED)(self._looked_up)

    @property
    def root(self) -> Path:
        """The folder that all references are relative to."""
        return self.named_root if self.unpacked is None else self.unpacked

    def named(self, name: Any) -> str:
        """The reference of the image that a row calls `name`.

        A name of no file stays a reference, so that the image is reported as missing when it is opened.

        Raises:
            ImageError: it is no path that may be opened, or could be several files.
        """
        reference = self._reference(check_reference(name))
        return reference if self.unpacked is None else self.unpack(read_file(resolve(reference, self.named_root)))

    def _looked_up(self, name: str) -> str:
        candidates = [os.path.join(folder, name) for folder in self.folders]
        for candidate in candidates:
            if os.path.isfile(self.named_root / candidate):
                return candidate
        stem = _stem(name)
        if self._by_stem is None:
            self._by_stem = _FilesByStem(self._all_files())
        files = self._by_stem.ending_in(stem)
        if len(files) > 1 and len({self._content(path) for path in files}) > 1:
            raise ImageError("ambiguous-image", f"{shown(name)} could be {files[0]} or {files[1]}")
        return files[0] if files else candidates[0]

    def _content(self, reference: str) -> bytes:
        return hashlib.sha256(read_file(resolve(reference, self.named_root))).digest()

    def _all_files(self) -> Iterator[str]:
        """The image files below the folders whose paths a row could name; those below two folders twice."""
        for folder in self.folders:
            for place, _, names in os.walk(self.named_root / folder):
                inner = os.path.relpath(place, self.named_root)
                for name in names:
                    path = os.path.normpath(os.path.join(inner, name))
                    if name.lower().endswith(_EXTENSIONS) and path.isprintable():
                        yield path

    def stored(self, cell: Any) -> str:
        """The reference of an image of a Parquet column: `{"bytes", "path"}`, or the bytes alone.

        Raises:
            ImageError: there is nothing that could be an image.
        """
        data = cell.get("bytes") if isinstance(cell, Mapping) else cell
        if isinstance(data, bytes):
            return self.unpack(data)
        if isinstance(cell, Mapping) and cell.get("path"):
            return self.named(cell["path"])
        raise ImageError("no-image", f"the row holds no image, but {shown(cell)}")

    def base64(self, text: str) -> str:
        """The reference of an image written as base64, with or without a `data:` prefix.

        Raises:
            ImageError: it is no base64, or would be larger than images may be.
        """
        if text.startswith("data:"):
            text = text.partition(",")[2]
        if len(text) > MAX_BYTES * 4 // 3 + 4:
            raise ImageError("too-many-bytes", f"an image of {len(text):,} characters of base64 is refused undecoded")
        try:
            return self.unpack(base64.b64decode(text, validate=True))
        except (binascii.Error, ValueError):
            raise ImageError("not-base64", f"{shown(text[:80])} is no base64") from None

    def unpack(self, data: bytes) -> str:
        """Write the bytes of an image to a file named by their content, unless it is there; returns its reference."""
        assert self.unpacked is not None, "images of this form are files"
        if not data:
            raise ImageError("empty", "the image is empty")
        name = hashlib.sha256(data).hexdigest()[:32]
        path = self.unpacked / name
        if not path.is_file():  # renamed into place: a killed run leaves no half of an image under its name
            temporary = path.with_name(f"{name}.partial")
            temporary.write_bytes(data)
            os.replace(temporary, path)
        return name


class _FilesByStem:
    """Paths, found by their names without folder and extension; a path takes its bytes and 24 more."""

    def __init__(self, paths: Iterable[str]):
        keys, places, self._texts = array("Q"), array("Q"), bytearray()
        for path in paths:
            keys.append(key_of(_last(_stem(path))))
            places.append(len(self._texts))
            self._texts += os.fsencode(path) + b"\0"
        order = np.argsort(np.asarray(keys))
        self._keys, self._places = np.asarray(keys)[order], np.asarray(places)[order]

    def ending_in(self, stem: str) -> list[str]:
        """The paths, in order, that end in a stem: `b/source` is that of `a/b/source.jpg`."""
        key = np.uint64(key_of(_last(stem)))
        places = self._places[self._keys.searchsorted(key) : self._keys.searchsorted(key, "right")]
        paths = {os.fsdecode(bytes(self._texts[place : self._texts.index(b"\0", place)])) for place in places.tolist()}
        return sorted(path for path in paths if f"/{_stem(path)}".endswith(f"/{stem}"))


def _stem(path: str) -> str:
    """A path in lower case without the extension of an image."""
    path = path.casefold()
    return next((path.removesuffix(extension) for extension in _EXTENSIONS if path.endswith(extension)), path)


def _last(path: str) -> str:
    return path.rpartition("/")[2]
