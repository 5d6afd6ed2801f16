"""Evaluations read from result files: several files of one run, and the same run without images."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from open_r1.common.errors import UserError
from open_r1.evaluation.comparing.joined_sets import as_one, checkpoint_of, evaluations, label_of, share_nothing
from open_r1.evaluation.comparing.run_names import TELLING, entry, evaluation_names, run_names, set_names
from open_r1.evaluation.scoring.regrade import Regraded, regraded
from open_r1.evaluation.scoring.results import Result, ResultFile, read_results
from open_r1.evaluation.scoring.tallies import Average, Table, Tally, averages, is_text, tabulate
from open_r1.vocabulary.labels import Family, Modality, Task, family_of

Label = Modality | Task
UNTRAINED = "zero-shot"

FORCED = "FORCED across split families"
LENIENT = "LENIENT matching of HuatuoGPT-o1"
Marks = tuple[str, ...]
"""Warnings before every title about a result: FORCED, LENIENT."""


@dataclass(frozen=True)
class Scored:
    """An evaluation: its result files, its name in the report, its run's name, and its tables.

    Tables are about questions of choice; an evaluation without any has an empty one. `file.free` holds the others.
    """

    name: str
    run: str
    files: tuple[ResultFile, ...]
    table: Table
    without_image: Table | None = None  # of the same run without images
    regraded: Sequence[Regraded] = ()  # by source, if graded leniently
    is_reference: bool = False  # whether other runs are compared with it

    @cached_property
    def file(self) -> ResultFile:
        """The results of all files, with what their manifests share."""
        return as_one(self.files)

    @cached_property
    def averages(self) -> list[Average]:
        """The weighted mean and the unweighted ones."""
        return averages(self.table)

    @property
    def marks(self) -> Marks:
        """FORCED if the checkpoint was scored across split families; LENIENT if graded by HuatuoGPT-o1's matching."""
        return (FORCED,) * bool(self.file.manifest.get("forced")) + (LENIENT,) * bool(self.regraded)

    @property
    def shown_as(self) -> tuple[Any, Any]:
        """How images and options were shown."""
        return entry(self.file.manifest, "image"), entry(self.file.manifest, "options")

    @property
    def perturbed(self) -> bool:
        """Whether images or options were changed."""
        return self.shown_as != (TELLING["image"], TELLING["options"])

    @property
    def trained_on(self) -> Label | None:
        """The modality or task that the checkpoint was trained on, where the manifest says so."""
        return label_of(self.file.manifest.get("trained_on"))

    @property
    def is_untrained(self) -> bool:
        """Whether it is an untrained base. A trained run may have no label: a mixture, or a set with another name."""
        return self.trained_on is None and self.file.manifest.get("method") in (None, UNTRAINED)

    @property
    def tested_on(self) -> Label | None:
        """The modality or task of all its sets, where the manifests say so."""
        return label_of(self.file.manifest.get("tested_on"))

    @property
    def families(self) -> set[Family]:
        """The split families that its sets are about; none where their names do not say."""
        labels = [label_of(file.manifest.get("tested_on")) for file in self.files]
        return {family_of(label) for label in labels if label is not None}

    def parts(self, family: Family) -> dict[str, list[Result]]:
        """The results by what they test in a split family: file by file, or by label where a file is a mixture."""
        results_by_label: dict[str, list[Result]] = defaultdict(list)
        for file in self.files:
            tested = label_of(file.manifest.get("tested_on"))
            if tested is not None and family_of(tested) != family:
                continue
            for result in file.results:
                label = tested or (result.modality if family == "modality" else result.task)
                if label is not None:
                    results_by_label[label].append(result)
        return results_by_label


def short(name: str) -> str:
    """The label of the published figures for a modality or task, with what follows it kept: `US`, `US (think)`."""
    label_name, bracket, suffix = name.partition(" (")
    label = label_of(label_name)
    return name if label is None else label.short + bracket + suffix


def all_marks(scored: Iterable[Scored]) -> Marks:
    """Every mark of any of these."""
    marks = {mark for run in scored for mark in run.marks}
    return tuple(mark for mark in (FORCED, LENIENT) if mark in marks)


def _clustered(file: ResultFile, clusters: Mapping[str, str]) -> ResultFile:
    """The file with the clusters of its questions in place of their images, where they are known."""
    results = [
        replace(result, image=clusters[result.id], own_image=result.image) if result.id in clusters else result
        for result in file.results
    ]
    return replace(file, results=results)


def load(
    paths: Sequence[Path],
    baselines: Sequence[Path] = (),
    lenient: bool = False,
    clusters: Mapping[str, str] | None = None,
) -> list[Scored]:
    """Read result files, join and name the files of each evaluation, and find the same run without images.

    Args:
        paths: result files.
        baselines: result files to compare with; they are returned last.
        lenient: grade again with HuatuoGPT-o1's matching.
        clusters: id -> cluster of nearly equal images, by which errors are clustered in place of images.

    Raises:
        UserError: a file is not usable.
    """
    files = [read_results(path) for path in [*paths, *baselines]]
    if clusters is not None:
        if clusters.keys().isdisjoint(result.id for file in files for result in file.results):
            raise UserError("--clusters has no question of these results; write it from the same data")
        files = [_clustered(file, clusters) for file in files]
    files = [file.apart() for file in files]
    matched_anew: list[list[Regraded]] = [[] for _ in files]
    if lenient:
        files, matched_anew = map(list, zip(*map(regraded, files), strict=True))
    by_file = {id(file): sources for file, sources in zip(files, matched_anew, strict=True)}
    for file in files:
        _refuse_unreadable_options(file)
    evaluated, baseline_evaluations = evaluations(files[: len(paths)]), evaluations(files[len(paths) :])
    all_evaluations = [*evaluated, *baseline_evaluations]
    merged = [as_one(members) for members in all_evaluations]
    runs = run_names([file.manifest for file in merged])
    scored = [
        Scored(
            name=name,
            run=run,
            files=members,
            table=tabulate(file.results, _results_by_set(members)) if file.results or not file.free else {},
            regraded=[source for file in members for source in by_file[id(file)]],
            is_reference=number >= len(evaluated),
        )
        for number, (name, run, members, file) in enumerate(
            zip(evaluation_names(all_evaluations, runs), runs, all_evaluations, merged, strict=True)
        )
    ]
    return [replace(run, without_image=_without_image(run, scored)) for run in scored]


def _refuse_unreadable_options(file: ResultFile) -> None:
    try:
        _ = Tally(file.results).chance  # reads the options of every question, which stay remembered
    except UserError as error:
        raise UserError(f"{file.path} cannot be reported: {error}") from None


def _results_by_set(files: Sequence[ResultFile]) -> dict[str, list[Result]]:
    """The results of each set; none where the labels of the questions, or their sources, tell the sets apart."""
    plain = [
        file
        for file in files
        if label_of(file.manifest.get("tested_on")) is None and not all(map(is_text, file.results))
    ]
    if len(files) < 2 or not plain:
        return {}
    return {name: file.results for name, file in zip(set_names(files), files, strict=True)}


def _without_image(run: Scored, candidates: Sequence[Scored]) -> Table | None:
    """The table of the run with the same checkpoint, questions and mode that was shown no image."""

    def key(manifest: Mapping[str, Any]) -> tuple:
        return (checkpoint_of(manifest), *(entry(manifest, name) for name in ("mode", "prompt_name")))

    manifest = run.file.manifest
    if entry(manifest, "image") != "shown" or checkpoint_of(manifest) is None:
        return None
    for candidate in candidates:
        blind = candidate.file.manifest
        if entry(blind, "image") == "none" and key(blind) == key(manifest) and share_a_set(run.files, candidate.files):
            return candidate.table
    return None


def by_run(scored: Sequence[Scored]) -> dict[str, list[Scored]]:
    """The files of each run; a run of one file is called as the file is, and files that share questions are apart."""
    groups: dict[str, list[Scored]] = defaultdict(list)
    for evaluation in scored:
        groups[evaluation.run].append(evaluation)
    joinable = {run: members for run, members in groups.items() if len(members) == 1 or disjoint(members)}
    named = {(members[0].name if len(members) == 1 else run): members for run, members in joinable.items()}
    return named | {
        evaluation.name: [evaluation]
        for run, members in groups.items()
        if run not in joinable
        for evaluation in members
    }


def disjoint(members: Sequence[Scored]) -> bool:
    """Whether no question is in two of these."""
    return share_nothing([evaluation.file for evaluation in members])


# ------------------------------------------------------------------------------------------------ comparisons


def share_a_set(files: Sequence[ResultFile], other_files: Sequence[ResultFile]) -> bool:
    """Whether both have results on the same data set."""
    return any(_same_set(file.manifest, other_file.manifest) for file in files for other_file in other_files)


def _same_set(manifest: Mapping[str, Any], other_manifest: Mapping[str, Any]) -> bool:
    keys = ("data_sha256",) if manifest.get("data_sha256") and other_manifest.get("data_sha256") else ("data",)
    return all(manifest.get(key) == other_manifest.get(key) for key in (*keys, "split"))
