"""Stop the run if a reward function raises, or does not return one finite number or None for each completion."""

import functools
import inspect
from collections.abc import Sequence
from typing import Any

import torch

from open_r1.modeling.agreement import stop_everywhere
from open_r1.rewards.custom import one_line, values_problem

_LONGEST_MESSAGE = 300


def _copied(value: Any) -> Any:
    """A list of its own for each reward, so that one that clears or sorts its arguments changes nobody else's."""
    return list(value) if isinstance(value, list) else value


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
                values = function(**{key: _copied(value) for key, value in batch.items()})
                wrong = values_problem(values, count)
            except (Exception, SystemExit) as error:
                self.problem = f"the reward {name} raised {type(error).__name__}: {one_line(error)}"[:_LONGEST_MESSAGE]
                return [0.0] * count
            if wrong is not None:
                self.problem = f"the reward {name} {wrong}, so the advantages of their groups would be wrong"
                return [0.0] * count
            values = list(values)
            return values

        return reward

    def require_sound(self, device: torch.device | str) -> None:
        """Stop all processes if a reward function failed on any of them since the last call."""
        problem, self.problem = self.problem, None
        stop_everywhere(None if problem is None else f"{problem}: fix it or leave it out of --reward_funcs", device)
