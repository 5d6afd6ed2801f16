"""The reward for looking: what a right answer is worth beyond what the model would answer without the image."""

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

from open_r1.grading.problems import solution_letter
from open_r1.rewards.accuracy import accuracy_reward
from open_r1.rewards.settings import Completion

COLUMN = "letters_without_image"
"""Column that the trainer adds to the rows: letter -> its probability without the image, None where there is none."""


def looking_reward(
    completions: Sequence[Completion],
    problem: Sequence[str],
    solution: Sequence[str],
    *,
    letters_without_image: Sequence[Mapping[str, float] | None],
    log_metric: Callable[[str, float], None] | None = None,
    **columns: Any,
) -> list[float | None]:
    """1 - p for a correct completion, 0 for another; p is the probability of the right letter without the image.

    The weight 1 - p of a question is that of the baseline "Reweight" of Clark, Yatskar and Zettlemoyer (2019), "Don't
    Take the Easy Way Out" (arXiv 1909.03683), where p is what a model says that sees only what must not decide. None
    for questions without an image and for closed and open ones. The mean of p is logged as `right_without_image`.
    """
    correct = accuracy_reward(completions, problem, solution, **columns)
    worth = [
        None if letters is None else letters.get(solution_letter(right), 0.0)
        for right, letters in zip(solution, letters_without_image, strict=True)
    ]
    if log_metric is not None and any(p is not None for p in worth):
        log_metric("right_without_image", fmean(p for p in worth if p is not None))
    return [None if p is None else is_correct * (1 - p) for is_correct, p in zip(correct, worth, strict=True)]
