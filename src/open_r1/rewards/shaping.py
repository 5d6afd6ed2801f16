"""Rewards for length and style, from Open-R1: reasoning steps, length (cosine), repetition.

The runs of open-medical-r1 did not use them, because they made completions shorter.
"""

import math
import re
from collections.abc import Sequence
from typing import Any

from open_r1.rewards.accuracy import accuracy_reward
from open_r1.rewards.settings import Completion, Reward, RewardSettings, completion_text, with_name

_STEP = re.compile(r"Step \d{1,4}:|^\d{1,4}\.|\n-|\n\*|First,|Second,|Next,|Finally,", re.MULTILINE)
_STEPS = 3  # number of step markers for the full reward


def reasoning_steps_reward(completions: Sequence[Completion], **_: Any) -> list[float]:
    """A third for every step marker ("Step 1:", "1.", a bullet, "First,"), at most 1."""
    counts = [len(_STEP.findall(completion_text(completion))) for completion in completions]
    return [min(1.0, count / _STEPS) for count in counts]


def cosine_reward(settings: RewardSettings, max_completion_length: int | None) -> Reward:
    """A reward that depends on length: long + (short - long) * (1 + cos(pi * t)) / 2, t = min(1, L / longest).

    L counts tokens (Open-R1 counts characters, though its `cosine_max_len: 8192` suggests tokens). By default a correct
    answer gets 1 to 0.5 and a wrong one 0 to -0.5, less the longer it is. Source: arXiv 2502.03373, section 4.
    """
    settings.check()
    longest = settings.cosine_max_len or max_completion_length or 1000

    def reward(
        completions: Sequence[Completion],
        problem: Sequence[str],
        solution: Sequence[str],
        completion_ids: Sequence[Sequence[int]],
        **columns: Any,
    ) -> list[float]:
        values, rights = [], accuracy_reward(completions, problem, solution, **columns)
        for is_correct, tokens in zip(rights, completion_ids, strict=True):
            short = settings.cosine_max_value_correct if is_correct else settings.cosine_min_value_wrong
            long = settings.cosine_min_value_correct if is_correct else settings.cosine_max_value_wrong
            share = min(1.0, len(tokens) / longest)
            values.append(long + (short - long) * (1 + math.cos(math.pi * share)) / 2)
        return values

    return with_name(reward, "cosine_reward")


def repetition_reward(settings: RewardSettings) -> Reward:
    """A penalty on repeated n-grams: (1 - distinct n-grams / n-grams) times the largest penalty.

    Over lower-case words, as in Open-R1; fewer than n words get 0. Source: arXiv 2502.03373, appendix C.2.
    """
    settings.check()
    n = settings.repetition_n_grams

    def penalty(text: str) -> float:
        words = text.lower().split()
        n_grams = list(zip(*(words[start:] for start in range(n)), strict=False))
        return settings.repetition_max_penalty * (1 - len(set(n_grams)) / len(n_grams)) if n_grams else 0.0

    def reward(completions: Sequence[Completion], **_: Any) -> list[float]:
        return [penalty(completion_text(completion)) for completion in completions]

    return with_name(reward, "repetition_reward")
