"""The files in the folder of a study, and which items they show to be finished."""

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
    """The folder of a study: paths, and whether an item is finished."""

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
        """The log with the output of an item's commands."""
        return self.path / "logs" / f"{item.name}.log"

    def unfinished_sets(self, item: Item) -> list[DataSet]:
        """The sets whose result file is missing or incomplete.

        Raises:
            UserError: a result file was made with other weights than the run has now.
        """
        unfinished = []
        for data_set in item.sets:
            path = self.cell(item.subject, data_set)
            if not self._answered(path):
                unfinished.append(data_set)
            elif item.subject.trained_on is not None:
                _refuse_other_weights(path, self.run(item.subject))
        return unfinished

    def is_done(self, item: Item) -> bool:
        """Whether an item is finished.

        Raises:
            UserError: a training's run record says done, but its weights are unusable; or as `unfinished_sets`.
        """
        if item.kind == "test":
            return not self.unfinished_sets(item)
        folder = self.run(item.subject)
        if not (folder / RUN_FILE).is_file() or (run_record(folder) or {}).get("status") != "done":
            return False
        try:
            weights_of(folder)
        except UserError as error:
            raise UserError(f"{folder} is a finished run without usable weights: {error}") from None
        return True

    def was_interrupted(self, item: Item) -> bool:
        """Whether a training was interrupted after saving its state."""
        folder = self.run(item.subject)
        is_there = item.kind == "train" and (folder / RUN_FILE).is_file()
        return is_there and (run_record(folder) or {}).get("status") == "interrupted"

    def _answered(self, path: Path) -> bool:
        """Whether a result file has a result for every question in its manifest.

        A file that cannot be read counts as incomplete: eval/infer.py repairs it after a kill, or says what is wrong.
        """
        try:
            result_file = read_results(path)
        except UserError:
            return False
        return isinstance(result_file.manifest.get("rows"), int) and not result_file.missing


def weights_of(folder: Path) -> list[Path]:
    """The weight files of a run: of the full model, or of the adapter if it has one.

    Raises:
        UserError: a file is missing or damaged.
    """
    return weight_files(folder, "adapter_model.safetensors" if (folder / ADAPTER).is_file() else WEIGHTS)


def _refuse_other_weights(results: Path, run: Path) -> None:
    """Refuse results from before the run was trained again; hashes are compared only if the weights are newer."""
    newest = max(file.stat().st_mtime for file in weights_of(run))
    if newest <= results.stat().st_mtime:
        return
    if read_results(results).manifest.get("checkpoint_sha256") != fingerprint(run):
        raise UserError(
            f"{results} was made with other weights than {run} has now, because it was trained again; delete the old "
            "result file to evaluate the new weights"
        )
