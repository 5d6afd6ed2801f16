"""Groups of completions with what they earned: choosing, joining and dividing them, before they are trained on.

Everything here is group-major: B prompts, G completions each, C completion tokens. Values are (B, G) or (B, G, C).
"""

from dataclasses import dataclass

import torch

from open_r1.modeling.prompt_batch import PromptBatch

Values = dict[str, torch.Tensor]


@dataclass
class ScoredGroups:
    """One rollout: prompts, and what TRL worked out about each completion."""

    prompts: PromptBatch
    values: Values
    """`completion_ids`, `completion_mask`, `advantages`, log-probabilities and the like."""
    rewards: torch.Tensor
    """(B, G, rewards) as each reward function paid, before weights."""

    def select(self, indices: list[int]) -> "ScoredGroups":
        """The groups at `indices`."""
        values = {name: value[indices] for name, value in self.values.items()}
        return ScoredGroups(self.prompts.select(indices), values, self.rewards[indices])

    @classmethod
    def join(cls, first: "ScoredGroups", second: "ScoredGroups", pad_id: int) -> "ScoredGroups":
        """All groups of both, padded on the right to the longer completion."""
        length = max(part.values["completion_ids"].size(2) for part in (first, second))

        def widened(name: str, value: torch.Tensor, own: int) -> torch.Tensor:
            if value.ndim < 3 or value.size(2) != own:
                return value
            filler = pad_id if name == "completion_ids" else 0
            return torch.nn.functional.pad(value, (0, length - own), value=filler)

        lengths = [part.values["completion_ids"].size(2) for part in (first, second)]
        values = {
            name: torch.cat(
                [widened(name, part.values[name], own) for part, own in zip((first, second), lengths, strict=True)]
            )
            for name in first.values
        }
        prompts = PromptBatch.join([first.prompts, second.prompts], pad_id)
        return cls(prompts, values, torch.cat([first.rewards, second.rewards]))


def without_spread(rewards: torch.Tensor) -> torch.Tensor:
    """(B,) whether all completions of a group earned the same, from (B, G) rewards: nothing is learned from it.

    A completion that no reward function judged is NaN and counts for nothing.
    """
    known = rewards.masked_fill(rewards.isnan(), -torch.inf).amax(dim=1)
    least = rewards.masked_fill(rewards.isnan(), torch.inf).amin(dim=1)
    return ~(known > least)
