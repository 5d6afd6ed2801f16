"""What a model's class can do, tried on a small random model of it: no list of families decides.

Two layers of the class with few numbers, in float32 on the CPU, are enough: what is not exact there is not exact in the
real model either. `training/grpo/verification.py` tries packed rows in this way.
"""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from transformers import GenerationConfig

from open_r1.modeling.decoding.loop import DecodingLoop
from open_r1.modeling.decoding.prefill import prefill
from open_r1.modeling.prompt_batch import PromptBatch, inner_model
from open_r1.modeling.sharding import unsharded_loading

VOCABULARY = 512
SIZES = {"num_hidden_layers": 2, "vocab_size": VOCABULARY, "intermediate_size": 64, "moe_intermediate_size": 32}
"""Largest numbers of a small model's text part; heads and widths stay, since other numbers depend on them."""
VISION_SIZES = {"depth": 1, "num_hidden_layers": 1, "fullatt_block_indexes": [0], "deepstack_visual_indexes": [0]}
Result = TypeVar("Result")


@dataclass(frozen=True)
class DecodingSupport:
    """What the decoding loop can expect of a class."""

    refusal: str | None
    """Why the loop cannot continue its prompts; None if it can."""
    has_plain_head: bool
    """Whether its logits are those of `lm_head`, neither scaled nor capped."""


_RESULTS: dict[tuple[Any, ...], Any] = {}


def tried_once(model: Any, attempt: Callable[[Any, Any], Result]) -> Result:
    """What an attempt with a model's class and configuration says, made once for each in a process.

    Args:
        model: of transformers, with or without adapters; its own weights are not used.
        attempt: called with class and configuration.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    key = attempt, type(base), str(base.config.to_dict())
    if key not in _RESULTS:
        _RESULTS[key] = attempt(type(base), base.config)
    return _RESULTS[key]


def decoding_support(model: Any) -> DecodingSupport:
    """What the decoding loop can expect of a model's class; see `tried_once`."""
    return tried_once(model, _tried)


def windowed_layers(config: Any) -> int:
    """The number of language model layers that do not attend to all tokens, as most of Gemma 3's do not.

    Args:
        config: the loaded model's `config`.
    """
    text = config.get_text_config()
    kinds = getattr(text, "layer_types", None)
    if kinds is not None:
        return sum(kind != "full_attention" for kind in kinds)
    has_window = getattr(text, "sliding_window", None) is not None and getattr(text, "use_sliding_window", True)
    return text.num_hidden_layers if has_window else 0  # Mistral and Phi 3 of before: all layers or none


def _tried(kind: Any, config: Any) -> DecodingSupport:
    try:
        model = small_model(kind, config)
    except Exception as error:  # whatever a class makes of numbers that it was not published with
        return DecodingSupport(f"a small {kind.__name__} cannot be built to try it: {first_line(error)}", False)
    plain = _has_plain_head(model)
    try:
        with torch.no_grad():
            return DecodingSupport(_try_decoding(model, windowed_layers(config) > 0), plain)
    except Exception as error:  # a model that takes no such arguments raises anything
        return DecodingSupport(f"a cached token cannot be computed: {first_line(error)}", plain)


def first_line(error: Exception) -> str:
    """The first line of an error's text, or its kind."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def small_model(kind: Any, config: Any) -> Any:
    """Two layers of a class with random weights, far from uniform; the caller's random state is left as it was."""
    small = deepcopy(config)
    text = small.get_text_config()
    for part, sizes in ((text, SIZES), (getattr(small, "vision_config", None), VISION_SIZES)):
        for name, size in sizes.items():
            if getattr(part, name, None) is not None:
                setattr(part, name, size)
    for part in {id(small): small, id(text): text}.values():
        part.pad_token_id = None
        part.use_cache = True
    if getattr(text, "layer_types", None) is not None:
        text.layer_types = text.layer_types[:2]
    with unsharded_loading(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = kind(small).float().eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.mul_(3)
    return model


def small_prompts() -> tuple[PromptBatch, torch.Tensor]:
    """Two prompts of 9 and 6 tokens, and (2, 2, 5) tokens of completions."""
    random = torch.Generator().manual_seed(1)
    ids = torch.randint(1, VOCABULARY - 1, (2, 9), generator=random)
    mask = torch.ones_like(ids)
    mask[1, :3] = 0
    return PromptBatch(ids, mask, [0, 0]), torch.randint(1, VOCABULARY - 1, (2, 2, 5), generator=random)


def _has_plain_head(model: Any) -> bool:
    """Whether `lm_head` alone makes the logits of hidden states."""
    prompts, _ = small_prompts()
    with torch.no_grad():
        try:
            hidden = inner_model(model)(input_ids=prompts.ids[:1])[0]
            return torch.allclose(model.lm_head(hidden), model(input_ids=prompts.ids[:1]).logits)
        except AttributeError:  # it has another name, or none
            return False


def _try_decoding(model: Any, windowed: bool) -> str | None:
    """Why decoded tokens are not those of `generate`; None if they are."""
    prompts, _ = small_prompts()
    new = 6
    config = GenerationConfig(max_new_tokens=new, do_sample=False, eos_token_id=VOCABULARY - 1, pad_token_id=0)
    expected = model.generate(input_ids=prompts.ids, attention_mask=prompts.mask, generation_config=config)
    prefilled = prefill(model, prompts, torch.arange(2))
    loop = DecodingLoop(model, [VOCABULARY - 1], 0, windowed=windowed)
    tokens = loop(prefilled, lambda scores, rows, step: scores.argmax(-1), new)
    expected = expected[:, prompts.ids.size(1) :]
    if tokens.shape != expected.shape or not bool((tokens == expected).all()):
        return "decoded tokens differ from those of transformers' generate"
    return None
