"""Groups of completions with their rewards: select and join them before training.

All tensors are group-major: B prompts, G completions each, C completion tokens. Shapes are (B, G) or (B, G, C).
"""

from dataclasses import dataclass

import torch

from open_r1.modeling.prompt_batch import PromptBatch

Values = dict[str, torch.Tensor]


@dataclass
class ScoredGroups:
    """One rollout: prompts, and what TRL computed for each completion."""

    prompts: PromptBatch
    values: Values
    """`completion_ids`, `completion_mask`, `advantages`, log-probabilities and the like."""
    rewards: torch.Tensor
    """(B, G, reward functions), before weights."""

    def select(self, indices: list[int]) -> "ScoredGroups":
        """The groups at `indices`."""
        values = {name: value[indices] for name, value in self.values.items()}
        return ScoredGroups(self.prompts.select(indices), values, self.rewards[indices])

    def host_copies(self) -> Values:
        """(B, G) lengths of the completions and advantages on the CPU, so that no micro-batch waits for them."""
        lengths = self.values["completion_mask"].sum(dim=2)
        fetched = torch.stack([lengths.float(), self.values["advantages"].float()]).cpu()
        return {"lengths_on_host": fetched[0], "advantages_on_host": fetched[1]}

    @classmethod
    def join(cls, groups: "ScoredGroups", more_groups: "ScoredGroups", pad_id: int) -> "ScoredGroups":
        """The groups of both rollouts, completions padded on the right to the longest."""
        rollouts = (groups, more_groups)
        longest = max(rollout.values["completion_ids"].size(2) for rollout in rollouts)

        def padded(rollout: "ScoredGroups", name: str) -> torch.Tensor:
            value, length = rollout.values[name], rollout.values["completion_ids"].size(2)
            if value.ndim < 3 or value.size(2) != length:
                return value
            filler = pad_id if name == "completion_ids" else 0
            return torch.nn.functional.pad(value, (0, longest - length), value=filler)

        values = {name: torch.cat([padded(rollout, name) for rollout in rollouts]) for name in groups.values}
        prompts = PromptBatch.join([rollout.prompts for rollout in rollouts], pad_id)
        return cls(prompts, values, torch.cat([rollout.rewards for rollout in rollouts]))


def without_spread(rewards: torch.Tensor) -> torch.Tensor:
    """(B,) whether all completions of a group have the same reward, (B, G): such a group has no gradient.

    A completion without a reward is NaN and ignored.
    """
    highest = rewards.masked_fill(rewards.isnan(), -torch.inf).amax(dim=1)
    lowest = rewards.masked_fill(rewards.isnan(), torch.inf).amin(dim=1)
    return ~(highest > lowest)
