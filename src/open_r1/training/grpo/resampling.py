"""Dead groups, whose completions all earned the same, replaced by groups of further prompts."""

from collections.abc import Callable, Hashable

import torch

from open_r1.training.grpo.groups import ScoredGroups, without_spread

# The rewards that tell right from wrong, each with spread where only some completions are right.
CORRECT = ("accuracy_reward", "medical_accuracy_reward")


def further_rows(size: int, count: int, seed: tuple[Hashable, ...], process: int, processes: int) -> list[int]:
    """One process's share of `count` further rows for each, drawn by seed, so that a resumed run draws the same.

    Args:
        size: rows of the training set.
        count: rows for each process.
        seed: the run's seed, the rollout and the attempt, all integers.
        process: this process's rank.
        processes: how many there are.
    """
    random = torch.Generator().manual_seed(hash(seed) % 2**63)
    order = torch.randperm(size, generator=random).tolist()
    return [order[(process + processes * i) % size] for i in range(count)]


def replace_dead_groups(
    groups: ScoredGroups,
    rounds: int,
    sample: Callable[[int, int], ScoredGroups],
    largest: Callable[[float], float],
    weights: torch.Tensor,
    correct: int,
    pad_id: int,
) -> tuple[ScoredGroups, int, int]:
    """Replace dead groups, as far as further prompts have completions of which some are right and some wrong.

    Every process draws as many prompts as the one that lacks most, so all make the same calls.

    Args:
        groups: B groups.
        rounds: how often to draw.
        sample: groups of as many further prompts as its first argument says; the second counts the rounds.
        largest: the largest of a number over all processes.
        weights: (rewards,) of the reward functions.
        correct: the place of the reward that tells right from wrong.
        pad_id: of the tokenizer.

    Returns:
        B groups, how many were dead at first, and how many were replaced.
    """
    dead_at_first = replaced = 0
    for attempt in range(rounds):
        dead = without_spread((groups.rewards * weights).nansum(dim=2)).nonzero().flatten().tolist()
        dead_at_first = dead_at_first or len(dead)
        wanted = int(largest(len(dead)))
        if wanted == 0:
            break
        further = sample(wanted, attempt)
        live = (~without_spread(further.rewards[:, :, correct])).nonzero().flatten().tolist()
        chosen = list(range(len(groups.prompts.ids)))
        for place, replacement in zip(dead, live, strict=False):
            chosen[place] = len(chosen) + replacement
            replaced += 1
        groups = ScoredGroups.join(groups, further, pad_id).select(chosen)
    return groups, dead_at_first, replaced
