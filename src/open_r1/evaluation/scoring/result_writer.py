"""Appending results to a file that survives a killed process, and continuing such a file."""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from open_r1.common.atomic_files import disk_errors, write_atomically
from open_r1.common.errors import UserError
from open_r1.evaluation.scoring.results import UNKNOWN_BEFORE, Result, parse_result, read_results, with_grader_version

# Manifest entries that only inform, and may differ when a run is continued. All others decide the prompts and how
# completions are graded (checkpoint and data are also recorded as hashes, so a name or a path may change).
VOLATILE = frozenset(
    {
        *{"started", "hardware", "device", "packages", "commit", "batch_size", "attention", "seed"},
        *{"checkpoint", "data", "data_commit", "columns", "image_root", "method", "trained_on", "tested_on"},
        *{"train_data", "run_dir"},
        "content_sha256",  # every result records what was shown, see `shown_content.require_same_content`
    }
)

# The values of entries that older files do not have.
BEFORE = {
    "image": "shown",
    "options": "as_given",
    "samples": 1,
    "temperature": 0.0,
    "backend": "transformers",
    "forced": False,
    "train_data_sha256": None,
    "seed_used": None,
}

_OPTIONAL = frozenset({"answer_type", "aliases", "letter_probs", "own_image"})
"""Entries that a line has only where they say something."""

_BEGINNING = b'{"manifest"'
_RESULT = b'{"id": '


class ResultWriter:
    """Appends results to a file, which it begins with the manifest or continues.

    An incomplete line of an earlier run is removed. `written_ids` holds the ids of the results in the file. Several
    processes may append to one file: one of them opens and repairs it, then the others get its `written_ids`.

    Args:
        path: the result file.
        manifest: what this run is.
        written_ids: ids in the file, if another process has opened it already; the file is then only appended to.

    Raises:
        UserError: the file exists and is no result file, or its manifest is another (the message names the entries
            that differ), or it cannot be written.
    """

    def __init__(self, path: str | os.PathLike, manifest: Mapping[str, Any], written_ids: Iterable[str] | None = None):
        self.path = Path(path)
        self.written_ids: set[str] = set(written_ids or ())
        with disk_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            has_manifest = written_ids is not None or (self.path.exists() and self._continue(manifest))
            self._file = open(self.path, "ab", buffering=0)  # noqa: SIM115  (closed by close)
        if not has_manifest:
            self._append({"manifest": dict(manifest)})

    def _continue(self, manifest: Mapping[str, Any]) -> bool:
        """Check the file against the manifest and cut off a torn line; False if no line is complete."""
        data = _repair(self.path)
        complete = data.rfind(b"\n") + 1
        if complete == 0 and data[: len(_BEGINNING)] == _BEGINNING[: len(data)]:
            os.truncate(self.path, 0)
            return False
        stored = read_results(self.path)
        _refuse_other_manifest(self.path, stored.manifest, manifest)
        self.written_ids = {result.id for result in stored.results}
        if stored.torn:
            os.truncate(self.path, complete)
        elif complete < len(data):
            with open(self.path, "ab") as file:
                file.write(b"\n")
        return True

    def _append(self, value: Any) -> None:
        line = json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8", "backslashreplace") + b"\n"
        with disk_errors(self.path):
            written = self._file.write(line)
            while written < len(line):  # a signal or an almost full disk
                written += self._file.write(line[written:])

    def write(self, result: Result) -> None:
        """Append one result; once this returns, killing the process does not lose it."""
        assert result.id not in self.written_ids, f"result {result.id} is written twice"
        entries = asdict(result)
        self._append({name: entries[name] for name in entries if name not in _OPTIONAL or entries[name] is not None})
        self.written_ids.add(result.id)

    def close(self) -> None:
        """Force everything to the disk and close the file."""
        if not self._file.closed:
            os.fsync(self._file.fileno())
            self._file.close()

    def __enter__(self) -> "ResultWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _repair(path: Path) -> bytes:
    """Remove incomplete lines of killed processes from the file; returns its content.

    If another process went on writing, its result follows on the same line: the end of the line is kept.
    """
    data = path.read_bytes()
    lines = data.splitlines(keepends=True)
    mended = [lines[0], *map(_complete_result, lines[1:])] if lines else []
    if mended != lines:
        data = b"".join(mended)
        write_atomically(path, data)
    return data


def _complete_result(line: bytes) -> bytes:
    start = line.rfind(_RESULT)
    if start <= 0 or not line.endswith(b"\n"):
        return line
    try:
        parse_result(line)
    except (ValueError, KeyError, TypeError):
        try:
            parse_result(line[start:])
        except (ValueError, KeyError, TypeError):
            return line  # damaged in another way: `read_results` reports it
        return line[start:]
    return line


def _refuse_other_manifest(path: Path, recorded: Mapping[str, Any], current: Mapping[str, Any]) -> None:
    expected = json.loads(json.dumps(current))  # tuples and string enums become what they are in the file
    recorded = {**{key: value for key, value in BEFORE.items() if key in expected}, **with_grader_version(recorded)}
    keys = sorted((recorded.keys() | expected.keys()) - VOLATILE - (UNKNOWN_BEFORE - recorded.keys()))
    differences = [
        f"{key} ({recorded.get(key)!r} there, {expected.get(key)!r} now)"
        for key in keys
        if recorded.get(key) != expected.get(key)
    ]
    if differences:
        raise UserError(
            f"{path} holds results of another run, it differs in {'; '.join(differences)}: mixed results are "
            "meaningless; choose another output path"
        )
