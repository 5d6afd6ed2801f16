"""The rewards of open-medical-r1, with its values; TRL's reward signature, no I/O.

`medical_accuracy` pays 2 or 1, `soft_format` and `strict_format` 1 each, `tag_count` a quarter per tag: 5 in all, the
published default. `reasoning_steps` and `cosine` are Open-R1's; the reported runs left them out, because they made
completions shorter. Right and wrong are the grader's word everywhere.
"""

import math
import re
from collections.abc import Sequence
from typing import Any

from open_r1.grading.grader import Outcome, grade
from open_r1.grading.problems import options_in
from open_r1.rewards.settings import Completion, Reward, RewardSettings, _named, completion_text

# ----------------------------------------------------------------------------------------------------- the form


# ----------------------------------------------------------------------------------------------- length and style


_STEP = re.compile(r"Step \d{1,4}:|^\d{1,4}\.|\n-|\n\*|First,|Second,|Next,|Finally,", re.MULTILINE)
_STEPS = 3  # marks of a step that earn the full reward


def reasoning_steps_reward(completions: Sequence[Completion], **_: Any) -> list[float]:
    """A third for every mark of a step ("Step 1:", "1.", a bullet, "First,"), at most 1 (Open-R1)."""
    counts = [len(_STEP.findall(completion_text(completion))) for completion in completions]
    return [min(1.0, count / _STEPS) for count in counts]


def cosine_reward(settings: RewardSettings, max_completion_length: int | None) -> Reward:
    """The reward that scales right and wrong by length: long + (short - long) * (1 + cos(pi * t)) / 2, t = L / longest.

    L counts tokens (Open-R1 counts characters, which its `cosine_max_len: 8192` does not mean). From the longest length
    on t is 1; left to grow, the cosine would pay more again.
    Source: arXiv 2502.03373, section 4; Open-R1's values, with which a right answer earns 1 to 0.5 and a wrong one
    0 to -0.5, the longer the less.
    """
    settings.check()
    longest = settings.cosine_max_len or max_completion_length or 1000

    def reward(
        completions: Sequence[Completion],
        problem: Sequence[str],
        solution: Sequence[str],
        completion_ids: Sequence[Sequence[int]],
        **_: Any,
    ) -> list[float]:
        earned = []
        for text, question, gold, tokens in zip(completions, problem, solution, completion_ids, strict=True):
            right = grade(completion_text(text), gold, options_in(question)).outcome is Outcome.CORRECT
            short = settings.cosine_max_value_correct if right else settings.cosine_min_value_wrong
            long = settings.cosine_min_value_correct if right else settings.cosine_max_value_wrong
            share = min(1.0, len(tokens) / longest)
            earned.append(long + (short - long) * (1 + math.cos(math.pi * share)) / 2)
        return earned

    return _named(reward, "cosine_reward")


def repetition_reward(settings: RewardSettings) -> Reward:
    """The penalty that belongs to cosine: (1 - distinct runs / runs) of n words, times the largest penalty.

    Source: arXiv 2502.03373, appendix C.2, over lower-case words as in Open-R1. Fewer than n words earn 0.
    """
    settings.check()
    run = settings.repetition_n_grams

    def penalty(text: str) -> float:
        words = text.lower().split()
        runs = list(zip(*(words[start:] for start in range(run)), strict=False))
        return settings.repetition_max_penalty * (1 - len(set(runs)) / len(runs)) if runs else 0.0

    def reward(completions: Sequence[Completion], **_: Any) -> list[float]:
        return [penalty(completion_text(completion)) for completion in completions]

    return _named(reward, "repetition_reward")
