"""study.json: what a study is, so that the same command continues it and another one cannot spoil it."""

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from open_r1.common.atomic_files import disk_errors, write_json
from open_r1.common.errors import UserError
from open_r1.common.provenance import commit, package_versions
from open_r1.common.redaction import known_secrets, recorded_command
from open_r1.study.execution.leases import created
from open_r1.study.planning.flags import PASSED_ON, StudyFlags, recorded_words
from open_r1.study.planning.plan import Plan
from open_r1.study.planning.prepared_sets import DataSet

STUDY_FILE = "study.json"
FORMAT_VERSION = 1

# What decides the outcome of a run or a cell. What is not here may change or grow.
DECIDING = ("base_sha256", "nproc_per_node", "train_args", "sft_args", "infer_args", "files")


def make_manifest(
    flags: StudyFlags,
    plan: Plan,
    sets: Sequence[DataSet],
    checked: Mapping[str, Any],
    published: Mapping[str, Sequence[str]],
) -> dict[str, Any]:
    """What study.json says.

    Args:
        flags: the command.
        plan: the whole study, whatever part of it this command does.
        sets: the data.
        checked: the answer of `checks.check`.
        published: of `published.published_flags`.
    """
    return {
        "study": FORMAT_VERSION,
        "base": flags.base,
        "base_sha256": checked["base_sha256"],
        "nproc_per_node": flags.nproc_per_node,
        **flags.recorded(),
        "published": {way: list(words) for way, words in published.items()},
        "files": flags.files(),
        "checked": dict(checked),
        "sets": {
            each.label: {"path": each.path, "train": each.train, "test": each.test, "sha256": each.sha256}
            for each in sets
        },
        "runs": [subject.name for subject in plan.runs],
        "cells": [f"{subject.name}/{Path(each.path).name}" for subject, each in plan.cells],
        "command": recorded_command(sys.argv, known_secrets()),
        "packages": package_versions(),
        "commit": commit(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def read_study(folder: Path) -> dict[str, Any] | None:
    """The manifest of the study in a folder; None where there is none yet.

    Raises:
        UserError: the folder is something else, or the manifest cannot be read.
    """
    path = folder / STUDY_FILE
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--output_dir {folder} is a file; name a folder")
    if not path.is_file():
        if folder.is_dir() and any(not entry.name.startswith(".") for entry in folder.iterdir()):
            raise UserError(
                f"--output_dir {folder} holds something else than a study (no {STUDY_FILE}); name another folder"
            )
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["study"] != FORMAT_VERSION:
            raise UserError(f"{path} is of format {found['study']}, this version writes {FORMAT_VERSION}")
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path} cannot be read ({error}); name another --output_dir") from None
    return found | recorded_words({key: found.get(key) or () for key in PASSED_ON})  # of before secrets were hidden


def begin_or_continue(folder: Path, manifest: dict[str, Any]) -> list[str]:
    """Write study.json, or hold the one that is there against this command. Returns lines worth to be said.

    Raises:
        UserError: it is another study, or one with more runs and cells than this command plans.
    """
    path = folder / STUDY_FILE
    if read_study(folder) is None:
        with disk_errors(path):
            folder.mkdir(parents=True, exist_ok=True)
            if created(path, json.dumps(manifest, indent=2, ensure_ascii=False, sort_keys=True) + "\n"):
                return []
    there = read_study(folder)
    assert there is not None
    _refuse_other(folder, there, manifest)
    old, new = set(there["cells"]) | set(there["runs"]), set(manifest["cells"]) | set(manifest["runs"])
    if old - new:
        raise UserError(
            f"{folder} holds a study of {len(old - new)} more runs and cells (as {min(old - new)}) than this command "
            "plans; give --modes, --by, --sft and --zero_shot as then, and --only or --shard to do a part of it"
        )
    if new - old:
        grown = ("runs", "cells", "sets", "checked", "command", *(["published"] if "published" in there else []))
        write_json(path, there | {key: manifest[key] for key in grown})
    return _notes(there, manifest)


def _refuse_other(folder: Path, there: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    other = [key for key in DECIDING if there.get(key) != here[key] and not (key == "sft_args" and not there.get(key))]
    told = [_told(key, there, here) for key in other]
    for label in there["sets"].keys() & here["sets"].keys():
        if there["sets"][label]["sha256"] != here["sets"][label]["sha256"]:
            told.append(f"the data of {label} ({there['sets'][label]['path']} then, {here['sets'][label]['path']} now)")
    if told:
        raise UserError(
            f"{folder} holds another study, which differs in {'; '.join(told)}: runs of both would stand in one table. "
            "Name another --output_dir, or give the command as it was"
        )


def _told(key: str, there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    if key == "base_sha256":
        return f"--base ({there['base']} then, {here['base']} now)"
    if key == "files":
        changed = [name for name in there[key].keys() | here[key].keys() if there[key].get(name) != here[key].get(name)]
        return f"the content of {', '.join(sorted(changed))}"
    then, now = (shlex.join(value) if isinstance(value, list) else value for value in (there.get(key), here[key]))
    return f"--{key} ({then!r} then, {now!r} now)"


def _notes(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    names = there["packages"].keys() | here["packages"].keys()
    changed = [
        f"{name} {there['packages'].get(name)} then, {here['packages'].get(name)} now"
        for name in sorted(names)
        if there["packages"].get(name) != here["packages"].get(name)
    ]
    return [f"note: this study was begun with other packages: {'; '.join(changed)}"] if changed else []
