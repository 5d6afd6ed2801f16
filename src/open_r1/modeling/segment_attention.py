"""Attention over packed rows: a prompt, and segments that see it and themselves."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from open_r1.modeling.prompt_batch import inner_model

ATTENTION = "shared_prefix"
"""Name of the attention implementation below; without a `segments` argument it is SDPA."""


@dataclass(frozen=True)
class Segments:
    """The same visibility as `packed_mask`, for attention that runs prefix and segments separately."""

    prefix: int
    """P - 1, tokens of the shared prefix, padding included."""
    group: int
    length: int
    prefix_mask: torch.Tensor
    """(B, 1, P - 1, P - 1) bool."""
    segment_mask: torch.Tensor
    """(B, 1, C, P - 1 + C) bool: a segment's queries over the prefix and the segment itself, the same for all G."""
    _added: dict[torch.dtype, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict, compare=False)

    @classmethod
    def of(cls, prompt_mask: torch.Tensor, group: int, length: int) -> "Segments":
        """Masks for B prompts (B, P) with G completions of C tokens."""
        batch, prefix = len(prompt_mask), prompt_mask.size(1) - 1
        device = prompt_mask.device
        real = prompt_mask[:, None, :-1].bool()  # (B, 1, P - 1)
        square = torch.ones(prefix, prefix, dtype=torch.bool, device=device)
        within = (square.tril() & real) | torch.eye(prefix, dtype=torch.bool, device=device)
        own = torch.ones(length, length, dtype=torch.bool, device=device).tril().expand(batch, length, length)
        segment = torch.cat([real.expand(batch, length, prefix), own], dim=2)
        return cls(prefix, group, length, within[:, None], segment[:, None])

    def added(self, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        """Both masks as numbers to add to the scores, made once: of a bool mask every layer would keep its own copy."""
        if dtype not in self._added:
            masks = (self.prefix_mask, self.segment_mask)
            first, second = (torch.zeros_like(m, dtype=dtype).masked_fill_(~m, -torch.inf) for m in masks)
            self._added[dtype] = first, second
        return self._added[dtype]


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
    """Attention of packed rows in two parts: the prefix over itself, each segment over the prefix and itself.

    Scores cost (P - 1)^2 + G * C * (P - 1 + C) instead of (P - 1 + G * C)^2.

    Args:
        module: the attention layer.
        query: (B, heads, L, D).
        key: (B, key heads, L, D).
        value: (B, key heads, L, D).
        attention_mask: for calls without segments (sampling, scoring outside of training).
        scaling: factor on the scores; 1 / sqrt(D) if None.
        dropout: of the attention weights.
        segments: the layout; None for an ordinary call.
        **kwargs: what else transformers passes on.
    """
    if segments is None:
        return sdpa_attention_forward(  # type: ignore[return-value]
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    prefix, group, length = segments.prefix, segments.group, segments.length
    grouped_heads = query.size(1) != key.size(1)

    def own(states: torch.Tensor) -> torch.Tensor:
        """(B, h, L, D) -> (B, G * h, C, D): segments stand beside each other as heads do, under one mask."""
        batch, heads, _, size = states.shape
        return states[:, :, prefix:].reshape(batch, heads, group, length, size).transpose(1, 2).flatten(1, 2)

    def seen(states: torch.Tensor) -> torch.Tensor:
        """(B, h, L, D) -> (B, G * h, P - 1 + C, D), what a segment may look at."""
        shared = states[:, :, :prefix].repeat(1, group, 1, 1)
        return torch.cat([shared, own(states)], dim=2)

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return scaled_dot_product_attention(
            q, k, v, attn_mask=mask, dropout_p=dropout, scale=scaling, enable_gqa=grouped_heads
        )

    prefix_mask, segment_mask = segments.added(query.dtype)
    first = attend(query[:, :, :prefix], key[:, :, :prefix], value[:, :, :prefix], prefix_mask)
    rest = attend(own(query), seen(key), seen(value), segment_mask)
    batch, heads, _, size = first.shape
    rest = rest.view(batch, group, heads, length, size).transpose(1, 2).reshape(batch, heads, group * length, size)
    return torch.cat([first, rest], dim=2).transpose(1, 2).contiguous(), None


# trl 1.16 projects 4,096 tokens x 32,768 vocabulary rows at a time. Its GPU kernel works in that one tile; without a
# GPU plain torch makes eight of them, 4 GiB in float32. Tokens are independent, so smaller tiles change nothing else.
CPU_TILE = 256  # tokens


def adapt_backbone(backbone: torch.nn.Module) -> None:
    """Let a backbone's forward take two further arguments, which only packed rows bring.

    `scored_positions=n` cuts the hidden states to the last n, so that the head sees no prompt: on a CPU TRL's fused
    head projects every position it is given, labelled or not. `touch_vision=True` runs the vision tower on a blank
    image and counts it for nothing, so that a process whose batch is all text makes the same calls as the others;
    ZeRO-3 and DDP wait for them.
    """

    def cut(_module: Any, _args: Any, kwargs: dict[str, Any], output: Any) -> Any:
        if "scored_positions" in kwargs:
            output.last_hidden_state = output.last_hidden_state[:, -kwargs["scored_positions"] :]
        return output

    def touch(_module: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        if kwargs.pop("touch_vision", False):
            # Right after the embeddings, where images come in, and after whatever hooks ZeRO-3 has put there: it
            # compares the order of all modules' calls between processes, forward and backward.
            embeddings = backbone.get_input_embeddings()  # type: ignore[operator]

            def add_nothing(_module: Any, _args: Any, output: torch.Tensor) -> torch.Tensor:
                once.remove()
                return output + 0.0 * _blank_features(backbone).sum()

            once = embeddings.register_forward_hook(add_nothing)
        return args, kwargs

    backbone.register_forward_hook(cut, with_kwargs=True)
    backbone.register_forward_pre_hook(touch, with_kwargs=True)


def _blank_features(backbone: Any) -> torch.Tensor:
    """(4, hidden) what the vision tower makes of an image of 4 x 4 blank patches."""
    config = backbone.visual.config
    width = config.in_channels * config.temporal_patch_size * config.patch_size**2
    weight = next(backbone.visual.parameters())
    patches = torch.zeros(16, width, dtype=weight.dtype, device=weight.device)
    return backbone.get_image_features(patches, torch.tensor([[1, 4, 4]], device=weight.device)).pooler_output[0]


def prepare_model(model: Any) -> None:
    """Let a model take packed rows: its language model's attention and its head's share of the work."""
    if model is None:
        return
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    inner = getattr(inner, "module", inner)
    use_attention(inner, ATTENTION)
    adapt_backbone(inner_model(inner))


def use_attention(model: Any, name: str) -> None:
    """Give the language model another attention implementation; the vision tower keeps its own."""
    model.set_attn_implementation({"text_config": name} if hasattr(model.config, "vision_config") else name)
