"""A function in several processes that are joined as those of a training on CPUs are."""

import pickle
import tempfile
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from published_sets import free_port


def in_processes(work: Callable[[], Any], processes: int = 2, seconds: float = 60) -> list[Any]:
    """What a function returns, or raises, in each of several forks of this process, in the order of their ranks.

    Args:
        work: it may make collective calls.
        processes: how many.
        seconds: after which a collective call fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        start_processes: Any = torch.multiprocessing.start_processes
        start_processes(_run, (free_port(), folder, work, processes, seconds), processes, start_method="fork")
        return [pickle.loads((Path(folder) / str(rank)).read_bytes()) for rank in range(processes)]


def _run(rank: int, port: int, folder: str, work: Callable[[], Any], processes: int, seconds: float) -> None:
    limit = timedelta(seconds=seconds)
    store = dist.TCPStore("127.0.0.1", port, processes, is_master=rank == 0, timeout=timedelta(seconds=60))
    dist.init_process_group("gloo", store=store, rank=rank, world_size=processes, timeout=limit)
    try:
        result = work()
    except BaseException as error:
        traceback.print_exc()
        result = error
    (Path(folder) / str(rank)).write_bytes(pickle.dumps(result))
    dist.destroy_process_group()
