"""Attention of packed rows in two calls of a varlen kernel, merged exactly: no mask, no copy of the prefix per segment.

Every token of a row belongs to one span: the padding, the prompt's prefix, or a segment. One causal call covers all
spans of all rows; a second one lets the segments look at the prefix of their row. A segment's output is that of one
softmax over both parts: with log-sum-exps l1, l2 of the parts' scores, l = log(exp(l1) + exp(l2)) and

    out = exp(l1 - l) * out1 + exp(l2 - l) * out2.

The backward pass of flash attention (arXiv 2205.14135, algorithm 4) recomputes the weights from the log-sum-exp that it
is given, and subtracts sum(gradient * out) of the output that it is given. Given l and out of the merged softmax it
returns each part's share of the gradient of the whole, so the two calls are added.

Shapes: B rows, G segments of C tokens after a prefix of P - 1, L = P - 1 + G * C; T = B * L tokens of all rows;
H query heads, K key heads of size D. Not run on a GPU; with a reference kernel in float64 it equals a masked softmax.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import torch
from torch.nn.attention.varlen import AuxRequest, varlen_attn

from open_r1.modeling.prompt_batch import upload


class Calls(NamedTuple):
    """Which queries look at which keys in one call: query span i at key span i."""

    query_bounds: torch.Tensor
    """(spans + 1,) int32, where each span of queries begins and the last one ends."""
    key_bounds: torch.Tensor
    longest_query: int
    longest_key: int
    causal: bool


class Kernel(Protocol):
    """Varlen attention of (T, H, D) queries over (T', K, D) keys and values."""

    def forward(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, calls: Calls, scale: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(T, H, D) outputs and (H, T) float32 log-sum-exps of the scaled scores."""
        ...

    def backward(
        self,
        gradient: torch.Tensor,
        states: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
        out: torch.Tensor,
        log_sums: torch.Tensor,
        calls: Calls,
        scale: float,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Gradients of query, key and value, for weights exp(scores - log_sums) and the output `out`."""
        ...


class FlashKernel:
    """torch's flash attention, on a GPU in half precision."""

    def forward(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, calls: Calls, scale: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """As `Kernel.forward`."""
        causal = (-1, 0 if calls.causal else -1)
        lengths = calls.query_bounds, calls.key_bounds, calls.longest_query, calls.longest_key
        aux = AuxRequest(lse=True)
        out, log_sums = varlen_attn(
            query, key, value, *lengths, return_aux=aux, scale=scale, window_size=causal, enable_gqa=True
        )
        assert log_sums.shape == (query.size(1), query.size(0))
        return out, log_sums

    def backward(
        self,
        gradient: torch.Tensor,
        states: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
        out: torch.Tensor,
        log_sums: torch.Tensor,
        calls: Calls,
        scale: float,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """As `Kernel.backward`."""
        lengths = calls.query_bounds, calls.key_bounds, calls.longest_query, calls.longest_key
        random_state = torch.zeros(2, dtype=torch.uint64, device=gradient.device)  # of a dropout that is 0
        unused = gradient.new_empty(0)
        return torch.ops.aten._flash_attention_backward(
            gradient, *states, out, log_sums, *lengths, 0.0, calls.causal, random_state, unused, scale=scale
        )


@dataclass(frozen=True)
class Spans:
    """The layout of B packed rows."""

    prompt_lengths: tuple[int, ...]
    """Real tokens of each prompt, B numbers."""
    prefix: int
    """P - 1, tokens before the segments, padding included."""
    group: int
    length: int
    device: torch.device

    @cached_property
    def own(self) -> Calls:
        """Every span over itself."""
        spans: list[int] = []
        for prompt in self.prompt_lengths:
            padding = self.prefix - (prompt - 1)
            spans += [span for span in (padding, prompt - 1) if span] + [self.length] * self.group
        bounds = self._bounds(spans)
        return Calls(bounds, bounds, max(spans), max(spans), causal=True)

    @cached_property
    def over_prefix(self) -> Calls:
        """The segments of each row over its prefix."""
        segments, prefixes = self.group * self.length, [prompt - 1 for prompt in self.prompt_lengths]
        bounds = self._bounds([segments] * len(prefixes)), self._bounds(prefixes)
        return Calls(*bounds, segments, max(prefixes), causal=False)

    def _bounds(self, lengths: list[int]) -> torch.Tensor:
        ends = torch.tensor([0, *lengths], dtype=torch.int32).cumsum(0, dtype=torch.int32)
        return upload(ends, self.device)

    def segments_of(self, states: torch.Tensor) -> torch.Tensor:
        """(T, ...) -> (B, G * C, ...), a view."""
        return states.unflatten(0, (len(self.prompt_lengths), -1))[:, self.prefix :]

    def prefixes_of(self, states: torch.Tensor) -> list[torch.Tensor]:
        """(T, ...) -> real tokens of each prefix, B views of (prompt - 1, ...)."""
        rows = states.unflatten(0, (len(self.prompt_lengths), -1))
        return [
            row[self.prefix - prompt + 1 : self.prefix] for row, prompt in zip(rows, self.prompt_lengths, strict=True)
        ]


class Cascade(torch.autograd.Function):
    """Attention of packed rows; see the module."""

    @staticmethod
    def forward(
        ctx: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        spans: Spans,
        scale: float,
        kernel: Kernel,
    ) -> torch.Tensor:
        """(T, H, D) outputs of (T, H, D) queries over (T, K, D) keys and values."""
        out, own_sums = kernel.forward(query, key, value, spans.own, scale)
        segment_query = spans.segments_of(query).flatten(0, 1)
        prefix_key, prefix_value = (torch.cat(spans.prefixes_of(x)) for x in (key, value))
        prefix_out, prefix_sums = kernel.forward(segment_query, prefix_key, prefix_value, spans.over_prefix, scale)
        own_view = spans.segments_of(own_sums.t())  # (B, G * C, H), a view
        other = prefix_sums.t().view_as(own_view)
        share = torch.sigmoid(own_view - other)[..., None]  # exp(l1 - l)
        segment_out = spans.segments_of(out)
        segment_out.copy_(segment_out * share + prefix_out.view_as(segment_out) * (1 - share))
        own_view.copy_(torch.logaddexp(own_view, other))
        ctx.save_for_backward(query, key, value, out, own_sums)
        ctx.layout = spans, scale, kernel
        return out

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[Any, ...]:  # pyright: ignore
        """Gradients of query, key and value."""
        query, key, value, out, log_sums = ctx.saved_tensors
        spans, scale, kernel = ctx.layout
        gradient = gradient.contiguous()
        of_query, of_key, of_value = kernel.backward(gradient, (query, key, value), out, log_sums, spans.own, scale)
        segments = [spans.segments_of(x).flatten(0, 1) for x in (gradient, query, out, log_sums.t())]
        prefixes = [torch.cat(spans.prefixes_of(x)) for x in (key, value)]
        states = (segments[1], *prefixes)
        shares = kernel.backward(
            segments[0], states, segments[2], segments[3].t().contiguous(), spans.over_prefix, scale
        )
        spans.segments_of(of_query).add_(shares[0].view_as(spans.segments_of(of_query)))
        lengths = [prompt - 1 for prompt in spans.prompt_lengths]
        for total, share in zip((of_key, of_value), shares[1:], strict=True):
            for mine, part in zip(spans.prefixes_of(total), share.split(lengths), strict=True):
                mine.add_(part)
        return of_query, of_key, of_value, None, None, None


KERNEL: Kernel = FlashKernel()


def attend_in_cascade(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, spans: Spans, scale: float
) -> torch.Tensor:
    """Attention of packed rows.

    Args:
        query: (B, H, L, D).
        key: (B, K, L, D).
        value: (B, K, L, D).
        spans: the layout of the rows.
        scale: factor on the scores.

    Returns:
        (B, L, H, D).
    """
    states = (x.transpose(1, 2).flatten(0, 1) for x in (query, key, value))
    out = Cascade.apply(*states, spans, scale, KERNEL)
    return out.unflatten(0, (len(query), -1))  # type: ignore[attr-defined]
