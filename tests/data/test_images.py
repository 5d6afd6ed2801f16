"""One untrusted image: every mode comes out as RGB, every hostile file is refused."""

import contextlib
import pickle
import struct
import zlib

import numpy as np
import pytest
from hostile_files import encoded, reason_of
from PIL import Image, ImageFile

from open_r1.data import images
from open_r1.data.images import ImageError, decode, open_image, resolve

# ---------------------------------------------------------------------------------------------- modes


def palette(transparent: bool) -> bytes:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([255, 0, 0, 0, 0, 255])
    return encoded(image, transparency=1) if transparent else encoded(image)


def sixteen_bit(value: int, mode: str = "I;16", format: str = "PNG") -> bytes:
    kind = ">u2" if mode == "I;16B" else "<u2"
    pixels = np.full((4, 4), value, dtype=kind)
    pixels[0, 0] = 65535
    return encoded(Image.frombytes(mode, (4, 4), pixels.tobytes()), format)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (encoded(Image.new("1", (4, 4), 1)), (255, 255, 255)),
        (encoded(Image.new("L", (4, 4), 77)), (77, 77, 77)),
        (palette(transparent=False), (0, 0, 255)),
        (palette(transparent=True), (255, 255, 255)),  # laid on white
        (encoded(Image.new("LA", (4, 4), (0, 51))), (204, 204, 204)),  # 255 * (1 - 51/255)
        (encoded(Image.new("RGBA", (4, 4), (255, 0, 0, 51))), (255, 204, 204)),
        (encoded(Image.new("RGBA", (4, 4), (9, 9, 9, 0))), (255, 255, 255)),
        (encoded(Image.new("PA", (4, 4)), "TIFF"), (255, 255, 255)),
        (encoded(Image.new("CMYK", (4, 4), (255, 0, 0, 0)), "TIFF"), (0, 255, 255)),
        (encoded(Image.new("YCbCr", (4, 4), (77, 128, 128)), "TIFF"), (77, 77, 77)),
        (encoded(Image.new("RGB", (4, 4), (1, 2, 3)), "BMP"), (1, 2, 3)),
        (encoded(Image.new("RGB", (4, 4), (1, 2, 3)), "WEBP", lossless=True), (1, 2, 3)),
        (encoded(Image.new("P", (4, 4), 0), "GIF"), (0, 0, 0)),
        (sixteen_bit(13107), (51, 51, 51)),  # 13107 / 65535 = 0.2
        (sixteen_bit(13107, "I;16B", "TIFF"), (51, 51, 51)),
        (encoded(Image.fromarray(np.full((4, 4), 77, np.int32)), "TIFF"), (77, 77, 77)),
        (encoded(Image.fromarray(np.full((4, 4), 0.2, np.float32)), "TIFF"), (51, 51, 51)),
    ],
)
def test_every_mode_becomes_rgb(data, expected):
    image = decode(data)
    assert image.mode == "RGB"
    assert image.getpixel((2, 2)) == expected


def test_cmyk_jpeg_keeps_its_colour():
    red, green, blue = decode(encoded(Image.new("CMYK", (8, 8), (255, 0, 0, 0)), "JPEG", quality=95)).getpixel((4, 4))  # type: ignore[misc]
    assert (red < 10, green > 245, blue > 245) == (True, True, True)


def test_twelve_bits_in_a_sixteen_bit_file_fill_the_range():
    ramp = np.linspace(0, 4095, 256).astype("<u2").reshape(16, 16)
    grey = np.asarray(decode(encoded(Image.fromarray(ramp))))[..., 0].ravel().astype(int)
    # Clipped at 255, 240 of the 256 would be white; divided by 257, none would pass 15.
    assert (grey[0], grey[-1]) == (0, 255)
    assert abs(grey - np.arange(256)).max() <= 1


def test_negative_values_are_the_darkest():
    hounsfield = np.array([[-1000, 0], [500, 1000]], np.int32)
    grey = np.asarray(decode(encoded(Image.fromarray(hounsfield), "TIFF")))[..., 0]
    assert grey.tolist() == [[0, 128], [191, 255]]  # 127.5 rounds to even, 1500/2000 * 255 = 191.25


def test_values_that_are_no_numbers_are_refused():
    values = np.array([[0.0, np.nan]], np.float32)
    assert reason_of(decode, encoded(Image.fromarray(values), "TIFF")) == "unreadable"


def test_exif_orientation_is_applied():
    image = Image.new("RGB", (2, 1), "red")
    image.putpixel((1, 0), (0, 0, 255))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: the left edge is the top
    upright = decode(encoded(image, exif=exif))
    assert (upright.size, upright.getpixel((0, 0)), upright.getpixel((0, 1))) == ((1, 2), (255, 0, 0), (0, 0, 255))


def test_broken_exif_does_not_lose_the_image():
    data = encoded(Image.new("RGB", (8, 8), "red"), "JPEG", exif=b"Exif\0\0MM\0\x2a\xff\xff\xff\xff")
    assert decode(data).size == (8, 8)


def test_nothing_but_pixels_is_kept():
    assert decode(encoded(Image.new("RGB", (8, 8)), "JPEG", comment=b"Jane Doe", dpi=(72, 72))).info == {}


def test_resizing_grey_as_grey_gives_the_pixels_of_rgb():
    rng = np.random.default_rng(0)
    grey = Image.fromarray(rng.integers(0, 256, (300, 517), dtype=np.uint8))
    slow = grey.convert("RGB").resize((384, 384), Image.Resampling.BICUBIC)
    fast = decode(encoded(grey), (384, 384))
    assert fast.mode == "RGB"
    assert np.array_equal(np.asarray(fast), np.asarray(slow))


# ---------------------------------------------------------------------------------------------- bad images


def test_animations_and_pages_are_refused_but_single_frames_are_not():
    frames = [Image.new("L", (4, 4), value) for value in (0, 255)]
    for format in ("GIF", "PNG", "TIFF", "WEBP"):
        several = encoded(frames[0], format, save_all=True, append_images=frames[1:])
        assert reason_of(decode, several) == "animated", format
        assert decode(encoded(frames[0], format)).size == (4, 4)


def test_previews_that_a_camera_appends_do_not_count_as_frames():
    photograph, preview = Image.new("RGB", (16, 16), "red"), Image.new("RGB", (8, 8), "blue")
    data = encoded(photograph, "MPO", save_all=True, append_images=[preview])
    assert decode(data).getpixel((8, 8))[0] > 200  # type: ignore[index]


def noise(side: int = 64) -> Image.Image:
    return Image.fromarray(np.random.default_rng(1).integers(0, 256, (side, side, 3), dtype=np.uint8))


@pytest.mark.parametrize("format", ["PNG", "JPEG", "BMP", "TIFF", "GIF", "WEBP"])
def test_a_truncated_file_is_refused_wherever_it_ends(format):
    data = encoded(noise(), format)
    for end in range(1, len(data) * 9 // 10, len(data) // 40):
        assert reason_of(decode, data[:end]) in {"unreadable", "not-an-image"}, end


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, about every damaged TIFF tag
@pytest.mark.parametrize("format", ["PNG", "JPEG", "BMP", "TIFF", "GIF", "WEBP"])
def test_damaged_bytes_raise_nothing_but_image_errors(format):
    data, rng = encoded(noise(16), format), np.random.default_rng(2)
    for _ in range(60):
        broken = bytearray(data)
        for place in rng.integers(0, min(len(data), 200), 4):
            broken[place] = rng.integers(0, 256)
        with contextlib.suppress(ImageError):
            assert decode(bytes(broken), (8, 8)).size == (8, 8)


@pytest.mark.parametrize(
    "data",
    [
        b"hello, this is no image",
        b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        b"%PDF-1.7\n",
        b"<html></html>",
        b"PK\x03\x04" + bytes(100),
        encoded(Image.new("RGB", (4, 4)), "PPM"),
        bytes(1000),
    ],
)
def test_what_is_no_allowed_image_is_refused(data):
    assert reason_of(decode, data) == "not-an-image"


def test_an_empty_file_is_refused(tmp_path):
    (tmp_path / "empty.png").touch()
    assert reason_of(open_image, "empty.png", root=tmp_path) == "empty"
    assert reason_of(decode, b"") == "empty"


def png_of(width: int, height: int) -> bytes:
    """A valid black 1-bit PNG of any size, made without the pixels in memory."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    packer, line = zlib.compressobj(9), bytes(1 + (width + 7) // 8)
    body = b"".join(packer.compress(line) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


@pytest.mark.slow
@pytest.mark.parametrize(("width", "height"), [(9000, 9000), (16000, 16000), (30000, 30000), (70_000_000, 1)])
def test_a_decompression_bomb_is_refused_from_its_header(monkeypatch, width, height):
    bomb = png_of(width, height)
    assert len(bomb) < 300_000
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("it was decoded"))
    assert reason_of(decode, bomb) == "too-many-pixels"


def test_a_file_that_is_too_long_is_refused_unread(tmp_path):
    path = tmp_path / "long.png"
    with path.open("wb") as file:
        file.truncate(images.MAX_BYTES + 1)  # sparse: it takes no room
    assert reason_of(open_image, "long.png", root=tmp_path) == "too-many-bytes"


# ---------------------------------------------------------------------------------------------- references


def test_messages_name_the_value_and_stay_short():
    with pytest.raises(ImageError, match=r"'http://.*characters\) is a URL") as caught:
        resolve("http://" + "x" * 10_000, "/")
    assert len(str(caught.value)) < 400


def test_errors_survive_the_way_from_a_worker_process():
    error = pickle.loads(pickle.dumps(ImageError("empty", "x is empty")))
    assert (error.reason, str(error), type(error)) == ("empty", "x is empty", ImageError)
