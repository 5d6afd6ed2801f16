"""Divide a micro-batch into chunks so that a forward pass has a bounded number of tokens; the step stays the same."""

from collections.abc import Callable
from typing import Any

import torch
from accelerate.utils import DistributedType

from open_r1.training.grpo.groups import Values

# Weights by which the losses of chunks add up to that of the micro-batch: sequences or tokens; other types: 1.
BY_SEQUENCES, BY_TOKENS = {"grpo", "sapo", "luspo", "dr_grpo"}, {"bnpo"}


def trim(values: Values) -> Values:
    """The completions without the columns that are padding in all of them."""
    mask = values["completion_mask"]
    width = mask.size(2)
    lengths = values["lengths_on_host"] if "lengths_on_host" in values else mask.sum(dim=2)
    length = max(1, int(lengths.max()))
    return {
        name: value[:, :, :length] if value.ndim == 3 and value.size(2) == width else value
        for name, value in values.items()
    }


def chunks_within(prompts: list[int], completions: list[int], group: int, budget: int) -> list[list[int]]:
    """Divide groups into chunks of at most `budget` tokens, padding included; a group is never divided.

    Args:
        prompts: tokens of each group's prompt.
        completions: tokens of each group's longest completion.
        group: completions per group (G).
        budget: most tokens of one forward pass.

    Returns:
        Indices of the groups of each chunk, the largest groups first.
    """
    sizes = [prompt - 1 + group * length for prompt, length in zip(prompts, completions, strict=True)]
    chunks: list[list[int]] = []
    widest, longest = 0, 0
    for index in sorted(range(len(sizes)), key=lambda i: (-sizes[i], i)):
        widest, longest = max(widest, prompts[index]), max(longest, completions[index])
        if chunks and (len(chunks[-1]) + 1) * (widest - 1 + group * longest) <= budget:
            chunks[-1].append(index)
        else:
            chunks.append([index])
            widest, longest = prompts[index], completions[index]
    return chunks


def divide(
    prompt_mask: torch.Tensor,
    completion_mask: torch.Tensor,
    budget: int | None,
    gather: Callable[[torch.Tensor], torch.Tensor],
) -> list[list[int]]:
    """Divide the groups of a micro-batch into chunks, one for each forward pass.

    All processes divide in the same way, by the longest group at each index.

    Args:
        prompt_mask: (B, P).
        completion_mask: (B, G, C).
        budget: most tokens of one forward pass; None for all groups at once.
        gather: concatenates the tensors of all processes along the first dimension.

    Returns:
        Indices of the groups of each chunk.
    """
    count, group = completion_mask.shape[:2]
    if not budget:
        return [list(range(count))]
    sizes = torch.stack([prompt_mask.sum(dim=1), completion_mask.sum(dim=2).amax(dim=1)], dim=1)
    order = sorted(range(count), key=lambda i: (-int(sizes[i, 0] + group * sizes[i, 1]), i))
    longest = gather(sizes[order].contiguous()).view(-1, count, 2).amax(dim=0)
    prompt_lengths, completion_lengths = longest.T.tolist()
    chunks = chunks_within(prompt_lengths, completion_lengths, group, budget)
    return [[order[index] for index in chunk] for chunk in chunks]


def token_shares(completion_mask: torch.Tensor, chunks: list[list[int]]) -> list[float]:
    """Share of each chunk in the completion tokens, from a (B, G, C) mask."""
    tokens = [float(completion_mask[chunk].sum()) for chunk in chunks]
    return [count / max(1.0, sum(tokens)) for count in tokens]


def loss_weights(loss_type: str, chunks: list[list[int]], shares: list[float]) -> list[float]:
    """Weight of each chunk's loss in the loss of the micro-batch, by TRL's `loss_type` and `token_shares`."""
    if loss_type in BY_SEQUENCES:
        count = sum(map(len, chunks))
        return [len(chunk) / count for chunk in chunks]
    return shares if loss_type in BY_TOKENS else [1.0] * len(chunks)


def merge_metrics(metrics: dict[str, list[float]], before: dict[str, int], shares: list[float]) -> None:
    """Merge the metrics of chunks into one entry per micro-batch: minimum, maximum, or mean weighted by tokens.

    Args:
        metrics: logged values by name; changed in place.
        before: number of values of each name before the first chunk.
        shares: share of each chunk in the completion tokens.
    """
    for name, values in metrics.items():
        added = values[before.get(name, 0) :]
        if len(added) != len(shares):
            continue
        kind = name.rsplit("_", 1)[-1]
        mean = sum(share * value for share, value in zip(shares, added, strict=True))
        values[before.get(name, 0) :] = [{"min": min, "max": max}[kind](added) if kind in ("min", "max") else mean]


def backward_only(accelerator: Any, loss: torch.Tensor) -> None:
    """Back-propagate the loss of a chunk that is not the last of its micro-batch, without an optimizer step."""
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        # accelerate would make an optimizer step at the end of an accumulation
        accelerator.deepspeed_engine_wrapped.backward(loss, sync_gradients=False, scale_wrt_gas=False)
    else:
        accelerator.backward(loss)
