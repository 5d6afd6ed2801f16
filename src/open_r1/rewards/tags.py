"""Rewards for the tags that a mode asks for."""

from collections.abc import Sequence
from typing import Any

from open_r1.grading.formats import FORMS, follows_format
from open_r1.rewards.settings import Completion, Reward, _named, completion_text
from open_r1.vocabulary.modes import Mode


def format_reward(mode: Mode) -> Reward:
    """The reward that pays 1.0 where a completion has exactly the form of `mode`, else 0.0."""

    def reward(completions: Sequence[Completion], **_: Any) -> list[float]:
        return [float(follows_format(completion_text(text), mode)) for text in completions]

    reward.__name__ = "format_reward"
    return reward


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
