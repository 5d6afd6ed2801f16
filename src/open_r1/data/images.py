"""Open one untrusted image safely: a reference inside a root folder, or bytes -> RGB, 384 x 384 if asked.

All images of the project are opened here. Nothing is ever fetched: a URL, a data: string or a path
that leaves the image root is refused before any file is opened. The size is read from the header before
decoding, so a small file that unpacks to gigabytes is refused at once. Memory is bounded to about half a GiB:
images are converted in strips, and an image that would need more is refused. Time is bounded by limits on the
pixels and on the scans of a JPEG, each of which goes over all pixels again, and by a deadline for reading.

Modes: grey, palette, CMYK and YCbCr are converted; transparent pixels become white, as in Qwen's loader; grey of more
than 8 bits is scaled to the range of the image; EXIF orientation is applied. An animation or a file of several pages
is refused, because it is unknown which frame is meant (the previews that cameras append to a JPEG do not count).
"""

import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

from PIL import ExifTags, Image, ImageOps

from open_r1.common.errors import UnusableInput

SIZE = 384
"""Side in pixels of the images that the published runs trained on."""

MAX_PIXELS = 64_000_000
"""Largest image that is decoded (width x height): 8000 x 8000, 192 MB as RGB."""

MAX_MEMORY = 576 * 2**20
"""Estimated memory in bytes, without the file, above which an image is refused; a worker decodes one at a time."""

MAX_BYTES = 128 * 2**20
"""Largest file that is read: a 16-bit grey image of MAX_PIXELS, uncompressed, just fits."""

FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "GIF", "WEBP")
"""Pillow's other readers are never used: EPS starts Ghostscript, and many are untested."""

MAX_SCANS = 64
"""Most scans of a JPEG. Encoders write 1 to 24. A scan takes a hundred bytes, and 45 ms at MAX_PIXELS."""

MAX_SECONDS = 30.0
"""Longest reading of one image, wall time. MAX_PIXELS take 1 to 3 s on one core."""

_LARGE = 16_000_000  # pixels from which a JPEG that is to be resized is decoded at a fraction of its sides
_FINER = 4  # how many times finer than it is wanted at least
_STRIP = 2**20  # pixels that are converted at once
_ONE_BYTE = ("1", "L", "P")  # modes with a byte for each pixel in memory; I;16 has two, all others four
_SCAN = b"\xff\xda"  # in coded data 0xff is followed by zero, so these bytes begin a scan
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_SEPARATORS = re.compile(r"[/\\]")
_NAME_BYTES = 255  # longest file name of every common file system
_DELETED = " (deleted)"  # what Linux appends to the place of an open file that was replaced meanwhile
_SHOWN = 100  # characters of a reference that an error message repeats


class ImageError(UnusableInput):
    """An image or a reference to one that cannot be used."""


class _TooSlow(Exception):
    """Reading an image file took longer than MAX_SECONDS."""


class _Timed(BytesIO):
    """Bytes that can be read until a deadline; it stops readers that loop over a million tiny pieces of a file."""

    def __init__(self, data: bytes):
        super().__init__(data)
        self._end = time.monotonic() + MAX_SECONDS

    def read(self, size: int | None = -1, /) -> bytes:
        if time.monotonic() > self._end:
            raise _TooSlow
        return super().read(size)


def shown(reference: object) -> str:
    """A reference for an error message: quoted, escaped and shortened."""
    text = repr(reference)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}... ({len(text)} characters)"


def check_reference(reference: object) -> str:
    """Decide from the text alone whether `reference` may name a file below a root; nothing is opened.

    Dots, spaces, `#`, `%`, `&` and parentheses are ordinary characters: the data has files called `a..JPG`.

    Raises:
        ImageError: not a relative path (`not-a-path`, `url`, `absolute`, `outside-root`).
    """
    if not isinstance(reference, str) or not reference.strip() or "\0" in reference:
        raise ImageError("not-a-path", f"{shown(reference)} is no image path; a relative path is expected")
    if _SCHEME.match(reference):
        raise ImageError(
            "url",
            f"{shown(reference)} is a URL or holds data; images are never fetched. "
            "Download it and give its path below the image root",
        )
    if reference[0] in "/\\":
        raise ImageError("absolute", f"{shown(reference)} is absolute; give a path that is relative to the image root")
    path_parts = _SEPARATORS.split(reference)
    if ".." in path_parts:
        raise ImageError("outside-root", f"{shown(reference)} steps out of a folder with '..'; refused")
    if not reference.isprintable() or max(len(path_part.encode()) for path_part in path_parts) > _NAME_BYTES:
        raise ImageError("not-a-path", f"{shown(reference)} is no file name (base64 text?); give a path")
    return reference


def resolve(reference: str, root: str | os.PathLike) -> Path:
    """The existing regular file that `reference` names below `root`, with all links resolved.

    The file is not opened. The root itself may be a link; links inside it may not lead out of it.

    Raises:
        ImageError: the reference is refused (see `check_reference`), leads out of the root through a link,
            is missing, or is no regular file (`missing`, `outside-root`, `not-a-file`).
    """
    base = os.path.realpath(root)
    real = os.path.realpath(os.path.join(base, check_reference(reference)))
    if not real.startswith(os.path.join(base, "")):
        raise ImageError(
            "outside-root", f"{shown(reference)} leads out of the image root {base} through a link; refused"
        )
    try:
        mode = os.lstat(real).st_mode
    except OSError as error:
        raise ImageError("missing", f"{shown(reference)} is not below {base}: {error.strerror}") from None
    if not stat.S_ISREG(mode):
        raise ImageError("not-a-file", f"{shown(reference)} is no regular file; refused")
    return Path(real)


def read_file(path: str | os.PathLike, max_bytes: int = MAX_BYTES, resolved: bool = False) -> bytes:
    """The bytes of one regular file of at most `max_bytes`; never waits on a pipe, follows no link.

    Args:
        path: the file.
        max_bytes: longest file that is read.
        resolved: whether `resolve` returned the path. Then no folder on the way may have become a link since: the
            opened file is checked, not the path, so that a folder exchanged in between is noticed.

    Raises:
        ImageError: `missing`, `not-a-file`, `outside-root`, `empty`, `too-many-bytes` or `unreadable`.
    """
    try:
        # O_NONBLOCK: opening a FIFO must not wait for a writer. Both flags do nothing to a regular file.
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    except FileNotFoundError as error:
        raise ImageError("missing", f"{shown(str(path))} is not there: {error.strerror}") from None
    except OSError as error:
        raise ImageError("not-a-file", f"{shown(str(path))} cannot be opened: {error.strerror}") from None
    try:
        status = os.fstat(handle)
        if resolved and not _lies_at(handle, path):
            raise ImageError(
                "outside-root", f"{shown(str(path))} leads elsewhere since a folder on the way was exchanged; refused"
            )
        if not stat.S_ISREG(status.st_mode):
            raise ImageError("not-a-file", f"{shown(str(path))} is no regular file; refused")
        if status.st_size > max_bytes:
            raise ImageError(
                "too-many-bytes",
                f"{shown(str(path))} has {status.st_size:,} bytes, more than {max_bytes:,}; refused unread",
            )
        with os.fdopen(handle, "rb", closefd=False) as file:
            data = file.read(max_bytes + 1)
    except OSError as error:
        raise ImageError("unreadable", f"{shown(str(path))} cannot be read: {error.strerror}") from None
    finally:
        os.close(handle)
    if not data:
        raise ImageError("empty", f"{shown(str(path))} is empty")
    return data


def _lies_at(handle: int, path: str | os.PathLike) -> bool:
    """Whether an open file is the one at `path` without links on the way, according to the system."""
    try:
        opened_path = os.readlink(f"/proc/self/fd/{handle}")
    except OSError:  # a system without /proc: the path is looked at once more
        try:
            return os.path.realpath(path) == os.fspath(path) and os.path.samestat(os.fstat(handle), os.lstat(path))
        except OSError:
            return False
    return opened_path.removesuffix(_DELETED) == os.fspath(path).removesuffix(_DELETED)


def open_image(
    source: str | os.PathLike | bytes,
    root: str | os.PathLike | None = None,
    size: tuple[int, int] | None = None,
    resolved: bool = False,
) -> Image.Image:
    """Open one image as RGB.

    Args:
        source: bytes of an image file; or a path, which `root` confines when it is given.
        root: folder that a path must be relative to and may not leave. Without it the path is one that the
            caller chose or that `resolve` returned.
        size: (width, height) in pixels to resize to, aspect ratio not kept, as the published data was made.
        resolved: whether `resolve` returned the path; see `read_file`.

    Raises:
        ImageError: with the reason; no other exception is raised for a bad image.
    """
    name = "the image" if isinstance(source, bytes) else shown(str(source))
    if isinstance(source, bytes):
        data = source
    elif root is not None:
        data = read_file(resolve(os.fspath(source), root), resolved=True)
    else:
        if isinstance(source, str) and not os.path.isabs(source) and _SCHEME.match(source):
            check_reference(source)
        data = read_file(source, resolved=resolved)
    return decode(data, size, name)


def decode(data: bytes, size: tuple[int, int] | None = None, name: str = "the image") -> Image.Image:
    """Bytes of one image file -> RGB, resized with an antialiased bicubic filter where `size` is given.

    Raises:
        ImageError: `empty`, `too-many-bytes`, `not-an-image`, `too-many-pixels`, `too-much-memory`, `too-slow`,
            `animated`, `unreadable`.
    """
    if not data:
        raise ImageError("empty", f"{name} is empty")
    if len(data) > MAX_BYTES:
        raise ImageError("too-many-bytes", f"{name} has {len(data):,} bytes, more than {MAX_BYTES:,}")
    scans = data.count(_SCAN) if data[:2] == b"\xff\xd8" else 0
    if scans > MAX_SCANS:
        raise ImageError("too-slow", f"{name} is a JPEG of {scans:,} scans, more than {MAX_SCANS}; refused")
    try:
        image = Image.open(_Timed(data), formats=FORMATS)
    except _TooSlow:
        raise ImageError("too-slow", _slow(name)) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ImageError("too-many-pixels", f"{name} unpacks to far more than {MAX_PIXELS:,} pixels") from None
    except Exception:  # a reader of hostile bytes may raise anything
        raise ImageError(
            "not-an-image", f"{name} is no image that can be read; allowed: {', '.join(FORMATS)}"
        ) from None
    with image:
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise ImageError(
                "too-many-pixels",
                f"{name} is {width} x {height} pixels, more than {MAX_PIXELS:,}; refused before decoding",
            )
        try:
            _refuse_frames(image, name)
            if size is not None and width * height > _LARGE:
                image.draft(None, (_FINER * size[0], _FINER * size[1]))  # does nothing but to a JPEG
            _refuse_memory(image, width * height, scans, name)
            image.load()
            upright = _upright(image)
            if upright is not image:
                image.close()  # two copies at once are enough
            plain = _to_grey_or_rgb(upright)
            del upright
            if size is not None and plain.size != tuple(size):
                # Grey is resized as grey: the same pixels as in RGB for a third of the work.
                plain = plain.resize(size, Image.Resampling.BICUBIC)
            rgb = plain if plain.mode == "RGB" else plain.convert("RGB")
        except (ImageError, MemoryError):
            raise
        except _TooSlow:
            raise ImageError("too-slow", _slow(name)) from None
        except Exception as error:  # as above: struct.error, zlib.error, SyntaxError, ...
            raise ImageError(
                "unreadable", f"{name} is damaged or of a kind that cannot be converted: {error}"
            ) from None
    rgb.info = {}  # profiles, comments and names of patients stay behind
    return rgb


def _slow(name: str) -> str:
    return f"{name} takes more than {MAX_SECONDS:g} s to read; refused"


def _refuse_frames(image: Image.Image, name: str) -> None:
    # MPO is what a camera makes when it appends previews to a JPEG: the first image is the photograph.
    if image.format != "MPO" and getattr(image, "is_animated", False):
        raise ImageError("animated", f"{name} holds several frames or pages; save the one you mean by itself")


def _refuse_memory(image: Image.Image, pixels: int, scans: int, name: str) -> None:
    """Refuse an image that cannot be decoded within MAX_MEMORY.

    Args:
        image: opened and not yet decoded, perhaps to be decoded at a fraction of its sides.
        pixels: of the file.
        scans: of a JPEG.
        name: for the message.
    """
    width, height = image.size
    bytes_per_pixel = 1 if image.mode in _ONE_BYTE else 2 if image.mode.startswith("I;16") else 4
    needed = bytes_per_pixel * width * height
    if scans > 1:
        needed += 2 * len(image.getbands()) * pixels  # all coefficients, two bytes each, until the last scan
    elif image.format == "TIFF":
        needed += (
            bytes_per_pixel * pixels
        )  # a strip, which may be all of it, is decoded into a buffer of its library first
    elif image.format == "WEBP":
        needed = 16 * pixels  # measured: two canvases of an animation and two copies, four bytes for a pixel each
    if needed > MAX_MEMORY:
        raise ImageError(
            "too-much-memory",
            f"{name} takes {needed / 2**20:,.0f} MiB to decode, more than {MAX_MEMORY / 2**20:,.0f}; refused. "
            "Save it with fewer pixels, or as PNG",
        )


def _upright(image: Image.Image) -> Image.Image:
    try:
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) != 1
        return ImageOps.exif_transpose(image) if turned else image
    except Exception:  # broken EXIF says nothing about the pixels: keep them as stored
        return image


def _to_grey_or_rgb(image: Image.Image) -> Image.Image:
    """Mode L or RGB."""
    if image.mode.startswith(("I", "F")):
        return _to_eight_bits(image)
    if image.has_transparency_data:
        return _in_strips(image, "RGB", _on_white)
    return image if image.mode in ("L", "RGB") else image.convert("RGB")


def _on_white(strip: Image.Image) -> Image.Image:
    strip = strip.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", strip.size, "white"), strip).convert("RGB")


def _strips(image: Image.Image) -> Iterator[tuple[tuple[int, int, int, int], Image.Image]]:
    """An image in strips of full width: the box of each strip, and the strip."""
    width, height = image.size
    rows = max(1, _STRIP // width)
    for top in range(0, height, rows):
        box = (0, top, width, min(top + rows, height))
        yield box, image.crop(box)


def _in_strips(image: Image.Image, mode: str, convert: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """An image converted to another mode strip by strip, which needs little extra memory."""
    converted = Image.new(mode, image.size)
    for box, strip in _strips(image):
        converted.paste(convert(strip), box)
    return converted


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """Grey of 16 or 32 bits or floats -> 8 bits: zero stays black, the brightest value becomes white.

    A 12-bit scan in a 16-bit file would be black if it were divided by 257, white if it were clipped.
    Whole numbers that fit 8 bits already are left alone; floats within 0..1 are taken as shares of white.
    """
    import numpy as np  # a tenth of a second in every worker process, for a few images

    low, high = 0.0, -np.inf
    for _, strip in _strips(image):
        values = np.asarray(strip)
        if not np.isfinite(values).all():
            raise ValueError("it holds values that are no numbers")
        low, high = min(low, float(values.min())), max(high, float(values.max()))
    is_share = low == 0 and high <= 1 and image.mode.startswith("F")

    def scaled(strip: Image.Image) -> Image.Image:
        values = np.asarray(strip).astype(np.float64)
        if is_share:
            values = values * 255
        elif low < 0 or high > 255:
            values = (values - low) * (255 / (max(high, 0.0) - low))
        return Image.fromarray(np.rint(values).clip(0, 255).astype(np.uint8))

    return _in_strips(image, "L", scaled)
