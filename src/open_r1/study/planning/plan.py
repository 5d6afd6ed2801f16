"""What a study consists of: runs, and for each the test sets of its own split family; and what of it is done."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from open_r1.common.errors import UserError
from open_r1.study.planning.prepared_sets import DataSet, Label
from open_r1.vocabulary.modes import Mode

Method = Literal["grpo", "sft", "zero-shot"]


@dataclass(frozen=True)
class Subject:
    """What is evaluated: a run, or the base as it is asked in one mode."""

    method: Method
    mode: Mode
    trained_on: DataSet | None = None

    @property
    def way(self) -> str:
        """`grpo-think`: what the trainings that differ in their data alone have in common."""
        return f"{self.method}-{self.mode}"

    @property
    def name(self) -> str:
        """`CT-grpo-think`, `Disease_Diagnosis-sft-nothink`, `zero-shot-think`: folders and logs bear it."""
        first = () if self.trained_on is None else (self.trained_on.label.folder.removesuffix("_384"),)
        return "-".join((*first, self.way))


@dataclass(frozen=True)
class Item:
    """A piece of work that one worker does at a time: train a subject, or ask it the test questions."""

    kind: Literal["train", "test"]
    subject: Subject
    sets: tuple[DataSet, ...]  # the set to train on, or those to test on

    @property
    def name(self) -> str:
        """`train-CT-grpo-think`."""
        return f"{self.kind}-{self.subject.name}"

    @property
    def questions(self) -> int:
        """Training or test questions."""
        return sum(each.train if self.kind == "train" else each.test for each in self.sets)


@dataclass(frozen=True)
class Plan:
    """All subjects with the sets that each is tested on."""

    subjects: tuple[tuple[Subject, tuple[DataSet, ...]], ...]

    @property
    def runs(self) -> list[Subject]:
        """The subjects that are trained."""
        return [subject for subject, _ in self.subjects if subject.trained_on is not None]

    @property
    def cells(self) -> list[tuple[Subject, DataSet]]:
        """Every pair of a subject and a test set."""
        return [(subject, each) for subject, sets in self.subjects for each in sets]

    @property
    def items(self) -> list[Item]:
        """The work, in order: each subject is tested right after it is trained."""
        found = []
        for subject, sets in self.subjects:
            if subject.trained_on is not None:
                found.append(Item("train", subject, (subject.trained_on,)))
            if sets:
                found.append(Item("test", subject, sets))
        return found

    def only(self, labels: Collection[Label]) -> "Plan":
        """The runs that are trained on these, with all their cells; of zero-shot the cells that are tested on these.

        Raises:
            UserError: nothing is trained or tested on one of them.
        """
        if not labels:
            return self
        kept = []
        for subject, sets in self.subjects:
            if subject.trained_on is None:
                sets = tuple(each for each in sets if each.label in labels)
            elif subject.trained_on.label not in labels:
                continue
            if sets:
                kept.append((subject, sets))
        known = {subject.trained_on.label for subject in self.runs if subject.trained_on is not None}
        for label in labels:
            if label not in known:
                raise UserError(f"--only {label}: no run of this study is trained on it; there are {', '.join(known)}")
        return Plan(tuple(kept))

    def shard(self, number: int, count: int) -> "Plan":
        """Part `number` of `count`: every so manyth subject, counted from 1."""
        return Plan(self.subjects[number - 1 :: count])


def make_plan(sets: Sequence[DataSet], modes: Sequence[Mode], zero_shot: bool, sft: bool) -> Plan:
    """The whole study: a run per mode and set, tested on every set of its split family.

    Args:
        sets: those that were found; one without a train split is tested on, one without a test split trained on.
        modes: answer forms to train with GRPO.
        zero_shot: ask the base all test questions too, in each mode.
        sft: fine-tune on each set as well. The data holds no thoughts to learn: the no-think form alone.

    Raises:
        UserError: no set can be trained on.
    """
    subjects: list[tuple[Subject, tuple[DataSet, ...]]] = []
    tested = tuple(each for each in sets if each.test)
    if zero_shot and tested:
        subjects += [(Subject("zero-shot", mode), tested) for mode in modes]
    for each in sets:
        own = tuple(other for other in tested if other.family == each.family)
        ways: list[tuple[Method, Mode]] = [("grpo", mode) for mode in modes]
        if sft:
            ways.append(("sft", Mode.NOTHINK))
        if each.train:
            subjects += [(Subject(method, mode, each), own) for method, mode in ways]
    plan = Plan(tuple(subjects))
    if not plan.runs:
        raise UserError(f"not one of {len(sets)} sets has a train split, so there is nothing to train; prepare them")
    return plan
