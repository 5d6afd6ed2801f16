"""Which files of a folder hold a text, packed files included."""

import base64
import gzip
import io
import re
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from PIL import Image, PngImagePlugin

NAME, RECORD = "Zebulon Quackenbush", "MRN-4711-0815"
FILE = "Images/QUACKENBUSH^ZEBULON/MRN-4711-0815"
BLOCK, HEAD = 32768, 7  # of LevelDB's log, in which wandb keeps a run: a record is cut where a block ends


def joined_blocks(data: bytes) -> bytes:
    """A `.wandb` file without the heads of its chunks, so that a text cut by a block's end is whole."""
    pieces, at = [], HEAD  # the file's own head is as long
    while at + HEAD <= len(data):
        left = BLOCK - at % BLOCK
        length = int.from_bytes(data[at + 4 : at + 6], "little")
        if left < HEAD or (length == 0 and data[at + 6] == 0):
            at += left
            continue
        pieces.append(data[at + HEAD : at + HEAD + length])
        at += HEAD + length
    return b"".join(pieces)


def layers(data: bytes, name: str) -> Iterator[bytes]:
    """The bytes of a file, and what is packed in it."""
    yield data
    if name.endswith(".wandb"):
        yield joined_blocks(data)
    for at in (match.start() for match in re.finditer(rb"\x78[\x01\x5e\x9c\xda]", data)):
        try:
            yield zlib.decompressobj().decompress(data[at:], 2**24)
        except zlib.error:
            continue
    if zipfile.is_zipfile(io.BytesIO(data)):  # of torch.save
        with zipfile.ZipFile(io.BytesIO(data)) as packed:
            yield from map(packed.read, packed.namelist())
    if data[:2] == b"\x1f\x8b":
        yield gzip.decompress(data)
    for match in re.finditer(rb"base64,([A-Za-z0-9+/=]+)", data):
        yield base64.b64decode(match[1])


def holding(folder: Path, pattern: re.Pattern[bytes]) -> set[str]:
    """The files below a folder that hold a text in one of their layers, or in their name."""
    names = set()
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink() or not path.is_file():
            continue
        data = b"" if path.suffix == ".safetensors" else path.read_bytes()
        if pattern.search(name.encode()) or any(pattern.search(layer) for layer in layers(data, name)):
            names.add(name)
    return names


def photograph(place: int) -> bytes:
    """A PNG or JPEG whose own fields name the patient."""
    image, stream = Image.new("RGB", (56, 56), (40 * place % 256, 90, 10)), io.BytesIO()
    exif = Image.Exif()
    exif[0x010E], exif[0x013B] = f"{NAME} {RECORD}", NAME  # description, artist
    if place % 2:
        image.save(stream, "JPEG", exif=exif, comment=NAME.encode())
    else:
        info = PngImagePlugin.PngInfo()
        info.add_text("Patient", f"{NAME} {RECORD}", zip=place % 4 == 0)
        image.save(stream, "PNG", pnginfo=info, exif=exif)
    return stream.getvalue()
