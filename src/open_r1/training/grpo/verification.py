"""Check that the shared prefix gives the same log-probabilities as stock TRL with one row per completion."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from open_r1.modeling.prompt_batch import PromptBatch

# Limits of the mean difference of log-probabilities. Observed on tiny models: 3e-7 in float32, 2.4e-3 in bfloat16.
# Large models round more; a real error (wrong image or position, a leak between segments) exceeds these limits.
VERIFY_LIMIT = 1e-4
VERIFY_LIMIT_HALF = 0.1


def stock_rows(
    prompt: PromptBatch, completions: torch.Tensor, mask: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, dict[str, Any]]:
    """Inputs of stock TRL for one group: the prompt and its images repeated for every completion.

    Args:
        prompt: a batch of one prompt.
        completions: (G, C) token ids.
        mask: (G, C) 1 where a token is real.

    Returns:
        (G, P + C) ids and mask, and the image arguments of TRL's scoring method.
    """
    group, length = completions.shape
    rows = torch.cat([prompt.ids.expand(group, -1), completions], dim=1)
    rows_mask = torch.cat([prompt.mask.expand(group, -1), mask], dim=1)
    images: dict[str, Any] = {name: torch.cat([value] * group) for name, value in prompt.vision.items()}
    if images:
        token_types = images["mm_token_type_ids"].to(completions.device)
        images["mm_token_type_ids"] = torch.cat([token_types, token_types.new_zeros(group, length)], dim=1)
        images["num_images"] = prompt.images_per_prompt * group
    return rows, rows_mask, images


def require_agreement(ours: torch.Tensor, stock: torch.Tensor, mask: torch.Tensor, half_precision: bool) -> str:
    """Compare the log-probabilities of one group, (G, C) each.

    Returns:
        A log line with the differences.

    Raises:
        RuntimeError: if they differ by more than rounding.
    """
    difference = ((ours.detach() - stock).abs() * mask).float()
    mean, largest = (difference.sum() / mask.sum().clamp(min=1)).item(), difference.max().item()
    limit = VERIFY_LIMIT_HALF if half_precision else VERIFY_LIMIT
    if not mean <= limit:
        raise RuntimeError(
            f"log-probabilities with the shared prefix differ from those with a row per completion by {mean:.2e} on "
            f"average (limit {limit:.0e}) and {largest:.2e} at most, so training would be wrong. Train with "
            "--shared_prefix false, and report this bug with the versions in run.json"
        )
    return f"shared prefix verified on {int(mask.sum())} tokens: mean difference {mean:.1e}, largest {largest:.1e}"


def active_dropout(model: torch.nn.Module) -> list[torch.nn.Dropout]:
    """Dropout layers that are active in a forward pass."""
    return [
        module for module in model.modules() if isinstance(module, torch.nn.Dropout) and module.p and module.training
    ]


@contextmanager
def evaluating(modules: Sequence[torch.nn.Module]) -> Iterator[None]:
    """Put modules into evaluation mode within a block."""
    for module in modules:
        module.eval()
    try:
        yield
    finally:
        for module in modules:
            module.train()
