"""Checks that the shared prefix gives the same log-probabilities as stock TRL with one row per completion.

Before anything is sampled a small random model of the class tells whether packed rows are exact (`unshared_reason`); no
list of families decides. A packed row asks of a model that it takes position ids and a mask with four dimensions, and
computes attention through transformers' interface or with that mask. Most causal language models do; a few count
positions otherwise, or attend in their own way. The first group of a run is then compared on the model itself.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.functional import log_softmax, pad
from trl.trainer.utils import add_fused_lm_head

from open_r1.modeling.family_probe import (
    decoding_support,
    first_line,
    small_model,
    small_prompts,
    tried_once,
    windowed_layers,
)
from open_r1.modeling.packed_rows import pack
from open_r1.modeling.prompt_batch import PromptBatch, inner_model, prompt_positions
from open_r1.modeling.segment_attention import ATTENTION, adapt_backbone, use_attention
from open_r1.modeling.sharding import unsharded_loading, weights_are_sharded

# Limits of the mean difference of log-probabilities. Observed on tiny models: 3e-7 in float32, 2.4e-3 in bfloat16.
# Large models round more; a real error (wrong image or position, a leak between segments) exceeds these limits.
VERIFY_LIMIT = 1e-4
VERIFY_LIMIT_HALF = 0.1
PROBE_LIMIT = 1e-4
"""Largest difference of log-probabilities; exact rows differ by 2e-6, a position that is off by one by 1e-1."""


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


def can_verify(prompts: PromptBatch, reduce: Callable[[float, str], float]) -> bool:
    """Whether stock TRL's rows can be computed for the first prompt of each process.

    Stock TRL calls the vision tower for images only. With sharded weights other processes would wait for one that does
    not call it, so that either all first prompts have images or none has.

    Args:
        prompts: those of this process.
        reduce: of a number over all processes, by the name of the reduction.
    """
    if not weights_are_sharded():
        return True
    with_images = float(prompts.images_per_prompt[0] > 0)
    return reduce(with_images, "mean") in (0.0, 1.0)


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


def unshared_reason(model: Any) -> str | None:
    """Why a model computes a prompt once per completion; None if a group can share it.

    Args:
        model: of transformers, with or without adapters; its own weights are not used.
    """
    windowed = windowed_layers(model.config)
    if windowed:
        return f"{windowed} of its layers use sliding-window attention, which packed rows do not support"
    if hasattr(model.config, "vision_config") and not hasattr(inner_model(model), "get_rope_index"):
        return f"images of a {model.config.model_type} are not patches with grids, by which prompts are divided"
    return decoding_support(model).refusal or tried_once(model, _tried)


def _tried(kind: Any, config: Any) -> str | None:
    try:
        model = small_model(kind, config)
    except Exception as error:  # whatever a class makes of numbers that it was not published with
        return f"a small {kind.__name__} cannot be built to try it: {first_line(error)}"
    try:
        with unsharded_loading(), torch.no_grad():  # TRL's head would gather weights that are not sharded
            return _try_packed_rows(model)
    except Exception as error:  # a model that takes no such arguments raises anything
        return f"a packed row cannot be computed: {first_line(error)}"


def _try_packed_rows(model: Any) -> str | None:
    """Why packed rows are not exact; None if they are."""
    prompts, completions = small_prompts()
    group, length = completions.shape[1:]
    rows = torch.cat([prompts.ids.repeat_interleave(group, 0), completions.flatten(0, 1)], 1)
    mask = pad(prompts.mask.repeat_interleave(group, 0), (0, length), value=1)
    expected = model(input_ids=rows, attention_mask=mask).logits[:, -length - 1 : -1]
    adapt_backbone(inner_model(model))
    use_attention(model, ATTENTION)
    add_fused_lm_head(model, temperature=1.0, outputs=("log_probs",))
    positions, _ = prompt_positions(model, prompts)
    chosen = completions.flatten(0, 1)
    expected = log_softmax(expected.float(), -1).gather(-1, chosen[..., None])[..., 0]
    for by_segment in (False, True):
        packed = pack(prompts.ids, prompts.mask, positions, completions, torch.ones_like(completions), by_segment)
        log_probs = model(**packed.model_inputs(), use_cache=False).log_probs.view(expected.shape)
        difference = (log_probs - expected).abs().max().item()
        if not difference <= PROBE_LIMIT:
            return f"log-probabilities of a packed row differ by {difference:.0e} from those of a row per completion"
    return None
