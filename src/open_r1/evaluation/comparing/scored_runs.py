"""What result files are to each other: one run on several sets, its twin without images, before and after."""

import sys
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
from open_r1.evaluation.scoring.tallies import Table, Tally, is_text, tabulate
from open_r1.vocabulary.labels import Family, Modality, Task, family_of

Label = Modality | Task
UNTRAINED = "zero-shot"

FORCED = "FORCED across split families"
LENIENT = "LENIENT matching of HuatuoGPT-o1"
Marks = tuple[str, ...]
"""What must stand before every title about a result: FORCED, LENIENT."""


@dataclass(frozen=True)
class Scored:
    """An evaluation: its result files, its name in the report, its run's name, and its tables."""

    name: str
    run: str
    files: tuple[ResultFile, ...]
    table: Table
    without_image: Table | None = None  # of the run whose questions came without their images
    regraded: Sequence[Regraded] = ()  # by source, where the answers were matched leniently
    is_reference: bool = False  # whether the others are compared with it

    @cached_property
    def file(self) -> ResultFile:
        """The results of all files, with what their manifests share."""
        return as_one(self.files)

    @property
    def marks(self) -> Marks:
        """FORCED where the checkpoint was scored across split families; LENIENT where others than we graded."""
        return (FORCED,) * bool(self.file.manifest.get("forced")) + (LENIENT,) * bool(self.regraded)

    @property
    def shown_as(self) -> tuple[Any, Any]:
        """How images and options were shown."""
        return entry(self.file.manifest, "image"), entry(self.file.manifest, "options")

    @property
    def perturbed(self) -> bool:
        """Whether images or options were not shown as they are."""
        return self.shown_as != (TELLING["image"], TELLING["options"])

    @property
    def trained_on(self) -> Label | None:
        """The modality or task that the checkpoint was trained on, where the manifest says so."""
        return label_of(self.file.manifest.get("trained_on"))

    @property
    def is_untrained(self) -> bool:
        """Whether it is a base as it came. A trained run may not say on what: a mixture, or a set with another name."""
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
        parts: dict[str, list[Result]] = defaultdict(list)
        for file in self.files:
            tested = label_of(file.manifest.get("tested_on"))
            if tested is not None and family_of(tested) != family:
                continue
            for result in file.results:
                label = tested or (result.modality if family == "modality" else result.task)
                if label is not None:
                    parts[label].append(result)
        return parts


def short(name: str) -> str:
    """The label of the published figures for a modality or task, with what follows it kept: `US`, `US (think)`."""
    first, bracket, rest = name.partition(" (")
    label = label_of(first)
    return name if label is None else label.short + bracket + rest


def all_marks(scored: Iterable[Scored]) -> Marks:
    """Every mark that one of these bears."""
    marks = {mark for one in scored for mark in one.marks}
    return tuple(mark for mark in (FORCED, LENIENT) if mark in marks)


def load(paths: Sequence[Path], others: Sequence[Path] = (), lenient: bool = False) -> list[Scored]:
    """Read result files, put those of one evaluation together, name them, and find each one's twin without images.

    Args:
        paths: result files.
        others: more of them, those to compare with; they come last in what is returned.
        lenient: match the answers anew, as HuatuoGPT-o1's evaluation does.

    Raises:
        UserError: one cannot be used.
    """
    files = [_shared(read_results(path)) for path in [*paths, *others]]
    matched_anew: list[list[Regraded]] = [[] for _ in files]
    if lenient:
        files, matched_anew = map(list, zip(*map(regraded, files), strict=True))
    by_file = {id(file): sources for file, sources in zip(files, matched_anew, strict=True)}
    for file in files:
        _refuse_unreadable_options(file)
    first, second = evaluations(files[: len(paths)]), evaluations(files[len(paths) :])
    everything = [*first, *second]
    merged = [as_one(members) for members in everything]
    runs = run_names([file.manifest for file in merged])
    scored = [
        Scored(
            name=name,
            run=run,
            files=members,
            table=tabulate(file.results, _sets(members)),
            regraded=[source for file in members for source in by_file[id(file)]],
            is_reference=number >= len(first),
        )
        for number, (name, run, members, file) in enumerate(
            zip(evaluation_names(everything, runs), runs, everything, merged, strict=True)
        )
    ]
    return [replace(run, without_image=_without_image(run, scored)) for run in scored]


def _refuse_unreadable_options(file: ResultFile) -> None:
    try:
        _ = Tally(file.results).chance  # reads the options of every question, which stay remembered
    except UserError as error:
        raise UserError(f"{file.path} cannot be reported: {error}") from None


def _sets(files: Sequence[ResultFile]) -> dict[str, list[Result]]:
    """The results of each set; none where the labels of the questions, or their sources, tell the sets apart."""
    plain = [
        file
        for file in files
        if label_of(file.manifest.get("tested_on")) is None and not all(map(is_text, file.results))
    ]
    if len(files) < 2 or not plain:
        return {}
    return {name: file.results for name, file in zip(set_names(files), files, strict=True)}


def _shared(file: ResultFile) -> ResultFile:
    """The file with one copy in memory of what other files say as well: the question, its image, its labels."""
    names = ("id", "source", "image", "problem", "solution", "modality", "task")

    def once(result: Result) -> Result:
        return replace(result, **{name: _interned(getattr(result, name)) for name in names})

    return replace(file, results=[once(result) for result in file.results])


def _interned(text: str | None) -> str | None:
    return None if text is None else sys.intern(text)


def _without_image(run: Scored, others: Sequence[Scored]) -> Table | None:
    """The table of the run with the same checkpoint, questions and mode that was shown no image."""

    def key(manifest: Mapping[str, Any]) -> tuple:
        return (checkpoint_of(manifest), *(entry(manifest, name) for name in ("mode", "prompt_name")))

    manifest = run.file.manifest
    if entry(manifest, "image") != "shown" or checkpoint_of(manifest) is None:
        return None
    for other in others:
        blind = other.file.manifest
        if entry(blind, "image") == "none" and key(blind) == key(manifest) and _same_questions(run.files, other.files):
            return other.table
    return None


def by_run(scored: Sequence[Scored]) -> dict[str, list[Scored]]:
    """The files of each run; a run of one file is called as the file is, and files that share questions are apart."""
    groups: dict[str, list[Scored]] = defaultdict(list)
    for one in scored:
        groups[one.run].append(one)
    whole = {run: members for run, members in groups.items() if len(members) == 1 or disjoint(members)}
    named = {(members[0].name if len(members) == 1 else run): members for run, members in whole.items()}
    return named | {one.name: [one] for run, members in groups.items() if run not in whole for one in members}


def disjoint(members: Sequence[Scored]) -> bool:
    """Whether no question is in two of these."""
    return share_nothing([one.file for one in members])


# ------------------------------------------------------------------------------------------------ comparisons


def _same_questions(first: Sequence[ResultFile], second: Sequence[ResultFile]) -> bool:
    """Whether a set is among both."""
    return any(_same_set(file.manifest, other.manifest) for file in first for other in second)


def _same_set(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    keys = ("data_sha256",) if first.get("data_sha256") and second.get("data_sha256") else ("data",)
    return all(first.get(key) == second.get(key) for key in (*keys, "split"))
