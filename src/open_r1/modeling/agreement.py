"""Agreement between the processes of a run: stop all of them together, or do something on the first alone.

A process that stops alone leaves the others hanging in their next collective call.
"""

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn, TypeVar

import torch
import torch.distributed as dist

from open_r1.common.errors import UserError

Result = TypeVar("Result")


def on_any_process(flag: bool, device: torch.device | str = "cpu") -> bool:
    """Whether the flag is set on any process. A collective call of about 0.5 ms."""
    if not _is_distributed():
        return flag
    number = torch.tensor([float(flag)], dtype=torch.float32, device=device)
    dist.all_reduce(number, op=dist.ReduceOp.MAX)
    return bool(number.item())


def stop_everywhere(problem: str | None, device: torch.device | str = "cpu") -> None:
    """Stop all processes if any of them has a problem. A collective call.

    Raises:
        UserError: on the first process, with every problem and the rank of the process that reported it.
        SystemExit: on all other processes, so that the message is printed once.
    """
    if not on_any_process(problem is not None, device):
        return
    if not _is_distributed():
        raise UserError(str(problem))
    _raise_together(_gathered(problem))


def in_all_processes(work: Callable[[], Result], device: torch.device | str = "cpu") -> list[Result]:
    """Run `work` in every process, and return the results of all, in the order of their ranks, in every process.

    Waiting has no time limit, as in `on_first_process`. All processes must call this function.

    Args:
        work: makes no collective calls; its result can be pickled.
        device: of the numbers that processes exchange.

    Raises:
        UserError: `work` raised one in any process; see `stop_everywhere`.
    """
    if not _is_distributed():
        return [work()]
    result, error = _waited_for(work, device)
    pairs: list[tuple[str | None, Any]] = _gathered((None if error is None else str(error) or repr(error), result))
    if error is not None and not isinstance(error, UserError):
        raise error
    if any(problem is not None for problem, _ in pairs):
        _raise_together([problem for problem, _ in pairs])
    return [result for _, result in pairs]


def _gathered(value: Any) -> list[Any]:
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def _raise_together(problems: Sequence[str | None]) -> NoReturn:
    """Raise what `stop_everywhere` does; the problems are in the order of the ranks."""
    if dist.get_rank() != 0:
        raise SystemExit(2)
    lowest_ranks = {text: rank for rank, text in reversed(list(enumerate(problems))) if text is not None}
    by_rank = sorted(lowest_ranks.items(), key=lambda item: item[1])
    raise UserError("; ".join(f"{text} (process {rank})" for text, rank in by_rank))


def on_first_process(work: Callable[[], Result], device: torch.device | str = "cpu") -> Result | None:
    """Run `work` on the first process and return its result; the other processes wait for it and return None.

    Waiting has no time limit: a collective call times out after `--ddp_timeout`, so a new one is made every half
    second. All processes must call this function, and `work` must make no collective calls.

    Raises:
        UserError: if `work` raised one; see `stop_everywhere`.
    """
    if not _is_distributed():
        return work()
    result, error = _waited_for(work if dist.get_rank() == 0 else None, device)
    if error is not None and not isinstance(error, UserError):
        raise error
    stop_everywhere(None if error is None else str(error), device)
    return result


def _waited_for(
    work: Callable[[], Result] | None, device: torch.device | str
) -> tuple[Result | None, BaseException | None]:
    """What `work` returned or raised here; every process waits until that of none is going on."""
    results: list[Result] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.extend([] if work is None else [work()])
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    while on_any_process(thread.is_alive(), device):
        thread.join(0.5) if work is not None else None
    return (results[0] if results else None), (errors[0] if errors else None)


def share_of_this_process(count: int) -> range:
    """The part of `range(count)` that this process works on: consecutive numbers, for each process as many or one more.

    Args:
        count: the same in every process.
    """
    rank, processes = (dist.get_rank(), dist.get_world_size()) if _is_distributed() else (0, 1)
    return range(count * rank // processes, count * (rank + 1) // processes)


def _is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def all_finite(tensors: Iterable[torch.Tensor]) -> bool:
    """Whether all values of all tensors are finite."""
    maxima = [tensor.detach().float().abs().amax() for tensor in tensors if tensor.numel()]
    return bool(torch.stack(maxima).isfinite().all()) if maxima else True
