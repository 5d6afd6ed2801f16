"""scripts/run_matrix.py, from its flags to its exit status."""

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
    """Plan the study and run the part of it that the flags select.

    Args:
        script: scripts/run_matrix.py; the entry scripts of its repository are run.
        description: for --help.
        arguments: the command line.

    Returns:
        The exit status: 0; 1 if something failed; 75 if it was stopped and the same command continues.

    Raises:
        UserError: flags, data or base cannot be used, or the folder holds another study; nothing has been run.
    """
    flags = read_flags(description, arguments)
    if flags.emit and flags.secret_flags:
        raise UserError(
            f"{flags.secret_flags[0]} contains a secret, which everyone who can read the job script would see; remove "
            "it and set the environment variable (HF_TOKEN for the hub), or log in with `hf auth login`"
        )
    sets, ignored_folders = find_sets(flags.data, flags.by)
    plan = make_plan(sets, flags.modes, flags.zero_shot, flags.sft)
    selected = plan.only(flags.only)
    selected = selected if flags.shard is None else selected.shard(*flags.shard)
    recorded_study = read_study(flags.output_dir)
    published = published_flags(plan.runs, flags, recorded_study)
    commands = Commands(script.resolve().parents[1], flags, published)
    flag_meanings = _check_flags(commands, plan, recorded_study)
    manifest = make_manifest(flags, plan, sets, flag_meanings, published)
    notes = [] if flags.dry_run or flags.emit else begin_or_continue(flags.output_dir, manifest)

    leases = Leases(flags.output_dir / "leases", flags.claim_timeout)
    forecast = Forecast(leases, flag_meanings, flags.nproc_per_node, plan.items)
    worker = Worker(commands, selected.items, leases, forecast, Stop())
    if flags.emit:
        print(_job_script(commands, plan, worker, script, arguments), end="")
        return 0
    # a copy, because the worker itself checks each item again when its turn comes
    preview = replace(worker, finished=set(), failures=[])
    preview.find_done()
    description_lines = [
        *_data_lines(flags, sets, ignored_folders),
        *_setting_lines(plan, published, flag_meanings, flags.nproc_per_node),
    ]
    for line in [*notes, *description_lines, *plan_lines(plan, selected, preview.finished, forecast)]:
        print(line, flush=True)
    return 0 if flags.dry_run else _run_worker(worker, plan)


def _check_flags(commands: Commands, plan: Plan, recorded_study: Mapping[str, Any] | None) -> dict[str, Any]:
    """What the flags mean: read from study.json if they have not changed, else found by parsing them."""
    flags = commands.flags
    run_by_way = {run.way: run for run in reversed(plan.runs)}
    recorded_meanings = {} if recorded_study is None else recorded_study["checked"]
    all_recorded = all(run.way in recorded_meanings or run.method in recorded_meanings for run in run_by_way.values())
    if recorded_study is not None and _has_recorded_flags(flags, recorded_study) and all_recorded:
        sha256 = fingerprint(Path(flags.base)) if Path(flags.base).is_dir() else recorded_study["base_sha256"]
        return {**recorded_meanings, "base_sha256": sha256}
    is_local = Path(flags.base).is_dir()
    subject, tests = next((subject, tests) for subject, tests in plan.subjects if tests or subject.trained_on)
    request = {
        "trainings": {way: commands.training_flags(run) for way, run in run_by_way.items()},
        "script": str(commands.root / "eval" / "infer.py"),
        "infer": commands.test_flags(subject, tests) if tests else None,
        "base": flags.base if is_local or not (flags.dry_run or flags.emit) else None,
    }
    if request["base"] is not None:
        local_source(flags.base)  # refuses a wrong path at once; the process below loads torch first
    return check(request)


def _has_recorded_flags(flags: StudyFlags, recorded_study: Mapping[str, Any]) -> bool:
    """Whether the flags for runs and cells are the ones in study.json."""
    current = {"base": flags.base, "nproc_per_node": flags.nproc_per_node, "files": flags.files()}
    current |= flags.recorded()
    return all(recorded_study[key] == value for key, value in current.items())


def _data_lines(flags: StudyFlags, sets: Sequence[DataSet], ignored_folders: Sequence[str]) -> list[str]:
    """Lines that name the base and the data."""
    families = [
        f"{len(family_sets)} sets by {family}"
        + (f" (without {', '.join(missing)})" if (missing := _missing_labels(family_sets)) else "")
        for family in flags.by
        if (family_sets := [data_set for data_set in sets if data_set.family == family])
    ]
    ignored = f"; ignored: {', '.join(ignored_folders)}" if ignored_folders else ""
    return [f"study: {flags.output_dir}, from {flags.base}", f"data: {flags.data}: {', '.join(families)}{ignored}"]


def _setting_lines(
    plan: Plan, published: Mapping[str, Sequence[str]], flag_meanings: Mapping[str, Any], processes: int
) -> list[str]:
    """Lines that name the settings that the study adds to the flags of the command."""
    if plan.runs and not published:
        return ["note: this study was started without the published settings and continues without them"]
    ways = dict.fromkeys(run.way for run in plan.runs)
    return [
        *(f"settings of {way}: {' '.join(published[way])}" for way in ways),
        *step_notes(flag_meanings, published, processes),
    ]


def _missing_labels(family_sets: Sequence[DataSet]) -> list[str]:
    """The labels of a split family for which no set was found."""
    prepared = {data_set.label for data_set in family_sets}
    return [label.short for label in type(family_sets[0].label) if label not in prepared]


def _job_script(commands: Commands, plan: Plan, worker: Worker, script: Path, arguments: Sequence[str]) -> str:
    working_folder = Path.cwd()
    if commands.flags.emit == "slurm":
        selected = plan.only(commands.flags.only)
        return job_scripts.slurm(commands, script.resolve(), arguments, len(selected.subjects), working_folder)
    worker.find_done()
    remaining = [item for item in worker.items if item.name not in worker.finished]
    return job_scripts.shell(commands, remaining, _cell_files(commands, plan), working_folder)


def _cell_files(commands: Commands, plan: Plan, complete: bool = False) -> list[Path]:
    """The result files of the study: all, or only the complete ones."""
    folder = commands.folder
    if not complete:
        return [folder.cell(subject, data_set) for subject, data_set in plan.cells]
    complete_cells = []
    for item in plan.items:
        if item.kind == "test":
            try:
                unfinished = folder.unfinished_sets(item)
            except UserError:
                continue  # answers of other weights; the worker has reported it
            complete_cells += [
                folder.cell(item.subject, data_set) for data_set in item.sets if data_set not in unfinished
            ]
    return complete_cells


# -------------------------------------------------------------------------------------------------------------- running


def _run_worker(worker: Worker, plan: Plan) -> int:
    worker.stop.listen()
    try:
        worker.run()
        report_lines = _make_report(worker, plan)
    except Stopped:
        print(CONTINUES, flush=True)
        return INTERRUPTED
    lines = failure_lines(worker.failures, worker.interrupted, worker.items)
    for line in [*lines, *report_lines]:
        print(line, flush=True)
    if worker.failures:
        return 1
    if worker.interrupted:
        print(CONTINUES, flush=True)
        return INTERRUPTED
    return 0


def _make_report(worker: Worker, plan: Plan) -> list[str]:
    """Write the report from all complete cells; a shard writes it only when every cell is complete.

    Returns:
        Lines to print at the end.

    Raises:
        Stopped: a signal came.
        UserError: the report could not be written.
    """
    commands = worker.commands
    all_cells, cells = _cell_files(commands, plan), _cell_files(commands, plan, complete=True)
    progress = f"{len(cells)} of {len(all_cells)} cells are complete"
    if worker.commands.flags.shard is not None and len(cells) < len(all_cells):
        return [f"{progress}; the shard that finishes last writes the report, or this command without --shard"]
    if not cells:
        return [f"{progress}, so there is nothing to report"]
    page = commands.report_folder / "report.html"
    if not _is_current(commands.report_folder, cells):
        worker.make_report(cells)
    return [f"{progress}; report: {page}"]


def _is_current(folder: Path, cells: Sequence[Path]) -> bool:
    """Whether the report was made from exactly these files."""
    try:
        reported = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["results"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return reported == {str(path): sha256_file(path) for path in cells}
