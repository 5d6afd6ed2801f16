"""metrics.jsonl: the metrics that a training run logs, so that its folder holds them without any external logger.

Each line is one entry of the trainer's log history with its step. A line is written in a single call, so a killed
process leaves at most an incomplete last line, which readers skip and a resumed run removes.
"""

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from open_r1.common.atomic_files import disk_errors, parse_json, write_atomically

METRICS, GROUPS, ALARMS = "metrics.jsonl", "groups.jsonl", "alarms.jsonl"
"""Files of a run's folder with a JSON object for each log entry, group of completions, and alarm."""


def read_metrics(folder: str | os.PathLike) -> list[dict[str, Any]] | None:
    """The entries of a run folder's metrics.jsonl, in order; None if there is no such file.

    A line that is not a JSON object with a step is skipped: the process was killed while writing it.
    """
    path = Path(folder) / METRICS
    try:  # missing, or the folder's name is invalid
        return list(read_lines(path)) if path.exists() else None
    except OSError:
        return None


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a file that are JSON objects with a step, in order."""
    with open(path, "rb") as file:
        for line in file:
            try:
                value = parse_json(line)
            except ValueError:
                continue
            if isinstance(value, dict) and isinstance(value.get("step"), int):
                yield value


def begin_metrics(folder: str | os.PathLike, history: Iterable[Mapping[str, Any]]) -> None:
    """Write the log up to the checkpoint that a run resumes from; later entries are dropped.

    Args:
        folder: of the run.
        history: the trainer's log history, empty for a new run.

    Raises:
        UserError: the disk is full or may not be written.
    """
    write_atomically(Path(folder) / METRICS, b"".join(map(json_line, history)))


def append_metrics(folder: str | os.PathLike, entry: Mapping[str, Any]) -> None:
    """Append one entry. Once this returns, killing the process does not lose it.

    Raises:
        UserError: the disk is full or may not be written.
    """
    append_lines(Path(folder) / METRICS, [entry])


def append_lines(path: Path, entries: Iterable[Mapping[str, Any]]) -> None:
    """As `append_metrics`, for any file of JSON objects and several at once."""
    with disk_errors(path):
        handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(handle, b"".join(map(json_line, entries)))
        finally:
            os.close(handle)


def start_lines(path: Path, anew: bool) -> None:
    """Prepare a file for `append_lines`: empty, or with an incomplete last line closed, which readers skip then."""
    if anew or not path.is_file():
        write_atomically(path, "")
        return
    with disk_errors(path), open(path, "rb+") as file:
        if file.seek(0, os.SEEK_END) and (file.seek(-1, os.SEEK_END), file.read(1))[1] != b"\n":
            file.write(b"\n")


def json_line(entry: Mapping[str, Any]) -> bytes:
    """One entry as JSON in UTF-8. NaN and infinity, which JSON lacks, become null."""
    finite = {
        key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in entry.items()
    }
    text = json.dumps(finite, allow_nan=False, ensure_ascii=False, default=str) + "\n"
    return text.encode(errors="replace")  # a lone surrogate has no UTF-8
