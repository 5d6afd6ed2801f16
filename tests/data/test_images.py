"""One untrusted image: every mode comes out as RGB, every hostile reference is refused without a look."""

import contextlib
import os
import pickle
import socket
import struct
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile

from open_r1.data import images
from open_r1.data.images import ImageError, decode, open_image, read_file, resolve
from open_r1.data.loading import image_digest
from open_r1.data.row_images import row_images


def encoded(image: Image.Image, format: str = "PNG", **options) -> bytes:
    buffer = BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def reason_of(call, *arguments, **options) -> str:
    with pytest.raises(ImageError) as caught:
        call(*arguments, **options)
    return caught.value.reason


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


HOSTILE = [
    ("../secret.png", "outside-root"),
    ("Images/../../secret.png", "outside-root"),
    ("Images/..", "outside-root"),
    ("..\\secret.png", "outside-root"),
    ("/etc/passwd", "absolute"),
    ("//host/share/x.png", "absolute"),
    ("\\\\host\\share\\x.png", "absolute"),
    ("C:\\x.png", "url"),
    ("http://example.org/x.png", "url"),
    ("HTTPS://example.org/x.png", "url"),
    ("file:///etc/passwd", "url"),
    ("file:x.png", "url"),
    ("ftp://example.org/x.png", "url"),
    ("s3://bucket/x.png", "url"),
    ("data:image/png;base64,iVBORw0KGgo=", "url"),
    ("data:,x", "url"),
    ("/9j/4AAQSkZJRgABAQAAAQABAAD", "absolute"),  # base64 of a JPEG
    ("iVBORw0KGgoAAAANSUhEUgAA" * 20, "not-a-path"),  # base64 of a PNG
    ("x.png\0.jpg", "not-a-path"),
    ("x\n.png", "not-a-path"),
    ("\udc80.png", "not-a-path"),
    ("", "not-a-path"),
    ("  ", "not-a-path"),
    (None, "not-a-path"),
    (7, "not-a-path"),
    (b"x.png", "not-a-path"),
    ({"url": "http://example.org"}, "not-a-path"),
]


@pytest.mark.parametrize(("reference", "reason"), HOSTILE)
def test_a_hostile_reference_is_refused_unopened(reference, reason, tmp_path, monkeypatch):
    def forbidden(*arguments, **options):
        raise AssertionError(f"touched {arguments}")

    monkeypatch.setattr(images.os, "open", forbidden)
    monkeypatch.setattr(socket, "socket", forbidden)
    monkeypatch.setattr(os.path, "realpath", lambda path: str(path))
    monkeypatch.setattr(images.os, "lstat", forbidden)
    assert reason_of(resolve, reference, tmp_path) == reason


@pytest.fixture
def root(tmp_path) -> Path:
    folder = tmp_path / "root"
    (folder / "Images").mkdir(parents=True)
    (folder / "Images" / "a.png").write_bytes(encoded(Image.new("RGB", (4, 4), "red")))
    (tmp_path / "secret.png").write_bytes(encoded(Image.new("RGB", (4, 4), "blue")))
    return folder


def test_links_may_not_lead_out_of_the_root(root):
    (root / "file.png").symlink_to(root.parent / "secret.png")
    (root / "folder").symlink_to(root.parent)
    (root / "device.png").symlink_to("/dev/zero")
    (root / "up.png").symlink_to("../secret.png")
    for reference in ("file.png", "folder/secret.png", "device.png", "up.png"):
        assert reason_of(open_image, reference, root=root) == "outside-root"


def test_a_root_with_the_same_beginning_is_another_folder(root):
    beside = root.with_name("root-2")
    beside.mkdir()
    (beside / "x.png").write_bytes(encoded(Image.new("RGB", (4, 4))))
    (root / "x.png").symlink_to(beside / "x.png")
    assert reason_of(resolve, "x.png", root) == "outside-root"


def test_links_inside_the_root_and_a_linked_root_are_fine(root):
    (root / "Images" / "again.png").symlink_to("a.png")
    (root.parent / "elsewhere").symlink_to(root)
    assert open_image("Images/again.png", root=root).getpixel((0, 0)) == (255, 0, 0)
    assert open_image("Images/a.png", root=root.parent / "elsewhere").size == (4, 4)


def test_folders_pipes_loops_and_missing_files_are_refused_at_once(root):
    os.mkfifo(root / "pipe.png")
    (root / "loop.png").symlink_to("loop.png")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(root / "socket.png"))  # such a path has at most 108 bytes
        refused = {name: reason_of(open_image, name, root=root) for name in ("pipe.png", "socket.png", "Images", ".")}
    assert refused == {
        "pipe.png": "not-a-file",
        "socket.png": "not-a-file",
        "Images": "not-a-file",
        ".": "outside-root",
    }
    assert reason_of(open_image, "loop.png", root=root) == "not-a-file"
    assert reason_of(open_image, "Images/b.png", root=root) == "missing"
    assert reason_of(open_image, "Images/a.png/b.png", root=root) == "missing"


def test_a_file_that_is_exchanged_after_the_check_is_still_refused(root):
    checked = resolve("Images/a.png", root)
    checked.unlink()
    checked.symlink_to(root.parent / "secret.png")
    assert reason_of(read_file, checked) == "not-a-file"
    checked.unlink()
    os.mkfifo(checked)
    assert reason_of(read_file, checked) == "not-a-file"  # and does not wait for a writer
    assert reason_of(read_file, "/dev/zero") == "not-a-file"


def test_a_folder_that_is_exchanged_for_a_link_after_the_check_is_not_followed(root):
    """No race is needed: a path is checked once, and its image is opened all through a training."""
    checked = resolve("Images/a.png", root)
    assert read_file(checked, resolved=True) == read_file(checked)
    outside = root.parent / "outside"
    outside.mkdir()
    (outside / "a.png").write_bytes(encoded(Image.new("RGB", (4, 4), "red")))
    (root / "Images").rename(root / "Before")
    (root / "Images").symlink_to(outside)
    assert reason_of(read_file, checked, resolved=True) == "outside-root"
    row = {"id": "0", "images": [{"bytes": None, "path": str(checked)}]}
    assert reason_of(row_images, row) == "outside-root"
    assert image_digest(row["images"][0]) == "outside-root"
    (root / "Images").unlink()
    (root / "Before").rename(root / "Images")
    assert row_images(row)[0].size == (384, 384)


def test_a_image_that_is_exchanged_while_it_is_read_is_a_whole_one(root, monkeypatch):
    """Whoever rewrites a set renames new files over old ones: the old one is read to its end."""
    checked = resolve("Images/a.png", root)
    before = checked.read_bytes()
    real = os.fstat

    def replaced(handle: int) -> os.stat_result:
        monkeypatch.setattr(os, "fstat", real)
        (root / "new.png").write_bytes(b"new")
        (root / "new.png").rename(checked)
        return real(handle)

    monkeypatch.setattr(os, "fstat", replaced)
    assert read_file(checked, resolved=True) == before
    assert read_file(checked, resolved=True) == b"new"


def test_without_proc_the_path_is_looked_at_again(root, monkeypatch):
    checked = resolve("Images/a.png", root)

    def no_proc(path: str) -> str:
        raise FileNotFoundError(path)

    (root.parent / "outside").mkdir()
    (root.parent / "outside" / "a.png").write_bytes(b"x")
    (root / "Images").rename(root / "Before")
    (root / "Images").symlink_to(root.parent / "outside")
    handle = os.open(checked, os.O_RDONLY)
    try:
        monkeypatch.setattr(os, "readlink", no_proc)
        monkeypatch.setattr(os.path, "realpath", lambda path: str(root.parent / "outside" / "a.png"))
        assert not images._lies_at(handle, checked)
    finally:
        os.close(handle)


@pytest.mark.parametrize(
    "name",
    [
        "1ffa9633-8d87-11e8-9daf-6045cb817f5b..JPG",
        "000139 (9).png",
        "a#1.png",
        "100%.png",
        "%2e%2e.png",
        "a&b.png",
        "...png",
        "a;b,c'd.png",
        "müller_日本.png",
        "drimdb_bad (24).jpg",
        "~root.png",
        "$HOME.png",
        "10:30.png",
    ],
)
def test_unusual_names_are_ordinary_files(root, name):
    (root / "Images" / name).write_bytes(encoded(Image.new("RGB", (4, 4), "red")))
    assert open_image(f"Images/{name}", root=root, size=(2, 2)).size == (2, 2)


def test_a_url_is_refused_without_a_root_too():
    assert reason_of(open_image, "http://example.org/x.png") == "url"


def test_messages_name_the_value_and_stay_short():
    with pytest.raises(ImageError, match=r"'http://.*characters\) is a URL") as caught:
        resolve("http://" + "x" * 10_000, "/")
    assert len(str(caught.value)) < 400


def test_errors_survive_the_way_from_a_worker_process():
    error = pickle.loads(pickle.dumps(ImageError("empty", "x is empty")))
    assert (error.reason, str(error), type(error)) == ("empty", "x is empty", ImageError)


def test_all_real_images_open(real_dir):
    root = real_dir / "omnimedvqa"
    paths = [path for path in sorted((root / "Images").rglob("*")) if path.is_file()]
    assert len(paths) > 150
    for path in paths[::8]:
        image = open_image(str(path.relative_to(root)), root=root, size=(384, 384))
        assert (image.mode, image.size) == ("RGB", (384, 384))
        assert image.getextrema() != ((0, 0),) * 3, path
