"""A full memory is one line with the flags that help, wherever it is noticed and whoever says so."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from open_r1.common.errors import UserError, run_command
from open_r1.common.exhausted.full_memory import _PLACES, out_of_memory

ON_A_GPU = (
    "CUDA out of memory. Tried to allocate 1.16 GiB. GPU 0 has a total capacity of 79.10 GiB of which 512.00 MiB is "
    "free. Including non-PyTorch memory, this process has 78.60 GiB memory in use. Of the allocated memory 70 GiB is "
    "allocated by PyTorch. If reserved but unallocated memory is large try setting PYTORCH_ALLOC_CONF"
)
ERRORS: dict[str, BaseException] = {
    "a GPU": torch.OutOfMemoryError(ON_A_GPU),
    "torch on a CPU": RuntimeError(
        "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9"
    ),
    "Python": MemoryError(),
    "vLLM's cache": ValueError("No available memory for the cache blocks. Try increasing `gpu_memory_utilization`"),
}


def raised_in(function: str, error: BaseException) -> Callable[[], None]:
    """A function of that name that raises."""
    scope: dict[str, Any] = {"error": error}
    exec(f"def {function}():\n    raise error", scope)
    return scope[function]


@pytest.mark.parametrize("kind", ERRORS)
def test_each_kind_is_one_line_without_a_traceback(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        run_command(raised_in("sample_groups", ERRORS[kind]))
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: out of memory while sampling completions (")
    assert "--max_completion_length" in line
    assert "PYTORCH_ALLOC_CONF" not in line


@pytest.mark.parametrize("function", _PLACES)
def test_the_innermost_function_says_what_helps(function: str) -> None:
    inner = raised_in(function, torch.OutOfMemoryError(ON_A_GPU))
    scope: dict[str, Any] = {"inner": inner}
    exec("def train():\n    inner()", scope)
    with pytest.raises(torch.OutOfMemoryError) as raised:
        scope["train"]()
    line = str(out_of_memory(raised.value))
    assert f"out of memory while {_PLACES[function].doing} (CUDA out of memory. Tried to allocate 1.16 GiB" in line
    assert line.endswith(_PLACES[function].remedy)


def test_every_function_of_the_table_exists(repository: Path) -> None:
    source = "".join(path.read_text() for path in (repository / "src" / "open_r1").rglob("*.py"))
    names = {name for name in _PLACES if f"def {name}(" not in source}
    assert names == set()


def test_the_cause_of_another_error_is_found_and_other_errors_are_not_taken_for_it() -> None:
    wrapped = KeyError("layer 3")
    wrapped.__cause__ = ERRORS["a GPU"]
    assert "out of memory" in str(out_of_memory(wrapped))
    assert out_of_memory(ValueError("--max_steps -1")) is None
    assert out_of_memory(UserError("lower --max_pixels, or it will be out of memory")) is None


def test_within_vllm_its_own_flags_are_named(tmp_path: Path) -> None:
    (tmp_path / "vllm").mkdir()
    code = compile("def start():\n    raise error", str(tmp_path / "vllm" / "worker.py"), "exec")
    scope: dict[str, Any] = {"error": ERRORS["vLLM's cache"]}
    exec(code, scope)
    with pytest.raises(ValueError, match="No available memory") as raised:
        scope["start"]()
    assert str(out_of_memory(raised.value)).startswith("out of memory in vLLM (No available memory for the cache")
    assert "--vllm_gpu_memory_utilization" in str(out_of_memory(raised.value))


@pytest.mark.slow
def test_a_machine_whose_memory_ends_says_so_in_one_line(repository: Path) -> None:
    """In earnest: a process that may take 3 GB of address space builds a tensor of 40."""
    code = """
import resource, torch
from open_r1.common.errors import run_command
def answer_views():
    return torch.ones(10**10)
def main():
    resource.setrlimit(resource.RLIMIT_AS, (3 * 10**9, 3 * 10**9))
    answer_views()
run_command(main)
"""
    run = subprocess.run([sys.executable, "-c", code], cwd=repository, capture_output=True, text=True, timeout=600)
    assert run.returncode == 2, run.stderr
    assert run.stderr.strip().splitlines()[-1].startswith("error: out of memory while answering questions (")
    assert "Traceback" not in run.stderr
