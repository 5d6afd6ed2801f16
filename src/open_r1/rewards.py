"""What a completion earns: accuracy through the one grader, format per mode. TRL's reward signature, no I/O.

Each reward takes `completions` (strings, or lists with one assistant message) and the columns of the data set
as keyword lists, and returns one float per completion.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from open_r1.answers import Outcome, follows_format, grade, options_in
from open_r1.errors import UserError
from open_r1.runs import Mode

Completion = str | Sequence[dict[str, Any]]
Reward = Callable[..., list[float]]

_options = lru_cache(maxsize=4096)(options_in)  # a group repeats its problem G times


def completion_text(completion: Completion) -> str:
    """The text that the model wrote, from either form in which TRL hands it over."""
    if isinstance(completion, str):
        return completion
    content = completion[-1]["content"] if completion else ""
    if isinstance(content, str):
        return content
    return "".join(part.get("text") or "" for part in content)


def accuracy_reward(
    completions: Sequence[Completion], problem: Sequence[str], solution: Sequence[str], **_: Any
) -> list[float]:
    """1.0 where `answers.grade` says CORRECT, else 0.0."""
    rows = zip(completions, problem, solution, strict=True)
    graded = [grade(completion_text(text), gold, _options(question)) for text, question, gold in rows]
    return [float(one.outcome is Outcome.CORRECT) for one in graded]


def format_reward(mode: Mode) -> Reward:
    """The reward that pays 1.0 where a completion has exactly the form of `mode`, else 0.0."""

    def reward(completions: Sequence[Completion], **_: Any) -> list[float]:
        return [float(follows_format(completion_text(text), mode)) for text in completions]

    reward.__name__ = "format_reward"
    return reward


# Name on the command line -> what makes the reward for a mode.
REWARDS: dict[str, Callable[[Mode], Reward]] = {
    "accuracy": lambda mode: accuracy_reward,
    "format": format_reward,
}


def rewards_for(names: Sequence[str], mode: Mode) -> list[Reward]:
    """The reward functions for `--reward_funcs`, in the order named.

    Raises:
        UserError: no name, an unknown name, or one named twice (TRL would add it twice).
    """
    unknown = [name for name in names if name not in REWARDS]
    if unknown or not names:
        asked = f"there is no reward {unknown[0]!r}" if unknown else "no reward is named: nothing could be learned"
        raise UserError(f"{asked}; known are: {', '.join(REWARDS)}")
    if len(set(names)) < len(names):
        raise UserError(f"a reward is named twice in {' '.join(names)}: it would count double; name each once")
    return [REWARDS[name](mode) for name in names]
