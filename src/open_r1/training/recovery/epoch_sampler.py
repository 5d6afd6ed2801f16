"""TRL's sampler with an order that depends on the epoch's number only, so that runs can be resumed.

TRL's sampler shuffles with one generator for all epochs and has no `set_epoch`: a run resumed in the second epoch would
repeat the order of the first.
"""

from collections.abc import Callable, Iterator

import torch
from trl.trainer.utils import RepeatSampler

EpochOrder = Callable[[int], list[int]]
"""Returns the row indices of an epoch by its number from 0; the same number of rows in every epoch."""


def order_of(sampler: RepeatSampler) -> EpochOrder:
    """The order of TRL's sampler in every epoch of an uninterrupted run."""
    count, seed = sampler.num_samples, sampler.seed

    def order(epoch: int) -> list[int]:
        if not sampler.shuffle:
            return list(range(count))
        generator = torch.Generator()
        if seed is not None:
            generator.manual_seed(seed)
        for _ in range(epoch):
            torch.randperm(count, generator=generator)
        return torch.randperm(count, generator=generator).tolist()

    return order


class OrderedSampler(RepeatSampler):
    """A `RepeatSampler` with an order per epoch.

    Args:
        template: TRL's sampler with the group size, batch size and repetitions.
        order: row indices by epoch.
    """

    def __init__(self, template: RepeatSampler, order: EpochOrder) -> None:
        self._order, self._epoch = order, 0
        super().__init__(
            order(0), template.mini_repeat_count, template.batch_size, template.repeat_count, shuffle=False
        )

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch; call before it starts."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[int]:
        indices = self._order(self._epoch)
        assert len(indices) == self.num_samples, "epochs differ in length"
        return (indices[number] for number in super().__iter__())
