"""PathVQA in its three forms; a pickle is read only if it holds lists, dicts, texts and numbers."""

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
from vqa_sets import draw, prepared, reasons, rows_of, stored, write

from open_r1.common.errors import UserError
from open_r1.data.vqa.pickles import plain_pickle


def baseline_entry(name: str, *pairs: tuple[str, str]) -> dict[str, Any]:
    questions, labels = [question for question, _ in pairs], [{answer: 1} for _, answer in pairs]
    return {"img_id": name, "labelf": {"pvqa": labels}, "sentf": {"pvqa": questions}}


def test_the_baselines_lists_are_parallel(tmp_path: Path) -> None:
    entries = [
        baseline_entry("test_0001", ("What is it?", "a nodule"), ("Is it?", "yes")),
        baseline_entry("test_0002"),
        {**baseline_entry("test_0003", ("Is it?", "no")), "labelf": {"pvqa": []}},
        {"img_id": "test_0004"},
        {**baseline_entry("test_0005", ("Is it?", "no")), "labelf": {"pvqa": [{"a": 1, "b": 1}]}},
    ]
    write(tmp_path / "in/lxmert/pvqa_test.json", entries)
    draw(tmp_path / "in/pvqa/images/test", ["test_0001"])
    (data_set,) = prepared("pathvqa", tmp_path / "in", tmp_path / "out")
    first, second = rows_of(data_set, "test")
    assert (first["problem"], first["solution"], first["answer_type"]) == ("What is it?", "a nodule", "open")
    assert (second["solution"], second["answer_type"]) == ("yes", "closed")
    assert first["images"][0]["path"] == "pvqa/images/test/test_0001.jpg"
    assert reasons(data_set) == {"bad-lists": 2, "not-one-answer": 1}
    assert data_set.report["splits"]["test"]["closed"] == {"marked": None, "yes or no": 1}


def test_splits_are_called_as_everywhere(tmp_path: Path) -> None:
    for word in ("train", "val", "test"):
        write(tmp_path / f"in/pvqa_{word}.json", [baseline_entry(f"{word}_0001", ("Is it?", "no"))])
        draw(tmp_path / f"in/images/{word}", [f"{word}_0001"])
    (data_set,) = prepared("pathvqa", tmp_path / "in", tmp_path / "out")
    assert list(data_set.report["splits"]) == ["train", "validation", "test"]


def test_the_hubs_form_and_images_in_cmyk(tmp_path: Path) -> None:
    rows = [{"image": stored("a", mode="CMYK", form="JPEG"), "question": "is it?", "answer": "no"}]
    write(tmp_path / "in/data/test-00000-of-00001.parquet", rows)
    (data_set,) = prepared("pathvqa", tmp_path / "in", tmp_path / "out")
    assert rows_of(data_set, "test")[0]["images"][0]["bytes"][:4] == b"\x89PNG"


def save_pickle(path: Path, value: Any, protocol: int = 2) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(value, protocol))
    return path


ROWS = [
    {"image": "test_0001", "question": "What is it?", "answer": "\u00b5-cells, 5 mm"},
    {"image": "test_0001", "question": "Is it?", "answer": "no"},
]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_of_every_protocol(tmp_path: Path, protocol: int) -> None:
    assert plain_pickle(save_pickle(tmp_path / "a.pkl", ROWS, protocol)) == ROWS
    numbers = [0, -1, 2**80, 255, 70_000, 1.5, True, None, {"a": [1]}, "x" * 70_000]
    assert plain_pickle(save_pickle(tmp_path / "b.pkl", numbers, protocol)) == numbers


def test_the_authors_pickles(tmp_path: Path) -> None:
    save_pickle(tmp_path / "in/pvqa/qas/test/test_qa.pkl", [*ROWS, "text", {"image": "test_0001"}])
    draw(tmp_path / "in/pvqa/images/test", ["test_0001"])
    (data_set,) = prepared("pathvqa", tmp_path / "in", tmp_path / "out")
    assert [row["solution"] for row in rows_of(data_set, "test")] == ["\u00b5-cells, 5 mm", "no"]
    assert reasons(data_set) == {"not-an-object": 1, "missing-key": 1}


class Bomb:
    """Runs a command when it is unpickled in the usual way."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_a_pickle_that_runs_code_is_refused_and_does_not_run(tmp_path: Path) -> None:
    trace = tmp_path / "it_ran"
    pickle.loads(pickle.dumps(Bomb(trace)))
    assert trace.exists()  # so it would
    trace.unlink()
    path = save_pickle(tmp_path / "in/qas/test_qa.pkl", [ROWS[0], Bomb(trace)])
    with pytest.raises(UserError, match=r"a pickle with the instruction (GLOBAL|STACK_GLOBAL)"):
        plain_pickle(path)
    with pytest.raises(UserError, match=r"with the instruction .*refused\. Use the JSON or Parquet form"):
        prepared("pathvqa", tmp_path / "in", tmp_path / "out")
    assert not trace.exists()


def lists_in_lists(depth: int) -> bytes:
    return b"\x80\x02" + b"]" * depth + b"a" * (depth - 1) + b"."


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"not a pickle", "is no pickle that can be read"),
        (pickle.dumps(ROWS)[:-20], "is no pickle that can be read"),
        (b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x00abc.", "is no pickle that can be read"),  # a text of 2^56 bytes
        (b"\x80\x02]a.", "is no pickle that can be read"),  # appends to nothing
        (b"\x80\x02]r\xff\xff\xff\xff.", None),  # a memory of four billion places
        (b"\x80\x02]q\x00h\x00a.", "stands in several places"),  # a list in itself
        (lists_in_lists(100_000), "nested deeper"),
        (pickle.dumps({1, 2}), "instruction EMPTY_SET|instruction GLOBAL"),
        (pickle.dumps(b"bytes", 4), "instruction SHORT_BINBYTES"),
        (b"cos\nsystem\n(S'true'\ntR.", "instruction GLOBAL"),
        (b"\x80\x02(S'true'\nios\nsystem\n.", "instruction"),
        (b"\x80\x02\x82\x01.", "instruction EXT1"),
        (b"P1\n.", "instruction PERSID"),
    ],
)
def test_hostile_pickles(tmp_path: Path, data: bytes, message: str | None) -> None:
    path = tmp_path / "a.pkl"
    path.write_bytes(data)
    if message is None:
        assert plain_pickle(path) == []
        return
    with pytest.raises(UserError, match=message):
        plain_pickle(path)


# ---------------------------------------------------------------------------------------------- real rows


@pytest.mark.slow
def test_real_pickles_hold_the_rows_of_the_real_json(real_dir: Path, tmp_path: Path) -> None:
    names, questions = set(), 0
    for split in ("train", "val", "test"):
        source = real_dir / f"forms/pathvqa/baselines/method1/saved/lxmert/pvqa_{split}.json"
        entries = json.loads(source.read_text())
        names |= {entry["img_id"] for entry in entries if entry["sentf"]["pvqa"]}
        questions += sum(len(entry["sentf"]["pvqa"]) for entry in entries)
        (tmp_path / "json").mkdir(exist_ok=True)
        shutil.copy(source, tmp_path / "json")
        target = tmp_path / f"pickles/qas/{split}/{split}_qa.pkl"
        target.parent.mkdir(parents=True)
        shutil.copy(real_dir / f"forms/pathvqa/pvqa/qas/{split}/{split}_qa.pkl", target)
    draw(tmp_path / "images", names)
    (from_json,) = prepared("pathvqa", tmp_path / "json", tmp_path / "a", image_root=tmp_path / "images")
    (from_pickles,) = prepared("pathvqa", tmp_path / "pickles", tmp_path / "b", image_root=tmp_path / "images")
    for split in ("train", "validation", "test"):
        assert rows_of(from_json, split) == rows_of(from_pickles, split)
    assert from_json.report["dropped"] == from_pickles.report["dropped"] == []
    assert sum(counts["rows"] for counts in from_json.report["splits"].values()) == questions == 57
