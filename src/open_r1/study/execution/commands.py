"""The command lines of a study: torchrun and an entry script, eval/infer.py, eval/report.py."""

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
        flags: of run_matrix.py.
        published: from `published.published_flags`: the flags that the study adds, by way of training.
    """

    root: Path
    flags: StudyFlags
    published: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def folder(self) -> Folder:
        """The folder of the study."""
        return Folder(self.flags.output_dir)

    def train(self, subject: Subject) -> list[str]:
        """One training run."""
        script = SFT_ENTRY if subject.method == "sft" else ENTRIES[subject.mode]
        return [*self._torchrun(), str(self.root / "src" / "open_r1" / script), *self.training_flags(subject)]

    def training_flags(self, subject: Subject) -> list[str]:
        """The flags of the entry script."""
        assert subject.trained_on is not None
        user_flags = self.flags.sft_args if subject.method == "sft" else self.flags.train_args
        mode = ["--mode", subject.mode] if subject.mode is Mode.THINK_AFTER else []
        return [
            *("--model_name_or_path", self.flags.base, "--dataset_name", subject.trained_on.path),
            *("--output_dir", str(self.folder.run(subject))),
            *("--run_name", f"{Path(self.flags.base).name}-{subject.name}"),
            *mode,
            *self.published.get(subject.way, ()),
            *user_flags,
        ]

    def test(self, subject: Subject, sets: Sequence[DataSet]) -> list[str]:
        """The evaluation of one checkpoint on some sets."""
        several = self.flags.nproc_per_node > 1
        launcher = self._torchrun() if several else [sys.executable]
        return [*launcher, str(self.root / "eval" / "infer.py"), *self.test_flags(subject, sets)]

    def test_flags(self, subject: Subject, sets: Sequence[DataSet]) -> list[str]:
        """The flags of eval/infer.py."""
        model = self.flags.base if subject.trained_on is None else str(self.folder.run(subject))
        # for several sets eval/infer.py takes a folder and names each file after its set
        output = self.folder.cells(subject) if len(sets) > 1 else self.folder.cell(subject, sets[0])
        return [
            *("--model_path", model, "--prompt_path", *(data_set.path for data_set in sets)),
            *("--output_path", str(output), "--mode", subject.mode),
            *self.flags.infer_args,
        ]

    def report(self, cells: Sequence[Path]) -> list[str]:
        """The report of the whole study."""
        script = str(self.root / "eval" / "report.py")
        return [sys.executable, script, *map(str, cells), "--overview", "--output_dir", str(self.report_folder)]

    @property
    def report_folder(self) -> Path:
        """The folder of the report."""
        return self.flags.output_dir / "report"

    def command_of(self, item: Item, sets: Sequence[DataSet] | None = None) -> list[str]:
        """The command of an item; for a test, on these sets (default: all of the item's)."""
        return self.train(item.subject) if item.kind == "train" else self.test(item.subject, sets or item.sets)

    def output_of(self, item: Item) -> set[str]:
        """The output folders and files on an item's command lines, by which its processes are recognized."""
        if item.kind == "train":
            return {str(self.folder.run(item.subject))}
        folder = self.folder.cells(item.subject)
        return {str(folder), *(str(self.folder.cell(item.subject, data_set)) for data_set in item.sets)}

    def _torchrun(self) -> list[str]:
        # --standalone picks a free port: several workers may share a machine
        processes = f"--nproc_per_node={self.flags.nproc_per_node}"
        return [sys.executable, "-m", "torch.distributed.run", "--standalone", processes]
