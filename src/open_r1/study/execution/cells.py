"""The result files of a study, and the report that is made from the complete ones."""

import json
from collections.abc import Sequence
from pathlib import Path

from open_r1.common.atomic_files import MANIFEST, sha256_file
from open_r1.common.errors import UserError
from open_r1.study.execution.layout import Folder
from open_r1.study.execution.worker import Worker
from open_r1.study.planning.plan import Plan


def report_cells(worker: Worker, plan: Plan, only_if_all: bool = False) -> list[str]:
    """Write the report from all complete cells, unless it was made from exactly these.

    Args:
        worker: that runs the command.
        plan: the whole study.
        only_if_all: write it only when every cell is complete.

    Returns:
        Lines to print at the end.

    Raises:
        Stopped: a signal came.
        UserError: the report could not be written.
    """
    commands = worker.commands
    cells = complete_cells(commands.folder, plan)
    progress = f"{len(cells)} of {len(plan.cells)} cells are complete"
    if only_if_all and len(cells) < len(plan.cells):
        return [progress]
    if not cells:
        return [f"{progress}, so there is nothing to report"]
    if not _is_current(commands.report_folder, cells):
        worker.make_report(cells)
    return [f"{progress}; report: {commands.report_folder / 'report.html'}"]


def complete_cells(folder: Folder, plan: Plan) -> list[Path]:
    """The complete result files."""
    cells = []
    for item in plan.items:
        if item.kind == "test":
            try:
                unfinished = folder.unfinished_sets(item)
            except UserError:
                continue  # answers of other weights; the worker has reported it
            cells += [folder.cell(item.subject, data_set) for data_set in item.sets if data_set not in unfinished]
    return cells


def _is_current(folder: Path, cells: Sequence[Path]) -> bool:
    """Whether the report was made from exactly these files."""
    try:
        reported = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["results"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return reported == {str(path): sha256_file(path) for path in cells}
