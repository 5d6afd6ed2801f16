"""`python -m open_r1.checkpoints fetch NAME ...`: checkpoints from the hub, whole, and nothing else."""

from collections.abc import Sequence
from pathlib import Path

from open_r1.checkpoints.folder import whole_name
from open_r1.checkpoints.hub import Plan, download, in_gigabytes, plan_download, released_names, require_room, shown
from open_r1.checkpoints.names import HUB_NAME
from open_r1.checkpoints.weight_files import weight_files
from open_r1.common.command_line import CommandParser
from open_r1.common.errors import UserError, run_command


def main(arguments: Sequence[str] | None = None) -> int:
    """Fetch what the command line names.

    Raises:
        UserError: a name that is none, or a checkpoint that cannot be had; the others have been fetched.
    """
    options = _parser().parse_args(arguments)
    names = list(dict.fromkeys([*options.names, *(released_names() if options.all else ())]))
    if not names:
        raise UserError("nothing to fetch: name a checkpoint (org/repo or org/repo:subfolder), or give --all")
    places = [_parsed(name) for name in names]
    plans: list[tuple[str, str | None, Plan | None]] = []
    lacking: list[str] = []
    for repo, subfolder in places:
        try:
            plans.append((repo, subfolder, plan_download(repo, subfolder, options.local_dir)))
        except UserError as error:
            if len(places) == 1:
                raise
            print(f"skipped: {error}")
            lacking.append(shown(repo, subfolder))
    known = [plan for _, _, plan in plans if plan is not None]
    if len(known) > 1:
        missing = sum(plan.missing for plan in known)
        print(f"{len(known)} checkpoints: {in_gigabytes(sum(p.size for p in known))}, {in_gigabytes(missing)} to fetch")
        require_room(missing, next(folder for folder in known[0].files[0].place.parents if folder.is_dir()))
    for repo, subfolder, _ in plans:
        print(_fetched(repo, subfolder, options.local_dir))
    if lacking:
        raise UserError(f"{len(lacking)} of {len(places)} could not be fetched: {', '.join(lacking)}")
    return 0


def _parser() -> CommandParser:
    parser = CommandParser(prog="python -m open_r1.checkpoints", description="Checkpoints on this disk.")
    fetch = parser.add_subparsers(required=True, metavar="fetch").add_parser(
        "fetch",
        help="bring checkpoints from the hub; killed at any time, the same command goes on",
        description="Bring checkpoints from the hub: safetensors, JSON, text and chat templates, nothing else. "
        "Killed at any time, the same command goes on.",
    )
    fetch.add_argument("names", nargs="*", metavar="NAME", help="org/repo or org/repo:subfolder")
    fetch.add_argument("--all", action="store_true", help="the 26 released Med-R1 checkpoints, about 155 GB")
    fetch.add_argument("--local_dir", help="put the files below this folder instead of the hub's cache (HF_HOME)")
    return parser


def _parsed(name: str) -> tuple[str, str | None]:
    hub = HUB_NAME.fullmatch(name)
    if hub is None:
        raise UserError(f"{name!r} is no name on the hub; write org/repo or org/repo:subfolder")
    if name == released_names()[0].partition(":")[0]:
        raise UserError(f"the root of {name} holds no model; name one of its folders, or all with --all: {_some()}")
    return hub["repo"], hub["subfolder"]


def _some() -> str:
    return ", ".join(released_names())


def _fetched(repo: str, subfolder: str | None, local_dir: str | None) -> str:
    """Fetch one, check it and say in one line where it lies."""
    folder = download(repo, subfolder, local_dir)
    weights = weight_files(folder, whole_name(folder))
    files = [path for path in folder.iterdir() if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    return (
        f"{shown(repo, subfolder)}: {in_gigabytes(size)} in {len(files)} files, weights complete "
        f"({len(weights)} safetensors), at {_for_people(folder)}"
    )


def _for_people(folder: Path) -> str:
    here = Path.cwd()
    return str(folder.relative_to(here)) if folder.is_relative_to(here) else str(folder)


if __name__ == "__main__":
    run_command(main)
