"""Names of runs and result files in a report: as short as possible, but all different."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from open_r1.evaluation.comparing.joined_sets import label_of
from open_r1.evaluation.scoring.results import ResultFile
from open_r1.vocabulary.labels import family_of

# Entries that distinguish runs of one training set, the clearest first, with the value for manifests without the entry.
TELLING: dict[str, Any] = {
    "method": None,
    "mode": None,
    "prompt_name": None,
    "image": "shown",
    "options": "as_given",
    "samples": 1,
    "checkpoint": None,
}


def entry(manifest: Mapping[str, Any], key: str) -> Any:
    """An entry of a manifest, or its default."""
    return manifest.get(key, TELLING.get(key))


def named_apart(paths: Sequence[Path]) -> list[str]:
    """A short name per file, its own or with its folder's before it, no two the same."""
    names = [path.stem for path in paths]
    if len(set(names)) < len(names):
        names = [f"{path.resolve().parent.name}-{path.stem}" for path in paths]
    if len(set(names)) < len(names):
        names = [f"{number}-{path.stem}" for number, path in enumerate(paths, 1)]
    return names


def set_names(files: Sequence[ResultFile]) -> list[str]:
    """What the set of each file is called: as its folder is, or as the file where that does not tell them apart."""
    names = [Path(str(file.manifest.get("data") or file.path.stem)).name for file in files]
    return names if len(set(names)) == len(names) else named_apart([file.path for file in files])


def evaluation_names(members: Sequence[Sequence[ResultFile]], runs: Sequence[str]) -> list[str]:
    """A name per evaluation, no two the same: its file's, that of the folder which holds only its run, or its run's."""
    stems = iter(named_apart([file.path for files in members for file in files]))
    runs_in: dict[Path, set[str]] = defaultdict(set)
    for files, run in zip(members, runs, strict=True):
        for file in files:
            runs_in[file.path.resolve().parent].add(run)
    names = []
    for files, run in zip(members, runs, strict=True):
        stem, *more_stems = [next(stems) for _ in files]
        folders = {file.path.resolve().parent for file in files}
        alone = len(folders) == 1 and all(len(runs_in[folder]) == 1 for folder in folders)
        names.append((folders.pop().name if alone else run) if more_stems else stem)
    counts = Counter(names)
    names = [name + _by_family(files) * (counts[name] > 1) for name, files in zip(names, members, strict=True)]
    return names if len(set(names)) == len(names) else [f"{number}-{name}" for number, name in enumerate(names, 1)]


def _by_family(files: Sequence[ResultFile]) -> str:
    """` by modality` for an evaluation on the sets of modalities; blank where its sets are of neither family."""
    labels = [label_of(file.manifest.get("tested_on")) for file in files]
    families = {family_of(label) for label in labels if label is not None}
    return f" by {families.pop()}" if len(families) == 1 else ""


def run_names(manifests: Sequence[Mapping[str, Any]]) -> list[str]:
    """The name of each run: its training data or method, with the entries that differ in brackets if several share it.

    Files of one run on several data sets get one name.
    """
    plain = [
        str(manifest.get("trained_on") or manifest.get("method") or manifest.get("checkpoint") or "run")
        for manifest in manifests
    ]
    names = list(plain)
    for name in set(plain):
        members = [k for k, plain_name in enumerate(plain) if plain_name == name]
        keys = _differing_entries([manifests[k] for k in members])
        for k in members:
            details = ", ".join(filter(None, (_entry_text(key, entry(manifests[k], key)) for key in keys)))
            names[k] = f"{name} ({details})" if details else name
    return names


def _entry_text(key: str, value: Any) -> str:
    """The text of an entry in a name; blank for a default."""
    usual = TELLING[key]
    if usual is None:
        return str(value)
    return "" if value == usual else f"{key} {value}"


def _differing_entries(manifests: Sequence[Mapping[str, Any]]) -> list[str]:
    """The entries in which these runs differ; the checkpoint only if nothing else differs."""

    def kinds(keys: Iterable[str]) -> int:
        return len({tuple(entry(manifest, key) for key in keys) for manifest in manifests})

    keys = [key for key in TELLING if key != "checkpoint" and kinds([key]) > 1]
    if "mode" in keys and kinds(["mode", "prompt_name"]) == kinds(["mode"]):
        keys = [key for key in keys if key != "prompt_name"]  # each mode has its own prompt
    return [*keys, "checkpoint"] if kinds([*keys, "checkpoint"]) > kinds(keys) else keys
