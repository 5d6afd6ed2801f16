"""Files are whole or absent, folders belong to one process, and a full disk is one clear error."""

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading

import pytest

from open_r1.common.atomic_files import (
    MANIFEST,
    DiskError,
    publish_folder,
    read_manifest,
    refuse_foreign,
    sha256_file,
    staged_folder,
    write_atomically,
    write_json,
)
from open_r1.common.errors import UserError
from open_r1.common.locks import claimed


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, file_size_limit):
    path = tmp_path / "report.json"
    write_atomically(path, "old")
    with (
        pytest.raises(DiskError, match=r"cannot write .*report\.json: the file became larger than .* run again"),
        file_size_limit(1000),
    ):
        write_atomically(path, "x" * 2000)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["report.json"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_what_a_disk_refuses_is_told_in_words(tmp_path, monkeypatch, code):
    def refuse(handle):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(DiskError, match=r"disk is full|quota is used up|read-only"):
        write_atomically(tmp_path / "x", b"1")
    assert os.listdir(tmp_path) == []


def test_equal_values_give_equal_json_bytes(tmp_path):
    write_json(tmp_path / "a", {"b": 1, "a": "ä"})
    write_json(tmp_path / "b", {"a": "ä", "b": 1})
    assert sha256_file(tmp_path / "a") == sha256_file(tmp_path / "b")
    assert json.loads((tmp_path / "a").read_text(encoding="utf-8")) == {"a": "ä", "b": 1}


def test_a_claimed_folder_admits_one_writer(tmp_path):
    with claimed(tmp_path / "out"):
        with pytest.raises(UserError, match=r"another process .* is writing"), claimed(tmp_path / "out"):
            pass
        (tmp_path / "out" / "result").touch()
    with claimed(tmp_path / "out") as folder:  # free again
        assert sorted(os.listdir(folder)) == [".claim", "result"]
    assert os.listdir(tmp_path / "out") == ["result"]


@pytest.mark.slow
def test_a_claim_waits_for_what_is_about_to_end(tmp_path):
    code = "import sys, time\nfrom open_r1.common.locks import claimed\n"
    code += "with claimed(sys.argv[1]):\n    print('held', flush=True)\n    time.sleep(3600)"
    command = [sys.executable, "-c", code, str(tmp_path / "out")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as second:
        assert second.stdout is not None
        assert second.stdout.readline() == b"held\n"
        message = rf"another process \({second.pid} on .+\) is writing to"
        with pytest.raises(UserError, match=message), claimed(tmp_path / "out", 0.3):
            pass
        threading.Timer(0.5, second.kill).start()
        with claimed(tmp_path / "out", 600) as folder:
            assert second.wait() == -signal.SIGKILL
            assert os.listdir(folder) == [".claim"]


def test_a_file_system_without_locks_holds_nothing_and_works(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EOPNOTSUPP, "no locks here")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with claimed(tmp_path / "out") as folder, claimed(tmp_path / "out"):
        (folder / "result").touch()
    assert os.listdir(tmp_path / "out") == ["result"]


def test_a_claim_that_made_nothing_leaves_nothing(tmp_path):
    with pytest.raises(KeyError), claimed(tmp_path / "new"):
        raise KeyError
    assert os.listdir(tmp_path) == []
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is, or lies below, a file"), claimed(tmp_path / "file"):
        pass


def test_a_staged_folder_appears_whole_or_not_at_all(tmp_path):
    final = tmp_path / "set"

    def fail_half_way():
        with staged_folder(final) as stage:
            (stage / "half").write_text("x")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_half_way()
    assert os.listdir(tmp_path) == []
    with staged_folder(final) as stage:
        write_json(stage / MANIFEST, {"done": True})
        assert not final.exists()
    assert read_manifest(final) == {"done": True}
    assert os.listdir(tmp_path) == ["set"]


def test_what_is_not_ours_is_never_overwritten(tmp_path):
    refuse_foreign(tmp_path / "missing")
    folder = tmp_path / "photos"
    folder.mkdir()
    refuse_foreign(folder)  # empty
    (folder / "holiday.jpg").write_text("x")
    with pytest.raises(UserError, match="photos is not empty and was not made"):
        refuse_foreign(folder)
    with pytest.raises(UserError, match="is a file"):
        refuse_foreign(folder / "holiday.jpg")
    (folder / MANIFEST).write_text("{}")
    refuse_foreign(folder)
    (tmp_path / "stage").mkdir()
    with pytest.raises(UserError, match="complete already"):
        publish_folder(tmp_path / "stage", folder)
    assert sorted(os.listdir(folder)) == ["holiday.jpg", MANIFEST]
