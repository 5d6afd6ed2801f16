"""What stops a run on all its processes at once: a signal, numbers that are not finite, a reward that fails, a hang.

One process alone must never leave the others waiting in a collective call, so each finding is first agreed on by all.
"""

import threading
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from open_r1.common.errors import UserError

Result = TypeVar("Result")


def on_any_process(flag: bool, device: torch.device | str = "cpu") -> bool:
    """Whether the flag is set on any process; all of them must call it. About 0.5 ms."""
    if not _together():
        return flag
    number = torch.tensor([float(flag)], dtype=torch.float32, device=device)
    dist.all_reduce(number, op=dist.ReduceOp.MAX)
    return bool(number.item())


def stop_everywhere(problem: str | None, device: torch.device | str = "cpu") -> None:
    """Stop all processes if one has a problem; all of them must call it.

    Raises:
        UserError: on the first process, with every problem and the process that has it.
        SystemExit: on the others, which have nothing to add.
    """
    if not on_any_process(problem is not None, device):
        return
    if not _together():
        raise UserError(str(problem))
    found: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(found, problem)
    if dist.get_rank() != 0:
        raise SystemExit(2)
    told = {text: rank for rank, text in reversed(list(enumerate(found))) if text is not None}
    raise UserError("; ".join(f"{text} (process {rank})" for text, rank in sorted(told.items(), key=lambda i: i[1])))


def on_first_process(work: Callable[[], Result], device: torch.device | str = "cpu") -> Result | None:
    """What the first process makes of `work`; None on the others, which wait without a limit of time.

    A collective call ends after `--ddp_timeout`, so one is made every half second until the work is done. All
    processes must call this, and `work` must make no collective calls.

    Raises:
        UserError: the work raised one; see `stop_everywhere`.
    """
    if not _together():
        return work()
    results: list[Result] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    if dist.get_rank() == 0:
        thread.start()
    while on_any_process(thread.is_alive(), device):
        thread.join(0.5) if dist.get_rank() == 0 else None
    unexpected = [error for error in errors if not isinstance(error, UserError)]
    if unexpected:
        raise unexpected[0]
    stop_everywhere(str(errors[0]) if errors else None, device)
    return results[0] if results else None


def _together() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


# --- rewards ---------------------------------------------------------------------------------------------------------


# --- signals ---------------------------------------------------------------------------------------------------------


# --- hangs -----------------------------------------------------------------------------------------------------------


# --- numbers ---------------------------------------------------------------------------------------------------------


def all_finite(tensors: Iterable[torch.Tensor]) -> bool:
    """Whether every number of every tensor is finite."""
    sums = [tensor.detach().float().abs().amax() for tensor in tensors if tensor.numel()]
    return bool(torch.stack(sums).isfinite().all()) if sums else True
