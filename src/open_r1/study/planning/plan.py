"""What a study consists of: runs, and for each run the test sets of its split family."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from open_r1.common.errors import UserError
from open_r1.study.planning.prepared_sets import DataSet, Label
from open_r1.vocabulary.modes import Mode

Method = Literal["grpo", "sft", "zero-shot"]


@dataclass(frozen=True)
class Subject:
    """What is evaluated: a run, or the untrained base in one mode."""

    method: Method
    mode: Mode
    trained_on: DataSet | None = None

    @property
    def way(self) -> str:
        """`grpo-think`: method and mode, which trainings on different data share."""
        return f"{self.method}-{self.mode}"

    @property
    def name(self) -> str:
        """`CT-grpo-think`, `Disease_Diagnosis-sft-nothink`, `zero-shot-think`: the name of folders and logs."""
        set_name = () if self.trained_on is None else (self.trained_on.label.folder.removesuffix("_384"),)
        return "-".join((*set_name, self.way))


@dataclass(frozen=True)
class Item:
    """A piece of work for one worker: train a subject, or evaluate it on its test sets."""

    kind: Literal["train", "test"]
    subject: Subject
    sets: tuple[DataSet, ...]  # the set to train on, or those to test on

    @property
    def name(self) -> str:
        """`train-CT-grpo-think`."""
        return f"{self.kind}-{self.subject.name}"

    @property
    def questions(self) -> int:
        """The number of training or test questions."""
        return sum(data_set.train if self.kind == "train" else data_set.test for data_set in self.sets)


@dataclass(frozen=True)
class Plan:
    """All subjects, each with the sets that it is tested on."""

    subjects: tuple[tuple[Subject, tuple[DataSet, ...]], ...]

    @property
    def runs(self) -> list[Subject]:
        """The subjects that are trained."""
        return [subject for subject, _ in self.subjects if subject.trained_on is not None]

    @property
    def cells(self) -> list[tuple[Subject, DataSet]]:
        """Every pair of a subject and a test set."""
        return [(subject, data_set) for subject, sets in self.subjects for data_set in sets]

    @property
    def items(self) -> list[Item]:
        """The work, in order: each subject is tested right after it is trained."""
        items = []
        for subject, sets in self.subjects:
            if subject.trained_on is not None:
                items.append(Item("train", subject, (subject.trained_on,)))
            if sets:
                items.append(Item("test", subject, sets))
        return items

    def only(self, labels: Collection[Label]) -> "Plan":
        """The runs trained on these labels with all their cells, and the zero-shot cells tested on these labels.

        Raises:
            UserError: no run is trained on one of the labels.
        """
        if not labels:
            return self
        selected = []
        for subject, sets in self.subjects:
            if subject.trained_on is None:
                sets = tuple(data_set for data_set in sets if data_set.label in labels)
            elif subject.trained_on.label not in labels:
                continue
            if sets:
                selected.append((subject, sets))
        trained_labels = {subject.trained_on.label for subject in self.runs if subject.trained_on is not None}
        for label in labels:
            if label not in trained_labels:
                raise UserError(
                    f"--only {label}: no run of this study is trained on it; choose among {', '.join(trained_labels)}"
                )
        return Plan(tuple(selected))


def make_plan(sets: Sequence[DataSet], modes: Sequence[Mode], zero_shot: bool, sft: bool) -> Plan:
    """The whole study: a run per mode and set, tested on every set of its split family.

    Args:
        sets: the prepared sets; one without a train split is only tested on, one without a test split only trained on.
        modes: answer forms to train with GRPO.
        zero_shot: also evaluate the untrained base on all test sets, in each mode.
        sft: also fine-tune on each set, in no-think mode only, because the data holds no thoughts.

    Raises:
        UserError: no set has a train split.
    """
    subjects: list[tuple[Subject, tuple[DataSet, ...]]] = []
    tested = tuple(data_set for data_set in sets if data_set.test)
    if zero_shot and tested:
        subjects += [(Subject("zero-shot", mode), tested) for mode in modes]
    for data_set in sets:
        tested_in_family = tuple(tested_set for tested_set in tested if tested_set.family == data_set.family)
        ways: list[tuple[Method, Mode]] = [("grpo", mode) for mode in modes]
        if sft:
            ways.append(("sft", Mode.NOTHINK))
        if data_set.train:
            subjects += [(Subject(method, mode, data_set), tested_in_family) for method, mode in ways]
    plan = Plan(tuple(subjects))
    if not plan.runs:
        raise UserError(
            f"none of the {len(sets)} sets has a train split, so nothing can be trained; prepare them again"
        )
    return plan
