"""Whether the shared prefix gives the same log-probabilities as stock TRL's rows, one per completion."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from open_r1.modeling.prompt_batch import PromptBatch

# Mean difference of log-probabilities between the two ways. Observed on tiny models: 3e-7 in float32, 2.4e-3 in
# bfloat16. Large models round more; what is wrong (an image, a position, a leak) moves them further still.
VERIFY_LIMIT = 1e-4
VERIFY_LIMIT_HALF = 0.1


def stock_rows(
    prompt: PromptBatch, completions: torch.Tensor, mask: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, dict[str, Any]]:
    """One group as stock TRL sees it: the prompt and its images repeated for every completion.

    Args:
        prompt: a batch of one.
        completions: (G, C) token ids.
        mask: (G, C) 1 where a token is real.

    Returns:
        (G, P + C) ids and mask, and the image arguments of TRL's scoring.
    """
    group, length = completions.shape
    rows = torch.cat([prompt.ids.expand(group, -1), completions], dim=1)
    rows_mask = torch.cat([prompt.mask.expand(group, -1), mask], dim=1)
    images: dict[str, Any] = {name: torch.cat([value] * group) for name, value in prompt.vision.items()}
    if images:
        kinds = images["mm_token_type_ids"]
        images["mm_token_type_ids"] = torch.cat([kinds, kinds.new_zeros(group, length)], dim=1)
        images["num_images"] = prompt.images_per_prompt * group
    return rows, rows_mask, images


def require_agreement(ours: torch.Tensor, stock: torch.Tensor, mask: torch.Tensor, half_precision: bool) -> str:
    """Compare the log-probabilities of one group, (G, C) each.

    Returns:
        A line that says how well they agree.

    Raises:
        RuntimeError: they differ by more than rounding, with the difference.
    """
    difference = ((ours.detach() - stock).abs() * mask).float()
    mean, largest = (difference.sum() / mask.sum().clamp(min=1)).item(), difference.max().item()
    limit = VERIFY_LIMIT_HALF if half_precision else VERIFY_LIMIT
    if not mean <= limit:
        raise RuntimeError(
            f"the shared prefix does not agree with a row per completion: log-probabilities differ by {mean:.2e} "
            f"on average and {largest:.2e} at most, over the limit of {limit:.0e}; training would be wrong. "
            "Run with --shared_prefix false, and report this with the versions in run.json"
        )
    return f"shared prefix verified on {int(mask.sum())} tokens: mean difference {mean:.1e}, largest {largest:.1e}"


def active_dropout(model: torch.nn.Module) -> list[torch.nn.Dropout]:
    """Dropout layers that change what a forward pass computes."""
    return [
        module for module in model.modules() if isinstance(module, torch.nn.Dropout) and module.p and module.training
    ]


@contextmanager
def evaluating(modules: Sequence[torch.nn.Module]) -> Iterator[None]:
    """Modules in evaluation mode for a while; the others stay as they are."""
    for module in modules:
        module.eval()
    try:
        yield
    finally:
        for module in modules:
            module.train()
