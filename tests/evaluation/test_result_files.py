"""Result files: what was written is read, nothing is lost or mixed, and damage is one line."""

import json
import multiprocessing
from pathlib import Path

import pytest
from example_results import GOOD, HEAD, LINE, MANIFEST, PROBLEM, RIGHT, UNREAD, example, result, write

from open_r1.common.errors import UserError
from open_r1.evaluation.reporting.published_form import published_form, published_text
from open_r1.evaluation.scoring.result_writer import ResultWriter
from open_r1.evaluation.scoring.results import read_results


def test_what_is_written_is_read(tmp_path):
    odd = result("9", None, None, "Ünïcode \u2028 \x00 \ud800 \n\n 肺", "p")
    result_file = read_results(write(tmp_path / "deep" / "out.jsonl", [*example(), odd]))
    assert result_file.manifest == MANIFEST
    assert result_file.results == [*example(), odd]
    assert not result_file.torn


def test_a_line_holds_what_the_contract_names(tmp_path):
    lines = write(tmp_path / "out.jsonl", example()).read_text().splitlines()
    assert json.loads(lines[0]) == {"manifest": MANIFEST}
    assert json.loads(lines[4]) == {
        "id": "4",
        "source": "test",
        "image": "p2",
        "modality": "CT",
        "task": "Disease Diagnosis",
        "problem": PROBLEM,
        "solution": "<answer> C </answer>",
        "output": UNREAD,
        "outcome": "unparsed",
        "letter": None,
        "tokens": 5,
        "error": None,
        "blind": None,
        "seen": None,
        "samples": None,
        "asked": None,
        "cut_off": None,
        "content": None,
    }
    last = json.loads(lines[8])
    assert (last["outcome"], last["letter"], last["error"]) == (None, None, "truncated image")


@pytest.mark.slow
def test_a_run_killed_at_any_byte_loses_one_line_at_most_and_continues(tmp_path):
    whole = write(tmp_path / "whole.jsonl", example()).read_bytes()
    ends = [at + 1 for at, byte in enumerate(whole) if byte == ord("\n")]
    path = tmp_path / "cut.jsonl"
    for cut in [*range(0, ends[0] + 1, 7), *range(ends[1] - 3, ends[2] + 4), *range(ends[-2] - 1, ends[-1] + 1, 5)]:
        path.write_bytes(whole[:cut])
        finished = sum(end <= cut for end in ends)
        if finished > 1:
            result_file = read_results(path)
            assert len(result_file.results) in (finished - 1, finished)  # a line may only lack its end
        with ResultWriter(path, MANIFEST) as writer:
            for result in example():
                if result.id not in writer.written_ids:
                    writer.write(result)
        assert path.read_bytes() == whole


def test_each_line_is_on_file_before_the_next_is_made(tmp_path):
    writer = ResultWriter(tmp_path / "out.jsonl", MANIFEST)
    for count, answered in enumerate(example(), 1):
        writer.write(answered)
        assert len(read_results(tmp_path / "out.jsonl").results) == count
    writer.close()


def append_some(path: Path, names: range) -> None:
    with ResultWriter(path, MANIFEST) as writer:
        for name in names:
            writer.write(result(str(name), "CT", "Disease Diagnosis", RIGHT * 50))


@pytest.mark.slow
def test_two_processes_may_append_to_one_file(tmp_path):
    path = write(tmp_path / "out.jsonl", [])
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=append_some, args=(path, range(k, 400, 2))) for k in (0, 1)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert sorted(int(stored.id) for stored in read_results(path).results) == list(range(400))


def test_another_run_is_not_mixed_in(tmp_path):
    path = write(tmp_path / "out.jsonl", example())
    before = path.read_bytes()
    with pytest.raises(UserError, match=r"prompt \('train-nothink' there, 'readme' now\)"):
        ResultWriter(path, {**MANIFEST, "prompt": "readme"})
    assert path.read_bytes() == before
    ResultWriter(path, {**MANIFEST, "batch_size": 3}).close()  # changes nothing in what is measured


def test_writing_an_id_twice_is_our_own_error(tmp_path):
    with ResultWriter(tmp_path / "out.jsonl", MANIFEST) as writer:
        writer.write(example()[0])
        with pytest.raises(AssertionError, match="twice"):
            writer.write(example()[0])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("\n \n", "is empty"),
        ("no json\n", "first line is no JSON"),
        ("[1]\n", "should be {"),
        (GOOD + "\n", "should be {"),
        ('{"manifest": 3}\n', "should be {"),
        (f"{HEAD}\n{GOOD}\n{GOOD}\n", "id '1' twice"),
        (f"{HEAD}\n{GOOD[:-9]}\n{GOOD}\n", "line 2 is no result line"),
        (f"{HEAD}\n{GOOD[:-9]}\n", "line 2 is no result line"),  # ended, so not torn
        (f"{HEAD}\n{LINE}\n", "lacks image, letter"),
        (f"{HEAD}\n[]\n", "no JSON object"),
        (f"{HEAD}\n{GOOD.replace('correct', 'maybe')}\n", "maybe"),
        (f"{HEAD}\n{json.dumps({**json.loads(GOOD), 'id': 1})}\n", "id should be text"),
        (f"{HEAD}\n{json.dumps({**json.loads(GOOD), 'blind': '0.5'})}\n", "blind should be a number from 0 to 1"),
        (f"{HEAD}\n{json.dumps({**json.loads(GOOD), 'seen': 1})}\n", "seen should be true or false"),
        (f"{HEAD}\n{json.dumps({**json.loads(GOOD), 'tokens': '7'})}\n", "tokens should be a whole number"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_in_one_line(tmp_path, text, message):
    path = tmp_path / "out.jsonl"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        read_results(path)
    assert message in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_file_a_folder_and_a_binary_are_refused(tmp_path):
    with pytest.raises(UserError, match="No such file"):
        read_results(tmp_path / "none.jsonl")
    with pytest.raises(UserError, match="directory"):
        read_results(tmp_path)
    (tmp_path / "binary").write_bytes(b"\x89PNG\r\n\x1a\n\x00")
    with pytest.raises(UserError, match="first line is no JSON"):
        read_results(tmp_path / "binary")


def test_a_foreign_file_is_not_continued(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("my notes")
    with pytest.raises(UserError, match="no result file"):
        ResultWriter(path, MANIFEST)
    assert path.read_text() == "my notes"


def test_published_form_by_hand():
    form = published_form(example())
    assert form["accuracy"] == pytest.approx(100 * 5 / 7)
    assert len(form["results"]) == 7  # the unreadable image was not asked about
    assert form["results"][3] == {
        "question": PROBLEM,
        "ground_truth": "C",
        "model_output": UNREAD,
        "extracted_answer": None,
    }
    assert published_form([])["accuracy"] is None


def test_the_published_form_is_written_as_json_with_an_indent():
    for form in (published_form(example()) | {"grader": "huatuo"}, published_form([])):
        assert published_text(form) == json.dumps(form, indent=2) + "\n"
