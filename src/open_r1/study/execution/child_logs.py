"""Failures of a study's commands, and the lines of their logs that explain them."""

import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from open_r1.study.planning.plan import Item


@dataclass(frozen=True)
class Failure:
    """An item that was not finished."""

    item: Item
    reason: str  # exit status, or why the item was not started
    log: Path
    last_line: str


def processes_with(outputs: set[str]) -> list[int]:
    """Other processes of this machine that write to one of these outputs, by their command line; Linux only."""
    output_paths = {Path(path).resolve() for path in outputs}
    process_ids = []
    for entry in Path("/proc").glob("[0-9]*") if sys.platform == "linux" else ():
        try:
            words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            path_values = [
                words[k + 1] for k, word in enumerate(words[:-1]) if word in ("--output_dir", "--output_path")
            ]
            if path_values and (entry / "cwd").resolve().joinpath(path_values[-1]).resolve() in output_paths:
                process_ids.append(int(entry.name))
        except OSError:  # the process has just ended, or belongs to another user
            continue
    return sorted(pid for pid in process_ids if pid != os.getpid())


_ERROR = re.compile(r"error: |[\w.]*(Error|Exception|Interrupt|Exit)\b")


def last_line(log: Path) -> str:
    """The last line of a log that names an error, or else its last line."""
    try:
        with open(log, "rb") as file:
            file.seek(max(0, log.stat().st_size - 100_000))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    text = text.rpartition("\n== ")[2]  # the output of the last command
    lines = [re.sub(r"^\[\w+\]:\s*", "", line.strip()) for line in re.split(r"[\r\n]+", text)]
    error_lines = [line for line in lines if _ERROR.match(line) and "ChildFailedError" not in line]
    candidates = error_lines or [line for line in lines[2:] if line and not set(line) <= set("=-")]
    return candidates[-1][:300] if candidates else ""


def failure_lines(failures: Sequence[Failure], interrupted: Sequence[Item], items: Sequence[Item]) -> list[str]:
    """A table of the items that were not finished, each with its log and the line that explains it."""
    lines: list[str] = []
    if failures:
        lines.append(f"{len(failures)} of {len(items)} items failed:")
    for failure in failures:
        lines += [
            f"  {failure.item.name}: {failure.reason}; log: {failure.log}",
            f"      {failure.last_line or 'the log is empty'}",
        ]
    for item in interrupted:
        lines.append(f"  {item.name} was stopped and is not finished")
    untrained = {failure.item.subject for failure in failures if failure.item.kind == "train"}
    untrained |= {item.subject for item in interrupted}
    blocked: list[Any] = [item.name for item in items if item.kind == "test" and item.subject in untrained]
    if blocked:
        lines.append(f"not tested, because the training is not finished: {', '.join(blocked)}")
    if lines:
        lines.append("run the same command again to retry them")
    return lines
