"""Yes and no are recognized in every published spelling, and in nothing else."""

import pytest

from open_r1.vocabulary.answer_types import yes_or_no


@pytest.mark.parametrize("answer", ["yes", "Yes", " YES ", "yes.", "是的", "有", "包含", "是的。"])
def test_yes(answer: str) -> None:
    assert yes_or_no(answer) is True


@pytest.mark.parametrize("answer", ["no", "No", "No.", "不是", "没有", "不包含", "不可以"])
def test_no(answer: str) -> None:
    assert yes_or_no(answer) is False


@pytest.mark.parametrize("answer", ["", "nodule", "normal", "not seen", "yes, on the left", "Both", "none", "左肺"])
def test_other_answers_are_neither(answer: str) -> None:
    assert yes_or_no(answer) is None
