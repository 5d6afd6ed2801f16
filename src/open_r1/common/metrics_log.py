"""metrics.jsonl: what a training run logs, line by line while it runs, so that a run folder alone is enough.

Each line is one entry of the trainer's log history with its step. A line is written whole, in one call, so a killed
process leaves at most a torn last line, which readers leave out and a continued run cuts off.
"""

import json
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from open_r1.common.atomic_files import disk_errors, parse_json, write_atomically

METRICS = "metrics.jsonl"


def read_metrics(folder: str | os.PathLike) -> list[dict[str, Any]] | None:
    """The entries of a run folder's metrics.jsonl, in order; None where there is no such file.

    A line that is no JSON object with a step is left out: it was being written when the process died.
    """
    try:
        lines = (Path(folder) / METRICS).read_bytes().split(b"\n")
    except OSError:  # or the folder's name is none that can be
        return None
    return [entry for entry in map(_entry, lines) if entry is not None]


def _entry(line: bytes) -> dict[str, Any] | None:
    try:
        value = parse_json(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) and isinstance(value.get("step"), int) else None


def begin_metrics(folder: str | os.PathLike, history: Iterable[Mapping[str, Any]]) -> None:
    """Write what was logged up to the checkpoint that a run goes on from, and nothing that came after it.

    Args:
        folder: of the run.
        history: the trainer's log history, empty for a run that begins.

    Raises:
        UserError: the disk is full or may not be written.
    """
    write_atomically(Path(folder) / METRICS, "".join(map(_line, history)))


def append_metrics(folder: str | os.PathLike, entry: Mapping[str, Any]) -> None:
    """Add one entry; once this returns, killing the process does not lose it.

    Raises:
        UserError: the disk is full or may not be written.
    """
    path = Path(folder) / METRICS
    with disk_errors(path):
        handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(handle, _line(entry).encode())
        finally:
            os.close(handle)


def _line(entry: Mapping[str, Any]) -> str:
    """JSON has no NaN and no infinity: such a value becomes null."""
    finite = {
        key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in entry.items()
    }
    return json.dumps(finite, allow_nan=False, default=str) + "\n"
