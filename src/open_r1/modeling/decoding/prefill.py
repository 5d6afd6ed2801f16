"""The pass over whole prompts before decoding begins."""

from typing import Any

import torch
from transformers import DynamicCache

from open_r1.modeling.decoding.steps import Prefilled
from open_r1.modeling.prompt_batch import PromptBatch, prompt_positions


def prefill(model: Any, prompts: PromptBatch, order: torch.Tensor, **inputs: Any) -> Prefilled:
    """Compute B prompts, each once.

    Args:
        model: with its LM head. The outermost module is called, where FSDP's forward must start.
        prompts: B prompts, padded on the left; each ends with text.
        order: (N,) the prompt of each row that will be continued.
        **inputs: further arguments of the model.
    """
    positions, _ = prompt_positions(model, prompts)
    cache = DynamicCache(config=model.config)
    logits = model(
        input_ids=prompts.ids,
        attention_mask=prompts.mask,
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
        **prompts.model_inputs(),
        **inputs,
    ).logits[:, -1]
    return Prefilled(cache, prompts.mask, logits, positions[..., -1:] + 1, order)
