"""Appending results to a file that survives a killed process, and continuing such a file."""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from open_r1.common.atomic_files import disk_errors, write_atomically
from open_r1.common.errors import UserError
from open_r1.evaluation.scoring.results import _UNKNOWN_BEFORE, Result, _parse, read_results, with_grader_version

# Manifest entries that only inform, and may differ when a run is continued. All others decide what the model is asked
# and how it is judged (checkpoint and data stand there as hashes too, so a name or a path may change).
VOLATILE = frozenset(
    {
        *{"started", "hardware", "device", "packages", "commit", "batch_size", "attention", "seed"},
        *{"checkpoint", "data", "image_root", "method", "trained_on", "tested_on", "train_data", "run_dir"},
        "content_sha256",  # every answer says itself what was shown, see `content.require_same_content`
    }
)

# What entries mean that files of before they existed do not have.
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

_BEGINNING = b'{"manifest"'
_RESULT = b'{"id": '


class ResultWriter:
    """Appends results to a file, which it begins with the manifest or continues.

    A line that an earlier run left unfinished is removed. `done` holds the ids that are already there. Several
    processes may append to one file: one of them opens and mends it, then the others are given its `done`.

    Args:
        path: the result file.
        manifest: what this run is.
        done: ids in the file, where another process has opened it already; it is not touched before writing then.

    Raises:
        UserError: the file exists and is no result file, or its manifest is another (the message names the entries
            that differ), or it cannot be written.
    """

    def __init__(self, path: str | os.PathLike, manifest: Mapping[str, Any], written_ids: Iterable[str] | None = None):
        self.path = Path(path)
        self.written_ids: set[str] = set(written_ids or ())
        with disk_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            begun = written_ids is not None or (self.path.exists() and self._continue(manifest))
            self._file = open(self.path, "ab", buffering=0)  # noqa: SIM115  (closed by close)
        if not begun:
            self._append({"manifest": dict(manifest)})

    def _continue(self, manifest: Mapping[str, Any]) -> bool:
        """Check the file against the manifest and cut off a torn line; False if nothing at all was finished."""
        data = _mended(self.path)
        whole = data.rfind(b"\n") + 1
        if whole == 0 and data[: len(_BEGINNING)] == _BEGINNING[: len(data)]:
            os.truncate(self.path, 0)
            return False
        found = read_results(self.path)
        _refuse_other_manifest(self.path, found.manifest, manifest)
        self.written_ids = {result.id for result in found.results}
        if found.torn:
            os.truncate(self.path, whole)
        elif whole < len(data):
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
        self._append(asdict(result))
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


def _mended(path: Path) -> bytes:
    """The file's content, without the beginnings of lines that a process was killed in while others went on writing.

    What another process wrote next stands on the same line: the line's end is a whole result, and is kept.
    """
    data = path.read_bytes()
    lines = data.splitlines(keepends=True)
    mended = [lines[0], *map(_whole_result, lines[1:])] if lines else []
    if mended != lines:
        data = b"".join(mended)
        write_atomically(path, data)
    return data


def _whole_result(line: bytes) -> bytes:
    at = line.rfind(_RESULT)
    if at <= 0 or not line.endswith(b"\n"):
        return line
    try:
        _parse(line)
    except (ValueError, KeyError, TypeError):
        try:
            _parse(line[at:])
        except (ValueError, KeyError, TypeError):
            return line  # damaged in some other way: reading says so
        return line[at:]
    return line


def _refuse_other_manifest(path: Path, there: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    plain = json.loads(json.dumps(here))  # tuples and string enums become what they are in the file
    there = {**{key: value for key, value in BEFORE.items() if key in plain}, **with_grader_version(there)}
    keys = sorted((there.keys() | plain.keys()) - VOLATILE - (_UNKNOWN_BEFORE - there.keys()))
    other = [
        f"{key} ({there.get(key)!r} there, {plain.get(key)!r} now)" for key in keys if there.get(key) != plain.get(key)
    ]
    if other:
        raise UserError(
            f"{path} holds results of another run, it differs in {'; '.join(other)}: their mixture would mean nothing; "
            "choose another output path"
        )
