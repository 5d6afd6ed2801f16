"""Sets of many rows: what a further row takes of memory, in preparation and in loading, and files that stay few."""

import gc
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from small_release import SMALL, draw
from vqa_sets import prepared

from open_r1.data import json_lists, key_table
from open_r1.data.arrow_sets import QUESTION_FEATURES, write_split
from open_r1.data.loading import load_rows
from open_r1.data.preparation import encoded_images
from open_r1.data.preparation.encoded_images import BoundedEncoding, Job, Pack
from open_r1.data.readers import arrow_rows
from open_r1.data.vqa import image_files

FEW, MANY = 200, 1400


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is held of a fixed number of rows is small, so that it does not hide what grows."""
    monkeypatch.setattr(key_table, "_UNSORTED", 16)
    monkeypatch.setattr(image_files, "_REMEMBERED", 16)
    monkeypatch.setattr(json_lists, "_CHUNK", 4096)
    monkeypatch.setattr(arrow_rows, "_CHECKED_AT_ONCE", 64)
    monkeypatch.setattr("open_r1.data.arrow_sets._BATCH_ROWS", 32)


def bytes_of_a_row(work: Callable[[int], object]) -> float:
    """How much higher the peak of Python's and numpy's memory is for a further row."""
    work(5)  # what is loaded once
    peaks = {}
    for count in (FEW, MANY):
        gc.collect()
        tracemalloc.start()
        work(count)
        peaks[count] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return (peaks[MANY] - peaks[FEW]) / (MANY - FEW)


@pytest.mark.slow
def test_preparation_takes_little_memory_for_a_further_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BoundedEncoding, "encode", lambda encoding, data, name: data)

    for count in (5, FEW, MANY):
        rows = []
        for number in range(count):
            name = f"part{number // 100:04d}/{number:07d}.png"
            path = tmp_path / f"in{count}/imgs" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"%07d" % number)
            row = {"img_name": name, "question": f"Is it the image {number}?", "answer": "Yes"}
            rows.append(row | {"q_lang": "en", "answer_type": "CLOSED"})
        (tmp_path / f"in{count}/train.json").write_text(json.dumps(rows))

    def prepare(count: int) -> None:
        (data_set,) = prepared("slake", tmp_path / f"in{count}", tmp_path / f"out{count}")
        assert data_set.report["splits"]["train"]["rows"] == data_set.report["images"]["train"] == count

    assert bytes_of_a_row(prepare) < 500  # observed 320; 1,150 with names and keys as texts of Python


@pytest.mark.slow
def test_loading_takes_little_memory_for_a_further_row(tmp_path: Path) -> None:
    for count in (5, FEW, MANY):
        write_split(tmp_path / str(count), map(_row, range(count)), QUESTION_FEATURES, "train")

    def load(count: int) -> None:
        rows, dropped = load_rows(tmp_path / str(count))
        assert (len(rows), dropped) == (count, [])

    assert bytes_of_a_row(load) < 200  # beside Arrow; observed 40, and 690 with all rows as texts of Python


def _row(number: int) -> dict:
    texts = {"problem": f"Is it the image {number}?", "solution": "yes", "answer_type": "closed", "aliases": []}
    labels = {"source": "SLAKE", "modality": None, "task": None, "subject": "organ"}
    return {"images": [{"bytes": b"%07d" % number, "path": f"{number}.png"}], "id": f"row{number}", **texts, **labels}


def test_a_pack_of_many_runs_opens_few_files_and_outlives_torn_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoded_images, "_OPEN_FILES", 2)
    references = key_table.References(tmp_path / "references.txt")
    names = [f"{number}.png" for number in range(5)]
    for number, name in enumerate(names):
        draw(tmp_path / name, number)
        references.add(name)
    for number, name in enumerate(names):  # each run writes a file of its own
        monkeypatch.setattr("open_r1.data.preparation.encoded_images.os.getpid", lambda number=number: 100 + number)
        pack = Pack(tmp_path / "pack", tmp_path, references, SMALL)
        assert [index in pack for index in range(5)] == [index < number for index in range(5)]
        pack.start([Job(number, name, True)], 1)
        assert list(pack.finish()) == [1]
        pack.close()
        with (tmp_path / "pack/index.jsonl").open("a") as file:
            file.write('["4.png", 77')  # torn when the command was killed
    pack = Pack(tmp_path / "pack", tmp_path, references, SMALL)
    assert [pack.read(index) for index in (0, 1, 2, 3, 4, 0)] == [
        SMALL.encode((tmp_path / f"{index}.png").read_bytes(), "") for index in (0, 1, 2, 3, 4, 0)
    ]
    assert len(pack._handles) == 2
    pack.close()
    assert (tmp_path / "pack/index.jsonl").read_bytes().count(b"\n") == 6
