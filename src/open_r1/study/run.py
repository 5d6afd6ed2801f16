"""scripts/run_matrix.py, from its flags to its exit status."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from open_r1.checkpoints.folder import fingerprint
from open_r1.checkpoints.names import local_source
from open_r1.common.errors import UserError
from open_r1.study.execution.cells import report_cells
from open_r1.study.execution.child_logs import failure_lines
from open_r1.study.execution.commands import Commands
from open_r1.study.execution.leases import Leases
from open_r1.study.execution.slurm import Cluster, has_ended, require_slurm
from open_r1.study.execution.study_file import begin_or_continue, make_manifest, read_study
from open_r1.study.execution.time_left import Forecast, plan_lines
from open_r1.study.execution.worker import INTERRUPTED, Stop, Stopped, Worker
from open_r1.study.planning.flags import StudyFlags, read_flags
from open_r1.study.planning.plan import Item, Plan, make_plan
from open_r1.study.planning.preflight import check
from open_r1.study.planning.prepared_sets import DataSet, find_sets
from open_r1.study.planning.published import published_flags, step_notes
from open_r1.study.snakefile import snakefile

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
    on_slurm = flags.executor == "slurm"
    if on_slurm and not flags.dry_run and not flags.emit:
        require_slurm()
    if (flags.emit or on_slurm) and flags.secret_flags:
        raise UserError(
            f"{flags.secret_flags[0]} contains a secret, which everyone who can read the job's files would see; remove "
            "it and set the environment variable (HF_TOKEN for the hub), or log in with `hf auth login`"
        )
    sets, ignored_folders = find_sets(flags.data, flags.by)
    plan = make_plan(sets, flags.modes, flags.zero_shot, flags.sft)
    selected = plan.only(flags.only)
    items = _chosen_items(selected, flags.items)
    recorded_study = read_study(flags.output_dir)
    published = published_flags(plan.runs, flags, recorded_study)
    commands = Commands(script.resolve().parents[1], flags, published)
    flag_meanings = _check_flags(commands, plan, recorded_study)
    manifest = make_manifest(flags, plan, sets, flag_meanings, published)
    notes = [] if flags.dry_run or flags.emit else begin_or_continue(flags.output_dir, manifest)

    if flags.emit:
        print(snakefile(plan, selected, flags, script.resolve(), arguments), end="")
        return 0
    leases = Leases(flags.output_dir / "leases", flags.claim_timeout, job_ended=has_ended if on_slurm else None)
    forecast = Forecast(leases, flag_meanings, flags.nproc_per_node, plan.items)
    worker = Worker(commands, items, leases, forecast, Stop())
    # a copy, because the worker itself checks each item again when its turn comes
    preview = replace(worker, finished=set(), failures=[])
    preview.find_done()
    description_lines = [
        *_data_lines(flags, sets, ignored_folders),
        *_setting_lines(plan, published, flag_meanings, flags.nproc_per_node),
    ]
    for line in [*notes, *description_lines, *plan_lines(plan, selected, preview.finished, forecast)]:
        print(line, flush=True)
    if flags.dry_run:
        return 0
    if on_slurm:
        return _run_on_slurm(Cluster(worker, plan, flags.slurm), flags)
    return _run_worker(worker, plan, flags.items)


def _chosen_items(plan: Plan, names: Sequence[str]) -> list[Item]:
    """The items of a plan that --items names, or all."""
    items = [item for item in plan.items if not names or item.name in names]
    if unknown := set(names) - {item.name for item in items}:
        raise UserError(f"--items {min(unknown)}: no such item; choose among {', '.join(i.name for i in plan.items)}")
    return items


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


# -------------------------------------------------------------------------------------------------------------- running


def _run_worker(worker: Worker, plan: Plan, items: Sequence[str]) -> int:
    worker.stop.listen()
    try:
        worker.run()
        report_lines = [] if items else report_cells(worker, plan)
    except Stopped:
        print(CONTINUES, flush=True)
        return INTERRUPTED
    return _end(worker, report_lines)


def _run_on_slurm(cluster: Cluster, flags: StudyFlags) -> int:
    worker = cluster.worker
    try:
        live = cluster.start()
        if live and not flags.follow:
            print(f"{live} jobs wait or run; --follow shows their progress, scancel ends them", flush=True)
            return 0
        cluster.follow()
        return _end(worker, [] if flags.items else report_cells(worker, cluster.plan))
    except KeyboardInterrupt:
        print("not followed any longer, jobs go on; the same command continues", flush=True)
        return INTERRUPTED


def _end(worker: Worker, report_lines: Sequence[str]) -> int:
    lines = failure_lines(worker.failures, worker.interrupted, worker.items)
    for line in [*lines, *report_lines]:
        print(line, flush=True)
    if worker.failures:
        return 1
    if worker.interrupted:
        print(CONTINUES, flush=True)
        return INTERRUPTED
    return 0
