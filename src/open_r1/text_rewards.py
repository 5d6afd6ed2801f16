"""The rewards of open-medical-r1, with its values; TRL's reward signature, no I/O.

`medical_accuracy` pays 2 or 1, `soft_format` and `strict_format` 1 each, `tag_count` a quarter per tag: 5 in all, the
published default. `reasoning_steps` and `cosine` are Open-R1's; the reported runs left them out, because they made
completions shorter. Right and wrong are the grader's word everywhere.
"""

import math
import re
from collections.abc import Sequence
from typing import Any

from open_r1.answers import FORMS, Outcome, answer_block, grade, options_in, solution_letter
from open_r1.claims import fold_text
from open_r1.reward_settings import Completion, Reward, RewardSettings, completion_text
from open_r1.runs import Mode

PUBLISHED = ("medical_accuracy", "soft_format", "strict_format", "tag_count")
"""The rewards of the reported runs."""

LETTER, OPTION_TEXT = 2.0, 1.0
"""What an answer earns that gives the letter, and one that begins with the right option's text."""


def medical_accuracy_reward(
    completions: Sequence[Completion], problem: Sequence[str], solution: Sequence[str], **_: Any
) -> list[float]:
    """2 where the answer block gives the right letter, `C` or `(C)`; 1 where it begins with that option's text."""
    rows = zip(completions, problem, solution, strict=True)
    return [_medical_accuracy(completion_text(text), question, gold) for text, question, gold in rows]


def _medical_accuracy(text: str, problem: str, solution: str) -> float:
    options = options_in(problem)
    block = answer_block(text)
    if not block:
        return 0.0
    graded, gold = grade(text, solution, options), solution_letter(solution)
    begun = _options_begun(block, options)
    if graded.outcome is Outcome.CORRECT:
        return OPTION_TEXT if gold in begun else LETTER
    return OPTION_TEXT if graded.outcome is Outcome.UNPARSED and begun == [gold] else 0.0


def _options_begun(block: str, options: dict[str, str]) -> list[str]:
    """The letters of the longest option text that the block begins with, up to the end of a word."""
    written = fold_text(block)
    begun: dict[str, list[str]] = {}
    for letter, option in options.items():
        text = fold_text(option)
        if len(text) > 1 and written.startswith(text) and not written[len(text) :][:1].isalnum():
            begun.setdefault(text, []).append(letter)
    return begun.get(max(begun, key=len, default=""), [])


# ----------------------------------------------------------------------------------------------------- the form


def soft_format_reward(mode: Mode) -> Reward:
    """The reward that pays 1 where the mode's blocks stand in order, once each; text may stand before and after."""

    def reward(completions: Sequence[Completion], **_: Any) -> list[float]:
        return [float(_blocks(completion_text(text), mode, between="") is not None) for text in completions]

    return _named(reward, "soft_format_reward")


def strict_format_reward(mode: Mode) -> Reward:
    """The reward that pays 1 where every tag has a line of its own and nothing stands outside the blocks.

    `<think>`, thoughts, `</think>`, `<answer>`, answer, `</answer>`, as in Open-R1's format reward.
    """

    def follows(text: str) -> bool:
        found = _blocks(text.strip(), mode, between="\n")
        if found is None:
            return False
        outside, inside = found
        return not any(outside) and all(len(each) > 2 and each[0] == each[-1] == "\n" for each in inside)

    def reward(completions: Sequence[Completion], **_: Any) -> list[float]:
        return [float(follows(completion_text(text))) for text in completions]

    return _named(reward, "strict_format_reward")


def _blocks(text: str, mode: Mode, between: str) -> tuple[list[str], list[str]] | None:
    """What stands outside and inside the blocks of a mode; None unless each tag stands once, in order, and only
    white space (just `between`, if that is given) separates the blocks."""
    form = FORMS[mode]
    places = [text.find(tag) for tag in form]
    if any(text.count(tag) != 1 for tag in form) or places != sorted(places):
        return None
    ends = [place + len(tag) for place, tag in zip(places, form, strict=True)]
    gaps = [text[end:start] for end, start in zip(ends[1:-1:2], places[2::2], strict=True)]
    if any(gap != between if between else gap.strip() for gap in gaps):
        return None
    inside = [text[end:start] for end, start in zip(ends[::2], places[1::2], strict=True)]
    return [text[: places[0]], text[ends[-1] :]], inside


def tag_count_reward(mode: Mode) -> Reward:
    """The reward that pays an equal share of 1 for every tag of the mode that stands just once: 4 x 0.25 in think."""

    def reward(completions: Sequence[Completion], **_: Any) -> list[float]:
        texts = [completion_text(completion) for completion in completions]
        return [sum(text.count(tag) == 1 for tag in FORMS[mode]) / len(FORMS[mode]) for text in texts]

    return _named(reward, "tag_count_reward")


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


def _named(reward: Reward, name: str) -> Reward:
    """Under this name TRL logs a reward."""
    reward.__name__ = name
    return reward
