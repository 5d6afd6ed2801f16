"""A micro-batch divided so that a forward pass holds a bounded number of tokens; the optimizer step stays the same."""

from collections.abc import Callable
from typing import Any

import torch
from accelerate.utils import DistributedType

from open_r1.training.grpo.groups import Values

# How the losses of micro-batches add up to that of their union: by sequences, by tokens, or as they are.
BY_SEQUENCES, BY_TOKENS = {"grpo", "sapo", "luspo", "dr_grpo"}, {"bnpo"}


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


def divided(
    prompt_mask: torch.Tensor,
    completion_mask: torch.Tensor,
    budget: int | None,
    gather: Callable[[torch.Tensor], torch.Tensor],
) -> list[list[int]]:
    """Indices of a micro-batch's groups by forward pass.

    All processes divide alike, by the longest group at each place.

    Args:
        prompt_mask: (B, P).
        completion_mask: (B, G, C).
        budget: tokens that one forward pass may hold; None for all groups at once.
        gather: joins the tensors of all processes along the first dimension.
    """
    count, group = completion_mask.shape[:2]
    if not budget:
        return [list(range(count))]
    sizes = torch.stack([prompt_mask.sum(dim=1), completion_mask.sum(dim=2).amax(dim=1)], dim=1)
    order = sorted(range(count), key=lambda i: (-int(sizes[i, 0] + group * sizes[i, 1]), i))
    longest = gather(sizes[order].contiguous()).view(-1, count, 2).amax(dim=0)
    prompt_lengths, completion_lengths = longest.T.tolist()
    parts = by_tokens(prompt_lengths, completion_lengths, group, budget)
    return [[order[place] for place in part] for part in parts]


def token_shares(completion_mask: torch.Tensor, parts: list[list[int]]) -> list[float]:
    """Each part's share of the completion tokens, from a (B, G, C) mask."""
    tokens = [float(completion_mask[part].sum()) for part in parts]
    return [count / max(1.0, sum(tokens)) for count in tokens]


def loss_weights(loss_type: str, parts: list[list[int]], shares: list[float]) -> list[float]:
    """What each part's loss counts for in the loss of all, by TRL's `loss_type`; `shares` are those of the tokens."""
    if loss_type in BY_SEQUENCES:
        count = sum(map(len, parts))
        return [len(part) / count for part in parts]
    return shares if loss_type in BY_TOKENS else [1.0] * len(parts)


def merge_metrics(metrics: dict[str, list[float]], before: dict[str, int], shares: list[float]) -> None:
    """One entry per micro-batch where the parts have left one each: extremes of extremes, means by tokens.

    Args:
        metrics: logged values by name; changed in place.
        before: how many values each name had before the first part.
        shares: of the completion tokens, by part.
    """
    for name, values in metrics.items():
        added = values[before.get(name, 0) :]
        if len(added) != len(shares):
            continue
        kind = name.rsplit("_", 1)[-1]
        mean = sum(share * value for share, value in zip(shares, added, strict=True))
        values[before.get(name, 0) :] = [{"min": min, "max": max}[kind](added) if kind in ("min", "max") else mean]


def backward(accelerator: Any, loss: torch.Tensor) -> None:
    """Back-propagate the loss of a part that is not the last of its micro-batch."""
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        # accelerate would make an optimizer step of a backward pass at the end of an accumulation
        accelerator.deepspeed_engine_wrapped.backward(loss, sync_gradients=False, scale_wrt_gas=False)
    else:
        accelerator.backward(loss)
