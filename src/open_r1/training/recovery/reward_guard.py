"""Stop the run if a reward function raises or returns a value that is not finite."""

import functools
import inspect
import math
from collections.abc import Sequence
from typing import Any

import torch

from open_r1.modeling.agreement import stop_everywhere

_LONGEST_MESSAGE = 300


class RewardGuard:
    """Collects errors of reward functions, so that they stop all processes and not one alone."""

    def __init__(self) -> None:
        self.problem: str | None = None

    def guarded(self, function: Any) -> Any:
        """Wrap a reward function; reward models and coroutines are returned unchanged."""
        if isinstance(function, torch.nn.Module) or inspect.iscoroutinefunction(function):
            return function

        @functools.wraps(function)
        def reward(**batch: Any) -> Sequence[float | None]:
            name, count = getattr(function, "__name__", "reward"), len(batch["completions"])
            try:
                values = list(function(**batch))
            except Exception as error:
                self.problem = f"the reward {name} raised {type(error).__name__}: {error}"[:_LONGEST_MESSAGE]
                return [0.0] * count
            invalid = [value for value in values if value is not None and not math.isfinite(value)]
            if invalid:
                self.problem = (
                    f"the reward {name} gave {invalid[0]} for {len(invalid)} of {count} completions, so the "
                    "advantages of their groups would be wrong"
                )
                return [0.0] * count
            return values

        return reward

    def require_sound(self, device: torch.device | str) -> None:
        """Stop all processes if a reward function failed on any of them since the last call."""
        problem, self.problem = self.problem, None
        stop_everywhere(None if problem is None else f"{problem}: fix it or leave it out of --reward_funcs", device)
