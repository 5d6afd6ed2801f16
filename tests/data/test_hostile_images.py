"""Whatever a data file names as an image: no request, no opening outside the root, no process, and an end in time.

The doors run in a process of their own (tests/support/watched_doors.py) under Python's audit hook. Beside it the kernel
says whether anybody, C libraries too, opened what lies outside (inotify), and a server listens that nobody may call.
"""

import ctypes
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pytest
from hostile_files import PNG, animation, bomb, encoded, many_scans
from PIL import Image

from open_r1.common.errors import UserError
from open_r1.data import images
from open_r1.data.arrow_sets import write_split
from open_r1.data.loading import load_rows
from open_r1_testbed.tiny_models import build_tiny_checkpoint

IN_ACCESS, IN_OPEN = 0x1, 0x20


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
