"""TRL's sampler with an order of questions that an epoch's number alone decides, so that a run can be continued.

TRL's own shuffles with a generator that it carries from epoch to epoch and has no `set_epoch`: a run continued in the
second epoch would repeat the order of the first.
"""

from collections.abc import Callable, Iterator

import torch
from trl.trainer.utils import RepeatSampler

EpochOrder = Callable[[int], list[int]]
"""Places of the questions of an epoch by its number from 0, as many in every epoch."""


def order_of(sampler: RepeatSampler) -> EpochOrder:
    """The order in which TRL's sampler would go through each epoch of an uninterrupted run."""
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
    """Repeats questions as a `RepeatSampler` does, in the order that an epoch's number gives.

    Args:
        like: TRL's sampler, whose group size, batch size and repetitions are kept.
        order: which question comes when.
    """

    def __init__(self, like: RepeatSampler, order: EpochOrder) -> None:
        self._order, self._epoch = order, 0
        super().__init__(order(0), like.mini_repeat_count, like.batch_size, like.repeat_count, shuffle=False)

    def set_epoch(self, epoch: int) -> None:
        """Called before every epoch."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[int]:
        places = self._order(self._epoch)
        assert len(places) == self.num_samples, "an epoch of another length"
        return (places[number] for number in super().__iter__())
