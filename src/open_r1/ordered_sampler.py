"""TRL's sampler with a given order of questions in place of its own shuffle."""

from collections.abc import Callable, Iterator

from trl.trainer.utils import RepeatSampler


class OrderedSampler(RepeatSampler):
    """Repeats questions as a `RepeatSampler` does, in the order that an epoch's number gives.

    Args:
        like: TRL's sampler, whose group size, batch size and repetitions are kept.
        order: places of the questions of an epoch, a whole number of batches, as many in every epoch.
    """

    def __init__(self, like: RepeatSampler, order: Callable[[int], list[int]]) -> None:
        self._order, self._epoch = order, 0
        super().__init__(order(0), like.mini_repeat_count, like.batch_size, like.repeat_count, shuffle=False)

    def set_epoch(self, epoch: int) -> None:
        """accelerate calls it before every epoch."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[int]:
        places = self._order(self._epoch)
        assert len(places) == self.num_samples, "an epoch of another length"
        return (places[number] for number in super().__iter__())
