"""A key/value cache in memory that stays where it is, so that a decoding step can be recorded and replayed.

Shapes: N rows, K key heads of size D, S columns of the cache, one for each token.
"""

from typing import Any

import torch
from transformers import Cache, DynamicCache
from transformers.cache_utils import CacheLayerMixin


def states_of(layer: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """(N, K, S, D) keys and values of a layer that has computed some."""
    return layer.keys, layer.values


class FixedLayer(CacheLayerMixin):
    """Keys and values of one layer, of which the first rows and columns are in use.

    Args:
        keys: (N, K, S, D) memory for the keys.
        values: (N, K, S, D) memory for the values.
        column: (1,) where the next token is written; shared by all layers, and moved on by whoever decodes.
    """

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, column: torch.Tensor) -> None:
        super().__init__()
        self.all_keys, self.all_values, self.column = keys, values, column
        self.keys, self.values = keys, values
        self.is_initialized = True

    def use(self, rows: int, columns: int) -> None:
        """Attend over these first rows and columns from now on."""
        self.keys, self.values = self.all_keys[:rows, :, :columns], self.all_values[:rows, :, :columns]

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write the new token; returns all keys and values in use, the columns after it included."""
        keys, values = states_of(self)
        keys.index_copy_(2, self.column, key_states.to(keys.dtype))
        values.index_copy_(2, self.column, value_states.to(values.dtype))
        return keys, values

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Nothing: the memory is there from the start."""

    def get_seq_length(self) -> int:
        """Columns in use; positions and masks are given to the model, so it does not count tokens by this."""
        return self.all_keys.size(2) if self.keys is None else self.keys.size(2)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Columns in use, from the first on."""
        return self.get_seq_length(), 0

    def get_max_length(self) -> int:
        """Columns that there is memory for."""
        return self.all_keys.size(2)


class FixedCache(Cache):
    """The layers of a model, with room for a number of rows and columns.

    Args:
        source: a cache after the prompts were computed, which says how many layers there are and how large they are.
        rows: N.
        columns: S.
    """

    def __init__(self, source: DynamicCache, rows: int, columns: int) -> None:
        self.column = torch.zeros(1, dtype=torch.long, device=states_of(source.layers[0])[0].device)
        layers: list[Any] = []
        for layer in source.layers:
            # Under autocast rotary embedding leaves keys in float32; products are computed in the values' type.
            keys, values = states_of(layer)
            size = rows, values.size(1), columns
            key_memory = values.new_zeros(*size, keys.size(3))
            layers.append(FixedLayer(key_memory, values.new_zeros(*size, values.size(3)), self.column))
        super().__init__(layers=layers)
        self.rows, self.columns = rows, columns

    @property
    def nbytes(self) -> int:
        """Bytes of all keys and values."""
        return sum(layer.all_keys.nbytes + layer.all_values.nbytes for layer in self._fixed)

    def fits(self, source: DynamicCache, rows: int, columns: int) -> bool:
        """Whether `load` can take these."""
        _, values = states_of(source.layers[0])
        memory = self._fixed[0].all_values
        same_kind = (memory.dtype, memory.device) == (values.dtype, values.device)
        return same_kind and rows <= self.rows and columns <= self.columns

    def load(self, source: DynamicCache, order: torch.Tensor) -> None:
        """Copy rows of a cache.

        Args:
            source: a cache with at most S columns.
            order: (rows,) the row of `source` for each row.
        """
        for layer, computed in zip(self._fixed, source.layers, strict=True):
            for memory, states in zip((layer.all_keys, layer.all_values), states_of(computed), strict=True):
                memory[: len(order), :, : states.size(2)] = states.to(memory.dtype).index_select(0, order)

    def keep(self, order: torch.Tensor, columns: int) -> None:
        """Move the rows at `order` to the front, with their first `columns` columns."""
        for layer in self._fixed:
            for memory in (layer.all_keys, layer.all_values):
                memory[: len(order), :, :columns] = memory[:, :, :columns].index_select(0, order)

    def use(self, rows: int, columns: int) -> None:
        """Attend over these first rows and columns from now on."""
        for layer in self._fixed:
            layer.use(rows, columns)

    @property
    def _fixed(self) -> list[FixedLayer]:
        return self.layers  # type: ignore[return-value]
