"""A study whose commands are tiny: made-up sets, and stand-ins for training and testing that write what those write.

As a program it is one worker of such a study: `python tests/support/tiny_study.py FOLDER [FLAG...]`.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import study_children

from open_r1.study.execution.child_logs import failure_lines
from open_r1.study.execution.commands import Commands
from open_r1.study.execution.leases import Leases
from open_r1.study.execution.time_left import Forecast
from open_r1.study.execution.worker import INTERRUPTED, Stop, Stopped, Worker
from open_r1.study.planning.flags import read_flags
from open_r1.study.planning.plan import Plan, Subject, make_plan
from open_r1.study.planning.prepared_sets import DataSet
from open_r1.study.run import CONTINUES
from open_r1.vocabulary.labels import Modality, Task

CHECKED = {"base_sha256": "0", "grpo": {"prompts_per_step": 2, "epochs": 1.0, "max_steps": -1}}
CHECKED["sft"] = {"prompts_per_step": 4, "epochs": 1.0, "max_steps": -1}
HERE = str(Path(__file__).resolve())
CHILD = str(Path(study_children.__file__).resolve())


def prepared(folder: Path, labels: Sequence[Modality | Task], train: int = 10, test: int = 4) -> list[DataSet]:
    """Sets as the plan sees them; nothing is on the disk."""
    return [DataSet(label, str(folder / label.folder), train, test, "0") for label in labels]


@dataclass(frozen=True)
class TinyCommands(Commands):
    """The commands of a study, each a stand-in that writes what the real one writes, within milliseconds."""

    def train(self, subject: Subject) -> list[str]:
        output = self.folder.run(subject)
        return [sys.executable, CHILD, "train", str(self.root), subject.name, "--output_dir", str(output)]

    def test(self, subject: Subject, sets: Sequence[DataSet]) -> list[str]:
        output = [str(self.folder.cell(subject, data_set)) for data_set in sets]
        place = str(self.folder.cells(subject))
        return [sys.executable, CHILD, "test", str(self.root), subject.name, *output, "--output_path", place]

    def report(self, cells: Sequence[Path]) -> list[str]:
        return [sys.executable, "-c", f"print({len(cells)}, 'cells')"]


def worker_of(folder: Path, labels: Sequence[Modality | Task] = (Modality.CT, Modality.MRI), *arguments: str) -> Worker:
    """A worker of the tiny study in a folder, and its plan."""
    flags = read_flags(None, ["--base", "b", "--output_dir", str(folder / "study"), "--modes", "nothink", *arguments])
    plan: Plan = make_plan(prepared(folder, labels), flags.modes, zero_shot=False, sft=flags.sft).only(flags.only)
    items = [item for item in plan.items if not flags.items or item.name in flags.items]
    leases = Leases(flags.output_dir / "leases", flags.claim_timeout)
    return Worker(TinyCommands(folder, flags), items, leases, Forecast(leases, CHECKED, 1, plan.items), Stop())


def save(folder: Path, train: int = 3, test: int = 2) -> None:
    """A saved set without images: the plan reads its head alone."""
    import datasets  # a worker does without

    for split, rows in (("train", train), ("test", test)):
        if rows:
            datasets.Dataset.from_dict({"problem": ["?"] * rows}).save_to_disk(str(folder / split))
    (folder / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "test"]}))


def main() -> int:
    """A worker."""
    worker = worker_of(Path(sys.argv[1]), (Modality.CT, Modality.MRI), *sys.argv[2:])
    worker.stop.listen()
    try:
        worker.run()
    except Stopped:
        print(CONTINUES)
        return INTERRUPTED
    print("\n".join(failure_lines(worker.failures, worker.interrupted, worker.items)))
    return 1 if worker.failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
