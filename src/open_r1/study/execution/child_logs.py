"""What a failed command said, from its log."""

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
    """An item that did not get done."""

    item: Item
    what: str  # its exit status, or why it was not begun
    log: Path
    last_line: str


def processes_with(outputs: set[str]) -> list[int]:
    """Other processes of this machine whose command line names one of these as its output; Linux only."""
    wanted = {Path(path).resolve() for path in outputs}
    found = []
    for entry in Path("/proc").glob("[0-9]*") if sys.platform == "linux" else ():
        try:
            words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            places = [words[k + 1] for k, word in enumerate(words[:-1]) if word in ("--output_dir", "--output_path")]
            if places and (entry / "cwd").resolve().joinpath(places[-1]).resolve() in wanted:
                found.append(int(entry.name))
        except OSError:  # it has just ended, or is somebody else's
            continue
    return sorted(pid for pid in found if pid != os.getpid())


_ERROR = re.compile(r"error: |[\w.]*(Error|Exception|Interrupt|Exit)\b")


def last_line(log: Path) -> str:
    """What a log says about its end: the last line that names an error, or else its last line at all."""
    try:
        with open(log, "rb") as file:
            file.seek(max(0, log.stat().st_size - 100_000))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    text = text.rpartition("\n== ")[2]  # of the last command
    lines = [re.sub(r"^\[\w+\]:\s*", "", line.strip()) for line in re.split(r"[\r\n]+", text)]
    named = [line for line in lines if _ERROR.match(line) and "ChildFailedError" not in line]
    found = named or [line for line in lines[2:] if line and not set(line) <= set("=-")]
    return found[-1][:300] if found else ""


def failure_lines(failures: Sequence[Failure], interrupted: Sequence[Item], items: Sequence[Item]) -> list[str]:
    """The table of what did not get done, with the log of each and what it said last."""
    lines: list[str] = []
    if failures:
        lines.append(f"{len(failures)} of {len(items)} items failed:")
    for each in failures:
        lines += [f"  {each.item.name}: {each.what}; log: {each.log}", f"      {each.last_line or 'it said nothing'}"]
    for item in interrupted:
        lines.append(f"  {item.name} was stopped and is not finished")
    given_up = {failure.item.subject for failure in failures if failure.item.kind == "train"}
    given_up |= {item.subject for item in interrupted}
    blocked: list[Any] = [item.name for item in items if item.kind == "test" and item.subject in given_up]
    if blocked:
        lines.append(f"not tested for that reason: {', '.join(blocked)}")
    if lines:
        lines.append("the same command tries them again")
    return lines
