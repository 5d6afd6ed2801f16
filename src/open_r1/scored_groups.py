"""Groups of completions with what they earned: choosing, joining and dividing them, before they are trained on.

Everything here is group-major: B prompts, G completions each, C completion tokens. Values are (B, G) or (B, G, C).
"""

from dataclasses import dataclass

import torch

from open_r1.rollout import PromptBatch

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


def trimmed(values: Values) -> Values:
    """The same completions without the columns that are padding in all of them."""
    mask = values["completion_mask"]
    width = mask.size(2)
    length = max(1, int(mask.flatten(0, 1).sum(dim=1).max()))
    return {
        name: value[:, :, :length] if value.ndim == 3 and value.size(2) == width else value
        for name, value in values.items()
    }


def by_tokens(prompts: list[int], completions: list[int], group: int, budget: int) -> list[list[int]]:
    """Divide groups into micro-batches of at most `budget` tokens, padding included; a group is never divided.

    Args:
        prompts: tokens of each group's prompt.
        completions: tokens of each group's longest completion.
        group: completions per group (G).
        budget: tokens that one forward pass may hold.

    Returns:
        Indices by micro-batch, the largest groups first.
    """
    sizes = [prompt - 1 + group * length for prompt, length in zip(prompts, completions, strict=True)]
    parts: list[list[int]] = []
    widest, longest = 0, 0
    for index in sorted(range(len(sizes)), key=lambda i: (-sizes[i], i)):
        widest, longest = max(widest, prompts[index]), max(longest, completions[index])
        if parts and (len(parts[-1]) + 1) * (widest - 1 + group * longest) <= budget:
            parts[-1].append(index)
        else:
            parts.append([index])
            widest, longest = prompts[index], completions[index]
    return parts
