"""Numbers for millions of keys and paths, in a few bytes of memory each.

A key is a 64-bit number. Texts are told apart by 64 bits of a hash: among 5 million of them the chance that two have
the same one is below one in a million.
"""

import hashlib
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

_UNSORTED = 2**12  # keys in a dict of half a MB, until they are sorted in
_BUFFER = 2**18  # bytes of paths that wait to be written


def key_of(text: str) -> int:
    """A key for a text: the first 8 bytes of its SHA-256. The text may hold half of a surrogate pair, as JSON may."""
    return int.from_bytes(hashlib.sha256(text.encode(errors="surrogatepass")).digest()[:8], "big")


class KeyTable:
    """Numbers keys from 0 in the order in which they are first added; 12 bytes of memory each."""

    def __init__(self) -> None:
        self._keys = np.empty(0, np.uint64)  # sorted
        self._numbers = np.empty(0, np.uint32)
        self._recent: dict[int, int] = {}  # keys that are not sorted in yet

    def __len__(self) -> int:
        return len(self._keys) + len(self._recent)

    def find(self, key: int) -> int | None:
        """The number of a key; None if it was not added."""
        number = self._recent.get(key)
        if number is None and len(self._keys):
            place = self._keys.searchsorted(np.uint64(key))
            if place < len(self._keys) and self._keys[place] == key:
                number = int(self._numbers[place])
        return number

    def add(self, key: int) -> int:
        """The number of a key, which is the length of the table before if the key is new."""
        number = self.find(key)
        if number is None:
            number = self._recent[key] = len(self)
            if len(self._recent) >= _UNSORTED:
                self._sort_in()
        return number

    def _sort_in(self) -> None:
        keys = np.fromiter(self._recent, np.uint64, len(self._recent))
        order = np.argsort(keys)
        places = self._keys.searchsorted(keys[order])
        numbers = np.fromiter(self._recent.values(), np.uint32, len(keys))
        self._keys = np.insert(self._keys, places, keys[order])
        self._numbers = np.insert(self._numbers, places, numbers[order])
        self._recent.clear()


class References:
    """Different paths of images, numbered in the order in which they are first added.

    The texts are in a file; a path takes 20 bytes of memory.
    """

    def __init__(self, file: Path):
        """`file` is written anew."""
        self._file = file
        self._table = KeyTable()
        self._places = array("Q")  # byte offset of each text
        self._unwritten = bytearray()
        file.write_bytes(b"")
        self._written = 0

    def __len__(self) -> int:
        return len(self._table)

    def add(self, reference: str) -> int:
        """The number of a path, which is the length before if the path is new. Raises OSError if the disk is full."""
        number = self._table.add(key_of(reference))
        if number == len(self._places):
            self._places.append(self._written + len(self._unwritten))
            self._unwritten += reference.encode() + b"\n"
            if len(self._unwritten) >= _BUFFER:
                self._write()
        return number

    def number(self, reference: str) -> int:
        """The number of a path that was added.

        Raises:
            KeyError: it was not.
        """
        number = self._table.find(key_of(reference))
        if number is None:
            raise KeyError(reference)
        return number

    def texts(self, numbers: Iterable[int]) -> Iterator[str]:
        """The paths of these numbers."""
        self._write()
        with self._file.open("rb") as file:
            for number in numbers:
                file.seek(self._places[number])
                yield file.readline().decode().rstrip("\n")

    def _write(self) -> None:
        if self._unwritten:
            with self._file.open("ab") as file:
                file.write(self._unwritten)
            self._written += len(self._unwritten)
            self._unwritten.clear()
