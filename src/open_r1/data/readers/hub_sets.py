"""Data sets of the hub by name: the Parquet or JSON files of one split are fetched into the hub's cache.

Nothing but data files is fetched: no code of a repository is ever run, and the files are read like those of a folder. A
set that has none of them is read from the Parquet files into which the hub converts every set. Images that rows of JSON
files name are not fetched: such a set is downloaded as a whole.
"""

import glob
from dataclasses import dataclass
from pathlib import Path, PurePath

from open_r1.common.errors import UserError
from open_r1.data.missing_sets import OFFLINE, HubName, unreachable
from open_r1.data.readers.file_layout import data_files, files_in, files_of_split

CONVERTED = "refs/convert/parquet"
"""The revision of a set that holds the hub's own Parquet files of it."""

_commits: dict[str, str] = {}


@dataclass(frozen=True)
class FetchedSplit:
    """The files of one split on this disk."""

    folder: Path
    """Of the set, at one commit."""
    split: str
    files: list[Path]


def commit_of(name: str) -> str | None:
    """The commit of a set of the hub that this process has read; None for any other set."""
    return _commits.get(name)


def fetch_split(name: str, wanted: HubName, split: str | None) -> FetchedSplit:
    """Fetch the files of one split. Without a network those in the hub's cache are taken.

    Args:
        name: as the user wrote it.
        wanted: what it means.
        split: to read; None for the only one.

    Raises:
        UserError: the set, the split or the network is not there.
    """
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    if constants.HF_HUB_OFFLINE:
        return _cached(name, wanted, split, OFFLINE)
    try:
        return _fetched(name, wanted, split)
    except HFValidationError as error:
        raise UserError(f"{name} is no name of a set on the hub: {_line(error)}") from None
    except HfHubHTTPError as error:
        raise UserError(unreachable(name, wanted, _refusal(error))) from None
    except Exception as error:
        if not (isinstance(error, OSError) or type(error).__module__.startswith("httpx")):
            raise
        return _cached(name, wanted, split, _line(error))  # no connection


def _fetched(name: str, wanted: HubName, split: str | None) -> FetchedSplit:
    from huggingface_hub import snapshot_download

    revision = wanted.revision
    files = data_files(_inside(_names(wanted, revision), wanted.folder))
    if not files and revision is None:
        revision = CONVERTED
        files = data_files(_inside(_names(wanted, revision), wanted.folder))
    if not files:
        place = f"the folder {wanted.folder} of {wanted.repository}" if wanted.folder else wanted.repository
        raise UserError(f"{place} holds no Parquet or JSON files on the hub; prepare the set, and give its folder")
    chosen, of_split = files_of_split(name, files, split)
    prefix = PurePath(wanted.folder or "")
    patterns = [glob.escape(str(prefix / file)) for file in of_split]
    # By the revision, not by its commit: then the cache knows without a network which commit it was.
    folder = Path(snapshot_download(wanted.repository, repo_type="dataset", revision=revision, allow_patterns=patterns))
    _commits[name] = folder.name
    return FetchedSplit(folder / prefix, chosen, [folder / prefix / file for file in of_split])


def _names(wanted: HubName, revision: str | None) -> list[PurePath]:
    """The names of the files of a revision; none if the hub has not converted the set."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RevisionNotFoundError

    try:
        names = HfApi().list_repo_files(wanted.repository, repo_type="dataset", revision=revision)
    except RevisionNotFoundError:
        if revision != CONVERTED:
            raise
        return []
    return [PurePath(name) for name in names]


def _inside(paths: list[PurePath], folder: str | None) -> list[PurePath]:
    """The paths below a folder, relative to it."""
    return [path.relative_to(folder or "") for path in paths if folder is None or path.is_relative_to(folder)]


def _cached(name: str, wanted: HubName, split: str | None, reason: str) -> FetchedSplit:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, IncompleteSnapshotError, LocalEntryNotFoundError

    for revision in (wanted.revision, CONVERTED):
        try:
            place = snapshot_download(wanted.repository, repo_type="dataset", revision=revision, local_files_only=True)
        except IncompleteSnapshotError as error:  # only the files of some splits were fetched
            place = error.snapshot_path
        except (LocalEntryNotFoundError, HFValidationError):
            continue
        folder = Path(place) / (wanted.folder or "")
        if files := files_in(folder):
            chosen, of_split = files_of_split(name, files, split)
            _commits[name] = Path(place).name
            return FetchedSplit(folder, chosen, [folder / file for file in of_split])
    raise UserError(unreachable(name, wanted, reason))


def _refusal(error: Exception) -> str:
    """What the hub's answer means."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    if isinstance(error, GatedRepoError):
        return "it is gated: accept its terms on the hub and run `hf auth login`"
    if isinstance(error, RepositoryNotFoundError):
        return "there is no such set, or it is private: check the spelling, or run `hf auth login`"
    if isinstance(error, RevisionNotFoundError):
        return "it has no such revision"
    return _line(error)


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
