"""Replace dead groups, whose completions all have the same reward, by groups of other prompts."""

from collections.abc import Callable, Hashable

import torch

from open_r1.training.grpo.groups import ScoredGroups, without_spread

# Rewards that say for every question of choice whether a completion is right: by one of them groups are taken.
CORRECTNESS_REWARDS = ("accuracy_reward", "medical_accuracy_reward")


def further_rows(size: int, count: int, seed: tuple[Hashable, ...], process: int, processes: int) -> list[int]:
    """Draw `count` rows for one process, the same again in a resumed run.

    Args:
        size: rows of the training set.
        count: rows per process.
        seed: integers: seed of the run, step, rollout and attempt.
        process: this process's rank.
        processes: number of processes.
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
    correctness_index: int,
    pad_id: int,
) -> tuple[ScoredGroups, int, int]:
    """Replace dead groups by groups of further prompts that have both correct and wrong completions.

    Every process draws as many prompts as the process with the most dead groups, so all make the same calls.

    Args:
        groups: B groups.
        rounds: most draws.
        sample: called with a number of prompts and the round, returns groups of so many further prompts.
        largest: the maximum of a number over all processes.
        weights: (reward functions,).
        correctness_index: index of the reward that differs between correct and wrong completions.
        pad_id: of the tokenizer.

    Returns:
        B groups, the number of groups that were dead before, and the number replaced.
    """
    dead_at_first = replaced = 0
    for attempt in range(rounds):
        dead = without_spread((groups.rewards * weights).nansum(dim=2)).nonzero().flatten().tolist()
        dead_at_first = dead_at_first or len(dead)
        count = int(largest(len(dead)))
        if count == 0:
            break
        further = sample(count, attempt)
        live = (~without_spread(further.rewards[:, :, correctness_index])).nonzero().flatten().tolist()
        indices = list(range(len(groups.prompts.ids)))
        for index, replacement in zip(dead, live, strict=False):
            indices[index] = len(groups.prompts.ids) + replacement
            replaced += 1
        groups = ScoredGroups.join(groups, further, pad_id).select(indices)
    return groups, dead_at_first, replaced
