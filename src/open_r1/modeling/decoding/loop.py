"""The decoding loop: pick a token for every row, let the model compute the next logits, until all rows have ended.

C tokens cost C model calls, the prefill included. On a GPU the host looks only every 8 tokens whether rows have ended,
so that it can run ahead; rows that have ended go on unnoticed until then. On a CPU it looks after every token.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from open_r1.modeling.decoding.steps import FixedSteps, GrowingSteps, Prefilled

LOOK_EVERY = 8
"""Tokens between two looks of the host at a GPU."""

Pick = Callable[[torch.Tensor, torch.Tensor, int], torch.Tensor]
"""((n, V) logits in float32, (n,) row indices, step) -> (n,) tokens. It must not wait for a GPU."""


class DecodingLoop:
    """Continues rows until an end token; memory and CUDA graphs are kept from call to call.

    Args:
        model: with its LM head.
        end_tokens: ids that end a completion.
        pad_token: id after the end token.
        together: every process makes as many model calls as the one with the longest completion, because weights are
            sharded over the processes.
        windowed: whether layers attend to the last tokens only.
    """

    def __init__(
        self, model: Any, end_tokens: Sequence[int], pad_token: int, together: bool = False, windowed: bool = False
    ) -> None:
        self._device = model.device
        self._end_tokens = torch.tensor(list(end_tokens), device=self._device)
        self._pad_token, self._together = pad_token, together
        self._on_gpu = self._device.type == "cuda"
        recorded = self._on_gpu and not together
        self._steps = GrowingSteps(model) if windowed else FixedSteps(model, recorded)

    def __call__(self, prefilled: Prefilled, pick: Pick, max_new_tokens: int) -> torch.Tensor:
        """(N, C) tokens, padded after the end token; C is at most `max_new_tokens`.

        Args:
            prefilled: the prompts.
            pick: chooses the tokens.
            max_new_tokens: longest completion in tokens.
        """
        count = len(prefilled.order)
        written = torch.full((count, max_new_tokens), self._pad_token, device=self._device)
        rows, ended = (
            torch.arange(count, device=self._device),
            torch.zeros(count, dtype=torch.bool, device=self._device),
        )
        logits = prefilled.logits.index_select(0, prefilled.order)
        self._steps.begin(prefilled, max_new_tokens)
        looks = LOOK_EVERY if self._on_gpu or self._together else 1
        with self._steps.attention():
            for step in range(max_new_tokens):
                chosen = pick(logits.float(), rows, step).masked_fill(ended, self._pad_token)
                written[:, step].index_copy_(0, rows, chosen)
                ended = ended | torch.isin(chosen, self._end_tokens)
                if step + 1 == max_new_tokens:
                    break
                if (step + 1) % looks == 0:
                    order = self._unfinished(ended)
                    if order is None:
                        break
                    if len(order) < len(rows):
                        rows, ended, chosen = rows[order], ended[order], chosen[order]
                        self._steps.keep(order)
                logits = self._steps.advance(chosen)
        self._steps.end()
        return written[:, : step + 1]

    def _unfinished(self, ended: torch.Tensor) -> torch.Tensor | None:
        """The rows to go on with; None if all have ended, in all processes where they go together."""
        order = (~ended).nonzero().flatten()
        count = len(order)
        if self._together and torch.distributed.is_initialized():
            most = torch.tensor(count, device=self._device)
            torch.distributed.all_reduce(most, torch.distributed.ReduceOp.MAX)
            if int(most) > 0 and count == 0:
                return torch.zeros(1, dtype=torch.long, device=self._device)
        if count == 0:
            return None
        size = min(1 << (count - 1).bit_length(), len(ended)) if self._on_gpu else count
        if size == len(ended):
            return torch.arange(size, device=self._device)
        ended_rows = ended.nonzero().flatten()[: size - count]
        return torch.cat([order, ended_rows]).sort().values
