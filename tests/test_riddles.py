"""Riddles: balanced, on one side each, the same from the same seed, and readable like a prepared set of real ones."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from open_r1.answers import Outcome, grade, options_in, solution_letter
from open_r1.checkpoints import load_model
from open_r1.errors import UserError
from open_r1.evaluation.blind import blind_floor
from open_r1.riddles import OPTIONS, TOPICS, make_riddles, sample_riddles
from open_r1.vqa_data import load_vqa


@pytest.fixture(scope="module")
def riddles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_riddles(tmp_path_factory.mktemp("riddles") / "set", 96, 48, seed=3)


def test_a_set_loads_like_any_prepared_one_and_no_question_is_on_both_sides(riddles: Path) -> None:
    train, dropped = load_vqa(riddles, "train")
    test, _ = load_vqa(riddles, "test")
    assert (len(train), len(test), dropped) == (96, 48, [])
    assert not {*train["id"]} & {*test["id"]}
    row = train[0]
    assert (row["image"], row["source"], row["modality"], row["task"]) == (None, "Riddles", None, None)
    assert len(options_in(row["problem"])) == OPTIONS
    assert grade(row["solution"], solution_letter(row["solution"]), options_in(row["problem"]))[0] is Outcome.CORRECT


def test_every_answer_of_every_topic_is_as_frequent_so_guessing_earns_a_quarter(riddles: Path) -> None:
    rows = [json.loads(line) for line in (riddles / "test.jsonl").read_text().splitlines()]
    # 48 questions over 6 topics x 4 letters: 2 each
    counted = Counter((row["question_type"], row["answer"]) for row in rows)
    assert set(counted.values()) == {2}
    assert len(counted) == 24
    train = [json.loads(line) for line in (riddles / "train.jsonl").read_text().splitlines()]
    assert blind_floor(train, rows) == 0.25


def test_a_sign_means_one_answer_and_is_asked_about_one_topic() -> None:
    signs = [sign for topic in TOPICS for own in topic.signs.values() for sign in own]
    assert len(signs) == len(set(signs))
    assert all(len(topic.signs) == OPTIONS for topic in TOPICS)
    for question in sample_riddles(240, seed=5):
        topic = next(each for each in TOPICS if each.name == question.question_type)
        right = [
            answer for answer, own in topic.signs.items() if any(f"with {sign}." in question.question for sign in own)
        ]
        assert right == [question.options["ABCD".index(question.letter)]]


def test_the_base_of_the_demo_learns_from_other_patients(
    riddles: Path, load_script: Callable[[str], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = load_script("scripts/build_text_base.py")
    shown: list[str] = []
    teach = script.teach

    def watched(model: Any, tokenizer: Any, rows: Any, *more: Any) -> list[float]:
        shown.extend(rows["problem"][:])
        return teach(model, tokenizer, rows, *more)

    monkeypatch.setattr(script, "teach", watched)
    flags = ["--output_dir", str(tmp_path / "base"), "--seed", "3", "--max_steps", "2"]
    monkeypatch.setattr("sys.argv", ["build_text_base.py", *flags])
    script.main()
    prepared = {*load_vqa(riddles, "train")[0]["problem"], *load_vqa(riddles, "test")[0]["problem"]}
    assert len(shown) == script.QUESTIONS
    assert not prepared & {*shown}
    assert load_model(tmp_path / "base").config.model_type == "qwen2"


def test_the_seed_decides_everything(riddles: Path, tmp_path: Path) -> None:
    again = make_riddles(tmp_path / "again", 96, 48, seed=3)
    other = make_riddles(tmp_path / "other", 96, 48, seed=4)
    first = (riddles / "train.jsonl").read_bytes()
    assert first == (again / "train.jsonl").read_bytes()
    assert first != (other / "train.jsonl").read_bytes()


def test_counts_that_cannot_be_balanced_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--test 50 must be a multiple of 24"):
        make_riddles(tmp_path / "set", 96, 50)
