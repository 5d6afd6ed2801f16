"""Reward functions by name, with TRL's signature. All but `judge` are without I/O.

Each reward takes `completions` (strings, or lists with one assistant message) and the columns of the data set
as keyword lists, and returns one float per completion, or None where it says nothing. Correctness is decided by the
grader of the evaluation. A reward of one's own is named by its module or file (`custom`).
"""

from collections.abc import Callable, Sequence

from open_r1.common.command_line import suggestion
from open_r1.common.errors import UserError
from open_r1.rewards.accuracy import accuracy_reward, medical_accuracy_reward
from open_r1.rewards.answers import closed_reward, exact_reward, rouge_l_reward, token_f1_reward
from open_r1.rewards.custom import is_custom, load_custom
from open_r1.rewards.judged import judge_reward
from open_r1.rewards.looking import looking_reward
from open_r1.rewards.settings import Reward, RewardSettings, completion_text
from open_r1.rewards.shaping import cosine_reward, reasoning_steps_reward, repetition_reward
from open_r1.rewards.tags import format_reward, soft_format_reward, strict_format_reward, tag_count_reward
from open_r1.vocabulary.modes import Mode

# Name on the command line -> factory of the reward, from mode, settings and the longest completion in tokens.
REWARDS: dict[str, Callable[[Mode, RewardSettings, int | None], Reward]] = {
    "accuracy": lambda mode, settings, longest: accuracy_reward,
    "format": lambda mode, settings, longest: format_reward(mode),
    "looking": lambda mode, settings, longest: looking_reward,
    "medical_accuracy": lambda mode, settings, longest: medical_accuracy_reward,
    "soft_format": lambda mode, settings, longest: soft_format_reward(mode),
    "strict_format": lambda mode, settings, longest: strict_format_reward(mode),
    "tag_count": lambda mode, settings, longest: tag_count_reward(mode),
    "reasoning_steps": lambda mode, settings, longest: reasoning_steps_reward,
    "cosine": lambda mode, settings, longest: cosine_reward(settings, longest),
    "repetition": lambda mode, settings, longest: repetition_reward(settings),
    "closed": lambda mode, settings, longest: closed_reward,
    "exact": lambda mode, settings, longest: exact_reward,
    "token_f1": lambda mode, settings, longest: token_f1_reward,
    "rouge_l": lambda mode, settings, longest: rouge_l_reward,
    "judge": lambda mode, settings, longest: judge_reward(settings),
}


def rewards_for(
    names: Sequence[str],
    mode: Mode,
    settings: RewardSettings | None = None,
    max_completion_length: int | None = None,
) -> list[Reward]:
    """The reward functions of `--reward_funcs`, in the same order.

    Args:
        names: keys of `REWARDS`, and names of custom rewards: `my_package.my_reward`, `my_file.py:my_reward`.
        mode: answer form of a completion.
        settings: flags of cosine, repetition and judge; None for the defaults, which are Open-R1's.
        max_completion_length: longest completion in tokens; cosine scales by it without `--cosine_max_len`.

    Raises:
        UserError: as `require_rewards`, or invalid settings.
    """
    require_rewards(names)
    settings = settings or RewardSettings()
    return [
        load_custom(name).function if is_custom(name) else REWARDS[name](mode, settings, max_completion_length)
        for name in names
    ]


def require_rewards(names: Sequence[str]) -> None:
    """Refuse invalid names of rewards; custom rewards are imported and called with made-up completions.

    Raises:
        UserError: no name, an unknown name, a repeated name or function name (TRL would add it twice, or log two as
            one), a custom reward that cannot be used, or `judge` without another.
    """
    unknown = next((name for name in names if name not in REWARDS and not is_custom(name)), None)
    if unknown is not None or not names:
        problem = f"there is no reward {unknown!r}" if names else "no reward is named, so nothing could be learned"
        hint = "" if unknown is None else suggestion(unknown, REWARDS, {}, dashes="")
        raise UserError(
            f"{problem}; choose from {', '.join(REWARDS)}{hint}, or name one of your own: my_file.py:my_reward"
        )
    if len(set(names)) < len(names):
        raise UserError(f"a reward is named twice in {' '.join(names)} and would count double; name it once")
    logged_as = [_function_name(name) for name in names]
    twice = next((name for name in logged_as if logged_as.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"two rewards of {' '.join(names)} are called {twice} and would be logged as one; rename yours")
    if list(names) == ["judge"]:
        raise UserError(
            "judge is the only reward, and a call that fails would be rewarded 0; name another beside it, such as "
            "format"
        )


def _function_name(name: str) -> str:
    """The name under which TRL logs a reward."""
    if not is_custom(name):
        return f"{name}_reward"
    return load_custom(name).function.__name__


__all__ = ["REWARDS", "accuracy_reward", "completion_text", "format_reward", "require_rewards", "rewards_for"]
PUBLISHED = ("medical_accuracy", "soft_format", "strict_format", "tag_count")
"""The rewards of the published runs."""
