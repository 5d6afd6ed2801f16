"""What a varlen flash kernel computes, written with matrix products: for `cascade_attention` on a CPU, in float64."""

from typing import Any

import torch

from open_r1.modeling.cascade_attention import Calls


class ReferenceKernel:
    """Forward and backward of flash attention (arXiv 2205.14135), span by span.

    The backward pass knows the weights from the log-sum-exps that it is given, and the output that it is given.
    """

    def __init__(self) -> None:
        self.calls: list[tuple[bool, int, int]] = []
        """For each call whether it was causal, and its tokens of queries and of keys."""

    def forward(self, query: Any, key: Any, value: Any, calls: Calls, scale: float) -> Any:
        self.calls.append((calls.causal, len(query), len(key)))
        outs, sums = [], []
        for q, k, v in self._spans(calls, query, key, value):
            scores = self._scores(q, k, calls.causal, scale)
            outs.append(torch.einsum("hqk,khd->qhd", scores.softmax(-1), v))
            sums.append(scores.logsumexp(-1))
        return torch.cat(outs), torch.cat(sums, 1)

    def backward(self, gradient: Any, states: Any, out: Any, log_sums: Any, calls: Calls, scale: float) -> Any:
        query, key, value = states
        assert log_sums.shape == (query.size(1), len(query))
        assert log_sums.is_contiguous()
        of_query, of_key, of_value = [], [], []
        spans = self._spans(calls, query, key, value)
        bounds = calls.query_bounds.tolist()
        for (q, k, v), start, stop in zip(spans, bounds, bounds[1:], strict=False):
            g, o = gradient[start:stop], out[start:stop]
            weights = (self._scores(q, k, calls.causal, scale) - log_sums[:, start:stop, None]).exp()
            of_weights = torch.einsum("qhd,khd->hqk", g, v)
            of_scores = weights * (of_weights - (g * o).sum(-1).T[..., None]) * scale
            of_query.append(torch.einsum("hqk,khd->qhd", of_scores, k))
            heads = key.size(1)
            of_key.append(torch.einsum("hqk,qhd->khd", of_scores, q).unflatten(1, (heads, -1)).sum(2))
            of_value.append(torch.einsum("hqk,qhd->khd", weights, g).unflatten(1, (heads, -1)).sum(2))
        return torch.cat(of_query), torch.cat(of_key), torch.cat(of_value)

    def _spans(self, calls: Calls, query: Any, key: Any, value: Any) -> Any:
        assert int(calls.query_bounds[-1]) == len(query)
        assert int(calls.key_bounds[-1]) == len(key)
        assert int(calls.query_bounds.diff().max()) == calls.longest_query
        assert int(calls.key_bounds.diff().max()) == calls.longest_key
        repeats = query.size(1) // key.size(1)
        queries = query.split(calls.query_bounds.diff().tolist())
        pairs = [x.repeat_interleave(repeats, 1).split(calls.key_bounds.diff().tolist()) for x in (key, value)]
        return list(zip(queries, *pairs, strict=True))

    def _scores(self, q: Any, k: Any, causal: bool, scale: float) -> Any:
        scores = torch.einsum("qhd,khd->hqk", q, k) * scale
        if causal:
            allowed = torch.ones(scores.shape[1:], dtype=torch.bool).tril()
            scores = scores.masked_fill(~allowed, -torch.inf)
        return scores
