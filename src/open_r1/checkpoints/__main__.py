"""`python -m open_r1.checkpoints fetch NAME ...`: downloads checkpoints from the hub and checks them."""

from collections.abc import Sequence
from pathlib import Path

from open_r1.checkpoints.folder import whole_name
from open_r1.checkpoints.hub import Plan, download, in_gigabytes, plan_download, released_names, require_room, shown
from open_r1.checkpoints.names import HUB_NAME
from open_r1.checkpoints.weight_files import weight_files
from open_r1.common.command_line import CommandParser
from open_r1.common.errors import UserError, run_command


def main(arguments: Sequence[str] | None = None) -> int:
    """Fetch the checkpoints on the command line.

    Raises:
        UserError: a name is invalid, or a checkpoint is not available; the others have been fetched.
    """
    options = _parser().parse_args(arguments)
    names = list(dict.fromkeys([*options.names, *(released_names() if options.all else ())]))
    if not names:
        raise UserError("nothing to fetch: name a checkpoint (org/repo or org/repo:subfolder), or give --all")
    checkpoints = [_parsed(name) for name in names]
    plans: list[tuple[str, str | None, Plan | None]] = []
    failed: list[str] = []
    for repo, subfolder in checkpoints:
        try:
            plans.append((repo, subfolder, plan_download(repo, subfolder, options.local_dir)))
        except UserError as error:
            if len(checkpoints) == 1:
                raise
            print(f"skipped: {error}")
            failed.append(shown(repo, subfolder))
    available = [plan for _, _, plan in plans if plan is not None]
    if len(available) > 1:
        missing = sum(plan.missing for plan in available)
        print(
            f"{len(available)} checkpoints: {in_gigabytes(sum(plan.size for plan in available))}, "
            f"{in_gigabytes(missing)} to fetch"
        )
        require_room(missing, next(folder for folder in available[0].files[0].place.parents if folder.is_dir()))
    for repo, subfolder, _ in plans:
        print(_fetched(repo, subfolder, options.local_dir))
    if failed:
        raise UserError(f"{len(failed)} of {len(checkpoints)} could not be fetched: {', '.join(failed)}")
    return 0


def _parser() -> CommandParser:
    parser = CommandParser(prog="python -m open_r1.checkpoints", description="Checkpoints on this disk.")
    fetch = parser.add_subparsers(required=True, metavar="fetch").add_parser(
        "fetch",
        help="download checkpoints from the hub; if it is interrupted, the same command continues",
        description="Download checkpoints from the hub: only safetensors, JSON, text and chat templates. "
        "If it is interrupted, the same command continues.",
    )
    fetch.add_argument("names", nargs="*", metavar="NAME", help="org/repo or org/repo:subfolder")
    fetch.add_argument("--all", action="store_true", help="the 26 released Med-R1 checkpoints, about 155 GB")
    fetch.add_argument("--local_dir", help="put the files below this folder instead of the hub's cache (HF_HOME)")
    return parser


def _parsed(name: str) -> tuple[str, str | None]:
    hub = HUB_NAME.fullmatch(name)
    if hub is None:
        raise UserError(f"{name!r} is not a name on the hub; write org/repo or org/repo:subfolder")
    if name == released_names()[0].partition(":")[0]:
        raise UserError(f"the root of {name} holds no model; name one of its folders, or all with --all: {_some()}")
    return hub["repo"], hub["subfolder"]


def _some() -> str:
    return ", ".join(released_names())


def _fetched(repo: str, subfolder: str | None, local_dir: str | None) -> str:
    """Fetch and check a checkpoint; returns a line with its size and folder."""
    folder = download(repo, subfolder, local_dir)
    weights = weight_files(folder, whole_name(folder))
    files = [path for path in folder.iterdir() if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    return (
        f"{shown(repo, subfolder)}: {in_gigabytes(size)} in {len(files)} files, weights complete "
        f"({len(weights)} safetensors), at {_for_people(folder)}"
    )


def _for_people(folder: Path) -> str:
    working_folder = Path.cwd()
    return str(folder.relative_to(working_folder)) if folder.is_relative_to(working_folder) else str(folder)


if __name__ == "__main__":
    run_command(main)
