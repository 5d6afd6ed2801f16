"""Scripts in forks of a process that has the libraries loaded: importing them takes longer than a tiny training.

That process is Python's fork server, started once by each process of pytest that needs it. It computes nothing, and no
test changes it: what a script sees is what `python SCRIPT` would see, as `torchrun` starts it if there are several.
"""

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from datasets import config

from open_r1_testbed.forked_runs import free_port, start, torchrun_variables

LIBRARIES = ("open_r1_testbed.forked_runs", "open_r1.training.sft_run", "deepspeed")

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(list(LIBRARIES))


def in_fork(work: Callable[..., Any], *arguments: Any) -> Any:
    """What a function returns, or raises, in a process of its own that may fork again.

    Args:
        work: of a module in tests/support.
        arguments: what it is called with.
    """
    with ProcessPoolExecutor(1, _SERVER) as pool:
        return pool.submit(work, *arguments).result()


def run_script(
    script: Path,
    arguments: Sequence[str],
    folder: Path,
    processes: int = 0,
    environment: Mapping[str, str] = os.environ,
) -> subprocess.CompletedProcess[str]:
    """What `python SCRIPT ARGUMENTS` does, or `torchrun --nproc_per_node=PROCESSES SCRIPT ARGUMENTS`.

    Args:
        script: the file.
        arguments: its command line.
        folder: the working directory.
        processes: those of torchrun, joined by gloo; 0 is `python` without torchrun.
        environment: all variables but those of torchrun. Libraries have read theirs before, when they were loaded;
            datasets is told of `HF_DATASETS_CACHE`.

    Returns:
        Its output, and the status of the first process that fails, negative for a signal.
    """
    with tempfile.TemporaryDirectory() as place:
        codes = in_fork(_run, script.resolve(), [*arguments], folder, processes, dict(environment), Path(place))
        output, errors = ((Path(place) / name).read_text() for name in ("output", "errors"))
    return subprocess.CompletedProcess([str(script), *arguments], next(filter(None, codes), 0), output, errors)


def _run(
    script: Path, arguments: list[str], folder: Path, processes: int, environment: dict[str, str], place: Path
) -> list[int]:
    os.environ.clear()
    os.environ.update(environment | (torchrun_variables(0, 1, free_port()) if processes == 1 else {}))
    config.HF_DATASETS_CACHE = environment.get("HF_DATASETS_CACHE", config.HF_DATASETS_CACHE)
    os.chdir(folder)
    (place / "errors").touch()

    def before(rank: int) -> None:
        os.dup2(os.open(place / "errors", os.O_WRONLY | os.O_APPEND), sys.stderr.fileno())
        sys.argv[0] = str(script)
        sys.path.insert(0, str(script.parent))

    def entry() -> None:
        runpy.run_path(str(script), run_name="__main__")

    return start(arguments, place / "output", max(processes, 1), before, entry).wait()
