"""Preparation again, after a stop, and of what cannot be prepared: nothing half-made, nothing lost."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from small_release import SMALL, draw, entries, make_release, tree

from open_r1.common.atomic_files import DiskError
from open_r1.common.errors import UserError
from open_r1.data.omnimedvqa.prepare import Preparation, prepare
from open_r1.data.omnimedvqa.summary import report_lines
from open_r1.data.preparation.encoded_images import Encoding
from open_r1.vocabulary.labels import Modality, Task


def test_a_second_run_does_nothing_and_says_so(build, tmp_path, monkeypatch):
    build()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    monkeypatch.setattr(Encoding, "encode", None)  # it would fail
    outcome = build()
    assert [data_set.built for data_set in outcome.sets] == [False] * 4
    assert "complete already, nothing was done" in next(iter(report_lines(outcome)))
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == before


def test_other_settings_or_inputs_are_refused_by_name(build, tmp_path, release):
    build()
    before = tree(tmp_path / "out")
    with pytest.raises(UserError, match=r"CT_32 was made with other settings or inputs: seed \(was 42, is 7\); remove"):
        build(seed=7)
    with pytest.raises(UserError, match=r"split \(was random, is image_disjoint\), pictures"):
        build(split="image_disjoint")
    draw(release / "Images/CT set/000 (1).png", 99)
    (release / "Images/CT set/001 (1).png").unlink()
    with pytest.raises(UserError, match=r"inputs: pictures \("):
        build()
    shutil.rmtree(release / "QA_information/Open-access")
    make_release(release, images=19)
    with pytest.raises(UserError, match=r"inputs: question files \("):
        build()
    assert tree(tmp_path / "out") == before


def test_a_damaged_set_is_found(build, tmp_path):
    build(only=(Modality.CT,))
    next((tmp_path / "out/CT_32/train").glob("*.arrow")).unlink()
    with pytest.raises(UserError, match=r"CT_32 is damaged \(train/data-00000-of-00001.arrow\)"):
        build(only=(Modality.CT,))


def test_a_folder_that_holds_something_else_stays(build, tmp_path):
    (tmp_path / "out/CT_32").mkdir(parents=True)
    (tmp_path / "out/CT_32/notes.txt").write_text("mine")
    with pytest.raises(UserError, match="CT_32 is not empty and was not made"):
        build()
    assert tree(tmp_path / "out").keys() == {"CT_32/notes.txt"}


@pytest.mark.slow
def test_an_interrupted_run_goes_on_where_it_stopped(build, tmp_path, monkeypatch):
    build("whole")
    encode, encoded = Encoding.encode, []

    def interrupt_at(limit):
        def counted(self, data, name):
            if len(encoded) == limit:
                raise KeyboardInterrupt
            encoded.append(name)
            return encode(self, data, name)

        return counted

    monkeypatch.setattr(Encoding, "encode", interrupt_at(21))
    with pytest.raises(KeyboardInterrupt):
        build()
    assert [name for name in os.listdir(tmp_path / "out") if not name.startswith(".")] == []
    monkeypatch.setattr(Encoding, "encode", interrupt_at(-1))
    build()
    assert len(encoded) == 40 + 5  # 21 done; of these the 16 in finished chunks of 8 were kept
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


@pytest.mark.slow
def test_a_killed_run_leaves_nothing_that_loads_and_no_process(release, tmp_path, repository):
    for number in range(20, 120):
        draw(release / f"Images/CT set/{number:03d} (1).png", number)
    (release / "QA_information/Open-access/CT set.json").write_text(json.dumps(entries(Modality.CT, 120)))
    command = [sys.executable, str(repository / "scripts/prepare_omnimedvqa.py"), "--release", str(release)]
    options = ["--only", "CT", "--num_workers", "2", "--size", "512", "--output_dir"]
    process = subprocess.Popen([*command, *options, str(tmp_path / "out")], stderr=subprocess.PIPE)
    index = tmp_path / "out/.partial/pictures/index.jsonl"
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline and not (index.exists() and index.read_bytes().count(b"\n") > 1):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    # The workers hold the same standard error: it ends when the last of them is gone.
    process.communicate(timeout=600)
    assert not (tmp_path / "out/CT_512").exists()
    with index.open("a") as file:
        file.write('["Images/CT set/119 (1).png", 77')  # a torn line
    remaining = index.read_bytes().count(b"\n") - 1
    assert 0 < remaining < 120
    finished = subprocess.run([*command, *options, str(tmp_path / "out")], capture_output=True, text=True)
    assert (finished.returncode, finished.stderr) == (0, "")
    assert "192 train, 48 test questions on 120 images, 0 dropped" in finished.stdout
    assert os.listdir(tmp_path / "out") == ["CT_512"]


def test_two_runs_do_not_write_to_one_folder(build, tmp_path):
    from open_r1.common.locks import claimed

    with claimed(tmp_path / "out"), pytest.raises(UserError, match=r"another process .* is writing"):
        build()


def test_every_dropped_question_is_listed_with_its_reason(build, release, tmp_path):
    folder = release / "Images/CT set"
    (folder / "000 (1).png").unlink()
    (folder / "001 (1).png").write_bytes(b"")
    (folder / "002 (1).png").write_text("no image")
    full = (folder / "003 (1).png").read_bytes()
    (folder / "003 (1).png").write_bytes(full[: len(full) // 2])
    (folder / "004 (1).png").unlink()
    (folder / "004 (1).png").symlink_to("/etc/passwd")
    rows = entries(Modality.CT, 20)
    rows[10]["gt_answer"] = "PET"
    rows[11]["image_path"] = "https://example.org/x.png"
    del rows[12]["question"]
    (release / "QA_information/Open-access/CT set.json").write_text(json.dumps([*rows, "what?"]))
    outcome = build()
    expected = {
        "missing": 2,
        "empty": 2,
        "not-an-image": 2,
        "unreadable": 2,
        "outside-root": 2,
        "solution-not-offered": 1,
        "url": 1,
        "missing-key": 1,
        "not-an-object": 1,
    }
    assert Counter(row["reason"] for row in outcome.dropped) == expected
    ct = next(data_set for data_set in outcome.sets if data_set.folder.name == "CT_32")
    assert sum(ct.report["questions"].values()) == 40 - 13
    stored = json.loads((ct.folder / "report.json").read_text())
    assert stored == ct.report
    assert len(stored["dropped"]) == 13  # the one without any label is nobody's
    lines = "\n".join(report_lines(outcome))
    assert "14 questions dropped: 2 " in lines
    assert "Open-access/CT set.json entry 10 - the answer 'PET' is not one of" in lines
    assert "and 4 more" in lines
    assert prepare(Preparation(tmp_path / "out", release=release, encoding=SMALL)).dropped == outcome.dropped


def test_a_side_whose_images_all_fail_is_an_error(build, release, tmp_path):
    for path in (release / "Images/CT set").iterdir():
        path.write_text("no image")
    with pytest.raises(UserError, match=r"CT_32: none of the 32 train questions has an image that can be used"):
        build()
    assert [name for name in os.listdir(tmp_path / "out") if not name.startswith(".")] == []


def test_a_wrong_image_root_is_told_before_any_work(build, release, tmp_path, splits):
    (tmp_path / "elsewhere").mkdir()
    with pytest.raises(UserError, match=r"none of the 20 images of CT is below .*elsewhere, for example 'Images/CT"):
        build(splits_dir=splits, image_root=tmp_path / "elsewhere")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("limit", "images_kept"), [(40_000, 8), (60_000, 16)])
def test_after_a_full_disk_the_same_command_continues(
    build, tmp_path, limit, images_kept, file_size_limit, monkeypatch
):
    """The pack holds 20 images of 3 kB, of which tasks of 8 are noted; a set's file is larger."""
    build("whole", only=(Modality.CT,))
    message = r"cannot write .*out: the file became larger than .*same command"
    with pytest.raises(DiskError, match=message) as error, file_size_limit(limit):
        build(only=(Modality.CT,))
    assert "\n" not in str(error.value)
    assert os.listdir(tmp_path / "out") == [".partial"]
    assert os.listdir(tmp_path / "out/.partial") == ["pictures"]
    encode, encoded = Encoding.encode, []
    monkeypatch.setattr(Encoding, "encode", lambda *given: encoded.append(given) or encode(*given))
    build(only=(Modality.CT,))
    assert len(encoded) == 20 - images_kept
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


def test_a_disk_that_is_full_before_the_first_image_leaves_nothing(build, tmp_path, file_size_limit):
    with pytest.raises(DiskError, match="no incomplete output was left"), file_size_limit(2_000):
        build(only=(Modality.CT,))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"release": None}, "either --release or --splits_dir"),
        ({"splits_dir": "."}, "either --release or --splits_dir"),
        ({"release": None, "splits_dir": "."}, "needs --image_root"),
        ({"release": "nowhere"}, "nowhere is not a readable folder"),
        ({"split": "published"}, "no published split"),
        ({"num_workers": 0}, "--num_workers 0"),
        ({"only": (Task.MODALITY,), "by": ("modality",)}, "which --by leaves out"),
        ({"only": (Modality.FUNDUS,)}, "no question for --only Fundus; available: CT, OCT"),
    ],
)
def test_settings_that_make_no_sense_are_refused(release, tmp_path, options, message):
    options = {
        key: Path(value) if isinstance(value, str) and key != "split" else value for key, value in options.items()
    }
    with pytest.raises(UserError, match=message):
        prepare(Preparation(**{"output_dir": tmp_path / "out", "release": release, **options}))
    assert not (tmp_path / "out").exists()


def test_sizes_and_formats_that_do_not_exist_are_refused():
    with pytest.raises(UserError, match="--format GIF"):
        Encoding(384, "GIF")
    with pytest.raises(UserError, match="--size 0"):
        Encoding(0)
