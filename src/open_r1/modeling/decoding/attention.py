"""Attention of one new token per row over a cache, without copies of keys and values for the query heads of a group."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from open_r1.modeling.segment_attention import use_attention

ATTENTION = "one_token"
"""Name of `attend_one_token` as an attention implementation."""


def attend_one_token(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of one query per row.

    The query heads that share a key head are rows of one query matrix. Repeating keys and values for each of them, as
    transformers does where there is a mask, would write the cache H / K times for each token.

    Args:
        module: the attention layer.
        query: (N, H, 1, D).
        key: (N, K, S, D).
        value: (N, K, S, D).
        attention_mask: (N, 1, 1, S), 0 where a key may be looked at and minus infinity elsewhere.
        scaling: factor on the scores; 1 / sqrt(D) if None.
        dropout: unused, nothing is trained here.
        **kwargs: further arguments that transformers passes.

    Returns:
        (N, 1, H, D), and None for the attention weights.
    """
    rows, heads, _, size = query.shape
    folded = query.reshape(rows, key.size(1), heads // key.size(1), size).to(key.dtype)
    mask = attention_mask.to(key.dtype).expand(-1, -1, folded.size(2), -1)
    out = scaled_dot_product_attention(folded, key, value, attn_mask=mask, scale=scaling)
    return out.reshape(rows, 1, heads, size), None


AttentionInterface.register(ATTENTION, attend_one_token)


@contextmanager
def one_token_attention(model: Any) -> Iterator[None]:
    """Within the block the language model attends by `attend_one_token`."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    before = base.config.get_text_config()._attn_implementation
    use_attention(base, ATTENTION)
    try:
        yield
    finally:
        use_attention(base, before)
