"""References to images: nothing outside the root is opened, whatever is exchanged meanwhile."""

import os
import socket
from pathlib import Path

import pytest
from hostile_files import encoded, reason_of
from PIL import Image

from open_r1.data import images
from open_r1.data.images import open_image, read_file, resolve
from open_r1.data.loading import image_digest
from open_r1.data.row_images import row_images

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


def test_all_real_images_open(real_dir):
    root = real_dir / "omnimedvqa"
    paths = [path for path in sorted((root / "Images").rglob("*")) if path.is_file()]
    assert len(paths) > 150
    for path in paths[::8]:
        image = open_image(str(path.relative_to(root)), root=root, size=(384, 384))
        assert (image.mode, image.size) == ("RGB", (384, 384))
        assert image.getextrema() != ((0, 0),) * 3, path
