"""Encode thousands of images as PNG or JPEG, each once, in several processes, resumable after a kill.

A pack is a folder: every worker process appends encoded images to its own file, and an index holds their positions.
The index is written after the images, so every image in it exists; a run that was killed resumes from the index. An
image takes 27 bytes of memory, however large it is.

Imports are few, because every worker process repeats them.
"""

import hashlib
import json
import multiprocessing
import os
import signal
import threading
import zlib
from array import array
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from io import BytesIO
from itertools import islice
from multiprocessing.connection import wait
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import PIL
from PIL import Image

from open_r1.common.errors import UserError
from open_r1.data.images import SIZE, ImageError, decode, read_file, resolve

if TYPE_CHECKING:  # which loads numpy
    from open_r1.data.key_table import References

_CHUNK = 8  # images in one task
_AHEAD = 16  # tasks in flight per worker: two seconds of work while the reader is busy
_INDEX = "index.jsonl"
_NOT_THERE = 2**16 - 1
_OPEN_FILES = 64  # most segments that are open at once; every worker of every run writes one


@dataclass(frozen=True)
class Encoding:
    """Every image as a square of one size, whatever its proportions, as the published data was made."""

    size: int = SIZE  # pixels of each side
    format: str = "PNG"  # or JPEG

    def __post_init__(self):
        _check_format(self.format)
        if not 28 <= self.size <= 4096:
            raise UserError(f"--size {self.size} is out of range; give a side of 28 to 4096 pixels")

    def encode(self, data: bytes, name: str) -> bytes:
        """Bytes of any image file -> bytes of the stored form. Raises `ImageError`."""
        return _saved(decode(data, (self.size, self.size), name), self.format)


MAX_SIDE = 768
"""Pixels of the longer side: 768 x 768 are 729 image tokens of Qwen2-VL, which leave room for a question in the
published prompt length of 1,024. A scan of 512 x 512 stays as it is."""


@dataclass(frozen=True)
class BoundedEncoding:
    """Images keep their size and proportions; only one with a longer side than `max_side` is made smaller."""

    max_side: int = MAX_SIDE  # pixels
    format: str = "PNG"  # or JPEG

    def __post_init__(self):
        _check_format(self.format)
        if not 28 <= self.max_side <= 8000:
            raise UserError(f"--max_side {self.max_side} is out of range; give 28 to 8000 pixels")

    def encode(self, data: bytes, name: str) -> bytes:
        """Bytes of any image file -> bytes of the stored form. Raises `ImageError`."""
        image = decode(data, None, name)
        share = self.max_side / max(image.size)
        if share < 1:
            width, height = (max(1, round(side * share)) for side in image.size)
            image = image.resize((width, height), Image.Resampling.BICUBIC)
        return _saved(image, self.format)


def _check_format(name: str) -> None:
    if name not in ("PNG", "JPEG"):
        raise UserError(f"--format {name} is not supported; choose PNG or JPEG")


def _saved(image: Image.Image, name: str) -> bytes:
    buffer = BytesIO()
    if name == "PNG":
        # Level 1 costs 8 ms and level 6 42 ms, for files that are 14 % smaller.
        image.save(buffer, "PNG", compress_level=1)
    else:
        image.save(buffer, "JPEG", quality=95, subsampling=0)
    return buffer.getvalue()


class Stored(NamedTuple):
    """A worker's report on one image."""

    content: str  # 16 hexadecimal digits of the source file's SHA-256: equal files are one image
    segment: str | None = None  # where the encoded form lies; None if it was only hashed
    offset: int = 0
    length: int = 0
    crc: int = 0


class Job(NamedTuple):
    """One image to encode."""

    index: int
    reference: str  # path below the image root
    encode: bool  # or only hash the file


class Pack:
    """Encoded images on disk, addressed by their number in `references`."""

    def __init__(self, folder: Path, image_root: Path, references: "References", encoding: Encoding | BoundedEncoding):
        """Open a pack in `folder`, which is created, or resumed if it matches the encoding and the files."""
        self.folder, self.image_root, self.encoding = folder, image_root, encoding
        count = len(references)
        self._segments: dict[str, int] = {}
        self._segment = array("H", [_NOT_THERE]) * count
        self._offset, self._length, self._crc = (array(kind, [0]) * count for kind in "QII")
        self._content = array("Q", [0]) * count
        self._hashed = bytearray(count)
        self._handles: dict[int, int] = {}
        self._filling = self._fill(iter(()), 1)
        self.failed: dict[int, ImageError] = {}
        self.folder.mkdir(parents=True, exist_ok=True)
        self._resume(references)

    def close(self) -> None:
        """Stop the running work and close the files."""
        self._filling.close()
        for handle in self._handles.values():
            os.close(handle)
        self._handles.clear()
        self._index.close()

    def __contains__(self, index: int) -> bool:
        return self._segment[index] != _NOT_THERE

    def content(self, index: int) -> int | None:
        """64 bits of the source file's hash; None if it was not read."""
        return self._content[index] if self._hashed[index] else None

    def read(self, index: int) -> bytes:
        """The encoded form of an image that is in the pack."""
        data = os.pread(self._handle(self._segment[index]), self._length[index], self._offset[index])
        if zlib.crc32(data) != self._crc[index]:
            raise UserError(f"the unfinished work in {self.folder} is damaged; remove that folder and run again")
        return data

    def _handle(self, segment: int) -> int:
        if segment not in self._handles:
            if len(self._handles) == _OPEN_FILES:
                os.close(self._handles.pop(next(iter(self._handles))))
            name = [*self._segments][segment]
            self._handles[segment] = os.open(self.folder / name, os.O_RDONLY | os.O_CLOEXEC)
        return self._handles[segment]

    def start(self, jobs: Iterable[Job], workers: int) -> None:
        """Set the jobs, in the order in which they will be needed; `has` and `finish` run them."""
        todo = (job for job in jobs if not (job.index in self or (not job.encode and self._hashed[job.index])))
        self._filling = self._fill(todo, workers)

    def has(self, index: int) -> bool:
        """Wait for an image; returns whether it is in the pack. If not, `failed` holds the error.

        Raises:
            OSError: the disk is full.
            UserError: a worker process died.
        """
        while index not in self and index not in self.failed:
            next(self._filling)
        return index in self

    def finish(self) -> Iterator[int]:
        """Wait for all images; yields the number of new ones, raises like `has`."""
        return self._filling

    def _fill(self, jobs: Iterator[Job], workers: int) -> Generator[int]:
        work = (str(self.folder), str(self.image_root), self.encoding)
        for chunk, results in _run(work, _chunks(jobs), workers):
            for job, result in zip(chunk, results, strict=True):
                if isinstance(result, ImageError):
                    self.failed[job.index] = result
                else:
                    self._enter(job.index, result)
                    self._note(job.reference, result)
            self._index.flush()
            yield len(chunk)

    def _enter(self, index: int, stored: Stored) -> None:
        self._content[index], self._hashed[index] = int(stored.content, 16), 1
        if stored.segment is not None:
            self._segment[index] = self._segments.setdefault(stored.segment, len(self._segments))
            self._offset[index], self._length[index] = stored.offset, stored.length
            self._crc[index] = stored.crc

    # The index: a line for the encoding, then a line for each image with the size and time of its file.

    def _note(self, reference: str, stored: Stored) -> None:
        try:
            stamp = self._stamp(reference)
        except OSError:  # moved since it was read: the next run reads it again
            return
        self._index.write(json.dumps([reference, *stamp, *stored]) + "\n")

    def _stamp(self, reference: str) -> list[int]:
        status = os.stat(os.path.join(self.image_root, reference))
        return [status.st_size, status.st_mtime_ns]

    def _resume(self, references: "References") -> None:
        """Take up the index of an earlier run, of which a torn last line is cut off, and go on at its end."""
        header = json.dumps({**asdict(self.encoding), "pillow": PIL.__version__, "root": str(self.image_root)}) + "\n"
        path, end = self.folder / _INDEX, 0
        with path.open("a+b") as file:
            file.seek(0)
            if file.readline() == header.encode():
                end = file.tell()
                sizes = {leftover.name: leftover.stat().st_size for leftover in self.folder.iterdir()}
                while (line := file.readline()).endswith(b"\n"):
                    end = file.tell()
                    self._take_up(line, references, sizes)
            file.truncate(end)
        if not end:
            for leftover in self.folder.iterdir():
                leftover.unlink()
        self._index = path.open("a", encoding="utf-8")
        if not end:
            self._index.write(header)
            self._index.flush()

    def _take_up(self, line: bytes, references: "References", sizes: dict[str, int]) -> None:
        """Use one line of an earlier run if its file is unchanged; of several on one image the last one holds."""
        try:
            reference, size, time, *fields = json.loads(line)
            stored = Stored(*fields)
            index = references.number(reference)
            if [size, time] != self._stamp(reference):
                return
            if stored.segment is not None and sizes.get(stored.segment, 0) < stored.offset + stored.length:
                return
        except (ValueError, TypeError, KeyError, OSError):
            return
        self._enter(index, stored)


# --------------------------------------------------------------------------------------- worker processes

_Work = tuple[str, str, Encoding | BoundedEncoding]
_Chunk = tuple[Job, ...]
_Results = list[Stored | ImageError]


def _chunks(jobs: Iterator[Job]) -> Iterator[_Chunk]:
    while chunk := tuple(islice(jobs, _CHUNK)):
        yield chunk


def _run(work: _Work, chunks: Iterable[_Chunk], workers: int) -> Iterator[tuple[_Chunk, _Results]]:
    """Run the chunks in `workers` processes; results come in order, and a bounded number of chunks is in flight."""
    if workers == 1:
        for chunk in chunks:
            yield chunk, _do(work, chunk)
        return
    # Never fork this process: the caller may have threads of torch or pyarrow.
    context = multiprocessing.get_context("spawn")
    pending: deque[tuple[_Chunk, Future[_Results]]] = deque()
    pool = ProcessPoolExecutor(workers, context, initializer=_end_with_parent)
    try:
        for chunk in chunks:
            pending.append((chunk, pool.submit(_do, work, chunk)))
            if len(pending) >= workers * _AHEAD:
                finished_chunk, future = pending.popleft()
                yield finished_chunk, future.result()
        while pending:
            finished_chunk, future = pending.popleft()
            yield finished_chunk, future.result()
    except (BrokenProcessPool, MemoryError):
        raise UserError(
            "a worker process died, probably because memory ran out; run again with fewer --num_workers, "
            "the encoded images are kept"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
    """In a worker: leave Ctrl-C to the parent, and end if the parent is killed (Python would wait forever)."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _do(work: _Work, chunk: _Chunk) -> _Results:
    folder, image_root, encoding = work
    return [_do_one(folder, image_root, encoding, job) for job in chunk]


def _do_one(folder: str, image_root: str, encoding: Encoding | BoundedEncoding, job: Job) -> Stored | ImageError:
    try:
        data = read_file(resolve(job.reference, image_root), resolved=True)
        content = hashlib.sha256(data).hexdigest()[:16]
        if not job.encode:
            return Stored(content)
        encoded = encoding.encode(data, repr(job.reference))
    except ImageError as error:
        return error
    segment = f"{os.getpid()}.pack"
    with open(os.path.join(folder, segment), "ab", buffering=0) as file:
        offset = file.seek(0, os.SEEK_END)
        remaining = memoryview(encoded)
        while remaining:  # a full disk writes a part, then raises; the index never names that part
            remaining = remaining[file.write(remaining) :]
    return Stored(content, segment, offset, len(encoded), zlib.crc32(encoded))
