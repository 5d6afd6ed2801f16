"""The processes of one launch: how they share the questions, and how an error in one of them ends all.

`torchrun --nproc_per_node=N` sets RANK and WORLD_SIZE; without them there is one process and no communication.
Results are never sent between processes: each process appends its results to the file.
"""

import itertools
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

from open_r1.common.errors import UserError

T = TypeVar("T")

PATIENCE = timedelta(days=30)
"""How long a process waits for the slowest. A process that dies is noticed at once by its closed connection."""


class Refused(SystemExit):
    """One run is refused in every process, after its reason was printed; the next run may follow."""


@dataclass(frozen=True)
class Launch:
    """This process among those of the launch."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    store: Any = field(default_factory=lambda: _store_of_one_process())
    """Numbers that all processes add to: a `torch.distributed.Store`."""
    _keys: Iterator[int] = field(default_factory=itertools.count, repr=False)

    @property
    def is_first(self) -> bool:
        """Whether this is the process that prints."""
        return self.rank == 0

    def device(self, name: str) -> str:
        """The device of this process: with several processes `cuda` is a different GPU for each."""
        return f"cuda:{self.local_rank}" if name == "cuda" and self.size > 1 else name

    def say(self, text: str) -> None:
        """Print a line to standard error, once for all processes."""
        if self.is_first:
            print(text, file=sys.stderr, flush=True)

    def run_in_all(self, work: Callable[[], T]) -> T:
        """Call `work` in every process, and return its value here once it has succeeded in all.

        Raises:
            UserError: it failed, and there is only one process.
            Refused: it failed in one of several; the first process has printed the error.
        """
        if self.size == 1:
            return work()
        message, value = None, None
        try:
            value = work()
        except UserError as error:
            message = str(error)
        self._refuse_if_any(self.gather(message))
        return value  # type: ignore[return-value]

    def run_in_first(self, work: Callable[[], T]) -> T:
        """Call `work` in the first process only, and return its value in all. Raises as `run_in_all` does."""
        if self.size == 1:
            return work()
        from torch import distributed

        error_and_value: list[Any] = [None, None]
        if self.is_first:
            try:
                error_and_value = [None, work()]
            except UserError as error:
                error_and_value = [str(error), None]
        distributed.broadcast_object_list(error_and_value, src=0)
        self._refuse_if_any(error_and_value[:1])
        return error_and_value[1]

    def gather(self, value: T) -> list[T]:
        """The values of all processes, in order, in every process."""
        if self.size == 1:
            return [value]
        from torch import distributed

        values: list[Any] = [None] * self.size
        distributed.all_gather_object(values, value)
        return values

    def _refuse_if_any(self, messages: Sequence[str | None]) -> None:
        errors = [message for message in messages if message is not None]
        if errors:
            self.say(f"error: {errors[0]}")
            self.gather(None)  # wait for the print: torchrun stops all processes when one exits
            raise Refused(2)

    def claim(self, items: Sequence[T]) -> Iterator[T]:
        """The items that this process works on: it takes the next free one whenever it is ready for another.

        So all processes end at about the same time, however long an item takes and however slow one of them is. Every
        process has to call this with equal items, and as often as the others.
        """
        claimed = self.counter()
        places = (claimed(1) - 1 for _ in itertools.count())
        return (items[place] for place in itertools.takewhile(lambda place: place < len(items), places))

    def counter(self) -> Callable[[int], int]:
        """A function that adds to a number and returns the sum over all processes, each of which has to call this."""
        key = str(next(self._keys))
        return lambda number: self.store.add(key, number)


def _store_of_one_process() -> Any:
    from torch import distributed

    return distributed.HashStore()


@contextmanager
def connected_processes() -> Iterator[Launch]:
    """The launch that this process is part of; its processes are connected while the block runs."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1 or "MASTER_ADDR" not in os.environ:
        yield Launch()
        return
    from torch import distributed
    from torch.distributed.rendezvous import rendezvous

    store, rank, size = next(rendezvous("env://"))
    launch = Launch(rank, size, int(os.environ.get("LOCAL_RANK", "0")), distributed.PrefixStore("evaluation", store))
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=PATIENCE)
    try:
        yield launch
    finally:
        distributed.destroy_process_group()
