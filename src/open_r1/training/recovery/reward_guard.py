"""Reward functions that raise or return what is no number stop the run, with the completion in question."""

import functools
import inspect
import math
from collections.abc import Sequence
from typing import Any

import torch

from open_r1.modeling.agreement import stop_everywhere

_SHOWN = 300


class Rewards:
    """Reward functions that report what goes wrong instead of raising on one process alone."""

    def __init__(self) -> None:
        self.problem: str | None = None

    def guarded(self, function: Any) -> Any:
        """The same reward function; a reward model or a coroutine is left as it is."""
        if isinstance(function, torch.nn.Module) or inspect.iscoroutinefunction(function):
            return function

        @functools.wraps(function)
        def reward(**batch: Any) -> Sequence[float | None]:
            name, count = getattr(function, "__name__", "reward"), len(batch["completions"])
            try:
                values = list(function(**batch))
            except Exception as error:
                self.problem = f"the reward {name} raised {type(error).__name__}: {error}"[:_SHOWN]
                return [0.0] * count
            wrong = [value for value in values if value is not None and not math.isfinite(value)]
            if wrong:
                self.problem = (
                    f"the reward {name} gave {wrong[0]} for {len(wrong)} of {count} completions; its group's "
                    "advantages would all be wrong, without a word"
                )
                return [0.0] * count
            return values

        return reward

    def require_sound(self, device: torch.device | str) -> None:
        """Stop all processes if a reward function failed on one since the last call."""
        problem, self.problem = self.problem, None
        stop_everywhere(None if problem is None else f"{problem}: mend it or leave it out of --reward_funcs", device)
