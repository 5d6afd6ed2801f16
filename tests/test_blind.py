"""The blind floor, by hand and against the figures measured on the published split files."""

import json
from pathlib import Path

import pytest

from open_r1.errors import UserError
from open_r1.evaluation.blind import blind_floor


def row(options: str, letter: str) -> dict[str, str]:
    return {"problem": f"Which? {options}", "solution": f"<answer> {letter} </answer>"}


# right / offered: cat 2/2, dog 1/3, bird 0/1
TRAIN = [row("A)cat, B)dog", "A"), row("A)dog, B)cat", "B"), row("A)dog, B)bird", "A")]


def test_blind_floor_by_hand():
    assert blind_floor(TRAIN, [row("A)dog, B)cat", "B")]) == 1.0
    assert blind_floor(TRAIN, [row("A)dog, B)bird", "B")]) == 0.0
    assert blind_floor(TRAIN, [row("A)bird, B)fish", "A")]) == 0.5  # both 0, the unseen one as well
    assert blind_floor(TRAIN, [row("A)bird, B)fish, C)frog, D)dog", "C")]) == 0.0
    three = [row("A)dog, B)cat", "B"), row("A)dog, B)bird", "B"), row("A)bird, B)fish", "A")]
    assert blind_floor(TRAIN, three) == 0.5  # (1 + 0 + 1/2) / 3


def test_case_is_told_apart_unless_folded():
    test = [row("A)Cat, B)dog", "A")]
    assert blind_floor(TRAIN, test) == 0.0  # "Cat" was never seen, dog has 1/3
    assert blind_floor(TRAIN, test, fold_case=True) == 1.0


def test_a_share_counts_not_a_number():
    # rare is right 1 of 1, common 2 of 3
    train = [row("A)common, B)x", "A"), row("A)common, B)x", "A"), row("A)common, B)rare", "B")]
    assert blind_floor(train, [row("A)common, B)rare", "B")]) == 1.0


def test_floor_without_training_rows_is_chance():
    assert blind_floor([], [row("A)cat, B)dog", "A"), row("A)a, B)b, C)c, D)d", "D")]) == pytest.approx(0.375)


def test_no_test_rows_is_an_error():
    with pytest.raises(UserError, match="no test questions"):
        blind_floor(TRAIN, [])


@pytest.mark.parametrize(
    ("name", "exact", "folded"),
    [("Fundus Photography", 95.77, 94.85), ("OCT (Optical Coherence Tomography", 100.0, 100.0)],
)
def test_floor_of_the_published_split_files_is_the_one_measured(real_dir: Path, name, exact, folded):
    folder = real_dir / "omnimedvqa_splits" / "modality"
    train, test = (json.loads((folder / side / f"{name}_{side}.json").read_text()) for side in ("train", "test"))
    assert 100 * blind_floor(train, test) == pytest.approx(exact, abs=0.01)
    assert 100 * blind_floor(train, test, fold_case=True) == pytest.approx(folded, abs=0.01)
