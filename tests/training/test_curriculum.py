"""Orders by difficulty: what they promise, by hand; that one process and two keep them; the file they need."""

import json
from pathlib import Path

import pytest
from forked_scripts import run_script
from met_questions import RATES, WINDOW, order_of

from open_r1.common.errors import UserError
from open_r1.data.difficulty_file import read_difficulty
from open_r1.evaluation.scoring.difficulty import Thresholds
from open_r1.training.command_line.parsing import parse
from open_r1.training.setup.curriculum import Curriculum, Order, training_order
from open_r1_testbed.tiny_models import build_tiny_checkpoint


def windows(places: list[int], size: int) -> list[list[int]]:
    return [places[start : start + size] for start in range(0, len(places), size)]


def mixed(hard: str, window: int, fraction: float, seed: int = 0) -> Order:
    flags = tuple(sign == "h" for sign in hard)
    return Order(Curriculum.MIXED, tuple(0.1 if flag else 0.9 for flag in flags), flags, window, seed, fraction)


def test_easy_to_hard_falls_from_the_highest_rate_and_leaves_out_what_fills_no_window() -> None:
    order = order_of("easy_to_hard")
    sitting_out = set()
    for epoch in range(40):
        places = order(epoch)
        rates = [RATES[place] for place in places]
        assert rates == sorted(rates, reverse=True)
        assert len(set(places)) == 8  # 9 questions, windows of 4
        sitting_out |= {*range(9)} - {*places}
    # each is left out with chance 1/9 per epoch; that one of 9 never is in 40 epochs has chance < 9 * (8/9)**40 = 0.08
    assert len(sitting_out) >= 8


def test_equal_rates_are_drawn_anew_by_seed_and_epoch() -> None:
    equal_rates = Order(Curriculum.EASY_TO_HARD, (0.5,) * 12, (False,) * 12, 4, seed=1)
    assert equal_rates(0) == equal_rates(0)
    assert equal_rates(0) != equal_rates(1)
    assert equal_rates(0) != Order(Curriculum.EASY_TO_HARD, (0.5,) * 12, (False,) * 12, 4, seed=2)(0)
    assert sorted(equal_rates(3)) == [*range(12)]


def test_every_window_of_mixed_holds_its_share_without_replacement() -> None:
    order = mixed("hhhhhh" + "e" * 10, window=4, fraction=0.25)
    for epoch in range(5):
        places = order(epoch)
        # 3 others per window: 10 // 3 = 3 windows, though 6 hard ones would do for 6
        assert len(places) == 12
        assert len(set(places)) == 12
        assert [sum(place < 6 for place in window) for window in windows(places, 4)] == [1, 1, 1]
    assert order(0) != order(1)
    assert {place for epoch in range(20) for place in order(epoch)} == {*range(16)}  # nobody sits out for ever


def test_a_share_that_is_no_whole_number_is_met_in_turns() -> None:
    order = mixed("h" * 6 + "e" * 14, window=4, fraction=0.3)
    # 0.3 * 4 = 1.2: floors of 1.2, 2.4, 3.6, 4.8, 6.0 are 1, 2, 3, 4, 6, so windows hold 1, 1, 1, 1, 2
    assert [order.hard_in(window) for window in range(5)] == [1, 1, 1, 1, 2]
    places = order(0)
    assert [sum(place < 6 for place in window) for window in windows(places, 4)] == [1, 1, 1, 1, 2]
    assert sorted(places) == [*range(20)]


def test_the_hard_one_has_no_fixed_place_in_its_window() -> None:
    order = mixed("h" * 8 + "e" * 24, window=4, fraction=0.25)
    places = {[place < 8 for place in window].index(True) for e in range(5) for window in windows(order(e), 4)}
    assert places == {0, 1, 2, 3}


def test_all_and_none_are_shares_too() -> None:
    assert sorted(mixed("hhhhee", 2, 1.0)(0)) == [0, 1, 2, 3]
    assert sorted(mixed("hhhhee", 2, 0.0)(0)) == [4, 5]


def test_a_window_that_cannot_be_filled_is_an_error_with_the_counts() -> None:
    with pytest.raises(UserError, match="1 hard and 5 other questions do not fill one generation batch of 4 with 2"):
        mixed("heeeee", 4, 0.5)
    with pytest.raises(UserError, match=r"--hard_fraction 1.5 is not a share"):
        mixed("heeeee", 4, 1.5)


def test_the_line_says_what_comes_and_what_sits_out() -> None:
    assert mixed("h" * 6 + "e" * 14, 4, 0.3).line() == (
        "curriculum mixed: 6 of 20 questions are hard, 1 or 2 in every generation batch of 4"
    )
    assert order_of("easy_to_hard").line().endswith("1 of 9 are skipped in each epoch, others each time")


@pytest.mark.slow
@pytest.mark.parametrize(("processes", "curriculum"), [(1, "easy_to_hard"), (2, "mixed")])
def test_training_meets_the_questions_in_the_order_known_before(
    processes: int, curriculum: str, tmp_path: Path, repository: Path
) -> None:
    checkpoint = build_tiny_checkpoint(tmp_path / "tiny", "qwen2")
    script, launched = repository / "tests" / "support" / "met_questions.py", processes if processes > 1 else 0
    process = run_script(script, [str(checkpoint), str(tmp_path), curriculum], repository, launched)
    assert process.returncode == 0, process.stderr[-3000:]
    met = [json.loads((tmp_path / f"met-{rank}.json").read_text()) for rank in range(processes)]
    order = order_of(curriculum)
    share = WINDOW // processes
    for number, expected in enumerate(windows(order(0) + order(1), WINDOW)):
        for rank in range(processes):
            rank_share = expected[rank * share : (rank + 1) * share]
            # every question once per completion of its group of 2
            batch = met[rank][number * share * 2 : (number + 1) * share * 2]
            assert batch == [place for place in rank_share for _ in range(2)], (number, rank)
    assert sum(map(len, met)) == 4 * WINDOW * 2  # 2 epochs of 2 windows, and nothing else


# ------------------------------------------------------------------------------------------------ the difficulty file


def write_difficulty(path: Path, rates: dict[str, float]) -> Path:
    label = Thresholds().label
    rows = [
        {"id": i, "correct": round(8 * r), "samples": 8, "pass_rate": r, "label": label(r)} for i, r in rates.items()
    ]
    lines = [{"manifest": {"thresholds": {"easy_from": 0.75, "hard_to": 0.25}}}, *rows]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_both_thresholds_belong_to_their_label() -> None:
    assert [Thresholds().label(rate) for rate in (0, 0.25, 0.26, 0.74, 0.75, 1)] == [
        *("hard", "hard", "medium", "medium", "easy", "easy")
    ]
    with pytest.raises(UserError, match="are not in order"):
        Thresholds(easy_from=0.2, hard_to=0.5)


def test_the_order_follows_the_ids_and_not_the_lines_of_the_file(tmp_path: Path) -> None:
    path = write_difficulty(tmp_path / "d", {"x": 0.125, "a": 1.0, "b": 0.5, "c": 0.0, "unused": 0.3})
    order = training_order(path, Curriculum.EASY_TO_HARD, None, ["c", "b", "a", "x"], 2, 0)
    assert order(0) == [2, 1, 3, 0]  # a 1.0, b 0.5, x 0.125, c 0.0
    assert order.hard == (True, False, False, True)


def test_a_question_without_a_rate_is_an_error_that_names_it(tmp_path: Path) -> None:
    path = write_difficulty(tmp_path / "d", {"a": 1.0})
    with pytest.raises(UserError, match=r"no pass rate for 2 of 3 training questions \(b, c\)"):
        training_order(path, Curriculum.EASY_TO_HARD, None, ["a", "b", "c"], 1, 0)


@pytest.mark.parametrize("content", ["", "{}\n", "no json", '{"manifest": {"thresholds": {}}}\n{"id": 1}\n', "\xff"])
def test_another_file_is_refused_in_one_line(content: str, tmp_path: Path) -> None:
    path = tmp_path / "d"
    path.write_text(content, encoding="latin-1")
    with pytest.raises(UserError, match=r"is not a file of scripts/grade_difficulty\.py") as caught:
        read_difficulty(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="is not there"):
        read_difficulty(tmp_path / "none")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--curriculum mixed --hard_fraction 0.5", "needs --difficulty"),
        ("--difficulty d", "does nothing without --curriculum"),
        ("--difficulty d --curriculum mixed", "give a share of hard questions"),
        ("--difficulty d --curriculum easy_to_hard --hard_fraction 0.5", "leave --hard_fraction out"),
        ("--curriculum hardest", "'hardest' does not exist"),
    ],
)
def test_flags_that_would_be_ignored_are_refused(flags: str, message: str, tmp_path: Path) -> None:
    base = ["--model_name_or_path", "m", "--dataset_name", "d", "--output_dir", str(tmp_path)]
    with pytest.raises(UserError, match=message):
        parse([*base, *flags.split()])
