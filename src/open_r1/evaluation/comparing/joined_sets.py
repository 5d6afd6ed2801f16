"""Result files of one checkpoint on several data sets form one evaluation, with joint results.

`eval/infer.py` with several --prompt_path writes a file for each set. Files belong together if the
same checkpoint answered with the same settings and no question is in two of them.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from open_r1.common.errors import UserError
from open_r1.evaluation.scoring.result_writer import BEFORE, VOLATILE
from open_r1.evaluation.scoring.results import ResultFile, with_grader_version
from open_r1.vocabulary.labels import Modality, Task, family_of, parse_label

OF_THE_SET = frozenset(
    {
        *{"data_sha256", "train_data_sha256", "content_sha256", "train_content_sha256", "rows", "limit", "forced"},
        *{"options_some_fixed", "options_all_fixed"},
    }
)
"""Manifest entries that say which questions were asked; the others, except the volatile ones, say how."""


def evaluations(files: Sequence[ResultFile]) -> list[tuple[ResultFile, ...]]:
    """The files of each evaluation, in order of first appearance; a file without a checkpoint is alone."""
    groups: dict[str, list[ResultFile]] = defaultdict(list)
    for number, file in enumerate(files):
        groups[_settings_key(file.manifest) or str(number)].append(file)
    return [evaluation for members in groups.values() for evaluation in _without_overlap(members)]


def checkpoint_of(manifest: Mapping[str, Any]) -> Any:
    """What identifies the checkpoint: its hash, or else its name."""
    return manifest.get("checkpoint_sha256") or manifest.get("checkpoint")


def label_of(name: Any) -> Modality | Task | None:
    """The modality or task that a name stands for; None if it stands for none."""
    try:
        return parse_label(name) if isinstance(name, str) else None
    except UserError:
        return None


def _settings_key(manifest: Mapping[str, Any]) -> str | None:
    if checkpoint_of(manifest) is None:
        return None
    manifest = {**BEFORE, **with_grader_version(manifest)}
    entries = {key: value for key, value in manifest.items() if key not in VOLATILE | OF_THE_SET}
    return json.dumps([str(checkpoint_of(manifest)), entries], sort_keys=True)


def _without_overlap(members: list[ResultFile]) -> list[tuple[ResultFile, ...]]:
    """All as one, or one for each split family: the sets of modalities and those of tasks hold the same questions."""
    if share_nothing(members):
        return [tuple(members)]
    families: dict[str | None, list[ResultFile]] = defaultdict(list)
    for file in members:
        label = label_of(file.manifest.get("tested_on"))
        families[None if label is None else family_of(label)].append(file)
    apart = [[files] if share_nothing(files) else [[file] for file in files] for files in families.values()]
    return [tuple(files) for family in apart for files in family]


def share_nothing(files: Sequence[ResultFile]) -> bool:
    """Whether no question is in two of these files."""
    counts = Counter(result.id for file in files for result in (*file.results, *file.free))
    return max(counts.values(), default=1) == 1


def as_one(files: Sequence[ResultFile]) -> ResultFile:
    """The results of all files under the manifest entries that they share; its path is the folder of the first."""
    if len(files) == 1:
        return files[0]
    manifests = [file.manifest for file in files]
    shared = {
        key: value
        for key, value in files[0].manifest.items()
        if all(key in manifest and manifest[key] == value for manifest in manifests)
    }
    rows = [manifest["rows"] for manifest in manifests if isinstance(manifest.get("rows"), int)]
    if len(rows) == len(files):
        shared["rows"] = sum(rows)
    if any(entries.get("forced") for entries in manifests):
        shared["forced"] = True
    results = [result for file in files for result in file.results]
    free = [result for file in files for result in file.free]
    return ResultFile(files[0].path.parent, shared, results, any(file.torn for file in files), free)
