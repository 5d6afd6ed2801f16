"""Attention over packed rows: segments that each see the prompt and themselves."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from open_r1.modeling.cascade_attention import Spans, attend_in_cascade
from open_r1.modeling.gpu_kernels import varlen_serves
from open_r1.modeling.lean_layers import adapt_layers
from open_r1.modeling.prompt_batch import inner_model
from open_r1.modeling.vision_attention import adapt_vision

ATTENTION = "shared_prefix"
"""Name of `attend_by_segment` as an attention implementation; without a `segments` argument it is SDPA."""


@dataclass(frozen=True)
class Segments:
    """The visibility of `packed_mask`, for attention that computes prefix and segments separately."""

    prompt_mask: torch.Tensor
    """(B, P) 1 where a prompt token is real."""
    prompt_lengths: tuple[int, ...]
    """Its sums, known to the host."""
    group: int
    length: int
    _additive: dict[torch.dtype, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict, compare=False)

    @property
    def prefix(self) -> int:
        """P - 1, tokens of the shared prefix, padding included."""
        return self.prompt_mask.size(1) - 1

    @cached_property
    def spans(self) -> Spans:
        """The layout for attention without masks."""
        return Spans(self.prompt_lengths, self.prefix, self.group, self.length, self.prompt_mask.device)

    def masks(self) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, 1, P - 1, P - 1) bool of the prefix, and (B, 1, C, P - 1 + C) bool of a segment, the same for all G."""
        batch, prefix, length, device = len(self.prompt_mask), self.prefix, self.length, self.prompt_mask.device
        real = self.prompt_mask[:, None, :-1].bool()  # (B, 1, P - 1)
        square = torch.ones(prefix, prefix, dtype=torch.bool, device=device)
        within = (square.tril() & real) | torch.eye(prefix, dtype=torch.bool, device=device)
        causal = torch.ones(length, length, dtype=torch.bool, device=device).tril().expand(batch, length, length)
        segment = torch.cat([real.expand(batch, length, prefix), causal], dim=2)
        return within[:, None], segment[:, None]

    def additive_masks(self, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        """Both masks as numbers to add to the scores, made once: every layer would make a copy of a bool mask."""
        if dtype not in self._additive:
            prefix, segment = (torch.zeros_like(m, dtype=dtype).masked_fill_(~m, -torch.inf) for m in self.masks())
            self._additive[dtype] = prefix, segment
        return self._additive[dtype]


def attend_by_segment(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    segments: Segments | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of packed rows in two calls: the prefix over itself, each segment over the prefix and itself.

    Scores cost (P - 1)^2 + G * C * (P - 1 + C) instead of (P - 1 + G * C)^2. On a GPU in half precision
    `attend_in_cascade` needs neither masks nor copies of the prefix.

    Args:
        module: the attention layer.
        query: (B, heads, L, D).
        key: (B, key heads, L, D).
        value: (B, key heads, L, D).
        attention_mask: of a call without segments (sampling, scoring outside of training).
        scaling: factor on the scores; 1 / sqrt(D) if None.
        dropout: rate for the attention weights.
        segments: the layout; None for an ordinary call.
        **kwargs: further arguments that transformers passes.
    """
    if segments is None:
        return sdpa_attention_forward(  # type: ignore[return-value]
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    lower = _autocast_dtype(query)
    if varlen_serves(query.device, lower) and not dropout and min(segments.prompt_lengths) > 1:
        scale = query.size(-1) ** -0.5 if scaling is None else scaling
        query, key, value = query.to(lower), key.to(lower), value.to(lower)
        return attend_in_cascade(query, key, value, segments.spans, scale), None
    prefix, group, length = segments.prefix, segments.group, segments.length
    grouped_heads = query.size(1) != key.size(1)

    def segment_states(states: torch.Tensor) -> torch.Tensor:
        """(B, h, L, D) -> (B, G * h, C, D): segments as further heads, which share one mask."""
        batch, heads, _, size = states.shape
        return states[:, :, prefix:].reshape(batch, heads, group, length, size).transpose(1, 2).flatten(1, 2)

    def visible_states(states: torch.Tensor) -> torch.Tensor:
        """(B, h, L, D) -> (B, G * h, P - 1 + C, D): prefix and segment."""
        shared = states[:, :, :prefix].repeat(1, group, 1, 1)
        return torch.cat([shared, segment_states(states)], dim=2)

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return scaled_dot_product_attention(
            q, k, v, attn_mask=mask, dropout_p=dropout, scale=scaling, enable_gqa=grouped_heads
        )

    prefix_mask, segment_mask = segments.additive_masks(query.dtype)
    of_prefix = attend(query[:, :, :prefix], key[:, :, :prefix], value[:, :, :prefix], prefix_mask)
    of_segments = attend(segment_states(query), visible_states(key), visible_states(value), segment_mask)
    batch, heads, _, size = of_prefix.shape
    of_segments = of_segments.view(batch, group, heads, length, size).transpose(1, 2)
    of_segments = of_segments.reshape(batch, heads, group * length, size)
    return torch.cat([of_prefix, of_segments], dim=2).transpose(1, 2).contiguous(), None


def _autocast_dtype(states: torch.Tensor) -> torch.dtype:
    """The type in which SDPA would compute: rotary embedding leaves queries and keys in float32 under autocast."""
    kind = states.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else states.dtype


# trl 1.16 computes logits of 4,096 tokens x 32,768 vocabulary rows at a time. Its GPU kernel keeps one such tile;
# without a GPU plain torch keeps eight, 4 GiB in float32. Tokens are independent, so the result does not change.
CPU_TILE = 256  # tokens


def adapt_backbone(backbone: torch.nn.Module) -> None:
    """Let a backbone's forward take two further arguments.

    `scored_positions=n` returns the hidden states of the last n positions only: on a CPU, TRL's fused head computes
    logits for every position, labelled or not. `touch_vision=True` runs the vision tower on a blank image and adds
    zero times its features, so that a process whose batch is all text makes the same calls as the others, which ZeRO-3
    and DDP wait for.
    """

    def cut(_module: Any, _args: Any, kwargs: dict[str, Any], output: Any) -> Any:
        if "scored_positions" in kwargs:
            output.last_hidden_state = output.last_hidden_state[:, -kwargs["scored_positions"] :]
        return output

    def touch(_module: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        if kwargs.pop("touch_vision", False):
            # Right after the embeddings, where images are inserted, and after the hooks of ZeRO-3, which compares the
            # order of all modules' calls between processes, forward and backward.
            embeddings = backbone.get_input_embeddings()  # type: ignore[operator]

            def add_nothing(_module: Any, _args: Any, output: torch.Tensor) -> torch.Tensor:
                handle.remove()
                return output + 0.0 * sum(features.sum() for features in _blank_features(backbone))

            handle = embeddings.register_forward_hook(add_nothing)
        return args, kwargs

    backbone.register_forward_hook(cut, with_kwargs=True)
    backbone.register_forward_pre_hook(touch, with_kwargs=True)
    adapt_vision(backbone)


def _blank_features(backbone: Any) -> list[torch.Tensor]:
    """All features of an image of 4 x 4 blank patches, each (4, hidden)."""
    config = backbone.visual.config
    width = config.in_channels * config.temporal_patch_size * config.patch_size**2
    weight = next(backbone.visual.parameters())
    patches = torch.zeros(16, width, dtype=weight.dtype, device=weight.device)
    outputs = backbone.get_image_features(patches, torch.tensor([[1, 4, 4]]))
    return [*outputs.pooler_output, *(getattr(outputs, "deepstack_features", None) or [])]


def prepare_model(model: Any) -> None:
    """Adapt a model to packed rows: attention, the positions that reach its head, and layers with few operations."""
    if model is None:
        return
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    inner = getattr(inner, "module", inner)
    use_attention(inner, ATTENTION)
    adapt_backbone(inner_model(inner))
    adapt_layers(model)


def use_attention(model: Any, name: str) -> None:
    """Set the attention implementation of the language model; the vision tower's stays."""
    model.set_attn_implementation({"text_config": name} if hasattr(model.config, "vision_config") else name)
