"""Sample G completions per prompt with one prefill: images, vision tower and prompt are computed once per group."""

import torch
from transformers import DynamicCache, GenerationConfig, PreTrainedModel

from open_r1.modeling.prompt_batch import PromptBatch, inner_model, prompt_positions


@torch.no_grad()
def sample_groups(
    model: PreTrainedModel,
    prompts: PromptBatch,
    group: int,
    generation_config: GenerationConfig,
    in_step: bool = False,
) -> torch.Tensor:
    """Sample `group` completions for each prompt.

    The prompt without its last token is prefilled once, and its cache is repeated. Decoding is that of transformers,
    with all options of `generation_config`.

    Args:
        model: with its LM head; adapted by `adapt_backbone` if `in_step` is set.
        prompts: B prompts.
        group: completions per prompt (G).
        generation_config: sampling options.
        in_step: make the same calls in every process, even without an image or with short completions: with sharded
            weights (FSDP) the processes wait for each other in every call.

    Returns:
        (B * G, C) completion tokens, prompt by prompt, padded after the end token.
    """
    inner = inner_model(model)
    positions, offset = prompt_positions(model, prompts)
    cache = DynamicCache(config=model.config)
    model(  # the outermost module, with logits of one position: FSDP's forward must start at the root
        input_ids=prompts.ids[:, :-1],
        attention_mask=prompts.mask[:, :-1],
        position_ids=positions[..., :-1],
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
        **prompts.model_inputs(),
        **({"touch_vision": True} if in_step and hasattr(inner, "visual") and not prompts.vision else {}),
    )
    cache.batch_repeat_interleave(group)
    if offset is not None:
        inner.rope_deltas = offset.repeat_interleave(group, dim=0)
    repeated = prompts.ids.repeat_interleave(group, dim=0)
    tokens: torch.Tensor = model.generate(  # type: ignore[assignment]
        input_ids=repeated,
        attention_mask=prompts.mask.repeat_interleave(group, dim=0),
        past_key_values=cache,
        generation_config=generation_config,
        # None leaves it to transformers 5.17, which recognizes ZeRO-3 but not accelerate's FSDP
        synced_gpus=in_step or None,
    )
    if offset is not None:
        inner.rope_deltas = None  # a stale offset must never reach another call
    return tokens[:, repeated.size(1) :]
