"""Images that would take too much time or memory are refused or reduced before they are decoded."""

import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hostile_files import PNG, chunk, encoded, many_scans
from PIL import Image

from open_r1.data import images
from open_r1.data.images import MAX_SCANS, ImageError, decode


def reason_of(data: bytes) -> str:
    with pytest.raises(ImageError) as caught:
        decode(data)
    return caught.value.reason


@pytest.mark.slow
def test_a_jpeg_of_many_scans_is_refused_before_the_first() -> None:
    # At 8,000 x 8,000 pixels a scan of 97 bytes takes 45 ms: 10 MB would take 75 minutes.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(images.Image, "open", lambda *_, **__: pytest.fail("Pillow was given the file"))
        assert reason_of(many_scans(8000, 10_000)) == "too-slow"
    assert decode(many_scans(64, MAX_SCANS - 6)).size == (64, 64)  # 6 of Pillow's own, of which one is repeated
    assert reason_of(many_scans(64, MAX_SCANS - 4)) == "too-slow"


class Clock:
    """A clock that moves on by a millisecond whenever it is looked at, however busy the machine is."""

    def __init__(self) -> None:
        self.looks = 0

    def monotonic(self) -> float:
        self.looks += 1
        return self.looks / 1000


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock that an image is read by: of its 0.2 s each look takes a millisecond."""
    clock = Clock()
    monkeypatch.setattr(images, "time", clock)
    monkeypatch.setattr(images, "MAX_SECONDS", 0.2)
    return clock


def test_a_file_of_a_million_pieces_is_left_when_the_time_is_over(clock: Clock) -> None:
    head = encoded(Image.new("L", (8, 8)), "JPEG")
    gif = encoded(Image.new("L", (8, 8)), "GIF")
    at = gif.rfind(b",")
    pieces = {
        "PNG chunks": PNG[:33] + chunk(b"teSt") * 500_000 + PNG[33:],
        "JPEG segments": head[:2] + b"\xff\xe5\0\2" * 1_000_000 + head[2:],
        "GIF comments": gif[:at] + b"!\xfe\x01x\x00" * 1_000_000 + gif[at:],
    }
    for name, data in pieces.items():
        before = clock.looks
        assert reason_of(data) == "too-slow", name
        # one look sets the end, 200 more reach it, the next is beyond: of a million pieces 201 are read
        assert clock.looks - before == 202, name
    assert decode(PNG).size == (32, 32)


def test_a_run_length_bmp_of_single_pixels_is_left_when_the_time_is_over(clock: Clock) -> None:
    side = 2000
    head = b"BM" + struct.pack("<IHHI", 0, 0, 0, 54 + 1024)
    head += struct.pack("<IiiHHIIiiII", 40, side, side, 1, 8, 1, 0, 0, 0, 256, 0) + bytes(1024)
    assert reason_of(head + b"\x01\x07" * side * side) == "too-slow"  # read by Pillow in Python, byte by byte
    assert clock.looks == 202


LARGE = {
    "alpha.png": ("RGBA", "PNG", {}),
    "sixteen.png": ("I;16", "PNG", {}),
    "float.tiff": ("F", "TIFF", {"compression": "tiff_lzw", "strip_size": 2**30}),
    "progressive.jpg": ("RGB", "JPEG", {"progressive": True, "subsampling": 0}),
}


MEASURE = """
import sys
from pathlib import Path
from open_r1.data.images import decode
import numpy
decode(Path(sys.argv[1]).read_bytes(), (384, 384))  # libraries and buffers that stay
for path in sys.argv[2:]:
    data = Path(path).read_bytes()
    Path("/proc/self/clear_refs").write_text("5")
    peak = lambda: next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
    before = peak()
    assert decode(data, (384, 384)).size == (384, 384)
    print((peak() - before) // 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peaks are measured by Linux's /proc")
def test_the_largest_images_take_about_half_a_gigabyte(tmp_path: Path) -> None:
    side = int(images.MAX_PIXELS**0.5)
    (tmp_path / "small.png").write_bytes(encoded(Image.new("I;16", (8, 8))))
    for name, (mode, form, options) in LARGE.items():
        (tmp_path / name).write_bytes(encoded(Image.new(mode, (side, side)), form, **options))
    paths = [str(tmp_path / name) for name in ("small.png", *LARGE)]
    process = subprocess.run([sys.executable, "-c", MEASURE, *paths], capture_output=True, text=True, check=True)
    peaks = dict(zip(LARGE, map(int, process.stdout.split()), strict=True))
    print(peaks)  # MiB; 504, 213, 491, 382; without strips 731 and 1,708 MiB were seen for the first two
    assert max(peaks.values()) <= images.MAX_MEMORY / 2**20


def test_a_image_that_would_take_more_memory_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_MEMORY", 100 * 100 * 9)
    image = Image.new("RGB", (100, 100), "red")
    for form, options in (("PNG", {}), ("JPEG", {}), ("TIFF", {}), ("BMP", {})):
        assert images.decode(encoded(image, form, **options)).size == (100, 100)
    assert reason_of(encoded(image, "JPEG", progressive=True)) == "too-much-memory"  # 4 + 2 * 3 bytes for a pixel
    assert reason_of(encoded(image, "WEBP")) == "too-much-memory"  # 16


@pytest.mark.parametrize("mode", ["RGBA", "LA", "I;16", "I", "F", "share"])
def test_strips_give_the_pixels_that_the_whole_image_gives(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = np.random.default_rng(0)
    if mode in ("RGBA", "LA"):
        image = Image.fromarray(numbers.integers(0, 256, (50, 31, len(mode)), dtype=np.uint8))
    elif mode == "share":
        image = Image.fromarray(numbers.random((50, 31), dtype=np.float32))
    else:
        kind = {"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]
        image = Image.fromarray(numbers.integers(0 if mode == "I;16" else -900, 4000, (50, 31)).astype(kind))
    data = encoded(image, "PNG" if mode in ("RGBA", "LA", "I;16") else "TIFF")
    whole_image = images.decode(data)
    monkeypatch.setattr(images, "_STRIP", 100)  # three rows of 31 pixels
    assert np.array_equal(np.asarray(images.decode(data)), np.asarray(whole_image))
    if mode == "RGBA":
        white = Image.new("RGBA", image.size, "white")
        assert np.array_equal(np.asarray(whole_image), np.asarray(Image.alpha_composite(white, image).convert("RGB")))


def test_a_large_jpeg_is_decoded_at_a_fraction_and_looks_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = np.random.default_rng(0)
    coarse = Image.fromarray(numbers.integers(0, 256, (24, 32, 3), dtype=np.uint8))
    data = encoded(coarse.resize((1600, 1200), Image.Resampling.BICUBIC), "JPEG", quality=95)
    plain = np.asarray(images.decode(data, (48, 48))).astype(int)
    monkeypatch.setattr(images, "_LARGE", 1_000_000)
    reduced = np.asarray(images.decode(data, (48, 48))).astype(int)
    assert images.decode(data).size == (1600, 1200)
    assert 0 < abs(plain - reduced).max() <= 4  # of 255; a quarter of the sides is still six times finer than wanted
