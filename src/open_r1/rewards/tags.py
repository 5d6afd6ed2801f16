"""Rewards for the tags of an answer form (mode)."""

from collections.abc import Sequence
from typing import Any

from open_r1.grading.formats import FORMS, follows_format
from open_r1.rewards.settings import Completion, Reward, completion_text, with_name
from open_r1.vocabulary.modes import Mode


def format_reward(mode: Mode) -> Reward:
    """A reward of 1 for a completion in exactly the form of `mode`, else 0."""

    def reward(completions: Sequence[Completion], **_: Any) -> list[float]:
        return [float(follows_format(completion_text(text), mode)) for text in completions]

    reward.__name__ = "format_reward"
    return reward


def soft_format_reward(mode: Mode) -> Reward:
    """A reward of 1 if the blocks of the mode occur once each and in order; text before and after is allowed."""

    def reward(completions: Sequence[Completion], **_: Any) -> list[float]:
        return [float(_blocks(completion_text(text), mode, between="") is not None) for text in completions]

    return with_name(reward, "soft_format_reward")


def strict_format_reward(mode: Mode) -> Reward:
    """A reward of 1 if every tag is on a line by itself and there is no text outside the blocks.

    `<think>`, thoughts, `</think>`, `<answer>`, answer, `</answer>`, as in Open-R1's format reward.
    """

    def follows(text: str) -> bool:
        blocks = _blocks(text.strip(), mode, between="\n")
        if blocks is None:
            return False
        outside, inside = blocks
        return not any(outside) and all(len(content) > 2 and content[0] == content[-1] == "\n" for content in inside)

    def reward(completions: Sequence[Completion], **_: Any) -> list[float]:
        return [float(follows(completion_text(text))) for text in completions]

    return with_name(reward, "strict_format_reward")


def _blocks(text: str, mode: Mode, between: str) -> tuple[list[str], list[str]] | None:
    """Texts outside and inside the blocks of a mode; None unless every tag occurs once, in order, and only white
    space (or exactly `between`, if it is not empty) separates the blocks."""
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
    """An equal share of 1 for every tag of the mode that occurs exactly once: 4 x 0.25 in think."""

    def reward(completions: Sequence[Completion], **_: Any) -> list[float]:
        texts = [completion_text(completion) for completion in completions]
        return [sum(text.count(tag) == 1 for tag in FORMS[mode]) / len(FORMS[mode]) for text in texts]

    return with_name(reward, "tag_count_reward")
