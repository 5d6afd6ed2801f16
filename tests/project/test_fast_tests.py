"""A test that is not marked slow cannot start a process."""

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable

import pytest

WAYS: dict[str, Callable[[], object]] = {
    "subprocess": lambda: subprocess.run(["true"], check=True),
    "os.fork": lambda: os.fork() or os._exit(0),
    "os.system": lambda: os.system("true"),
    "os.posix_spawn": lambda: os.posix_spawn("/bin/true", ["true"], {}),
    "multiprocessing fork": lambda: multiprocessing.get_context("fork").Process(target=print).start(),
    "multiprocessing spawn": lambda: multiprocessing.get_context("spawn").Process(target=print).start(),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_process_is_refused_with_what_to_do(way: str) -> None:
    with pytest.raises(pytest.fail.Exception, match="must be marked"):
        WAYS[way]()


def test_the_short_checks_of_the_product_may_run() -> None:
    assert subprocess.run([sys.executable, "-I", "-c", "print(1)"], capture_output=True, check=True).stdout == b"1\n"


@pytest.mark.slow
def test_a_slow_test_may_start_processes() -> None:
    assert subprocess.run(["true"], check=True).returncode == 0
