"""VLMEvalKit's tables: base64, an index in place of an image, columns of options, and tables that mean harm."""

import base64
import csv
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest
from vqa_sets import image_bytes, prepared, reasons, rows_of

from open_r1.common.errors import UserError
from open_r1.data.vqa import tables
from open_r1.data.vqa.tables import Table


def encoded(name: str) -> str:
    return base64.b64encode(image_bytes(name)).decode()


def png_of(side: int) -> bytes:
    """A PNG of some kilobytes whose header promises so many black pixels a side."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(bytes(10**6)))]
    parts = [
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def gmai_row(number: int, **changes: Any) -> dict[str, Any]:
    row = {
        "Index": number,
        "image": encoded(f"picture {number}"),
        "question": f"What is seen in {number}?",
        **{"A": "cyst", "B": "polyp", "C": "tumour", "D": "None", "E": ""},
        "answer": "B",
        "category": "polyp",
        "clinical VQA task": "Disease Diagnosis",
        "department": "Endoscopy",
        "modality": "CT",
    }
    return {**row, **changes}


def write_table(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    csv.field_size_limit(10**8)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0], delimiter="\t")
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_options_end_where_they_are_empty_or_none(tmp_path: Path) -> None:
    rows = [
        gmai_row(1),
        gmai_row(2, D="None", answer="D"),
        gmai_row(3, D="scar", E="burn", answer="tumour", category="tumour"),
        gmai_row(4, C="", D="scar"),
    ]
    path = write_table(tmp_path / "GMAI_VAL.tsv", rows)
    (data_set,) = prepared("vlmevalkit", [str(path)], tmp_path / "out")
    assert data_set.folder.name == "vlmevalkit_GMAI_VAL"
    first, none, five = rows_of(data_set, "test")
    assert first["problem"] == "What is seen in 1?\nA) cyst\nB) polyp\nC) tumour"
    assert (first["solution"], first["modality"]) == ("<answer> B </answer>", "CT")
    assert (first["source"], first["subject"]) == ("GMAI_VAL", "Disease Diagnosis")
    assert none["problem"].endswith("D) None")
    assert none["solution"] == "<answer> D </answer>"
    assert five["solution"] == "<answer> C </answer>"
    assert five["problem"].endswith("E) burn")
    assert reasons(data_set) == {"empty-option": 1}


def test_an_index_stands_for_the_image_of_its_row_before_or_after(tmp_path: Path) -> None:
    rows = [
        gmai_row(1, image="3"),
        gmai_row(2, image="1.0"),
        gmai_row(3, question='Said "so"\nand\tso?'),
        gmai_row(4, image="99"),
        gmai_row(5, image=""),
        gmai_row(6, image=f"['{encoded('picture 3')}', '3', '{encoded('picture 6')}']"),
    ]
    (data_set,) = prepared("vlmevalkit", [str(write_table(tmp_path / "T.tsv", rows))], tmp_path / "out")
    loaded = rows_of(data_set, "test")
    images = [row["images"][0]["path"] for row in loaded]
    assert len(set(images)) == 1
    assert [len(row["images"]) for row in loaded] == [1, 1, 1, 3]
    assert loaded[3]["images"][0] == loaded[3]["images"][1] != loaded[3]["images"][2]
    assert reasons(data_set) == {"missing-image": 1, "no-image": 1}


def test_a_cycle_of_indices_costs_its_rows(tmp_path: Path) -> None:
    rows = [gmai_row(1, image="2"), gmai_row(2, image="1"), gmai_row(3, image="3"), gmai_row(4)]
    (data_set,) = prepared("vlmevalkit", [str(write_table(tmp_path / "T.tsv", rows))], tmp_path / "out")
    assert len(rows_of(data_set, "test")) == 1
    assert reasons(data_set) == {"image-cycle": 3}


def test_without_options_the_question_is_closed_or_open(tmp_path: Path) -> None:
    row = {"index": 1, "image": encoded("a"), "question": "Is it?", "answer": "yes", "hint": "It is a slide."}
    rows = [row, {**row, "index": 2, "answer": "a nodule", "hint": "", "question": "What is it?"}]
    (data_set,) = prepared("vlmevalkit", write_table(tmp_path / "in/PathVQA_TEST.tsv", rows).parent, tmp_path / "out")
    closed, open_question = rows_of(data_set, "test")
    assert (closed["problem"], closed["answer_type"]) == ("It is a slide.\nIs it?", "closed")
    assert (open_question["problem"], open_question["answer_type"]) == ("What is it?", "open")


def test_images_may_be_files(tmp_path: Path) -> None:
    (tmp_path / "in/images").mkdir(parents=True)
    (tmp_path / "in/images/a.png").write_bytes(image_bytes("a"))
    row = {"index": 1, "image_path": "a.png", "question": "Is it?", "answer": "yes"}
    rows = [
        row,
        {**row, "index": 2, "image_path": "['a.png', 'images/a.png']"},
        {**row, "index": 3, "image_path": "../../etc/passwd"},
        {**row, "index": 4, "image_path": "b.png"},
        {**row, "index": 5, "image_path": "nan"},
    ]
    (data_set,) = prepared("vlmevalkit", write_table(tmp_path / "in/T.tsv", rows).parent, tmp_path / "out")
    assert [len(row["images"]) for row in rows_of(data_set, "test")] == [1, 2]
    assert reasons(data_set) == {"outside-root": 1, "missing": 1, "no-image": 1}


def test_every_table_is_a_set_of_its_own(tmp_path: Path) -> None:
    for name in ("A_TEST", "B_TEST"):
        write_table(tmp_path / f"in/{name}.tsv", [gmai_row(1)])
    sets = prepared("vlmevalkit", tmp_path / "in", tmp_path / "out")
    assert [data_set.folder.name for data_set in sets] == ["vlmevalkit_A_TEST", "vlmevalkit_B_TEST"]


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ("!" * 100, "not-base64"),
        ("A" * 101, "not-base64"),
        (base64.b64encode(b"no image" * 20).decode(), "not-an-image"),
        (base64.b64encode(png_of(60_000)).decode(), "too-many-pixels"),
        ("data:image/png;base64," + encoded("a"), ""),
    ],
)
def test_what_is_no_image_costs_its_row(tmp_path: Path, cell: str, reason: str) -> None:
    path = write_table(tmp_path / "T.tsv", [gmai_row(1), gmai_row(2, image=cell)])
    (data_set,) = prepared("vlmevalkit", [str(path)], tmp_path / "out")
    assert len(rows_of(data_set, "test")) == (1 if reason else 2)
    assert reasons(data_set) == ({reason: 1} if reason else {})


def test_a_line_without_end_costs_its_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "LONGEST_LINE", 10_000)
    rows = [gmai_row(1), gmai_row(2, image="A" * 50_000), gmai_row(3), gmai_row(4, image="3")]
    path = write_table(tmp_path / "T.tsv", rows)
    (data_set,) = prepared("vlmevalkit", [str(path)], tmp_path / "out")
    assert [row["problem"][16] for row in rows_of(data_set, "test")] == ["1", "3", "4"]
    assert reasons(data_set) == {"too-long": 1}


def test_rows_of_other_lengths_and_a_byte_order_mark(tmp_path: Path) -> None:
    path = write_table(tmp_path / "T.tsv", [gmai_row(1), gmai_row(2, image="1")])
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes() + b"3\tshort\n\n")
    (data_set,) = prepared("vlmevalkit", [str(path)], tmp_path / "out")
    assert len(rows_of(data_set, "test")) == 2
    assert reasons(data_set) == {"not-tsv": 1}


def test_tables_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "T.tsv"
    path.write_bytes(b"index\tquestion\tanswer\timage\n1\t\xff\ta\tb\n")
    with pytest.raises(UserError, match="is not UTF-8"):
        prepared("vlmevalkit", [str(path)], tmp_path / "out")
    path.write_text("index\tquestion\tQuestion\tanswer\n")
    with pytest.raises(UserError, match="two columns 'question'"):
        Table(path)
    path.write_text("")
    with pytest.raises(UserError, match="is no file of a table of VLMEvalKit"):
        prepared("vlmevalkit", [str(path)], tmp_path / "out")
    unanswered = [{key: value for key, value in gmai_row(1).items() if key != "answer"}]
    with pytest.raises(UserError, match="VLMEvalKit's table has answer, index, question"):
        prepared("vlmevalkit", [str(write_table(path, unanswered))], tmp_path / "out")
