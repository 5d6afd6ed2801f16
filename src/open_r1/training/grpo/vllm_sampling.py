"""Sampling with vLLM inside the trainer's processes (`--use_vllm true --vllm_mode colocate`).

TRL 1.16 hands `vllm.LLM` the token ids that the model itself reads, with one placeholder for every token of an image.
vLLM expands the placeholders of an image itself, from one, so it would read a longer prompt than the model is trained
on. `ColocatedLLM` stands between the two.
"""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import torch

from open_r1.checkpoints.families import forbidden_token_ids

NEVER = -100.0
"""The lowest value of vLLM's `logit_bias`: it divides the odds of a token by e^100."""

# Limits of the mean difference of log-probabilities. vLLM may not draw image tokens, whose probability is spread over
# the others: 0.006 on a tiny model with random weights, where all tokens are about as likely, and next to nothing on a
# trained one. The wrong prompt described above made 0.16.
SAMPLER_LIMIT = 0.05
SAMPLER_LIMIT_HALF = 0.1


class ColocatedLLM:
    """A `vllm.LLM` that takes prompts with a placeholder for every image token; all else is the LLM's own.

    Args:
        llm: a `vllm.LLM`.
        image_token: id of the placeholder.
        image_processor: gives the limits on an image's pixels, which vLLM's own processor is told with each prompt.
    """

    def __init__(self, llm: Any, image_token: int, image_processor: Any) -> None:
        self._llm, self._image_token = llm, image_token
        size = image_processor.size
        self._pixels = {"min_pixels": size["shortest_edge"], "max_pixels": size["longest_edge"]}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._llm, name)

    def generate(self, prompts: Sequence[dict[str, Any]], **options: Any) -> Any:
        """As `LLM.generate`, for prompts with `prompt_token_ids` and perhaps `multi_modal_data`."""
        return self._llm.generate([self._request(prompt) for prompt in prompts], **options)

    def _request(self, prompt: dict[str, Any]) -> dict[str, Any]:
        if "multi_modal_data" not in prompt:
            return prompt
        ids = collapse_runs(prompt["prompt_token_ids"], self._image_token)
        return prompt | {"prompt_token_ids": ids, "mm_processor_kwargs": self._pixels}


def collapse_runs(ids: Sequence[int], token: int) -> list[int]:
    """Token ids with one `token` in place of each run of them; two images never touch, tokens open and close each."""
    collapsed: list[int] = []
    for value, run in groupby(ids):
        collapsed += [value] if value == token else list(run)
    return collapsed


def prepare_vllm(trainer: Any) -> None:
    """Let vLLM sample from the prompts that the trainer scores, and no image token: without an image one ends the run.

    Args:
        trainer: TRL's; the options of its `vllm_generation` are changed and, where it holds one, its LLM.
    """
    generation, config = trainer.vllm_generation, trainer.model.config
    bias = dict.fromkeys(forbidden_token_ids(config), NEVER) | (generation.generation_kwargs.get("logit_bias") or {})
    if bias:
        generation.generation_kwargs = generation.generation_kwargs | {"logit_bias": bias}
    image_token = getattr(config, "image_token_id", None)
    if generation.mode == "colocate" and image_token is not None:
        generation.llm = ColocatedLLM(generation.llm, image_token, trainer.processing_class.image_processor)


def repeated_images(images: Sequence[list[Any]], group: int) -> list[list[Any] | None] | None:
    """The images of each completion's prompt, from those of each prompt; None where no prompt has any."""
    repeated = [prompt_images or None for prompt_images in images for _ in range(group)]
    return repeated if any(repeated) else None


def report_sampler(accelerator: Any, scored: dict[str, Any], dtype: torch.dtype) -> bool:
    """Compare vLLM's log-probabilities in TRL's scored batch with the trainer's own.

    Returns:
        Whether the batch has both: TRL computes the trainer's for its importance sampling correction.
    """
    sampled, trainer = scored.get("sampling_per_token_logps"), scored.get("old_per_token_logps")
    if sampled is None or trainer is None:
        return False
    half_precision = dtype != torch.float32 or accelerator.mixed_precision != "no"
    line = require_same_sampler(sampled, trainer, scored["completion_mask"], half_precision)
    if accelerator.is_main_process:
        print(line)
    return True


def changes_odds(arguments: Any) -> bool:
    """Whether sampling options change a token's probability after the model has given it.

    vLLM then reports another probability than the model's, and the two cannot be compared.
    """
    off = {"top_p": (1.0,), "top_k": (0, -1, None), "min_p": (0.0, None), "repetition_penalty": (1.0, None)}
    return bool(arguments.generation_kwargs) or any(
        getattr(arguments, name) not in values for name, values in off.items()
    )


def require_same_sampler(sampled: torch.Tensor, trainer: torch.Tensor, mask: torch.Tensor, half_precision: bool) -> str:
    """Compare vLLM's log-probabilities of what it drew with the trainer's own, (N, C) each.

    Returns:
        A log line with the differences.

    Raises:
        RuntimeError: if they differ by more than rounding.
    """
    difference = torch.nan_to_num((trainer.detach() - sampled).abs()).float() * mask
    mean, largest = (difference.sum() / mask.sum().clamp(min=1)).item(), difference.max().item()
    limit = SAMPLER_LIMIT_HALF if half_precision else SAMPLER_LIMIT
    if not mean <= limit:
        raise RuntimeError(
            f"vLLM's log-probabilities of the completions differ from the trainer's by {mean:.2e} on average (limit "
            f"{limit}) and {largest:.2e} at most: it samples from another prompt or other weights than are trained. "
            "Train with --use_vllm false, and report this with the versions in run.json"
        )
    return f"vLLM's samples verified on {int(mask.sum())} tokens: mean difference {mean:.1e}, largest {largest:.1e}"
