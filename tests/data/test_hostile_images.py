"""Whatever a data file names as an image: no request, no opening outside the root, no process, and an end in time.

The doors run in a process of their own (tests/support/watched_doors.py) under Python's audit hook. Beside it the kernel
says whether anybody, C libraries too, opened what lies outside (inotify), and a server listens that nobody may call.
"""

import ctypes
import io
import json
import os
import socket
import struct
import subprocess
import sys
import tempfile
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from PIL import Image

from open_r1.common.errors import UserError
from open_r1.data import images
from open_r1.data.arrow_sets import write_split
from open_r1.data.images import MAX_SCANS, ImageError, decode
from open_r1.data.loading import load_rows
from open_r1_testbed.tiny_models import build_tiny_checkpoint

IN_ACCESS, IN_OPEN = 0x1, 0x20


def encoded(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


PNG = encoded(Image.new("RGB", (32, 32), "red"))


def chunk(kind: bytes, body: bytes = b"") -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def bomb(side: int) -> bytes:
    """A black 1-bit PNG of side x side pixels."""
    packer, line = zlib.compressobj(9), bytes(1 + side // 8)
    body = b"".join(packer.compress(line) for _ in range(side)) + packer.flush()
    head = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND")


def many_scans(side: int, count: int) -> bytes:
    """A progressive JPEG whose last scan is repeated; each makes the reader go over every pixel again."""
    data = encoded(Image.new("L", (side, side), 128), "JPEG", progressive=True)
    last_scan = data.rfind(b"\xff\xda")
    return data[:last_scan] + data[last_scan:-2] * count + data[-2:]


def animation(frames: int) -> bytes:
    """A GIF whose second frame is repeated."""
    image = Image.new("L", (8, 8), 0)
    data = encoded(image, "GIF", save_all=True, append_images=[Image.new("L", (8, 8), 255)])
    single = encoded(image, "GIF")
    at = data.rfind(b"!\xf9")
    assert len(data) > len(single)
    return data[:at] + data[at:-1] * (frames - 1) + data[-1:]


def references(port: int, secret: Path) -> dict[str, Any]:
    """Images that are named where nothing may be fetched or opened, by what is wrong with them."""
    url = f"127.0.0.1:{port}/x.png"
    outside = str(secret / "secret.png")
    up = "../" * 3 + "secret/secret.png"
    return {
        **{f"{scheme} URL": f"{scheme}://{url}" for scheme in ("http", "https", "ftp", "HTTP", "ws")},
        **{f"{scheme} URL": f"{scheme}://bucket/x.png" for scheme in ("s3", "gs", "hf")},
        "IPv6 loopback": f"http://[::1]:{port}/x.png",
        "user in a URL": f"http://a:b@{url}",
        "chained URL": f"simplecache::http://{url}",
        "zip in a URL": f"zip://x.png::http://{url}",
        "URL without slashes": f"http:{url}",
        "space and URL": f" http://{url}",
        "file URL": f"file://{outside}",
        "file URL, relative": "file:Images/a.png",
        "data URL": "data:image/png;base64,iVBORw0KGgo=",
        "bare base64": "iVBORw0KGgoAAAANSUhEUgAA" * 20,
        "absolute": outside,
        "password file": "/etc/passwd",
        "process environment": "/proc/self/environ",
        "open file of the process": "/proc/self/fd/0",
        "device": "/dev/zero",
        "steps up": up,
        "steps up inside": f"Images/{up}",
        "steps up, backslashes": up.replace("/", "\\"),
        "network share": "\\\\127.0.0.1\\share\\x.png",
        "network share, slashes": "//127.0.0.1/share/x.png",
        "drive letter": "C:\\x.png",
        "percent-encoded steps": up.replace("..", "%2e%2e"),
        "NUL": "Images/a.png\0.jpg",
        "line break": "Images/a\n.png",
        "right-to-left mark": "Images/\u202egnp.a",
        "half a surrogate pair": "Images/\ud800.png",
        "name of 300 bytes": "Images/" + "x" * 300,
        "path of 9,000 bytes": "Images/" + "x/" * 4500 + "a.png",
        "home": "~/x.png",
        "variable": "$HOME/x.png",
        "command": "$(touch x)|a.png",
        "empty": "",
        "dot": ".",
        "number": 7,
        "nothing": None,
        "list": ["Images/a.png", up],
        "object": {"bytes": None, "path": outside, "url": f"http://{url}"},
        "link to a file outside": "Images/link.png",
        "link to a folder outside": "Images/folder/secret.png",
        "link to a device": "Images/zero.png",
        "link to itself": "Images/loop.png",
        "link to the environment": "Images/environ.png",
        "FIFO": "Images/pipe.png",
        "socket": "Images/socket.png",
        "folder": "Images/inner",
        "missing": "Images/none.png",
    }


def files(port: int, secret: Path) -> dict[str, bytes]:
    """Images that lie inside the root and may not be decoded, by what they are."""
    svg = f'<svg xmlns="http://www.w3.org/2000/svg"><image href="http://127.0.0.1:{port}/x.png"/></svg>'
    return {
        "svg": svg.encode(),
        "zip": b"PK\x03\x04" + bytes(100),
        "gzip": b"\x1f\x8b\x08" + bytes(100),
        "tar": b"a.png".ljust(257, b"\0") + b"ustar" + bytes(300),
        "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(%pipe%touch x) (r) file\n",
        "pdf": b"%PDF-1.7\n",
        "html": b"<html></html>",
        "dicom": bytes(128) + b"DICM" + bytes(100),
        "pickle": b"\x80\x04cos\nsystem\n(S'touch x'\ntR.",
        "mvg": f"push graphic-context\nimage over 0,0 0,0 '{secret}'\n".encode(),
        "no bytes": b"",
        "bomb of 900 megapixels": bomb(30_000),
        "JPEG of 10,000 scans": many_scans(2000, 10_000),
        "truncated": encoded(Image.effect_noise((64, 64), 60), "JPEG")[:900],
        "animation of 10,000 frames": animation(10_000),
        "pages": encoded(Image.new("L", (8, 8)), "TIFF", save_all=True, append_images=[Image.new("L", (8, 8))]),
    }


def good(image: Any, number: int = 0) -> dict[str, Any]:
    return {"image": image, "problem": f"What is case {number}? A)CT, B)MRI", "solution": "<answer> B </answer>"}


def release_form(row: dict[str, Any], number: int) -> dict[str, Any]:
    return {
        "question_id": str(number),
        "question_type": "Modality Recognition",
        "modality_type": "CT(Computed Tomography)",
        "question": f"What is case {number}?",
        "option_A": "CT",
        "option_B": "MRI",
        "gt_answer": "MRI",
        "image_path": row["image"],
    }


def fill_root(root: Path, secret: Path, port: int) -> None:
    """The image root with one good image, bad files, and links and pipes that lead elsewhere."""
    folder = root / "Images"
    (folder / "inner").mkdir(parents=True)
    (folder / "a.png").write_bytes(PNG)
    for name, data in files(port, secret).items():
        (folder / f"{name}.png").write_bytes(data)
    with (folder / "too long.png").open("wb") as file:
        file.truncate(images.MAX_BYTES + 1)  # sparse
    links = {
        "link": secret / "secret.png",
        "zero": "/dev/zero",
        "loop": "loop.png",
        "environ": "/proc/self/environ",
    }
    for name, target in links.items():
        (folder / f"{name}.png").symlink_to(target)
    (folder / "folder").symlink_to(secret)
    os.mkfifo(folder / "pipe.png")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(folder / "socket.png"))


def save(folder: Path, columns: dict[str, Any], values: dict[str, Any], declared: dict[str, str] | None = None) -> None:
    """A saved set of two equal rows; `declared` says what its description calls a column instead."""
    write_split(folder, [values, {**values, "problem": values["problem"]}], datasets.Features(columns), "train")
    described = json.loads((folder / "dataset_info.json").read_text())
    for name, kind in (declared or {}).items():
        described["features"][name] = {"_type": kind}
    (folder / "dataset_info.json").write_text(json.dumps(described))


def fill_saved(folder: Path, secret: Path, port: int) -> None:
    """Saved sets that name images, or call a text an image, a sound or a document so that it would be opened."""
    folder.mkdir()
    text, image = datasets.Value("string"), datasets.Image()
    named = {"bytes": datasets.Value("binary"), "path": text}
    row = {"problem": "What? A)CT, B)MRI", "solution": "B"}
    places = {"file": str(secret / "secret.png"), "url": f"http://127.0.0.1:{port}/x.png"}
    for place, path in places.items():
        value = {"bytes": None, "path": path}
        columns = {"image": image, "problem": text, "solution": text}
        save(folder / f"image named, {place}", columns, {"image": value, **row})
        inside = {"image": {"bytes": PNG, "path": path}, **row}
        save(folder / f"bytes and a name, {place}", columns, inside)
        for column in ("problem", "id", "source"):
            for kind in ("Image", "Audio", "Video", "Pdf", "Nifti"):
                odd = {**columns, column: named}
                save(folder / f"{column} as {kind}, {place}", odd, {**inside, column: value}, {column: kind})
        save(folder / f"text named, {place}", {**columns, "image": text}, {**row, "image": path})
        listed = {**columns, "source": datasets.List(image)}
        write_split(folder / f"list, {place}", [{**inside, "source": [value]}], datasets.Features(columns), "train")
        assert listed


class Inotify:
    """The kernel's word on who opened something in a folder: events since it was asked last."""

    def __init__(self, folder: Path) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._handle = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        assert self._handle >= 0
        assert self._libc.inotify_add_watch(self._handle, os.fsencode(folder), IN_OPEN | IN_ACCESS) >= 0

    def opened(self) -> bool:
        try:
            return bool(os.read(self._handle, 4096))
        except BlockingIOError:
            return False

    def close(self) -> None:
        os.close(self._handle)


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Iterator[dict[str, Any]]:
    """All doors, once: what each kept and dropped, what was opened, and whether anybody called or came by."""
    base = tmp_path_factory.mktemp("hostile").resolve()
    secret, root = base / "secret", base / "work"
    secret.mkdir()
    (secret / "secret.png").write_bytes(PNG)
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        server.setblocking(False)
        port = server.getsockname()[1]
        fill_root(root / "images", secret, port)
        named = {**references(port, secret), **{name: f"Images/{name}.png" for name in files(port, secret)}}
        named["too long"] = "Images/too long.png"
        rows = [good("Images/a.png"), *(good(reference, n) for n, reference in enumerate(named.values(), 1))]
        (root / "list.json").write_text(json.dumps(rows))
        for side in ("train", "test"):
            path = root / "splits" / "modality" / side / f"CT(Computed Tomography)_{side}.json"
            path.parent.mkdir(parents=True)
            split_rows = rows if side == "train" else [good("Images/a.png", 9999)]
            path.write_text(json.dumps(split_rows))
        path = root / "images" / "QA_information" / "Open-access" / "Hostile.json"
        path.parent.mkdir(parents=True)
        extra_rows = [
            good("Images/a.png", number) for number in range(1000, 1040)
        ]  # so that each side of the draw has one
        path.write_text(
            json.dumps([release_form(row, n) for n, row in [*enumerate(rows), *enumerate(extra_rows, 1000)]])
        )
        fill_saved(root / "saved", secret, port)
        build_tiny_checkpoint(root / "model")
        kernel = Inotify(secret)
        process = subprocess.run(
            [sys.executable, "tests/support/watched_doors.py", str(root)],
            cwd=repository,
            env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
            capture_output=True,
            text=True,
            timeout=1800,
        )
        assert process.returncode == 0, process.stderr[-3000:]
        observed = {"doors": json.loads(process.stdout.splitlines()[-1]), "named": named, "root": root, "base": base}
        observed["opened by anybody"] = kernel.opened()
        (secret / "secret.png").read_bytes()
        observed["the kernel would have told"] = kernel.opened()
        kernel.close()
        try:
            server.accept()
            observed["called"] = True
        except BlockingIOError:
            observed["called"] = False
        yield observed


DOORS = ("prepare a release", "prepare split files", "load a list", "train", "infer")


@pytest.mark.slow
def test_nobody_is_called_and_nothing_outside_is_opened(outcome: dict[str, Any], repository: Path) -> None:
    assert outcome["called"] is False
    assert outcome["opened by anybody"] is False
    assert outcome["the kernel would have told"] is True  # or the line above would mean nothing
    allowed = [outcome["root"], repository, Path(sys.prefix), Path(sys.base_prefix).resolve(), "/dev/null"]
    inside = tuple(f"{os.path.realpath(place)}" for place in allowed)
    for door, report in outcome["doors"].items():
        assert report["events"], door  # the hook hears something
        calls = [event for event in report["events"] if event[0].startswith(CALLS)]
        # git is asked for the commit, and a checkpoint's template is tried in a limited process of its own
        allowed_calls = ("('git'", f"('{sys.executable}', ['{sys.executable}', '-I', '-c', ")
        assert [event for event in calls if not event[1].startswith(allowed_calls)] == [], door
        outside = [event for event in report["events"] if event[1].startswith("/") and not event[1].startswith(inside)]
        assert [event for event in outside if not is_system(event, outcome["base"])] == [], door


CALLS = ("socket", "urllib", "subprocess", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "pty")


def is_system(event: tuple[str, str], base: Path) -> bool:
    """What libraries look at by themselves, whatever the data says."""
    system = (
        "/proc/cpuinfo",
        "/proc/meminfo",
        "/proc/mounts",
        "/proc/self/status",
        "/sys/",
        "/usr/share/",
        "/etc/localtime",
    )
    return event[1].startswith((*system, tempfile.gettempdir())) and not event[1].startswith(str(base))


@pytest.mark.slow
def test_every_reference_is_refused_with_a_reason_and_the_good_row_stays(outcome: dict[str, Any]) -> None:
    count = len(outcome["named"])
    print(f"{count} kinds: {Counter(outcome['doors']['load a list']['reasons'])}")
    assert count >= 60
    for door in DOORS:
        report = outcome["doors"][door]
        usable = [Path(name).name for name in report["kept"]]
        assert set(usable) == {"a.png"}, door
        if door != "infer":  # which is not told of the rows that reading leaves out
            assert len(report["reasons"]) == count, door
            assert all(report["reasons"])
    assert set(outcome["doors"]["infer"]["reasons"]) >= {"not-an-image", "too-slow", "too-many-pixels", "animated"}
    assert len(outcome["doors"]["report"]["kept"]) == 1  # the page shows the good image alone


@pytest.mark.slow
def test_saved_sets_open_nothing_that_they_name(outcome: dict[str, Any]) -> None:
    results = outcome["doors"]["saved sets"]["told"]
    assert len(results) == 2 * (2 + 15 + 2)
    for name, result in results.items():
        if name.startswith("bytes and a name"):
            assert result == [1, "repeated-question"], name  # the bytes count, the name is not looked at
        elif " as " in name:
            assert "must hold text; refused" in result, name
        elif not name.startswith("list"):
            assert "no-image" in result, name


# ------------------------------------------------------------------------------------------------------- limits


def reason_of(data: bytes) -> str:
    with pytest.raises(ImageError) as caught:
        decode(data)
    return caught.value.reason


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


# ------------------------------------------------------------------------------------------------- saved folders


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    text = datasets.Value("string")
    row = {"image": {"bytes": PNG, "path": None}, "problem": "What? A)CT, B)MRI", "solution": "B"}
    write_split(
        tmp_path / "set",
        [row],
        datasets.Features({"image": datasets.Image(), "problem": text, "solution": text}),
        "train",
    )
    return tmp_path / "set"


def test_a_set_may_not_name_files_elsewhere(folder: Path) -> None:
    state = json.loads((folder / "state.json").read_text())
    data = folder / state["_data_files"][0]["filename"]
    for name in (f"../{folder.name}/{data.name}", str(data), "..", "http://127.0.0.1/x.arrow"):
        (folder / "state.json").write_text(json.dumps({**state, "_data_files": [{"filename": name}]}))
        with pytest.raises(UserError, match=r"state\.json names .* is not a plain file name beside it; refused"):
            load_rows(folder)
    (folder.parent / "dict").mkdir()
    (folder.parent / "dict" / "dataset_dict.json").write_text(json.dumps({"splits": ["../set"]}))
    with pytest.raises(
        UserError, match=r"dataset_dict\.json names '\.\./set', which is not a plain file name beside it"
    ):
        load_rows(folder.parent / "dict")


@pytest.mark.parametrize("leaf", ["state.json", "dataset_info.json"])
@pytest.mark.parametrize("content", ["[" * 100_000, "[]", "null", '{"features": {"problem": {"_type": "os.system"}}}'])
def test_a_damaged_description_is_one_line(folder: Path, leaf: str, content: str) -> None:
    (folder / leaf).write_text(content)
    with pytest.raises(UserError) as caught:
        load_rows(folder)
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------------------------------------------------- memory

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
