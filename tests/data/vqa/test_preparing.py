"""Preparing any set: the same bytes after a kill, nothing half-made, images safe, leaks counted, clear refusals."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import datasets
import pytest
from PIL import Image
from vqa_sets import image, image_bytes, prepared, rad_folder, rad_row, reasons, rows_of, stored, write

from open_r1.common.atomic_files import DiskError, sha256_file
from open_r1.common.errors import UserError
from open_r1.common.locks import claimed
from open_r1.data.arrow_sets import QUESTION_FEATURES
from open_r1.data.images import ImageError
from open_r1.data.preparation.encoded_images import BoundedEncoding
from open_r1.data.vqa.image_files import ImageFiles
from open_r1.data.vqa.registry import SOURCES
from open_r1.data.vqa.report import report_lines


def tree(folder: Path) -> dict[str, str]:
    """Every file below a folder with its hash."""
    return {str(p.relative_to(folder)): sha256_file(p) for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """VQA-RAD with 24 train and 4 test questions on 26 images."""
    rows = [rad_row(number) for number in range(24)]
    tests = [rad_row(number, phrase_type="test_freeform", answer="No") for number in (22, 23, 24, 25)]
    return rad_folder(tmp_path / "in", [*rows, *tests])


# ---------------------------------------------------------------------------------------------- what comes out


def test_the_set_loads_with_the_columns_of_questions(folder: Path, tmp_path: Path) -> None:
    (data_set,) = prepared("vqa_rad", folder, tmp_path / "out")
    saved = datasets.load_from_disk(str(data_set.folder))
    assert isinstance(saved, datasets.DatasetDict)
    assert {split: len(rows) for split, rows in saved.items()} == {"train": 24, "test": 4}
    assert saved["train"].features == QUESTION_FEATURES
    assert saved["test"][0]["images"][0].size == (24, 16)
    assert sorted(os.listdir(tmp_path / "out")) == ["vqa_rad"]
    assert data_set.report["images"] == {"all": 26, "train": 24, "test": 4}
    ids = [row["id"] for split in ("train", "test") for row in rows_of(data_set, split)]
    assert len(set(ids)) == 28
    assert all(len(name) == 16 for name in ids)


def test_lines_for_the_user(folder: Path, tmp_path: Path) -> None:
    lines = list(report_lines(prepared("vqa_rad", folder, tmp_path / "out")))
    assert lines == [
        f"{tmp_path}/out/vqa_rad: 24 train, 4 test questions on 26 images, 0 dropped",
        "  form: VQA-RAD as OSF publishes it (VQA_RAD Dataset Public.json)",
        "  train: 24 closed by the marks of the set (24 are marked as closed, 24 answers are yes or no)",
        "  test: 4 closed by the marks of the set (4 are marked as closed, 4 answers are yes or no)",
        "  leak train -> test: 2 of 4 images (50.0 %), shown by 2 of 4 questions; 0 are the same with the same answer",
    ]


def test_images_keep_their_size_up_to_the_longest_side(tmp_path: Path) -> None:
    sizes = {"wide": (200, 50), "tall": (30, 90), "small": (20, 10), "line": (300, 1)}
    rows = [
        {"image": stored(name, size=size), "question": f"is it {name}?", "answer": "no"} for name, size in sizes.items()
    ]
    write(tmp_path / "in/test-00000-of-00001.parquet", rows)
    (data_set,) = prepared("vqa_rad", tmp_path / "in", tmp_path / "out", encoding=BoundedEncoding(64))
    images = [Image.open(BytesIO(row["images"][0]["bytes"])) for row in rows_of(data_set, "test")]
    assert [image.size for image in images] == [(64, 16), (21, 64), (20, 10), (64, 1)]
    assert images[2].tobytes() == image("small", (20, 10)).tobytes()
    (jpeg,) = prepared("vqa_rad", tmp_path / "in", tmp_path / "jpeg", encoding=BoundedEncoding(64, "JPEG"))
    assert rows_of(jpeg, "test")[0]["images"][0]["bytes"][:2] == b"\xff\xd8"


@pytest.mark.parametrize(
    ("mode", "form"), [("CMYK", "JPEG"), ("RGBA", "PNG"), ("P", "GIF"), ("L", "PNG"), ("RGB", "BMP"), ("1", "TIFF")]
)
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str, form: str) -> None:
    rows = [{"image": stored("a", mode=mode, form=form), "question": "is it?", "answer": "no"}]
    write(tmp_path / "in/test-00000-of-00001.parquet", rows)
    (data_set,) = prepared("vqa_rad", tmp_path / "in", tmp_path / "out")
    with Image.open(BytesIO(rows_of(data_set, "test")[0]["images"][0]["bytes"])) as picture:
        assert (picture.mode, picture.size) == ("RGB", (24, 16))


def test_repeats_are_kept_with_ids_of_their_own_or_dropped(tmp_path: Path) -> None:
    folder = rad_folder(tmp_path / "in", [rad_row(1), rad_row(2), rad_row(1, qid=7), rad_row(1, answer="No")])
    (data_set,) = prepared("vqa_rad", folder, tmp_path / "kept")
    rows = rows_of(data_set, "train")
    assert len({row["id"] for row in rows}) == len(rows) == 4
    assert data_set.report["splits"]["train"]["repeated"] == 1
    (fewer,) = prepared("vqa_rad", folder, tmp_path / "dropped", drop_repeats=True)
    assert [row["id"] for row in rows_of(fewer, "train")] == [rows[0]["id"], rows[1]["id"], rows[3]["id"]]
    assert "1 questions repeat one with its images and answer (left out)" in "\n".join(report_lines([fewer]))


def test_a_question_has_one_id_whatever_its_image_is_called(tmp_path: Path) -> None:
    ids = []
    for name in ("synpic1.jpg", "renamed.jpg"):
        folder = tmp_path / name
        write(folder / "VQA_RAD Dataset Public.json", [rad_row(1, image_name=name)])
        (folder / "images").mkdir()
        (folder / "images" / name).write_bytes(image_bytes("same"))
        ids.append(rows_of(prepared("vqa_rad", folder, tmp_path / f"out {name}")[0], "train")[0]["id"])
    assert ids[0] == ids[1]


def test_a_limit_holds_for_every_split(folder: Path, tmp_path: Path) -> None:
    (data_set,) = prepared("vqa_rad", folder, tmp_path / "out", limit=3)
    assert [len(rows_of(data_set, split)) for split in ("train", "test")] == [3, 3]
    assert data_set.report["splits"]["train"]["beyond the limit"] == 21


# ---------------------------------------------------------------------------------------------- again


def test_a_second_run_does_nothing_and_other_inputs_are_refused(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    prepared("vqa_rad", folder, out)
    before = tree(out)
    (again,) = prepared("vqa_rad", folder, out)
    assert not again.is_new
    assert "complete already, nothing was done" in next(report_lines([again]))
    with pytest.raises(UserError, match=r"closed \(was marked, is yes_no\); --overwrite builds it anew"):
        prepared("vqa_rad", folder, out, closed="yes_no")
    shutil.copy(folder / "VQA_RAD Image Folder/synpic1.jpg", folder / "VQA_RAD Image Folder/synpic2.jpg")
    (folder / "VQA_RAD Image Folder/synpic3.jpg").unlink()
    with pytest.raises(UserError, match=r"other settings or inputs: images \("):
        prepared("vqa_rad", folder, out)
    assert tree(out) == before
    (anew,) = prepared("vqa_rad", folder, out, overwrite=True)
    assert anew.is_new
    assert reasons(anew) == {"missing": 1}


def test_overwriting_replaces_a_damaged_set_and_nothing_foreign(folder: Path, tmp_path: Path) -> None:
    (data_set,) = prepared("vqa_rad", folder, tmp_path / "out")
    before = tree(data_set.folder)
    next(data_set.folder.glob("test/*.arrow")).unlink()
    with pytest.raises(UserError, match=r"is damaged \(test/data-00000-of-00001.arrow\); --overwrite"):
        prepared("vqa_rad", folder, tmp_path / "out")
    prepared("vqa_rad", folder, tmp_path / "out", overwrite=True)
    assert tree(data_set.folder) == before
    (data_set.folder / "manifest.json").unlink()
    with pytest.raises(UserError, match="is not empty and was not made by this command"):
        prepared("vqa_rad", folder, tmp_path / "out", overwrite=True)


@pytest.mark.slow
def test_bytes_do_not_depend_on_the_number_of_processes(folder: Path, tmp_path: Path) -> None:
    for workers in (1, 2):
        prepared("vqa_rad", folder, tmp_path / f"out{workers}", num_workers=workers)
    assert tree(tmp_path / "out1") == tree(tmp_path / "out2")


@pytest.mark.parametrize("form", ["files", "parquet"])
def test_an_interrupted_run_continues_and_gives_the_same_bytes(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    if form == "parquet":
        rows = [{"image": stored(f"a{n}"), "question": f"is it {n}?", "answer": "no"} for n in range(26)]
        folder = write(tmp_path / "hub/test-00000-of-00001.parquet", rows).parent
    prepared("vqa_rad", folder, tmp_path / "whole")
    encode, encoded = BoundedEncoding.encode, []

    def interrupt_at(limit: int) -> Callable[[BoundedEncoding, bytes, str], bytes]:
        def counted(self: BoundedEncoding, data: bytes, name: str) -> bytes:
            if len(encoded) == limit:
                raise KeyboardInterrupt
            encoded.append(name)
            return encode(self, data, name)

        return counted

    monkeypatch.setattr(BoundedEncoding, "encode", interrupt_at(18))
    with pytest.raises(KeyboardInterrupt):
        prepared("vqa_rad", folder, tmp_path / "out")
    assert os.listdir(tmp_path / "out") == [".partial_vqa_rad"]
    monkeypatch.setattr(BoundedEncoding, "encode", interrupt_at(-1))
    prepared("vqa_rad", folder, tmp_path / "out")
    assert len(encoded) == 26 + 2  # of the 18 the 16 in finished chunks of 8 were kept
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


@pytest.mark.slow
def test_a_killed_command_leaves_nothing_that_loads_and_continues(tmp_path: Path, repository: Path) -> None:
    rows = [rad_row(number) for number in range(120)]
    folder = rad_folder(tmp_path / "in", rows)
    for number in range(120):
        image(str(number), (700, 700)).save(folder / f"VQA_RAD Image Folder/synpic{number}.jpg")
    script = str(repository / "scripts/prepare_vqa.py")
    command = [sys.executable, script, "vqa_rad", "--input", str(folder), "--num_workers", "2", "--output_dir"]
    process = subprocess.Popen([*command, str(tmp_path / "out")], stderr=subprocess.PIPE)
    index = tmp_path / "out/.partial_vqa_rad/encoded/index.jsonl"
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline and not (index.exists() and index.read_bytes().count(b"\n") > 1):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=600)  # ends when the last worker is gone
    assert not (tmp_path / "out/vqa_rad").exists()
    assert 0 < index.read_bytes().count(b"\n") - 1 < 120
    for out in ("out", "whole"):
        finished = subprocess.run([*command, str(tmp_path / out)], capture_output=True, text=True)
        assert (finished.returncode, finished.stderr) == (0, "")
    assert "120 train questions on 120 images, 0 dropped" in finished.stdout
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


def test_two_runs_do_not_write_to_one_folder(folder: Path, tmp_path: Path) -> None:
    with claimed(tmp_path / "out"), pytest.raises(UserError, match=r"another process .* is writing"):
        prepared("vqa_rad", folder, tmp_path / "out")


@pytest.mark.slow
def test_of_two_commands_at_once_one_builds_and_one_says_so(tmp_path: Path, repository: Path) -> None:
    folder = rad_folder(tmp_path / "in", [rad_row(number) for number in range(40)])
    for number in range(40):
        image(str(number), (700, 700)).save(folder / f"VQA_RAD Image Folder/synpic{number}.jpg")
    script = str(repository / "scripts/prepare_vqa.py")
    command = [sys.executable, script, "vqa_rad", "--input", str(folder), "--num_workers", "1", "--output_dir"]
    words = [*command, str(tmp_path / "out")]
    first = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline and not (tmp_path / "out/.partial_vqa_rad").exists():
        time.sleep(0.01)
    first.send_signal(signal.SIGSTOP)
    try:
        second = subprocess.run(words, capture_output=True, text=True)
    finally:
        first.send_signal(signal.SIGCONT)
    assert (second.returncode, second.stdout) == (2, "")
    assert re.fullmatch(r"error: another process \(\d+ on .*\) is writing to .*out; wait or .*\n", second.stderr)
    printed, errors = first.communicate(timeout=600)
    assert (first.returncode, errors) == (0, "")
    assert "40 train questions on 40 images, 0 dropped" in printed
    assert os.listdir(tmp_path / "out") == ["vqa_rad"]


@pytest.mark.parametrize("form", ["files", "parquet"])
def test_after_a_full_disk_the_same_command_continues(
    folder: Path, tmp_path: Path, file_size_limit: Callable[[int], object], form: str
) -> None:
    if form == "parquet":
        rows = [{"image": stored(f"a{n}"), "question": f"is it {n}?", "answer": "no"} for n in range(26)]
        folder = write(tmp_path / "hub/test-00000-of-00001.parquet", rows).parent
    prepared("vqa_rad", folder, tmp_path / "whole")
    with file_size_limit(12_000), pytest.raises(DiskError, match="encoded so far stay in"):  # type: ignore[attr-defined]
        prepared("vqa_rad", folder, tmp_path / "out")
    stage = tmp_path / "out/.partial_vqa_rad"
    assert sorted(os.listdir(stage)) == (["encoded", "images"] if form == "parquet" else ["encoded"])
    assert (stage / "encoded/index.jsonl").read_bytes().count(b"\n") > 8
    prepared("vqa_rad", folder, tmp_path / "out")
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


# ---------------------------------------------------------------------------------------------- image names


def test_names_are_looked_up_by_folder_then_by_stem(tmp_path: Path) -> None:
    for name in ("images/a.jpg", "other/deep/b.JPG", "other/xmlab1/source.jpg", "other/xmlab2/source.jpg", "c.d.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    files = ImageFiles(tmp_path, ("images", ""))
    assert files.named("a.jpg") == "images/a.jpg"
    assert files.named("A") == "images/a.jpg"
    assert files.named("b.jpeg") == "other/deep/b.JPG"
    assert files.named("xmlab2/source") == "other/xmlab2/source.jpg"
    assert files.named("c.d") == "c.d.png"
    assert files.named("gone.jpg") == "images/gone.jpg"
    with pytest.raises(ImageError, match="could be"):
        files.named("source")
    (tmp_path / "other/xmlab2/source.jpg").write_bytes(b"other/xmlab1/source.jpg")
    assert ImageFiles(tmp_path).named("source") == "other/xmlab1/source.jpg"  # the same file twice
    for folder in (b"", b"\xff"):  # names that are no UTF-8: no row can mean them, and they disturb no other
        os.makedirs(os.fsencode(tmp_path) + b"/" + folder, exist_ok=True)
        (Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + folder)) / os.fsdecode(b"\xe4.jpg")).write_bytes(b"")
    (Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff")) / "gone.jpg").write_bytes(b"")
    files = ImageFiles(tmp_path, ("images", ""))
    assert (files.named("A"), files.named("gone.jpg")) == ("images/a.jpg", "images/gone.jpg")
    for name in (
        "../a.jpg",
        "/etc/passwd",
        "https://example.org/a.jpg",
        "data:image/png;base64,AA",
        "",
        None,
        5,
        "a\0b",
    ):
        with pytest.raises(ImageError):
            files.named(name)


# ---------------------------------------------------------------------------------------------- the command


def test_the_command_prints_the_report(
    folder: Path, tmp_path: Path, load_script: Callable, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    (folder / "VQA_RAD Image Folder/synpic0.jpg").unlink()
    script = load_script("scripts/prepare_vqa.py")
    words = ["prepare_vqa.py", "vqa_rad", "--input", str(folder), "--output_dir", str(tmp_path / "out")]
    monkeypatch.setattr("sys.argv", [*words, "--num_workers", "1"])
    assert script.main() == 0
    printed = capsys.readouterr().out
    assert "23 train, 4 test questions on 25 images, 1 dropped" in printed
    assert "1 questions dropped: 1 missing" in printed
    monkeypatch.setattr("sys.argv", [*words, "--num_workers", "1", "--strict"])
    assert script.main() == 1
    assert json.loads((tmp_path / "out/vqa_rad/report.json").read_text())["dropped"][0]["reason"] == "missing"


def test_omnimedvqa_is_sent_to_its_command(load_script: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["prepare_vqa.py", "OmniMedVQA"])
    with pytest.raises(UserError, match=r"has a command of its own: python scripts/prepare_omnimedvqa\.py"):
        load_script("scripts/prepare_vqa.py").main()


def test_every_form_says_what_it_is() -> None:
    names = [form.name for source in SOURCES.values() for form in source.forms]
    assert len(names) == len(set(names)) >= 18
    for source in SOURCES.values():
        assert all(form.keys and form.files for form in source.forms)
