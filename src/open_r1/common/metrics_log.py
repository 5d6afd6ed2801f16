"""metrics.jsonl: the metrics that a training run logs, so that its folder holds them without any external logger.

Each line is one entry of the trainer's log history with its step. A line is written in a single call, so a killed
process leaves at most an incomplete last line, which readers skip and a resumed run removes.
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
    """The entries of a run folder's metrics.jsonl, in order; None if there is no such file.

    A line that is not a JSON object with a step is skipped: the process was killed while writing it.
    """
    try:
        lines = (Path(folder) / METRICS).read_bytes().split(b"\n")
    except OSError:  # missing, or the folder's name is invalid
        return None
    return [entry for entry in map(_entry, lines) if entry is not None]


def _entry(line: bytes) -> dict[str, Any] | None:
    try:
        value = parse_json(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) and isinstance(value.get("step"), int) else None


def begin_metrics(folder: str | os.PathLike, history: Iterable[Mapping[str, Any]]) -> None:
    """Write the log up to the checkpoint that a run resumes from; later entries are dropped.

    Args:
        folder: of the run.
        history: the trainer's log history, empty for a new run.

    Raises:
        UserError: the disk is full or may not be written.
    """
    write_atomically(Path(folder) / METRICS, "".join(map(_line, history)))


def append_metrics(folder: str | os.PathLike, entry: Mapping[str, Any]) -> None:
    """Append one entry. Once this returns, killing the process does not lose it.

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
    """One entry as JSON. NaN and infinity, which JSON lacks, become null."""
    finite = {
        key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in entry.items()
    }
    return json.dumps(finite, allow_nan=False, default=str) + "\n"
