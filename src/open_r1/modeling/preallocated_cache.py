"""A key/value cache that allocates memory for later tokens, so that a decoding step only writes its own token.

The dynamic layer of transformers concatenates, so every step copies the whole cache of every layer.
"""

from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer


class PreallocatedLayer(DynamicLayer):
    """Keys and values of one layer, (rows, heads, tokens, head size), as views of larger tensors."""

    def __init__(self, spare_tokens: int) -> None:
        super().__init__()
        self.spare_tokens = spare_tokens
        self._allocated_keys = self._allocated_values = torch.empty(0)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append to the cache; returns all keys and values so far."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start = self.get_seq_length()
        stop = start + key_states.size(2)
        if start == 0 or stop > self._allocated_keys.size(2):
            size = stop + self.spare_tokens
            self._allocated_keys = _enlarged(self.keys if start else None, key_states, start, size)
            self._allocated_values = _enlarged(self.values if start else None, value_states, start, size)
        self._allocated_keys[:, :, start:stop] = key_states
        self._allocated_values[:, :, start:stop] = value_states
        self._set_views(stop)
        return self.keys, self.values  # pyright: ignore[reportReturnType]

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat every row."""
        self._allocated_keys = self._allocated_keys.repeat_interleave(repeats, dim=0)
        self._allocated_values = self._allocated_values.repeat_interleave(repeats, dim=0)
        self._set_views(self.get_seq_length())

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep (or repeat) the rows at `indices`."""
        self._allocated_keys = self._allocated_keys[indices]
        self._allocated_values = self._allocated_values[indices]
        self._set_views(self.get_seq_length())

    def _set_views(self, stop: int) -> None:
        self.keys, self.values = self._allocated_keys[:, :, :stop], self._allocated_values[:, :, :stop]


def _enlarged(old: torch.Tensor | None, new: torch.Tensor, old_tokens: int, tokens: int) -> torch.Tensor:
    enlarged = new.new_empty(new.size(0), new.size(1), tokens, new.size(3))
    if old is not None:
        enlarged[:, :, :old_tokens] = old
    return enlarged


def preallocated_cache(config: Any, spare_tokens: int) -> DynamicCache:
    """An empty cache for a model's `config`, which allocates memory for `spare_tokens` after the first prompt.

    Layers of other kinds (sliding windows) stay those of transformers.
    """
    cache = DynamicCache(config=config)
    cache.layers = [PreallocatedLayer(spare_tokens) if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache
