"""The commands of a study, as a user could type them: torchrun and an entry script, eval/infer.py, eval/report.py."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from open_r1.study.execution.layout import Folder
from open_r1.study.planning.flags import StudyFlags
from open_r1.study.planning.plan import Item, Subject
from open_r1.study.planning.prepared_sets import DataSet
from open_r1.vocabulary.modes import Mode

ENTRIES = {Mode.THINK: "grpo_vqa.py", Mode.THINK_AFTER: "grpo_vqa.py", Mode.NOTHINK: "grpo_vqa_nothink.py"}
SFT_ENTRY = "sft_vqa.py"


@dataclass(frozen=True)
class Commands:
    """The commands of one study.

    Args:
        root: the repository, which holds src/ and eval/.
        flags: what was asked for.
        published: of `published.published_flags`: flags of each way of training that the study adds.
    """

    root: Path
    flags: StudyFlags
    published: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def folder(self) -> Folder:
        """Where the study lies."""
        return Folder(self.flags.output_dir)

    def train(self, subject: Subject) -> list[str]:
        """One training run."""
        script = SFT_ENTRY if subject.method == "sft" else ENTRIES[subject.mode]
        return [*self._torchrun(), str(self.root / "src" / "open_r1" / script), *self.training_flags(subject)]

    def training_flags(self, subject: Subject) -> list[str]:
        """What the entry script is given."""
        assert subject.trained_on is not None
        own = self.flags.sft_args if subject.method == "sft" else self.flags.train_args
        mode = ["--mode", subject.mode] if subject.mode is Mode.THINK_AFTER else []
        return [
            *("--model_name_or_path", self.flags.base, "--dataset_name", subject.trained_on.path),
            *("--output_dir", str(self.folder.run(subject))),
            *("--run_name", f"{Path(self.flags.base).name}-{subject.name}"),
            *mode,
            *self.published.get(subject.way, ()),
            *own,
        ]

    def test(self, subject: Subject, sets: Sequence[DataSet]) -> list[str]:
        """One checkpoint, asked the test questions of some sets."""
        several = self.flags.nproc_per_node > 1
        launcher = self._torchrun() if several else [sys.executable]
        return [*launcher, str(self.root / "eval" / "infer.py"), *self.test_flags(subject, sets)]

    def test_flags(self, subject: Subject, sets: Sequence[DataSet]) -> list[str]:
        """What eval/infer.py is given."""
        model = self.flags.base if subject.trained_on is None else str(self.folder.run(subject))
        # of several sets each file is named after its set by eval/infer.py
        output = self.folder.cells(subject) if len(sets) > 1 else self.folder.cell(subject, sets[0])
        return [
            *("--model_path", model, "--prompt_path", *(each.path for each in sets)),
            *("--output_path", str(output), "--mode", subject.mode),
            *self.flags.infer_args,
        ]

    def report(self, cells: Sequence[Path]) -> list[str]:
        """The report of the whole study."""
        script = str(self.root / "eval" / "report.py")
        return [sys.executable, script, *map(str, cells), "--overview", "--output_dir", str(self.report_folder)]

    @property
    def report_folder(self) -> Path:
        """Where the report lies."""
        return self.flags.output_dir / "report"

    def of(self, item: Item, sets: Sequence[DataSet] | None = None) -> list[str]:
        """The command of an item; of a test, about these sets (default: all of them)."""
        return self.train(item.subject) if item.kind == "train" else self.test(item.subject, sets or item.sets)

    def output_of(self, item: Item) -> set[str]:
        """The output folders and files that the commands of an item name, by which its processes are known."""
        if item.kind == "train":
            return {str(self.folder.run(item.subject))}
        folder = self.folder.cells(item.subject)
        return {str(folder), *(str(self.folder.cell(item.subject, each)) for each in item.sets)}

    def _torchrun(self) -> list[str]:
        # --standalone takes a free port: several workers may share a machine
        processes = f"--nproc_per_node={self.flags.nproc_per_node}"
        return [sys.executable, "-m", "torch.distributed.run", "--standalone", processes]
