"""Riddles: balanced, on one side each, the same from the same seed, and readable like a prepared set of real ones."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from open_r1.checkpoints.loading import load_model
from open_r1.checkpoints.processors import load_processor
from open_r1.common.errors import UserError
from open_r1.data.loading import load_rows
from open_r1.evaluation.scoring.blind_floor import blind_floor
from open_r1.grading.grader import Outcome, grade
from open_r1.grading.problems import options_in, solution_letter
from open_r1_testbed.riddles import OPTIONS, TOPICS, make_riddles, sample_riddles


@pytest.fixture(scope="module")
def riddles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_riddles(tmp_path_factory.mktemp("riddles") / "set", 96, 48, seed=3)


def test_a_set_loads_like_any_prepared_one_and_no_question_is_on_both_sides(riddles: Path) -> None:
    train, dropped = load_rows(riddles, "train")
    test, _ = load_rows(riddles, "test")
    assert (len(train), len(test), dropped) == (96, 48, [])
    assert not {*train["id"]} & {*test["id"]}
    row = train[0]
    assert (row["images"], row["source"], row["modality"], row["task"]) == ([], "Riddles", None, None)
    assert len(options_in(row["problem"])) == OPTIONS
    assert grade(row["solution"], solution_letter(row["solution"]), options_in(row["problem"]))[0] is Outcome.CORRECT


def test_every_answer_of_every_topic_is_as_frequent_so_guessing_earns_a_quarter(riddles: Path) -> None:
    rows = [json.loads(line) for line in (riddles / "test.jsonl").read_text().splitlines()]
    # 48 questions over 6 topics x 4 answers: 2 each
    counted = Counter((row["question_type"], options_in(row["problem"])[row["answer"]]) for row in rows)
    assert set(counted.values()) == {2}
    assert len(counted) == 24
    train = [json.loads(line) for line in (riddles / "train.jsonl").read_text().splitlines()]
    assert blind_floor(train, rows) == 0.25
    orders = Counter(tuple(options_in(row["problem"]).values()) for row in train)
    assert len(orders) > 60  # 96 draws from 6 topics x 24 orders


def test_a_sign_means_one_answer_and_is_asked_about_one_topic() -> None:
    signs = [sign for topic in TOPICS for answer_signs in topic.signs.values() for sign in answer_signs]
    assert len(signs) == len(set(signs))
    assert all(len(topic.signs) == OPTIONS for topic in TOPICS)
    for question in sample_riddles(240, seed=5):
        topic = next(topic for topic in TOPICS if topic.name == question.question_type)
        right = [
            answer
            for answer, answer_signs in topic.signs.items()
            if any(f"with {sign}." in question.question for sign in answer_signs)
        ]
        assert right == [question.options["ABCD".index(question.letter)]]


@pytest.mark.slow
def test_the_base_of_the_demo_knows_riddles_about_other_patients(
    load_script: Callable[[str], Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    script = load_script("scripts/build_text_base.py")
    problems: list[str] = []
    teach = script.teach

    def watched(model: Any, tokenizer: Any, rows: Any, *more: Any) -> list[float]:
        problems.extend(rows["problem"][:])
        return teach(model, tokenizer, rows, *more)

    monkeypatch.setattr(script, "teach", watched)
    # from this seed a base of narrower first weights learned the form alone and left GRPO nothing to bring out
    monkeypatch.setattr("sys.argv", ["build_text_base.py", "--output_dir", str(tmp_path / "base"), "--seed", "100"])
    script.main()
    assert len({*problems}) == script.QUESTIONS
    last = float(capsys.readouterr().out.split("-> ")[1].split()[0])
    # the form without knowledge: 1 of about 8 tokens is a draw among 4 options, ln(4) / 8 = 0.17; seen 0.01
    assert last < 0.05
    prepared = make_riddles(tmp_path / "set", seed=100)
    assert not {*problems} & {row for split in ("train", "test") for row in load_rows(prepared, split)[0]["problem"]}
    model, tokenizer = load_model(tmp_path / "base"), load_processor(tmp_path / "base")
    questions: Any = load_rows(prepared, "test")[0].select(range(48))
    prompts = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": row["problem"]}], tokenize=False, add_generation_prompt=True
        )
        for row in questions
    ]
    inputs = tokenizer(prompts, padding=True, return_tensors="pt")
    written = tokenizer.batch_decode(
        model.generate(**inputs, max_new_tokens=8)[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True
    )
    wanted = [f"Answer: {options_in(row['problem'])[solution_letter(row['solution'])]}" for row in questions]
    right = [answer == expected for answer, expected in zip(written, wanted, strict=True)]
    assert sum(right) > 40  # 12 by guessing; seen 48


def test_the_seed_decides_everything(riddles: Path, tmp_path: Path) -> None:
    again = make_riddles(tmp_path / "again", 96, 48, seed=3)
    other = make_riddles(tmp_path / "other", 96, 48, seed=4)
    first = (riddles / "train.jsonl").read_bytes()
    assert first == (again / "train.jsonl").read_bytes()
    assert first != (other / "train.jsonl").read_bytes()


def test_counts_that_cannot_be_balanced_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--test 50 must be a multiple of 24"):
        make_riddles(tmp_path / "set", 96, 50)
