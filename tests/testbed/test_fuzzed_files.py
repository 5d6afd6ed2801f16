"""Files that nobody would think of: long texts, keys and ids that stand twice, damage, cut result files."""

import json
import random
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
from drawn_values import quick, refusal, texts
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from open_r1.common.errors import UserError
from open_r1.data import json_lists
from open_r1.data.json_lists import json_entries
from open_r1.data.loading import load_rows
from open_r1.data.rows import RowError
from open_r1.data.text import files
from open_r1.data.text.files import rows_of
from open_r1.evaluation.reporting.published_form import published_form
from open_r1.evaluation.scoring.result_writer import ResultWriter
from open_r1.evaluation.scoring.results import Result, Sample, read_results
from open_r1.grading.grader import Outcome
from open_r1_testbed import damage, fuzz_log, fuzzing
from open_r1_testbed.fuzz_log import Log


@pytest.mark.slow
@quick
@given(st.binary(max_size=60) | texts.map(lambda text: text.encode("utf-8", "surrogatepass")))
@example(b"[" * 100_000)
@example(b'[{"a": ' + b"9" * 5000 + b"}]")
@example(b"\xef\xbb\xbf[]")
@example(b"[NaN, -Infinity]")
@example(b'[{"image": 1, "image": 2}]')
def test_any_file_is_read_or_refused_in_one_line(tmp_path: Path, data: bytes) -> None:
    readers: dict[str, Callable[[Path], Any]] = {
        "x.json": lambda path: list(json_entries(path)),
        "y.json": lambda path: list(rows_of(path)),
        "y.jsonl": lambda path: list(rows_of(path)),
        "y.csv": lambda path: list(rows_of(path)),
        "y.parquet": lambda path: list(rows_of(path)),
        "z.jsonl": read_results,
    }
    for name, read in readers.items():
        (tmp_path / name).write_bytes(data)
        assert "\n" not in refusal(lambda read=read, name=name: read(tmp_path / name)), name


def test_a_number_of_thousands_of_digits_costs_its_row_alone(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(f'[{{"image": {"9" * 5000}}}, {{"image": "a"}}]')  # int() refuses more than 4,300 digits
    assert list(json_entries(path))[1] == {"image": "a"}


GOOD = {"image": "a.png", "problem": "Which? A)x, B)y", "solution": "A"}


@pytest.mark.parametrize("chunk", [5, 64, 4096])
def test_a_text_without_end_costs_its_row_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr(json_lists, "_CHUNK", chunk)
    monkeypatch.setattr(json_lists, "LONGEST_ENTRY", 300)
    path = tmp_path / "x.json"
    for long in ("x" * 5000, "\\" * 999 + '"],[{', "\u00e9]}," * 200):
        for row in ({**GOOD, "problem": long}, [[long]], long, {"a": [{"b": long}, {}]}):
            for ascii_only in (True, False):
                path.write_text(json.dumps([GOOD, row, GOOD, 7], ensure_ascii=ascii_only), encoding="utf-8")
                first, second, third, last = json_entries(path)
                assert (first, third, last) == (GOOD, GOOD, 7)
                assert isinstance(second, RowError)
                assert second.reason == "too-long"
    path.write_text(json.dumps([GOOD, "x" * 5000])[:-2])
    with pytest.raises(UserError, match="is no valid JSON at entry 1"):
        list(json_entries(path))


@pytest.mark.slow
def test_300_megabytes_in_one_text_cost_that_row_and_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    with path.open("w") as file:
        file.write(f'[{json.dumps(GOOD)}, {{"image": "b.png", "problem": "')
        for _ in range(300):
            file.write("x" * 2**20)
        file.write(f'"}}, {json.dumps(GOOD)}]')
    tracemalloc.start()
    try:
        entries = list(json_entries(path))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert [isinstance(entry, RowError) for entry in entries] == [False, True, False]
    assert peak < 100 * 2**20  # bytes; 300 MB of text stay on the disk


def test_long_texts_cost_their_rows_in_every_form_of_text_questions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (json_lists, files):
        monkeypatch.setattr(module, "LONGEST_ENTRY", 300)
    rows = [{"question": "a"}, {"question": "x" * 5000}, {"question": "b"}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "b.json").write_text(json.dumps(rows))
    (tmp_path / "c.json").write_text(json.dumps({"S": rows}))
    (tmp_path / "d.csv").write_text("question\n" + "".join(row["question"] + "\n" for row in rows))
    datasets.Dataset.from_list(rows).to_parquet(str(tmp_path / "e.parquet"))
    for path in sorted(tmp_path.iterdir()):
        rows = [row for _, row in rows_of(path)]
        assert [row["question"] if isinstance(row, dict) else row.reason for row in rows] == ["a", "too-long", "b"]


@pytest.mark.parametrize("twice", ['"solution": "B"', '"more": {"k": 1, "k": 1}', '"more": [{"k": 1, "k": 2}]'])
def test_a_key_that_stands_twice_costs_its_row_by_name(tmp_path: Path, twice: str) -> None:
    row = json.dumps(GOOD)[:-1] + f", {twice}}}"
    other = json.dumps({**GOOD, "problem": "What? A)x, B)y"})
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "x.json").write_text(f"[{row}, {other}]")
    rows, dropped = load_rows(tmp_path / "x.json", None, tmp_path)
    assert len(rows) == 1
    assert [error.reason for error in dropped] == ["repeated-key"]
    assert "stands twice" in dropped[0].detail
    forms = {
        "a.jsonl": f"{row}\n{other}\n",
        "b.json": f"[{row}, {other}]",
        "c.json": f'{{"S": [{row}, {other}]}}',
        "d.json": f'{{"1": {row}, "2": {other}}}',
    }
    for name, text in forms.items():
        (tmp_path / name).write_text(text)
        first, second = (content for _, content in rows_of(tmp_path / name))
        assert isinstance(first, RowError), name
        assert first.reason == "repeated-key"
        assert isinstance(second, dict)


def test_an_id_that_stands_twice_in_a_file_of_ids_loses_no_row_without_a_word(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"7": {"question": "a"}, "7": {"question": "b"}}')
    assert [row for _, row in rows_of(tmp_path / "x.json")] == [
        {"question": "a", "id": "7"},
        {"question": "b", "id": "7"},
    ]


def test_a_column_that_stands_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("question,answer,question\na,b,c\n")
    with pytest.raises(UserError, match="two columns 'question'"):
        list(rows_of(tmp_path / "x.csv"))


results = st.builds(
    Result,
    id=texts,
    source=texts,
    image=texts,
    modality=st.none() | texts,
    task=st.none() | texts,
    problem=texts,
    solution=st.just("<answer> A </answer>"),
    output=texts,
    outcome=st.none() | st.sampled_from(list(Outcome)),
    letter=st.none() | st.sampled_from("AB"),
    tokens=st.integers(0, 9),
    error=st.none() | texts,
    blind=st.none() | st.floats(0, 1),
    seen=st.none() | st.booleans(),
    samples=st.none() | st.lists(st.builds(Sample, texts, st.sampled_from(list(Outcome)), st.just("A"), st.just(1))),
)


@pytest.mark.slow
@quick
@given(st.lists(results, max_size=4, unique_by=lambda result: result.id), st.integers(0, 2**30))
def test_results_are_read_as_they_were_written_and_a_cut_costs_one(
    tmp_path: Path, written: list[Result], cut: int
) -> None:
    path = tmp_path / "out.jsonl"
    path.unlink(missing_ok=True)
    with ResultWriter(path, {"rows": len(written)}) as writer:
        for result in written:
            writer.write(result)
    assert read_results(path).results == written
    json.dumps(published_form(written))
    data = path.read_bytes()
    whole = data.index(b"\n") + 1
    path.write_bytes(data[: whole + cut % (len(data) - whole + 1)])
    left = read_results(path).results
    assert left == written[: len(left)]


@pytest.mark.slow
def test_damaged_files_end_in_a_line_or_a_result_and_lose_no_good_row(
    tmp_path: Path,
) -> None:
    fuzz = fuzzing.Fuzz(tmp_path / "work", 7, tmp_path / "kept")
    with fuzz_log.quiet():
        fuzz.run(500)
    print("\n".join(fuzzing.lines(fuzz, 0)))
    assert fuzz.log.faults == []
    assert sum(fuzz.files.values()) == 500
    outcomes = {outcome for _, _, outcome in fuzz.log.counts}
    assert outcomes >= {"read", "dropped with a reason", "refused by name", "reported", "answered"}


def test_the_fuzzer_notices_a_traceback_and_a_lost_row(tmp_path: Path) -> None:
    log = Log(tmp_path)
    with log.watch("door", "kind", {"x": b"1"}):
        raise KeyError("planted")
    with log.watch("door", "batch of many", {}):
        raise UserError("planted too")
    assert [fault.split(": ")[1] for fault in log.faults] == ["KeyError", "all good rows are lost"]
    assert (tmp_path / "000-door-kind" / "x").read_bytes() == b"1"
    entries = [damage.row(number, "x.png") for number in range(3)]
    assert fuzzing.good_rows(json.dumps([entries[0], 5, entries[2]]).encode(), entries) == [entries[0], entries[2]]
    draw = random.Random(0)
    data = damage.seed_images()[0][1]
    assert all(change(data, data, draw) != data for change in (damage.truncate, damage.insert, damage.append))
