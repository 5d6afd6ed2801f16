"""study.json: the settings of a study. The same command continues it; a command with other settings is refused."""

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
from open_r1.study.execution.leases import create_new
from open_r1.study.planning.flags import FORWARDED_FLAGS, StudyFlags, recorded_words
from open_r1.study.planning.plan import Plan
from open_r1.study.planning.prepared_sets import DataSet

STUDY_FILE = "study.json"
FORMAT_VERSION = 1

# Settings that change the result of a run or a cell, and so must stay as recorded.
DECIDING = ("base_sha256", "nproc_per_node", "train_args", "sft_args", "infer_args", "files")


def make_manifest(
    flags: StudyFlags,
    plan: Plan,
    sets: Sequence[DataSet],
    flag_meanings: Mapping[str, Any],
    published: Mapping[str, Sequence[str]],
) -> dict[str, Any]:
    """The content of study.json.

    Args:
        flags: of the command.
        plan: the whole study, not only the part that this command runs.
        sets: the data.
        flag_meanings: from `preflight.check`.
        published: from `published.published_flags`.
    """
    return {
        "study": FORMAT_VERSION,
        "base": flags.base,
        "base_sha256": flag_meanings["base_sha256"],
        "nproc_per_node": flags.nproc_per_node,
        **flags.recorded(),
        "published": {way: list(words) for way, words in published.items()},
        "files": flags.files(),
        "checked": dict(flag_meanings),
        "sets": {
            data_set.label: {
                "path": data_set.path,
                "train": data_set.train,
                "test": data_set.test,
                "sha256": data_set.sha256,
            }
            for data_set in sets
        },
        "runs": [subject.name for subject in plan.runs],
        "cells": [f"{subject.name}/{Path(data_set.path).name}" for subject, data_set in plan.cells],
        "command": recorded_command(sys.argv, known_secrets()),
        "packages": package_versions(),
        "commit": commit(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def read_study(folder: Path) -> dict[str, Any] | None:
    """The manifest of the study in a folder; None if there is none yet.

    Raises:
        UserError: the folder is not a study, or the manifest cannot be read.
    """
    path = folder / STUDY_FILE
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--output_dir {folder} is a file; choose a folder")
    if not path.is_file():
        if folder.is_dir() and any(not entry.name.startswith(".") for entry in folder.iterdir()):
            raise UserError(
                f"--output_dir {folder} is not empty and not a study (no {STUDY_FILE}); choose another folder"
            )
        return None
    try:
        study = json.loads(path.read_text(encoding="utf-8"))
        if study["study"] != FORMAT_VERSION:
            raise UserError(
                f"{path} has format {study['study']}, but this version reads and writes format {FORMAT_VERSION}; "
                "choose another --output_dir"
            )
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path} cannot be read ({error}); choose another --output_dir") from None
    return study | recorded_words(
        {key: study.get(key) or () for key in FORWARDED_FLAGS}
    )  # older files may hold secrets


def begin_or_continue(folder: Path, manifest: dict[str, Any]) -> list[str]:
    """Write study.json, or compare the existing one with this command. Returns notes to print.

    Raises:
        UserError: the folder holds another study, or one with more runs and cells than this command plans.
    """
    path = folder / STUDY_FILE
    if read_study(folder) is None:
        with disk_errors(path):
            folder.mkdir(parents=True, exist_ok=True)
            if create_new(path, json.dumps(manifest, indent=2, ensure_ascii=False, sort_keys=True) + "\n"):
                return []
    recorded = read_study(folder)
    assert recorded is not None
    _refuse_another_study(folder, recorded, manifest)
    recorded_names, planned_names = (
        set(recorded["cells"]) | set(recorded["runs"]),
        set(manifest["cells"]) | set(manifest["runs"]),
    )
    if missing := recorded_names - planned_names:
        raise UserError(
            f"{folder} holds a study with {len(missing)} more runs and cells (for example {min(missing)}) than this "
            "command plans; repeat the --modes, --by, --sft and --zero_shot of the study, and select a part of it with "
            "--only"
        )
    if planned_names - recorded_names:
        growing_keys = (
            "runs",
            "cells",
            "sets",
            "checked",
            "command",
            *(["published"] if "published" in recorded else []),
        )
        write_json(path, recorded | {key: manifest[key] for key in growing_keys})
    return _notes(recorded, manifest)


def _refuse_another_study(folder: Path, recorded: Mapping[str, Any], planned: Mapping[str, Any]) -> None:
    changed_keys = [
        key
        for key in DECIDING
        if recorded.get(key) != planned[key] and not (key == "sft_args" and not recorded.get(key))
    ]
    differences = [_difference(key, recorded, planned) for key in changed_keys]
    for label in recorded["sets"].keys() & planned["sets"].keys():
        if recorded["sets"][label]["sha256"] != planned["sets"][label]["sha256"]:
            differences.append(
                f"the data of {label} ({recorded['sets'][label]['path']} then, {planned['sets'][label]['path']} now)"
            )
    if differences:
        raise UserError(
            f"{folder} holds another study, which differs in {'; '.join(differences)}; one table would mix both. "
            "Choose another --output_dir, or repeat the command of the study"
        )


def _difference(key: str, recorded: Mapping[str, Any], planned: Mapping[str, Any]) -> str:
    if key == "base_sha256":
        return f"--base ({recorded['base']} then, {planned['base']} now)"
    if key == "files":
        changed = [
            name
            for name in recorded[key].keys() | planned[key].keys()
            if recorded[key].get(name) != planned[key].get(name)
        ]
        return f"the content of {', '.join(sorted(changed))}"
    then, now = (shlex.join(value) if isinstance(value, list) else value for value in (recorded.get(key), planned[key]))
    return f"--{key} ({then!r} then, {now!r} now)"


def _notes(recorded: Mapping[str, Any], planned: Mapping[str, Any]) -> list[str]:
    names = recorded["packages"].keys() | planned["packages"].keys()
    changed = [
        f"{name} {recorded['packages'].get(name)} then, {planned['packages'].get(name)} now"
        for name in sorted(names)
        if recorded["packages"].get(name) != planned["packages"].get(name)
    ]
    return [f"note: this study was started with other packages: {'; '.join(changed)}"] if changed else []
