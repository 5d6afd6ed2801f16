"""A key/value cache with room for the tokens to come, so that a step writes its token and does not copy the rest.

transformers' own dynamic layer concatenates: every step copies everything that is there, in every layer.
"""

from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer


class RoomyLayer(DynamicLayer):
    """One layer's keys and values, (rows, heads, tokens, head size), as views of larger tensors."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room
        self._wide_keys = self._wide_values = torch.empty(0)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append to the cache; returns all keys and values so far."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start = self.get_seq_length()
        stop = start + key_states.size(2)
        if start == 0 or stop > self._wide_keys.size(2):
            self._wide_keys = _widened(self.keys if start else None, key_states, start, stop + self.room)
            self._wide_values = _widened(self.values if start else None, value_states, start, stop + self.room)
        self._wide_keys[:, :, start:stop] = key_states
        self._wide_values[:, :, start:stop] = value_states
        self._look(stop)
        return self.keys, self.values  # pyright: ignore[reportReturnType]

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat every row."""
        self._wide_keys = self._wide_keys.repeat_interleave(repeats, dim=0)
        self._wide_values = self._wide_values.repeat_interleave(repeats, dim=0)
        self._look(self.get_seq_length())

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep (or repeat) the rows at `indices`."""
        self._wide_keys = self._wide_keys[indices]
        self._wide_values = self._wide_values[indices]
        self._look(self.get_seq_length())

    def _look(self, stop: int) -> None:
        self.keys, self.values = self._wide_keys[:, :, :stop], self._wide_values[:, :, :stop]


def _widened(old: torch.Tensor | None, like: torch.Tensor, used: int, width: int) -> torch.Tensor:
    wide = like.new_empty(like.size(0), like.size(1), width, like.size(3))
    if old is not None:
        wide[:, :, :used] = old
    return wide


def roomy_cache(config: Any, room: int) -> DynamicCache:
    """An empty cache for a model's `config`, with room for `room` tokens after what is written at once.

    Layers of other kinds (a sliding window) stay transformers' own.
    """
    cache = DynamicCache(config=config)
    cache.layers = [RoomyLayer(room) if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache
