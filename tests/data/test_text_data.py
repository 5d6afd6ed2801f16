"""Text questions from raw files to prepared folders: readers by hand, what is dropped, the draw, and the loader."""

import csv
import json
import random
from collections import Counter
from typing import Any

import datasets
import pytest
from text_sets import medqa_row, write_lines, xpert_row

from open_r1.common.errors import UserError
from open_r1.data.loading import load_rows
from open_r1.data.text.files import rows_of
from open_r1.data.text.prepare import Benchmark, prepare_benchmark
from open_r1.data.text.sources import gpqa, read_file, split_choices
from open_r1.grading.problems import LETTERS, options_in, render_lines, render_problem

# ----------------------------------------------------------------------------------------------- one per line


def test_options_on_lines_of_their_own_are_read_back_whatever_they_hold():
    rng = random.Random(0)
    pieces = [
        "A)",
        "B) ",
        ", ",
        ", B)",
        "(C)",
        "\n",
        "C. ",
        "x",
        "é",
        "  ",
        "Z) ",
        "<answer>",
        "\u2028",
        "y (mild)",
        ",",
    ]
    for _ in range(3000):
        options = ["".join(rng.choices(pieces, k=rng.randint(1, 6))) + "." for _ in range(rng.randint(2, 26))]
        question = "".join(rng.choices(pieces, k=8)) + "?"
        read = options_in(render_lines(question, options))
        assert list(read.values()) == [" ".join(option.split()) for option in options]
        assert "".join(read) == LETTERS[: len(options)]


def test_such_options_cannot_be_read_back_from_one_line():
    with pytest.raises(UserError, match="read back"):
        render_problem("Which?", ["vitamin A, B) and C", "none"])


@pytest.mark.parametrize("options", [["one"], [], ["x", " "], [str(n) for n in range(27)]])
def test_a_problem_needs_2_to_26_options(options):
    with pytest.raises(UserError, match="2 to 26"):
        render_lines("Which?", options)


def test_the_published_one_line_form_still_reads_as_before():
    assert options_in("Is it? A)CT, B)MRI") == {"A": "CT", "B": "MRI"}
    assert options_in("Look:\nA)CT, B)MRI") == {"A": "CT", "B": "MRI"}


# ------------------------------------------------------------------------------------------------- the readers

PUBMED = {"QUESTION": "Does it help?", "CONTEXTS": ["We asked.", "It did."], "final_decision": "maybe"}
MCQA = {"question": "Which?", "opa": "w", "opb": "x", "opc": "y", "opd": "z", "subject_name": "Anatomy"}
PRO = {"question": "Which?", "options": ["N/A", "x", "N/A", "y"], "answer": "D", "category": "health"}

# set, file name, rows, then of the first question: options, letter, source
BY_HAND = [
    ("medqa", "a.jsonl", [medqa_row(1)], ("a1", "b1", "c1", "d1"), "B", "MedQA"),
    (
        "medqa",
        "a.jsonl",
        [medqa_row(1, options={"E": "e", "B": "b1", "A": "a", "C": "c", "D": "d"})],
        ("a", "b1", "c", "d", "e"),
        "B",
        "MedQA",
    ),
    (
        "medqa",
        "a.jsonl",
        [{"id": "t", "question": "Q?\nAnswer Choices: (A) x (B) y (z)", "label": ["B"]}],
        ("x", "y (z)"),
        "B",
        "MedQA",
    ),
    ("medxpertqa", "a.jsonl", [xpert_row(3, "Reasoning")], tuple(f"{x} 3" for x in "abcdefghij"), "J", "MedXpertQA"),
    (
        "medxpertqa",
        "a.jsonl",
        [
            {
                "question": "Q?",
                "options": [{"letter": "A", "content": "x"}, {"letter": "B", "content": "y"}],
                "label": ["A"],
            }
        ],
        ("x", "y"),
        "A",
        "MedXpertQA",
    ),
    ("medmcqa", "a.json", [MCQA | {"cop": 4}], ("w", "x", "y", "z"), "D", "MedMCQA"),
    ("medmcqa", "a.json", [MCQA | {"cop": 0}], ("w", "x", "y", "z"), "A", "MedMCQA"),
    ("pubmedqa", "a.jsonl", [PUBMED], ("yes", "no", "maybe"), "C", "PubMedQA"),
    (
        "pubmedqa",
        "a.jsonl",
        [{"pubid": 7, "question": "Q?", "context": {"contexts": ["c"]}, "final_decision": "yes"}],
        ("yes", "no", "maybe"),
        "A",
        "PubMedQA",
    ),
    (
        "mmlu_medical",
        "a.jsonl",
        [{"question": "Q?", "choices": ["p", "q", "r", "s"], "answer": 2, "subject": "anatomy"}],
        ("p", "q", "r", "s"),
        "C",
        "MMLU-medical",
    ),
    ("mmlu_pro_medical", "a.jsonl", [PRO], ("x", "y"), "B", "MMLU-Pro-medical"),
    (
        "huatuo",
        "a.json",
        [{"question": "Q?", "options": {"A": "x", "B": "y"}, "answer": "y", "answer_idx": "B", "source": "S_test"}],
        ("x", "y"),
        "B",
        "S_test",
    ),
]


@pytest.mark.parametrize(("name", "file", "rows", "options", "letter", "source"), BY_HAND)
def test_each_published_form_is_read(tmp_path, name, file, rows, options, letter, source):
    question = read_file(name, write_lines(tmp_path / file, rows)).questions[0]
    assert (question.options, question.letter, question.source) == (options, letter, source)
    assert list(options_in(question.problem).values()) == list(options)


def test_choices_are_taken_off_the_question():
    assert split_choices("Q (A) one?\nAnswer Choices: (A) x (mild) (B) y") == (
        "Q (A) one?",
        {"A": "x (mild)", "B": "y"},
    )
    assert split_choices("Q without any?") == ("Q without any?", {})


def test_pubmedqa_shows_its_contexts_before_the_question(tmp_path):
    (question,) = read_file("pubmedqa", write_lines(tmp_path / "a.jsonl", [PUBMED])).questions
    assert question.problem == "We asked.\nIt did.\nDoes it help?\nA) yes\nB) no\nC) maybe"


def test_gpqa_is_shuffled_by_seed_and_question_alone():
    row = {"Question": "Q?", "Correct Answer": "right"} | {f"Incorrect Answer {n}": f"wrong {n}" for n in (1, 2, 3)}
    orders = {seed: gpqa(seed)(row) for seed in range(40)}
    assert gpqa(3)(row) == orders[3]
    assert all(q.options[LETTERS.index(q.letter)] == "right" and len(q.options) == 4 for q in orders.values())
    assert set(Counter(q.letter for q in orders.values())) == set("ABCD")


def test_gpqa_comes_as_csv_and_only_its_biology_counts(tmp_path):
    header = ["Question", "Correct Answer", *(f"Incorrect Answer {n}" for n in (1, 2, 3)), "High-level domain"]
    with (tmp_path / "g.csv").open("w", newline="") as file:
        out = csv.writer(file)
        out.writerows([header, ["a\nb?", "r", "x", "y", "z, w", "Biology"], ["c?", "r", "x", "y", "z", "Physics"]])
    reading = read_file("gpqa", tmp_path / "g.csv")
    assert (len(reading.questions), reading.other_subjects, reading.dropped) == (1, 1, [])
    assert set(reading.questions[0].options) == {"r", "x", "y", "z, w"}


def test_files_of_objects_keep_their_keys(tmp_path):
    (tmp_path / "pqal.json").write_text(json.dumps({"123": PUBMED}))
    assert read_file("pubmedqa", tmp_path / "pqal.json").questions[0].origin == "123"
    item = {"question": "Q?", "options": {"A": "x", "B": "y"}, "answer": "x", "answer_idx": "A"}
    (tmp_path / "eval.json").write_text(json.dumps({"MedQA_test": [item, item], "GPQA_test": [item]}))
    reading = read_file("huatuo", tmp_path / "eval.json")
    # two sources may ask the same question, one may not ask it twice
    assert [q.source for q in reading.questions] == ["MedQA_test", "GPQA_test"]
    assert [row.reason for row in reading.dropped] == ["repeated-question"]


# ------------------------------------------------------------------------------------------- MedMCQA's two keys


def mcqa(cops: list[int], explanations: list[str] | None = None) -> list[dict[str, Any]]:
    texts = explanations or [""] * len(cops)
    return [
        MCQA | {"question": f"Q{n}?", "cop": cop, "exp": exp}
        for n, (cop, exp) in enumerate(zip(cops, texts, strict=True))
    ]


def test_a_0_or_a_4_anywhere_says_from_where_cop_counts(tmp_path):
    from_0 = read_file("medmcqa", write_lines(tmp_path / "a.jsonl", mcqa([1, 2, 0, 3])))
    from_1 = read_file("medmcqa", write_lines(tmp_path / "b.jsonl", mcqa([1, 2, 4, 3])))
    assert [q.letter for q in from_0.questions] == ["B", "C", "A", "D"]
    assert [q.letter for q in from_1.questions] == ["A", "B", "D", "C"]
    assert from_1.notes == ["cop counts from 1: a 4 occurs"]


def test_explanations_decide_where_the_values_do_not(tmp_path):
    rows = mcqa([1, 2, 3, 1, 2], ["Ans. is 'b' i.e., x", "Ans. C", "Answer: (d) z", "Ans. b", "Ans is c"])
    reading = read_file("medmcqa", write_lines(tmp_path / "a.jsonl", rows))
    assert [q.letter for q in reading.questions] == ["B", "C", "D", "B", "C"]
    assert reading.notes == ["cop counts from 0: 5 of 5 explanations name that letter"]


def test_a_key_that_nothing_decides_is_refused_with_the_flag_that_does(tmp_path):
    path = write_lines(tmp_path / "a.jsonl", mcqa([1, 2, 3]))
    with pytest.raises(UserError, match="--medmcqa_cop 0"):
        read_file("medmcqa", path)
    assert [q.letter for q in read_file("medmcqa", path, medmcqa_cop=1).questions] == ["A", "B", "C"]
    with pytest.raises(UserError, match="values 0 and 4"):
        read_file("medmcqa", write_lines(tmp_path / "b.jsonl", mcqa([0, 4])))


def test_the_unlabelled_test_split_is_no_question_at_all(tmp_path):
    with pytest.raises(UserError, match="published without answers"):
        read_file("medmcqa", write_lines(tmp_path / "a.jsonl", mcqa([-1, -1])))


# ------------------------------------------------------------------------------------------------ malformed rows

TOO_MANY = {"options": [f"o{n}" for n in range(27)]}
MALFORMED = [
    (medqa_row(9, question="  "), "empty-question"),
    (medqa_row(9, options={"A": "only"}, answer_idx="A", answer="only"), "too-few-options"),
    (medqa_row(9, answer_idx="E"), "answer-not-offered"),
    (medqa_row(9, answer="c9"), "answer-contradicts"),
    (medqa_row(9, options={"A": "x", "B": "x"}, answer="x"), "repeated-option"),
    (medqa_row(9, options={"A": "", "B": "b9"}), "empty-option"),
    (medqa_row(9, options={"one": "x", "B": "b9"}), "bad-letter"),
    (medqa_row(9, options="A or B"), "no-options"),
    (medqa_row(9, question=None), "missing-key"),
    (medqa_row(9, question=["Q?"]), "not-text"),
    (medqa_row(9, question="half \ud800"), "not-text"),
    (medqa_row(9, **TOO_MANY), "too-many-options"),
    (["a", "list"], "not-an-object"),
    (medqa_row(1), "repeated-question"),
    (medqa_row(1, answer_idx="A", answer="a1"), "two-solutions"),
    (medqa_row(9, id="x"), "repeated-id"),
]


@pytest.mark.parametrize(("row", "reason"), MALFORMED, ids=[reason for _, reason in MALFORMED])
def test_a_malformed_row_is_dropped_with_its_reason_and_the_rest_is_read(tmp_path, row, reason):
    path = write_lines(tmp_path / "train.jsonl", [medqa_row(1, id="x"), row, medqa_row(2)])
    reading = read_file("medqa", path)
    assert [q.question for q in reading.questions] == ["Question 1?", "Question 2?"]
    assert [(d.where, d.reason) for d in reading.dropped] == [("train.jsonl row 1", reason)]


def test_26_options_are_a_question_and_a_broken_line_is_counted(tmp_path):
    path = tmp_path / "a.jsonl"
    write_lines(path, [medqa_row(1, options=[f"o{n}" for n in range(26)], answer_idx="Z", answer="o25")])
    path.write_text(path.read_text() + '{"question": "cut off\n')
    reading = read_file("medqa", path)
    assert [q.letter for q in reading.questions] == ["Z"]
    assert [d.reason for d in reading.dropped] == ["not-json"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"question": "caf\xe9"}\n', "is not UTF-8"),
        ("a.json", b'[{"question": "caf\xe9"}]', "is not UTF-8"),
        ("a.jsonl", b"", "it is empty"),
        ("a.json", b"", "is empty"),
        ("a.json", b"[{}", "no valid JSON"),
        ("a.parquet", b"no parquet", "no Parquet file"),
        ("a.txt", b"x", "no file of questions"),
        ("a.jsonl", b'{"other": "layout"}\n', "'question' is missing|options are expected|neither options"),
    ],
)
def test_a_file_that_is_none_is_one_line(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        read_file("medqa", tmp_path / name)
    assert "\n" not in str(caught.value)


def test_parquet_and_json_lists_hold_the_same_rows(tmp_path):
    rows = [xpert_row(n, "Reasoning") for n in range(3)]
    (tmp_path / "a.json").write_text(json.dumps(rows))
    datasets.Dataset.from_list(rows).to_parquet(str(tmp_path / "a.parquet"))
    assert [row for _, row in rows_of(tmp_path / "a.json")] == [row for _, row in rows_of(tmp_path / "a.parquet")]


# ------------------------------------------------------------------------------------------------ real questions


def test_real_benchmarks_become_test_folders(real_dir, tmp_path):
    for name, source, n in (("medqa", "MedQA", 300), ("mmlu_medical", "MMLU-medical", 300)):
        file = "medqa.jsonl" if name == "medqa" else "mmlu_medical.jsonl"
        ((folder, manifest),) = prepare_benchmark(Benchmark(name, real_dir / "text_benchmarks" / file), tmp_path)
        assert folder == tmp_path / source
        assert manifest["rows"]["test"]["n"] == n
        assert len(load_rows(folder, "test")[0]) == n


def test_real_medxpertqa_gives_the_same_options_from_both_forms(real_dir):
    raw = real_dir / "medxpertqa" / "Text" / "test.jsonl"
    for _, row in rows_of(raw):
        assert isinstance(row, dict)
        _, within = split_choices(row["question"])
        assert within == {letter: text.strip() for letter, text in row["options"].items()}
