"""One call of scripts/run_matrix.py from its flags to its exit status."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from open_r1.checkpoints.folder import fingerprint
from open_r1.checkpoints.names import local_source
from open_r1.common.atomic_files import MANIFEST, sha256_file
from open_r1.common.errors import UserError
from open_r1.study import job_scripts
from open_r1.study.execution.child_logs import failure_lines
from open_r1.study.execution.commands import Commands
from open_r1.study.execution.leases import Leases
from open_r1.study.execution.study_file import begin_or_continue, make_manifest, read_study
from open_r1.study.execution.time_left import Forecast, plan_lines
from open_r1.study.execution.worker import INTERRUPTED, Stop, Stopped, Worker
from open_r1.study.planning.flags import StudyFlags, read_flags
from open_r1.study.planning.plan import Plan, make_plan
from open_r1.study.planning.preflight import check
from open_r1.study.planning.prepared_sets import DataSet, find_sets
from open_r1.study.planning.published import published_flags, step_notes

CONTINUES = "stopped; the same command continues"


def run_study(script: Path, description: str | None, arguments: Sequence[str]) -> int:
    """Plan the study and do this command's part of it.

    Args:
        script: scripts/run_matrix.py, in the repository whose entry scripts are run.
        description: what --help says.
        arguments: the command line.

    Returns:
        The exit status: 0; 1 if something failed; 75 if it was stopped and the same command continues.

    Raises:
        UserError: flags, data or base cannot be used, or the folder holds another study; nothing was run then.
    """
    flags = read_flags(description, arguments)
    if flags.emit and flags.secret_flags:
        raise UserError(
            f"{flags.secret_flags[0]} holds a secret, which would stand in the job script for all to read; leave it "
            "out and set the environment variable (HF_TOKEN for the hub), or log in with `hf auth login`"
        )
    sets, others = find_sets(flags.data, flags.by)
    whole = make_plan(sets, flags.modes, flags.zero_shot, flags.sft)
    part = whole.only(flags.only)
    part = part if flags.shard is None else part.shard(*flags.shard)
    there = read_study(flags.output_dir)
    published = published_flags(whole.runs, flags, there)
    commands = Commands(script.resolve().parents[1], flags, published)
    checked = _checked(commands, whole, there)
    manifest = make_manifest(flags, whole, sets, checked, published)
    notes = [] if flags.dry_run or flags.emit else begin_or_continue(flags.output_dir, manifest)

    leases = Leases(flags.output_dir / "leases", flags.claim_timeout)
    forecast = Forecast(leases, checked, flags.nproc_per_node, whole.items)
    worker = Worker(commands, part.items, leases, forecast, Stop())
    if flags.emit:
        print(_script(commands, whole, worker, script, arguments), end="")
        return 0
    # what can be used is found once more when it is its turn
    looked = replace(worker, done=set(), failures=[])
    looked.find_done()
    about = [*_about(flags, sets, others), *_settings(whole, published, checked, flags.nproc_per_node)]
    for line in [*notes, *about, *plan_lines(whole, part, looked.done, forecast)]:
        print(line, flush=True)
    return 0 if flags.dry_run else _work(worker, whole)


def _checked(commands: Commands, whole: Plan, there: Mapping[str, Any] | None) -> dict[str, Any]:
    """What the flags mean: as it was found out when the study was begun, if they are the same; else by trying them."""
    flags = commands.flags
    first = {run.way: run for run in reversed(whole.runs)}
    recorded = {} if there is None else there["checked"]
    is_recorded = all(run.way in recorded or run.method in recorded for run in first.values())
    if there is not None and _as_then(flags, there) and is_recorded:
        sha256 = fingerprint(Path(flags.base)) if Path(flags.base).is_dir() else there["base_sha256"]
        return {**recorded, "base_sha256": sha256}
    is_there = Path(flags.base).is_dir()
    subject, tests = next((subject, tests) for subject, tests in whole.subjects if tests or subject.trained_on)
    request = {
        "trainings": {way: commands.training_flags(run) for way, run in first.items()},
        "script": str(commands.root / "eval" / "infer.py"),
        "infer": commands.test_flags(subject, tests) if tests else None,
        "base": flags.base if is_there or not (flags.dry_run or flags.emit) else None,
    }
    if request["base"] is not None:
        local_source(flags.base)  # at once, where the process below loads torch first
    return check(request)


def _as_then(flags: StudyFlags, there: Mapping[str, Any]) -> bool:
    """Whether the flags for runs and cells are those that the study was begun with."""
    now = {"base": flags.base, "nproc_per_node": flags.nproc_per_node, "files": flags.files()}
    now |= flags.recorded()
    return all(there[key] == value for key, value in now.items())


def _about(flags: StudyFlags, sets: Sequence[DataSet], others: Sequence[str]) -> list[str]:
    """Which base and which data."""
    families = [
        f"{len(own)} sets by {family}" + (f" (without {', '.join(lacking)})" if (lacking := _lacking(own)) else "")
        for family in flags.by
        if (own := [each for each in sets if each.family == family])
    ]
    strange = f"; not looked at: {', '.join(others)}" if others else ""
    return [f"study: {flags.output_dir}, from {flags.base}", f"data: {flags.data}: {', '.join(families)}{strange}"]


def _settings(
    whole: Plan, published: Mapping[str, Sequence[str]], checked: Mapping[str, Any], processes: int
) -> list[str]:
    """Which settings the trainings have beside the flags of the command."""
    if whole.runs and not published:
        return ["note: this study was begun without the published settings, and continues as it was begun"]
    ways = dict.fromkeys(run.way for run in whole.runs)
    return [
        *(f"settings of {way}: {' '.join(published[way])}" for way in ways),
        *step_notes(checked, published, processes),
    ]


def _lacking(own: Sequence[DataSet]) -> list[str]:
    """The labels of a split family of which no set was found."""
    found = {each.label for each in own}
    return [label.short for label in type(own[0].label) if label not in found]


def _script(commands: Commands, whole: Plan, worker: Worker, script: Path, arguments: Sequence[str]) -> str:
    here = Path.cwd()
    if commands.flags.emit == "slurm":
        only = whole.only(commands.flags.only)
        return job_scripts.slurm(commands, script.resolve(), arguments, len(only.subjects), here)
    worker.find_done()
    left = [item for item in worker.items if item.name not in worker.done]
    return job_scripts.shell(commands, left, _cells(commands, whole), here)


def _cells(commands: Commands, whole: Plan, complete: bool = False) -> list[Path]:
    """The result files of the study: all, or those that are complete."""
    folder = commands.folder
    if not complete:
        return [folder.cell(subject, each) for subject, each in whole.cells]
    found = []
    for item in whole.items:
        if item.kind == "test":
            try:
                left = folder.open_cells(item)
            except UserError:
                continue  # of other weights; the worker has said so
            found += [folder.cell(item.subject, each) for each in item.sets if each not in left]
    return found


# ----------------------------------------------------------------------------------------------------------- the work


def _work(worker: Worker, whole: Plan) -> int:
    worker.stop.listen()
    try:
        worker.run()
        told = _report(worker, whole)
    except Stopped:
        print(CONTINUES, flush=True)
        return INTERRUPTED
    lines = failure_lines(worker.failures, worker.interrupted, worker.items)
    for line in [*lines, *told]:
        print(line, flush=True)
    if worker.failures:
        return 1
    if worker.interrupted:
        print(CONTINUES, flush=True)
        return INTERRUPTED
    return 0


def _report(worker: Worker, whole: Plan) -> list[str]:
    """Have the report made from all cells that are complete; a shard leaves that to the one that finishes last.

    Returns:
        What to say at the end.

    Raises:
        Stopped: a signal came.
        UserError: it could not be made.
    """
    commands = worker.commands
    all_cells, cells = _cells(commands, whole), _cells(commands, whole, complete=True)
    told = f"{len(cells)} of {len(all_cells)} cells are complete"
    if worker.commands.flags.shard is not None and len(cells) < len(all_cells):
        return [f"{told}; the part that finishes last writes the report, or this command without --shard"]
    if not cells:
        return [f"{told}, so there is nothing to report"]
    page = commands.report_folder / "report.html"
    if not _is_current(commands.report_folder, cells):
        worker.make_report(cells)
    return [f"{told}; report: {page}"]


def _is_current(folder: Path, cells: Sequence[Path]) -> bool:
    """Whether the report was made from just these files."""
    try:
        made = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["results"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return made == {str(path): sha256_file(path) for path in cells}
