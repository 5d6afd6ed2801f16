"""Sample G completions per prompt with one prefill: images, vision tower and prompt are computed once per group."""

from typing import Any

import torch
from transformers import GenerationConfig

from open_r1.modeling.decoding.loop import DecodingLoop
from open_r1.modeling.decoding.prefill import prefill
from open_r1.modeling.decoding.steps import Prefilled
from open_r1.modeling.prompt_batch import PromptBatch, inner_model


class GroupSampler:
    """Samples groups of completions; what decoding needs is kept from call to call.

    Args:
        in_step: make the same calls in every process, even without an image or with short completions: with sharded
            weights the processes wait for each other in every call.
    """

    def __init__(self, in_step: bool = False) -> None:
        self._in_step = in_step
        self._loop: tuple[tuple[Any, ...], DecodingLoop] | None = None

    @torch.no_grad()
    def sample_groups(
        self, model: Any, prompts: PromptBatch, group: int, generation_config: GenerationConfig
    ) -> torch.Tensor:
        """Sample `group` completions for each prompt.

        Args:
            model: with its LM head; adapted by `adapt_backbone` if `in_step` is set.
            prompts: B prompts.
            group: completions per prompt (G).
            generation_config: how the distribution of the next token is shaped, as for `generate` of transformers.

        Returns:
            (B * G, C) completion tokens, prompt by prompt, padded after the end token.
        """
        config, processors = _settings(model, prompts, generation_config)
        prefilled = self._prefill(model, prompts, group)
        history = torch.empty(len(prefilled.order), prompts.ids.size(1) + config.max_new_tokens, dtype=torch.long)
        history = history.to(prompts.ids.device)
        history[:, : prompts.ids.size(1)] = prompts.ids.index_select(0, prefilled.order)

        def pick(logits: torch.Tensor, rows: torch.Tensor, step: int) -> torch.Tensor:
            end = prompts.ids.size(1) + step
            scores = processors(history[:, :end].index_select(0, rows), logits)
            if config.do_sample:
                # As torch.multinomial draws one token, but with the numbers of all rows, finished ones included: a
                # completion does not depend on when other rows are dropped.
                race = torch.empty(len(history), scores.size(1), device=scores.device).exponential_(1)
                chosen = (scores.softmax(-1) / race.index_select(0, rows)).argmax(-1)
            else:
                chosen = scores.argmax(-1)
            history[:, end].index_copy_(0, rows, chosen)
            return chosen

        return self._loop_for(model, config)(prefilled, pick, config.max_new_tokens)

    def _prefill(self, model: Any, prompts: PromptBatch, group: int) -> Prefilled:
        touch = self._in_step and hasattr(inner_model(model), "visual") and not prompts.vision
        order = torch.arange(len(prompts.ids), device=prompts.ids.device).repeat_interleave(group)
        return prefill(model, prompts, order, **({"touch_vision": True} if touch else {}))

    def _loop_for(self, model: Any, config: GenerationConfig) -> DecodingLoop:
        """The loop of an earlier call where model and end tokens are the same."""
        end_tokens = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
        key = model, end_tokens, config.pad_token_id
        if self._loop is None or self._loop[0][0] is not model or self._loop[0][1:] != key[1:]:
            self._loop = key, DecodingLoop(model, end_tokens, config.pad_token_id, self._in_step)
        return self._loop[1]


def _settings(model: Any, prompts: PromptBatch, generation_config: GenerationConfig) -> tuple[Any, Any]:
    """The complete settings and what shapes the distribution, as `generate` makes them of its argument."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    config, _ = base._prepare_generation_config(generation_config)
    base._prepare_special_tokens(config, kwargs_has_attention_mask=True, device=prompts.ids.device)
    processors = base._get_logits_processor(
        generation_config=config, input_ids_seq_length=prompts.ids.size(1), device=prompts.ids.device, model_kwargs={}
    )
    return config, processors
