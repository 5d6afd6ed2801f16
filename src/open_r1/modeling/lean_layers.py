"""Layers of Qwen2, Qwen2-VL and Qwen2.5-VL with fewer operations than transformers' own, and the same values.

A pass of a model of three billion weights over one prompt is bound by launches: 10,000 kernels of 7 microseconds, each
of which the host takes 30 to launch. RMS norms are one fused operation and are rounded once for all products that
follow, rotary position embedding treats queries and keys together, and a mask is made to numbers once per pass.
`products` spares the rounding of weights.

Shapes: B rows of L tokens, H query heads and K key heads of size D.
"""

from collections.abc import Callable
from types import MethodType
from typing import Any

import torch
from torch.nn.functional import rms_norm
from transformers import AttentionInterface
from transformers.models.qwen2.modeling_qwen2 import eager_attention_forward

from open_r1.modeling.products import aligned_width, multiply_copies, product_dtype

NORMS = {"Qwen2RMSNorm", "Qwen2VLRMSNorm", "Qwen2_5_VLRMSNorm"}
ATTENTIONS = {"Qwen2Attention", "Qwen2VLAttention", "Qwen2_5_VLAttention"}
LAYERS = {"Qwen2DecoderLayer", "Qwen2VLDecoderLayer", "Qwen2_5_VLDecoderLayer"}
BLOCKS = {"Qwen2_5_VLVisionBlock"}
TEXT_MODELS = {"Qwen2Model", "Qwen2VLTextModel", "Qwen2_5_VLTextModel"}
"""Classes of transformers by name."""
MASK_STRIDE = 16
"""Numbers of a mask's row that memory-efficient attention reads at once; it would copy a mask with other rows."""


def adapt_layers(model: torch.nn.Module) -> None:
    """Let the layers of a model of a known class launch fewer operations; layers of other classes stay.

    Works with adapters, four bits and sharded weights, since every module is called as before. A second call changes
    nothing but layers that were added after the first.
    """
    multiply_copies(model)
    modules: list[Any] = list(model.modules())
    for module in modules:
        kind = type(module).__name__
        if kind in NORMS:
            _replace_forward(module, _norm_forward)
        elif kind in ATTENTIONS:
            _replace_forward(module, _attention_forward)
        elif kind in LAYERS:
            attention, mlp = module.self_attn, module.mlp
            _round_for(module.input_layernorm, attention.q_proj, attention.k_proj, attention.v_proj)
            _round_for(module.post_attention_layernorm, mlp.gate_proj, mlp.up_proj)
        elif kind in BLOCKS:
            _round_for(module.norm1, module.attn.qkv)
            _round_for(module.norm2, module.mlp.gate_proj, module.mlp.up_proj)
            _replace_forward(module.mlp, _gated_forward)
        elif kind in TEXT_MODELS and not hasattr(module, "adds_masks"):
            module.adds_masks = True
            module.register_forward_pre_hook(_add_mask, with_kwargs=True)
            module.rotary_emb.register_forward_hook(_prepare_rotation)


def _replace_forward(module: Any, forward: Callable[..., Any]) -> None:
    if "forward" not in vars(module):
        module.forward = MethodType(forward, module)


def _round_for(norm: Any, *layers: Any) -> None:
    """Let a norm round its result as the products that follow would, if all of them would."""
    norm.rounds = all(type(getattr(layer, "base_layer", layer)) is torch.nn.Linear for layer in layers)


def _norm_forward(self: Any, hidden_states: torch.Tensor) -> torch.Tensor:
    """Forward of an RMS norm, computed in float32."""
    weight = self.weight
    dtype = torch.promote_types(hidden_states.dtype, weight.dtype)
    states = rms_norm(hidden_states.to(dtype), weight.shape, weight.to(dtype), self.variance_epsilon)
    return states.to(product_dtype(states)) if getattr(self, "rounds", False) else states


def _gated_forward(self: Any, hidden_state: torch.Tensor) -> torch.Tensor:
    """Forward of a gated MLP whose width may be one that a GPU is slow with."""
    layers = self.gate_proj, self.up_proj, self.down_proj
    width = aligned_width(self.intermediate_size, hidden_state)
    if width == self.intermediate_size or any(type(layer) is not torch.nn.Linear for layer in layers):
        return type(self).forward(self, hidden_state)
    gate, up, down = layers
    return down(self.act_fn(gate(hidden_state, width)) * up(hidden_state, width))


def _add_mask(module: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Make numbers to add of a bool mask (B, 1, L, S) once; attention would do so in every layer."""
    mask, embeddings = kwargs.get("attention_mask"), kwargs.get("inputs_embeds")
    if isinstance(mask, torch.Tensor) and mask.ndim == 4 and mask.dtype == torch.bool and mask.size(-1) > 1:
        weight = module.embed_tokens.weight if embeddings is None else embeddings
        kwargs["attention_mask"] = additive(mask, product_dtype(weight))
    return args, kwargs


def additive(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """0 where a bool mask is true and minus infinity elsewhere, in rows that memory-efficient attention can read."""
    columns = mask.size(-1)
    rows = mask.new_zeros(*mask.shape[:-1], -(-columns // MASK_STRIDE) * MASK_STRIDE, dtype=dtype)
    return rows[..., :columns].masked_fill_(~mask, -torch.inf)


def _prepare_rotation(_module: Any, _args: Any, output: tuple[torch.Tensor, torch.Tensor]) -> Any:
    """Tables (B, L, D) as `rotate` takes them, once for all layers."""
    return tuple(table.unsqueeze(2) for table in signed(*output))


def signed(cos: torch.Tensor, sin: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The tables with the minus sign of transformers' `rotate_half` in the first half of the sines."""
    half = sin.size(-1) // 2
    return cos, torch.cat([-sin[..., :half], sin[..., half:]], -1)


def rotate(
    states: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, out: torch.Tensor | None = None, back: bool = False
) -> torch.Tensor:
    """Rotary position embedding, x * cos + rotate_half(x) * sin, rounded once, in three operations.

    Args:
        states: (..., D).
        cos: a table that `states` can be multiplied by.
        sin: such a table, from `signed`.
        out: where the result goes.
        back: rotate in the opposite direction, which is what a gradient needs.
    """
    out = torch.empty_like(states, memory_format=torch.contiguous_format) if out is None else out
    swapped = states.roll(states.size(-1) // 2, -1)
    return torch.addcmul(states * cos, swapped, sin, value=-1 if back else 1, out=out)


class RotatedHeads(torch.autograd.Function):
    """Rotary position embedding of queries (B, L, H, D) and keys (B, L, K, D) together."""

    @staticmethod
    def forward(
        ctx: Any, query: torch.Tensor, key: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Both, rotated by tables (B, L, 1, D)."""
        ctx.save_for_backward(cos, sin)
        ctx.heads = query.size(2), key.size(2)
        return _rotate_heads(query, key, cos, sin)

    @staticmethod
    def backward(  # pyright: ignore
        ctx: Any, query_gradient: torch.Tensor, key_gradient: torch.Tensor
    ) -> tuple[torch.Tensor | None, ...]:
        """Gradients of queries and keys."""
        cos, sin = ctx.saved_tensors
        return *_rotate_heads(query_gradient, key_gradient, cos, sin, back=True), None, None


def _rotate_heads(
    query: torch.Tensor, key: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, back: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    heads = query.size(2), key.size(2)
    return rotate(torch.cat([query, key], 2), cos, sin, back=back).split(heads, 2)  # type: ignore[return-value]


def _attention_forward(
    self: Any,
    hidden_states: torch.Tensor,
    position_embeddings: tuple[torch.Tensor, torch.Tensor],
    attention_mask: torch.Tensor | None = None,
    past_key_values: Any = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Forward of an attention layer, (B, L, hidden) to (B, L, hidden)."""
    shape = (*hidden_states.shape[:-1], -1, self.head_dim)
    query, key = self.q_proj(hidden_states).view(shape), self.k_proj(hidden_states).view(shape)
    value = self.v_proj(hidden_states).view(shape).transpose(1, 2)
    learns = torch.is_grad_enabled() and (query.requires_grad or key.requires_grad)
    turn: Any = RotatedHeads.apply if learns else _rotate_heads
    query, key = (states.transpose(1, 2) for states in turn(query, key, *position_embeddings))
    if past_key_values is not None:
        key, value = past_key_values.update(key, value, self.layer_idx)
    if attention_mask is not None and attention_mask.is_floating_point():
        attention_mask = attention_mask.to(product_dtype(query))
    attend = AttentionInterface().get_interface(self.config._attn_implementation, eager_attention_forward)
    out, weights = attend(
        self,
        query,
        key,
        value,
        attention_mask,
        dropout=self.attention_dropout if self.training else 0.0,
        scaling=self.scaling,
        sliding_window=self.sliding_window,
        **kwargs,
    )
    return self.o_proj(out.flatten(2)), weights
