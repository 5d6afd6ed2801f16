"""The processes of one launch: who does what, and how they agree on what to say.

`torchrun --nproc_per_node=N` sets RANK and WORLD_SIZE; without it there is one process, and nothing here does
anything. Answers never travel between processes: each appends its own to the file.
"""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

from open_r1.common.errors import UserError

T = TypeVar("T")

PATIENCE = timedelta(days=30)
"""How long a process waits for the slowest; one that dies is noticed at once, by its closed connection."""


class Refused(SystemExit):
    """Every process ends, or goes on with another checkpoint: the reason has been printed."""


@dataclass(frozen=True)
class Launch:
    """This process among those of the launch."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def is_first(self) -> bool:
        """Whether this is the process that prints."""
        return self.rank == 0

    def device(self, name: str) -> str:
        """This process's device: each has a GPU of its own, unless one is named."""
        return f"cuda:{self.local_rank}" if name == "cuda" and self.size > 1 else name

    def say(self, text: str) -> None:
        """Print a line to standard error, once for all processes."""
        if self.is_first:
            print(text, file=sys.stderr, flush=True)

    def agreed(self, work: Callable[[], T]) -> T:
        """What `work` returns here, once it has succeeded in every process.

        Raises:
            UserError: it failed, and there is no other process.
            Refused: it failed in one of several; the first process has printed why.
        """
        if self.size == 1:
            return work()
        problem, value = None, None
        try:
            value = work()
        except UserError as error:
            problem = str(error)
        self._end_if(self.gather(problem))
        return value  # type: ignore[return-value]

    def from_first(self, work: Callable[[], T]) -> T:
        """What `work` returns in the first process, which alone runs it. Raises as `agreed` does."""
        if self.size == 1:
            return work()
        from torch import distributed

        told: list[Any] = [None, None]
        if self.is_first:
            try:
                told = [None, work()]
            except UserError as error:
                told = [str(error), None]
        distributed.broadcast_object_list(told, src=0)
        self._end_if([told[0]])
        return told[1]

    def gather(self, value: T) -> list[T]:
        """The values of all processes, in order, in every process."""
        if self.size == 1:
            return [value]
        from torch import distributed

        values: list[Any] = [None] * self.size
        distributed.all_gather_object(values, value)
        return values

    def _end_if(self, problems: Sequence[str | None]) -> None:
        told = [problem for problem in problems if problem is not None]
        if told:
            self.say(f"error: {told[0]}")
            self.gather(None)  # torchrun ends the others when one ends: not before the line is out
            raise Refused(2)

    def share(self, groups: Sequence[Sequence[int]]) -> list[int]:
        """The items of this process: whole groups, the largest first to whoever has the fewest."""
        loads = [0] * self.size
        mine: list[int] = []
        for group in sorted(groups, key=lambda group: (-len(group), group[0])):
            owner = loads.index(min(loads))
            loads[owner] += len(group)
            if owner == self.rank:
                mine += group
        return sorted(mine)


@contextmanager
def joined() -> Iterator[Launch]:
    """This process's place in its launch; several processes are connected while the block runs."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1 or "MASTER_ADDR" not in os.environ:
        yield Launch()
        return
    from torch import distributed

    launch = Launch(int(os.environ["RANK"]), size, int(os.environ.get("LOCAL_RANK", "0")))
    distributed.init_process_group("gloo", timeout=PATIENCE)
    try:
        yield launch
    finally:
        distributed.destroy_process_group()
