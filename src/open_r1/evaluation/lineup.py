"""What result files are to each other: one run on several sets, its twin without pictures, before and after."""

import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, TypeVar

from open_r1.errors import UserError
from open_r1.evaluation.regrade import Regraded, regraded
from open_r1.evaluation.score import Result, ResultFile, read_results
from open_r1.evaluation.statistics import Difference, difference
from open_r1.evaluation.tables import ALL, TEXT, UNLABELLED, Cell, Table, Tally, cells_of, sources, tabulate
from open_r1.runs import Family, Modality, Task, family_of, parse_label

Label = Modality | Task
Pairs = list[tuple[Result, Result]]
T = TypeVar("T")
FAMILIES: tuple[Family, ...] = ("modality", "task")

# What tells runs of one training set apart, most telling first; the value of an entry that a manifest lacks.
_TELLING: dict[str, Any] = {
    "method": None,
    "mode": None,
    "prompt_name": None,
    "image": "shown",
    "options": "as_given",
    "samples": 1,
    "checkpoint": None,
}


FORCED = "FORCED across split families"
LENIENT = "LENIENT matching of HuatuoGPT-o1"
Marks = tuple[str, ...]
"""What must stand before every title about a result: FORCED, LENIENT."""


@dataclass(frozen=True)
class Scored:
    """A result file, its name in the report, its run's name, and its tables."""

    name: str
    run: str
    file: ResultFile
    table: Table
    without_picture: Table | None = None  # of the run whose questions came without their pictures
    regraded: Sequence[Regraded] = ()  # by source, where the answers were matched leniently

    @property
    def marks(self) -> Marks:
        """FORCED where the checkpoint was scored across split families; LENIENT where others than we graded."""
        return (FORCED,) * bool(self.file.manifest.get("forced")) + (LENIENT,) * bool(self.regraded)

    @property
    def shown_as(self) -> tuple[Any, Any]:
        """How pictures and options were shown."""
        return _value(self.file.manifest, "image"), _value(self.file.manifest, "options")

    @property
    def perturbed(self) -> bool:
        """Whether pictures or options were not shown as they are."""
        return self.shown_as != (_TELLING["image"], _TELLING["options"])

    @property
    def trained_on(self) -> Label | None:
        """The modality or task that the checkpoint was trained on, where the manifest says so."""
        return _label(self.file.manifest.get("trained_on"))

    @property
    def tested_on(self) -> Label | None:
        """The modality or task of the whole data set, where the manifest says so."""
        return _label(self.file.manifest.get("tested_on"))

    def parts(self, family: Family) -> dict[str, list[Result]]:
        """The results by what they test in a split family: the whole file, or by label where it is a mixture."""
        if self.tested_on is not None:
            return {self.tested_on: self.file.results} if family_of(self.tested_on) == family else {}
        parts: dict[str, list[Result]] = defaultdict(list)
        for result in self.file.results:
            label = result.modality if family == "modality" else result.task
            if label is not None:
                parts[label].append(result)
        return parts


def _label(name: Any) -> Label | None:
    try:
        return parse_label(name) if isinstance(name, str) else None
    except UserError:
        return None


def short(name: str) -> str:
    """The label of the published figures for a modality or task, with what follows it kept: `US`, `US (think)`."""
    first, bracket, rest = name.partition(" (")
    label = _label(first)
    return name if label is None else label.short + bracket + rest


def all_marks(scored: Iterable[Scored]) -> Marks:
    """Every mark that one of these bears."""
    marks = {mark for one in scored for mark in one.marks}
    return tuple(mark for mark in (FORCED, LENIENT) if mark in marks)


def load(paths: Sequence[Path], others: Sequence[Path] = (), lenient: bool = False) -> list[Scored]:
    """Read result files, name them and their runs apart, and find each one's twin without pictures.

    Args:
        paths: result files.
        others: more of them, from which names must be told apart; they come last in what is returned.
        lenient: match the answers anew, as HuatuoGPT-o1's evaluation does.

    Raises:
        UserError: one cannot be used.
    """
    everything = [*paths, *others]
    files = [_shared(read_results(path)) for path in everything]
    found: list[list[Regraded]] = [[] for _ in files]
    if lenient:
        files, found = map(list, zip(*map(regraded, files), strict=True))
    manifests = [file.manifest for file in files]
    tables = [_tabulated(file) for file in files]
    blind = [_twin(manifest, manifests) for manifest in manifests]
    return [
        Scored(name, run, file, table, None if twin is None else tables[twin], again)
        for name, run, file, table, twin, again in zip(
            named_apart(everything), run_names(manifests), files, tables, blind, found, strict=True
        )
    ]


def _tabulated(file: ResultFile) -> Table:
    table = tabulate(file.results)
    try:
        _ = Tally(file.results).chance  # reads the options of every question, which stay remembered
    except UserError as error:
        raise UserError(f"{file.path} cannot be reported: {error}") from None
    return table


def _shared(file: ResultFile) -> ResultFile:
    """The file with one copy in memory of what other files say as well: the question, its picture, its labels."""
    names = ("id", "source", "image", "problem", "solution", "modality", "task")

    def once(result: Result) -> Result:
        return replace(result, **{name: _interned(getattr(result, name)) for name in names})

    return replace(file, results=[once(result) for result in file.results])


def _interned(text: str | None) -> str | None:
    return None if text is None else sys.intern(text)


def _value(manifest: Mapping[str, Any], key: str) -> Any:
    return manifest.get(key, _TELLING.get(key))


def _checkpoint(manifest: Mapping[str, Any]) -> Any:
    return manifest.get("checkpoint_sha256") or manifest.get("checkpoint")


def _data(manifest: Mapping[str, Any]) -> Any:
    return manifest.get("data_sha256") or manifest.get("data")


def _twin(manifest: Mapping[str, Any], others: Sequence[Mapping[str, Any]]) -> int | None:
    """The place of the file with the same checkpoint, data and mode that was shown no picture."""
    if _value(manifest, "image") != "shown" or _checkpoint(manifest) is None:
        return None

    def key(one: Mapping[str, Any]) -> tuple:
        return (_checkpoint(one), _data(one), one.get("split"), *(_value(one, k) for k in ("mode", "prompt_name")))

    fitting = [k for k, other in enumerate(others) if _value(other, "image") == "none" and key(other) == key(manifest)]
    return fitting[0] if fitting else None


# ------------------------------------------------------------------------------------------------------ names


def named_apart(paths: Sequence[Path]) -> list[str]:
    """A short name per file, its own or with its folder's before it, no two the same."""
    names = [path.stem for path in paths]
    if len(set(names)) < len(names):
        names = [f"{path.resolve().parent.name}-{path.stem}" for path in paths]
    if len(set(names)) < len(names):
        names = [f"{number}-{path.stem}" for number, path in enumerate(paths, 1)]
    return names


def run_names(manifests: Sequence[Mapping[str, Any]]) -> list[str]:
    """What each run is called: what it was trained on or how, and in brackets what tells it from others of that name.

    Files of one run on several data sets get one name.
    """
    plain = [str(one.get("trained_on") or one.get("method") or one.get("checkpoint") or "run") for one in manifests]
    names = list(plain)
    for name in set(plain):
        members = [k for k, other in enumerate(plain) if other == name]
        keys = _that_differ([manifests[k] for k in members])
        for k in members:
            told = ", ".join(filter(None, (_told(key, _value(manifests[k], key)) for key in keys)))
            names[k] = f"{name} ({told})" if told else name
    return names


def _told(key: str, value: Any) -> str:
    """How a name tells an entry: by its value; what is shown as usual needs no word."""
    usual = _TELLING[key]
    if usual is None:
        return str(value)
    return "" if value == usual else f"{key} {value}"


def _that_differ(manifests: Sequence[Mapping[str, Any]]) -> list[str]:
    """The entries in which these runs differ; the checkpoint only where nothing else tells them apart."""

    def kinds(keys: Iterable[str]) -> int:
        return len({tuple(_value(one, key) for key in keys) for one in manifests})

    keys = [key for key in _TELLING if key != "checkpoint" and kinds([key]) > 1]
    if "mode" in keys and kinds(["mode", "prompt_name"]) == kinds(["mode"]):
        keys = [key for key in keys if key != "prompt_name"]  # each mode has its own: nothing new
    return [*keys, "checkpoint"] if kinds([*keys, "checkpoint"]) > kinds(keys) else keys


def by_run(scored: Sequence[Scored]) -> dict[str, list[Scored]]:
    """The files of each run; a run of one file is called as the file is, and files that share questions are apart."""
    groups: dict[str, list[Scored]] = defaultdict(list)
    for one in scored:
        groups[one.run].append(one)
    whole = {run: members for run, members in groups.items() if len(members) == 1 or disjoint(members)}
    named = {(members[0].name if len(members) == 1 else run): members for run, members in whole.items()}
    return named | {one.name: [one] for run, members in groups.items() if run not in whole for one in members}


def disjoint(members: Sequence[Scored]) -> bool:
    """Whether no question is in two of these files."""
    counts = Counter(result.id for one in members for result in one.file.results)
    return max(counts.values()) == 1


# ------------------------------------------------------------------------------------------------ comparisons


@dataclass(frozen=True)
class Comparison:
    """Two result files on the same questions; differences are second minus first."""

    first: Scored
    second: Scored

    @property
    def name(self) -> str:
        return f"{self.second.name} minus {self.first.name}"

    @property
    def marks(self) -> Marks:
        """Those of either."""
        return all_marks((self.first, self.second))

    @cached_property
    def pairs(self) -> dict[Cell, Pairs]:
        """The questions that both answered, by cell."""
        return matched(self.first.file.results, self.second.file.results)

    @cached_property
    def differences(self) -> dict[Cell, Difference]:
        """The difference in each cell."""
        return {cell: of_pairs(pairs) for cell, pairs in self.pairs.items()}

    def parts(self, family: Family) -> dict[str, Pairs]:
        """The pairs by what they test in a split family."""
        tested = self.second.tested_on
        if tested is not None:
            return {tested: self.pairs[ALL, ALL]} if family_of(tested) == family else {}
        margins = {(cell[0] if family == "modality" else cell[1]): cell for cell in self.pairs if cell.count(ALL) == 1}
        others = {ALL, UNLABELLED, TEXT, *sources(self.pairs)}
        of_family = {name: cell for name, cell in margins.items() if name not in others}
        return {name: self.pairs[cell] for name, cell in of_family.items()}


def matched(first: Sequence[Result], second: Sequence[Result]) -> dict[Cell, Pairs]:
    """First and second answer to each question that both answered, by cell.

    Raises:
        UserError: they have no question in common, or an id stands for different questions.
    """
    before = {result.id: result for result in first if result.outcome is not None}
    cells: dict[Cell, Pairs] = defaultdict(list)
    for result in second:
        other = before.get(result.id)
        if other is None or result.outcome is None:
            continue
        if (other.problem, other.solution) != (result.problem, result.solution):
            raise UserError(f"id {result.id!r} is another question in the two files: they cannot be compared")
        for cell in cells_of(result):
            cells[cell].append((other, result))
    if not cells:
        raise UserError("the two files have no question in common: they cannot be compared; report each on its own")
    return cells


def of_pairs(pairs: Pairs) -> Difference:
    """Second minus first over these questions."""
    return difference(
        [old.correct for old, _ in pairs], [new.correct for _, new in pairs], [new.image for _, new in pairs]
    )


def compare(first: Sequence[Result], second: Sequence[Result]) -> dict[Cell, Difference]:
    """Second minus first, cell by cell, over the questions that both runs answered.

    Raises:
        UserError: see `matched`.
    """
    return {cell: of_pairs(pairs) for cell, pairs in matched(first, second).items()}


def pair_up(first: Sequence[Scored], second: Sequence[Scored]) -> tuple[list[Comparison], list[Scored]]:
    """For each file of `second` the one of `first` with the same questions, and those without such a one.

    Among several the one that was trained on the same is meant, or else the one that was not trained (a base before
    training stands against every run after it). Runs without pictures or with shuffled options are compared with their
    like only, unless there is but one of each.

    Raises:
        UserError: several of `first` fit one of `second` equally well.
    """
    found, alone = [], []
    for after in second:
        fitting = [one for one in first if _same_questions(one.file.manifest, after.file.manifest)]
        if len(first) > 1 or len(second) > 1:
            fitting = [one for one in fitting if one.shown_as == after.shown_as]
        same = [one for one in fitting if one.trained_on == after.trained_on]
        fitting = same or [one for one in fitting if one.trained_on is None] or ([] if len(fitting) > 1 else fitting)
        if len(fitting) > 1:
            raise UserError(
                f"{after.name} could be compared with {fitting[0].name} and with {fitting[1].name}; "
                "leave one of them out, or report in two calls"
            )
        if fitting:
            found.append(Comparison(fitting[0], after))
        else:
            alone.append(after)
    return found, alone


def _same_questions(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    keys = ("data_sha256",) if one.get("data_sha256") and other.get("data_sha256") else ("data",)
    return all(one.get(key) == other.get(key) for key in (*keys, "split"))


# --------------------------------------------------------------------------------------------------- matrices


@dataclass(frozen=True)
class Matrix(Generic[T]):
    """Trained on (rows, by run name) x tested on (columns, by label), within one split family."""

    family: Family
    cells: Mapping[tuple[str, str], T]

    @property
    def rows(self) -> list[str]:
        """Run names: those of a modality or task in the published order, then the others."""
        return _ordered({row for row, _ in self.cells})

    @property
    def columns(self) -> list[str]:
        """Labels in the published order."""
        return _ordered({column for _, column in self.cells})


def _ordered(names: Iterable[str]) -> list[str]:
    order = [*Modality, *Task]

    def key(name: str) -> tuple[int, str]:
        label = _label(name.partition(" (")[0])
        return (len(order) if label is None else order.index(label), name)

    return sorted(names, key=key)


def accuracy_matrices(scored: Sequence[Scored]) -> list[Matrix[Tally]]:
    """Accuracy by what runs were trained and tested on, for each split family that holds at least two cells."""
    found = []
    for family in FAMILIES:
        cells: dict[tuple[str, str], list[Result]] = {}
        for one in scored:
            if one.perturbed or not _belongs(one, family):
                continue
            for label, results in one.parts(family).items():
                if len(results) > len(cells.get((one.run, label), ())):
                    cells[one.run, label] = results
        if len(cells) > 1 and any(one.trained_on for one in scored if any(one.run == row for row, _ in cells)):
            found.append(Matrix(family, {cell: Tally(results) for cell, results in cells.items()}))
    return found


def difference_matrices(comparisons: Sequence[Comparison]) -> list[Matrix[Pairs]]:
    """The pairs of answers by what the second run was trained and tested on, for each family with two cells."""
    found = []
    trained = [(one, one.second.trained_on) for one in comparisons if one.second.trained_on is not None]
    several = len({one.second.run for one, _ in trained}) > len({label for _, label in trained})
    for family in FAMILIES:
        cells: dict[tuple[str, str], Pairs] = {}
        for one, label in trained:
            if family_of(label) == family:
                row = one.second.run if several else label
                cells |= {(row, column): pairs for column, pairs in one.parts(family).items()}
        if len(cells) > 1:
            found.append(Matrix(family, cells))
    return found


def _belongs(one: Scored, family: Family) -> bool:
    return one.trained_on is None or family_of(one.trained_on) == family
