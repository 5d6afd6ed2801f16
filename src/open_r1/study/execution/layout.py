"""Where the runs of a study lie, and what a folder there already holds."""

from dataclasses import dataclass
from pathlib import Path

from open_r1.checkpoints.folder import RUN_FILE, fingerprint, run_record
from open_r1.checkpoints.names import ADAPTER
from open_r1.checkpoints.weight_files import WEIGHTS, weight_files
from open_r1.common.errors import UserError
from open_r1.evaluation.scoring.results import read_results
from open_r1.study.planning.plan import Item, Subject
from open_r1.study.planning.prepared_sets import DataSet


@dataclass(frozen=True)
class Folder:
    """The folder of a study: where everything lies, and what is done."""

    path: Path

    def run(self, subject: Subject) -> Path:
        """The output folder of a training."""
        return self.path / "runs" / subject.name

    def cells(self, subject: Subject) -> Path:
        """The folder of a subject's result files."""
        return self.path / "cells" / subject.name

    def cell(self, subject: Subject, tested_on: DataSet) -> Path:
        """One result file."""
        return self.cells(subject) / f"{Path(tested_on.path).name}.jsonl"

    def log(self, item: Item) -> Path:
        """Where the output of an item's commands goes."""
        return self.path / "logs" / f"{item.name}.log"

    def open_cells(self, item: Item) -> list[DataSet]:
        """The sets that a subject has not answered completely.

        Raises:
            UserError: a result file holds answers of other weights than the run has now.
        """
        found = []
        for each in item.sets:
            path = self.cell(item.subject, each)
            if not self._answered(path):
                found.append(each)
            elif item.subject.trained_on is not None:
                _refuse_other_weights(path, self.run(item.subject))
        return found

    def is_done(self, item: Item) -> bool:
        """Whether nothing is left to do.

        Raises:
            UserError: a training calls itself done and its weights cannot be used; or as `open_cells`.
        """
        if item.kind == "test":
            return not self.open_cells(item)
        folder = self.run(item.subject)
        if not (folder / RUN_FILE).is_file() or (run_record(folder) or {}).get("status") != "done":
            return False
        try:
            weights_of(folder)
        except UserError as error:
            raise UserError(f"{folder} is a finished run without its weights: {error}") from None
        return True

    def was_interrupted(self, item: Item) -> bool:
        """Whether a training saved its state and stopped because it was told to."""
        folder = self.run(item.subject)
        is_there = item.kind == "train" and (folder / RUN_FILE).is_file()
        return is_there and (run_record(folder) or {}).get("status") == "interrupted"

    def _answered(self, path: Path) -> bool:
        """Whether a result file holds an answer to every question that its manifest announces.

        One that cannot be read does not: eval/infer.py mends what a kill left, or says what is wrong.
        """
        try:
            found = read_results(path)
        except UserError:
            return False
        return isinstance(found.manifest.get("rows"), int) and not found.missing


def weights_of(folder: Path) -> list[Path]:
    """The weight files of a run, whole or of its adapter.

    Raises:
        UserError: one is absent or damaged.
    """
    return weight_files(folder, "adapter_model.safetensors" if (folder / ADAPTER).is_file() else WEIGHTS)


def _refuse_other_weights(results: Path, run: Path) -> None:
    """Refuse answers that were given before the run was trained once more; hashes are read where times allow that."""
    newest = max(file.stat().st_mtime for file in weights_of(run))
    if newest <= results.stat().st_mtime:
        return
    if read_results(results).manifest.get("checkpoint_sha256") != fingerprint(run):
        raise UserError(
            f"{results} holds answers of other weights than {run} has now: it was trained again; remove the old answers"
        )
