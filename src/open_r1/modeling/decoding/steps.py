"""The model's part of a decoding step: logits of the next token of every row.

On a GPU a step is bound by launches: more than a thousand of a few microseconds each, for a model whose weights are
read in two milliseconds. So the step is recorded once for each pair of (rows, columns) as a CUDA graph and replayed.
Nothing in it looks at a number on the host: the cache, the mask, the positions and the column to write to are in memory
that stays, and are changed in place. Rows and columns come in few sizes, so that few graphs are recorded.
"""

import logging
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache

from open_r1.modeling.decoding.attention import one_token_attention
from open_r1.modeling.decoding.fixed_cache import FixedCache, states_of

logger = logging.getLogger(__name__)

COLUMNS = 256
"""The columns that attention reads are a multiple of this where steps are recorded."""
KEPT = 2 * 2**30
"""Largest cache in bytes whose memory and graphs are kept until the next call; training needs the rest of the GPU."""


@dataclass(frozen=True)
class Prefilled:
    """U prompts after their prefill, from which N rows continue."""

    cache: DynamicCache
    """(U, ...) keys and values of S columns."""
    mask: torch.Tensor
    """(U, S) 1 where the cache holds a real token."""
    logits: torch.Tensor
    """(U, V) of the first new token."""
    positions: torch.Tensor
    """(U, 1), or (3, U, 1) for models with M-RoPE: the position of the first new token."""
    order: torch.Tensor
    """(N,) the prompt of each row."""


class FixedSteps:
    """Steps over a `FixedCache`, recorded as CUDA graphs where that is possible.

    Args:
        model: with its LM head.
        recorded: whether to record graphs; only for a model on a GPU whose calls need no other process.
    """

    def __init__(self, model: Any, recorded: bool) -> None:
        self._model, self._recorded = model, recorded
        self._block = COLUMNS if recorded else 1
        self._cache: FixedCache | None = None
        self._graphs: dict[tuple[int, int], tuple[torch.cuda.CUDAGraph, torch.Tensor]] = {}
        self._ran: set[tuple[int, int]] = set()
        self._weights = 0

    def attention(self) -> AbstractContextManager[None]:
        """What steps must be made in."""
        return one_token_attention(self._model)

    def begin(self, prefilled: Prefilled, length: int) -> None:
        """Take over N rows that will get at most `length` tokens."""
        rows, used = len(prefilled.order), prefilled.mask.size(1)
        columns = self._bucket(used + length)
        weights = hash(tuple(weight.data_ptr() for weight in self._model.parameters())) if self._recorded else 0
        if self._cache is None or not self._cache.fits(prefilled.cache, rows, columns) or weights != self._weights:
            self._allocate(prefilled, rows, columns)
            self._weights = weights
        assert self._cache is not None
        self._rows, self._used = rows, used
        self._cache.load(prefilled.cache, prefilled.order)
        self._cache.column.fill_(used)
        self._mask.fill_(-torch.inf)
        mask = prefilled.mask.index_select(0, prefilled.order)[:, None, None]
        self._mask[:rows, :, :, :used].masked_fill_(mask.bool(), 0)
        self._positions[..., :rows, :] = prefilled.positions.index_select(-2, prefilled.order)

    def advance(self, tokens: torch.Tensor) -> torch.Tensor:
        """(rows, V) logits of the token after `tokens` (rows,); they are valid until the next call."""
        self._used += 1
        size = self._rows, min(self._bucket(self._used), self._mask.size(-1))
        self._tokens[: self._rows, 0] = tokens
        if not self._recorded or size not in self._ran:
            self._ran.add(size)
            return self.compute(*size)
        if size not in self._graphs:
            try:
                self._graphs[size] = self._record(*size)
            except RuntimeError as error:
                logger.warning("decoding goes on without CUDA graphs, which could not be recorded: %s", error)
                self._recorded = False
                return self.compute(*size)
        graph, logits = self._graphs[size]
        graph.replay()
        return logits

    def compute(self, rows: int, columns: int) -> torch.Tensor:
        """One step of the first rows over the first columns; everything that it changes stays where it is."""
        assert self._cache is not None
        self._cache.use(rows, columns)
        self._mask[:rows].index_fill_(3, self._cache.column, 0)
        logits = self._model(
            input_ids=self._tokens[:rows],
            attention_mask=self._mask[:rows, :, :, :columns],
            position_ids=self._positions[..., :rows, :],
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
        self._positions.add_(1)
        self._cache.column.add_(1)
        return logits

    def keep(self, order: torch.Tensor) -> None:
        """Go on with the rows at `order` (rows,), which may repeat a row to fill a size that is recorded."""
        assert self._cache is not None
        count = self._rows = len(order)
        self._cache.keep(order, self._used)
        self._mask[:count] = self._mask.index_select(0, order)
        self._positions[..., :count, :] = self._positions.index_select(-2, order)

    def end(self) -> None:
        """Give memory back where the cache is large."""
        if self._cache is not None and (not self._recorded or self._cache.nbytes > KEPT):
            self._release()

    def _bucket(self, columns: int) -> int:
        return -(-columns // self._block) * self._block

    def _allocate(self, prefilled: Prefilled, rows: int, columns: int) -> None:
        self._release()
        cache = self._cache = FixedCache(prefilled.cache, rows, columns)
        _, values = states_of(cache.layers[0])
        self._mask = values.new_full((rows, 1, 1, columns), -torch.inf)
        self._tokens = prefilled.order.new_zeros(rows, 1)
        positions = prefilled.positions
        self._positions = positions.new_zeros(*positions.shape[:-2], rows, 1)

    def _release(self) -> None:
        self._graphs.clear()
        self._ran.clear()
        self._cache = None

    def _record(self, rows: int, columns: int) -> tuple[torch.cuda.CUDAGraph, torch.Tensor]:
        """Record a step; it ran once before, so that libraries have made what they make at a first call."""
        graph = torch.cuda.CUDAGraph()
        others = next(iter(self._graphs.values()), None)
        with torch.cuda.graph(graph, pool=others[0].pool() if others else None, capture_error_mode="thread_local"):
            logits = self.compute(rows, columns)
        return graph, logits


class GrowingSteps:
    """Steps over the cache of transformers, for layers with windows, which drop what is outside.

    Args:
        model: with its LM head.
    """

    def __init__(self, model: Any) -> None:
        self._model = model

    def attention(self) -> AbstractContextManager[None]:
        """What steps must be made in: the attention of the model stays."""
        return nullcontext()

    def begin(self, prefilled: Prefilled, length: int) -> None:
        """Take over N rows; memory grows with every token."""
        self._cache, self._mask = prefilled.cache, prefilled.mask
        self._positions = prefilled.positions
        self.keep(prefilled.order)

    def advance(self, tokens: torch.Tensor) -> torch.Tensor:
        """(rows, V) logits of the token after `tokens` (rows,)."""
        self._mask = torch.cat([self._mask, self._mask.new_ones(len(tokens), 1)], 1)
        logits = self._model(
            input_ids=tokens[:, None],
            attention_mask=self._mask,
            position_ids=self._positions,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
        self._positions = self._positions + 1
        return logits

    def keep(self, order: torch.Tensor) -> None:
        """Go on with the rows at `order`."""
        self._cache.batch_select_indices(order)
        self._mask = self._mask.index_select(0, order)
        self._positions = self._positions.index_select(-2, order)

    def end(self) -> None:
        """Give the memory back."""
        del self._cache
