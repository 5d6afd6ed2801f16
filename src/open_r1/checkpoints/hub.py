"""Downloads a checkpoint's files from the hub; an interrupted download continues where it stopped.

Only safetensors, JSON, text and chat template files are fetched: no pickles, optimizer states or code. huggingface_hub
1.33 resumes a file within one download, but a new download starts it again: each names its unfinished file at random.
Therefore the weights are fetched here, with the hub's client, into files named after their SHA-256, which is checked.
`snapshot_download` fetches the other files and finds the weights in place.
"""

import errno
import fcntl
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from open_r1.checkpoints.weight_files import pickle_refusal, pickles_among
from open_r1.common.atomic_files import disk_errors, sha256_file
from open_r1.common.errors import UserError
from open_r1.vocabulary.releases import HUB_REPOSITORY, matrix

WEIGHTS_KIND = ".safetensors"
_TEXTS = ("*.json", "*.txt", "*.jinja")
_ENOUGH = 1.02  # of the bytes to fetch must be free


def download_patterns(subfolder: str | None) -> tuple[list[str], list[str]]:
    """(allow, ignore) patterns for one checkpoint of a repository. The hub's `*` matches `/` too."""
    prefix = f"{subfolder}/" if subfolder else ""
    return [f"{prefix}{kind}" for kind in (f"*{WEIGHTS_KIND}", *_TEXTS)], [f"{prefix}*/*"]


@dataclass(frozen=True)
class RemoteFile:
    """A file of a checkpoint on the hub."""

    name: str  # within the repository
    size: int  # bytes
    commit: str
    place: Path  # where it belongs here
    is_here: bool


@dataclass(frozen=True)
class Plan:
    """The files of a checkpoint on the hub, and which of them are still to be fetched."""

    repo: str
    subfolder: str | None
    files: list[RemoteFile]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    @property
    def missing(self) -> int:
        """Bytes that are not here; those of an unfinished file count as missing."""
        return sum(file.size for file in self.files if not file.is_here)


def download(repo: str, subfolder: str | None, local_dir: str | None = None) -> Path:
    """The folder of a checkpoint; missing files are fetched first.

    Without a network the hub's cache, or `local_dir`, must hold all files.

    Args:
        repo: `org/name` on the hub.
        subfolder: the checkpoint's folder in it; None is the root.
        local_dir: where to put the files instead of the cache, with their folders.

    Raises:
        UserError: the checkpoint does not exist, has only pickles, does not fit on the disk, or is incomplete here
            and there is no network.
    """
    plan = plan_download(repo, subfolder, local_dir)
    if plan is not None:
        require_room(plan.missing, _existing(Path(plan.files[0].place)))
        _fetch_weights(plan)
    return fetch_texts(repo, subfolder, local_dir, hub_answers=plan is not None)


def plan_download(repo: str, subfolder: str | None, local_dir: str | None = None) -> Plan | None:
    """What `download` will do; None if the hub does not answer (no network, no access, no such repository).

    Raises:
        UserError: the repository has no checkpoint files, or its weights are only pickles.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import DryRunError
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    allow, ignore = download_patterns(subfolder)
    quiet = are_progress_bars_disabled()
    disable_progress_bars()
    try:
        with hub_errors(repo, subfolder):
            try:
                remote_files = snapshot_download(
                    repo, allow_patterns=allow, ignore_patterns=ignore, local_dir=local_dir, dry_run=True
                )
            except DryRunError:
                return None
    finally:
        if not quiet:
            enable_progress_bars()
    files = [
        RemoteFile(
            remote.filename,
            remote.file_size or 0,
            remote.commit_hash,
            Path(remote.local_path),
            not remote.will_download,
        )
        for remote in remote_files
    ]
    if not any(file.name.endswith(WEIGHTS_KIND) for file in files):
        _refuse_without_weights(repo, subfolder, bool(files))
    return Plan(repo, subfolder, files)


def _refuse_without_weights(repo: str, subfolder: str | None, holds_texts: bool) -> None:
    """Raise a `UserError` that says why no weights can be fetched. Nothing has been downloaded."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import EntryNotFoundError

    names: list[str] = []
    with hub_errors(repo, subfolder), suppress(EntryNotFoundError):
        names = [Path(entry.path).name for entry in HfApi().list_repo_tree(repo, path_in_repo=subfolder)]
    if pickles := pickles_among(names):
        raise UserError(pickle_refusal(shown(repo, subfolder), pickles))
    if subfolder and not names:
        raise UserError(f"{repo} has no folder {subfolder}{_other_names(repo)}")
    content = "JSON but no weights" if holds_texts else "no checkpoint files"
    raise UserError(f"{shown(repo, subfolder)} holds {content}{_other_names(repo)}")


def require_room(size: int, folder: Path) -> None:
    """Refuse a download that the disk cannot hold.

    Args:
        size: bytes to download.
        folder: an existing folder on the target disk.
    """
    free = shutil.disk_usage(folder).free
    if size * _ENOUGH > free:
        raise UserError(
            f"{in_gigabytes(size)} are to be fetched and {in_gigabytes(free)} are free at {folder}; make room, or name "
            "another place with --local_dir or the environment variable HF_HOME"
        )


def _existing(path: Path) -> Path:
    return next(folder for folder in path.absolute().parents if folder.is_dir())


def in_gigabytes(size: int) -> str:
    """A size as text, in powers of ten as on the hub."""
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.2f} MB"


def _fetch_weights(plan: Plan) -> None:
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    for file in plan.files:
        if file.is_here or not file.name.endswith(WEIGHTS_KIND):
            continue
        with hub_errors(plan.repo, plan.subfolder):
            url = hf_hub_url(plan.repo, file.name, revision=file.commit)
            digest = get_hf_file_metadata(url).etag or ""
            if len(digest) == 64:  # a SHA-256; a small file that lies in git itself has another kind of mark
                _fetch(url, digest, file)


def _fetch(url: str, digest: str, file: RemoteFile) -> None:
    """Fetch one file, or its missing end, and move it into place if its SHA-256 is right.

    If several processes need the same file, one fetches it and the others wait.
    """
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

    final = _place(file, digest)
    partial = final.with_name(f".{digest}.part")
    with disk_errors(final):
        final.parent.mkdir(parents=True, exist_ok=True)
        with open(partial, "ab") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            if final.exists():
                partial.unlink(missing_ok=True)
                return
            if handle.tell() > file.size:
                handle.truncate(0)
                handle.seek(0)
            if handle.tell():
                print(f"{file.name}: resuming after {in_gigabytes(handle.tell())} of {in_gigabytes(file.size)}")
            http_get(
                url,
                handle,
                resume_size=handle.tell(),
                headers=build_hf_headers(),
                expected_size=file.size,
                displayed_filename=file.name,
            )
            handle.flush()
            os.fsync(handle.fileno())
            if sha256_file(partial) != digest:
                partial.unlink()
                raise UserError(
                    f"{file.name} was damaged in the download (its SHA-256 differs from the hub's) and was removed; "
                    "run the same command again"
                )
            os.replace(partial, final)


def _place(file: RemoteFile, digest: str) -> Path:
    """The path where huggingface_hub looks for a file: `blobs/<SHA-256>` in its cache, or its place in `local_dir`."""
    above = Path(file.place).parents
    commit = len(Path(file.name).parts) - 1
    if len(above) > commit + 2 and above[commit + 1].name == "snapshots" and above[commit].name == file.commit:
        return above[commit + 2] / "blobs" / digest
    return file.place


def fetch_texts(
    repo: str, subfolder: str | None, local_dir: str | None = None, weights: bool = True, hub_answers: bool = True
) -> Path:
    """The folder of a checkpoint, after fetching the small files; fetched weights are linked into it.

    Args:
        repo: `org/name` on the hub.
        subfolder: the checkpoint's folder in it.
        local_dir: where to put the files instead of the cache.
        weights: False leaves them out, for a processor.
        hub_answers: whether the hub has answered, so that a missing folder does not exist there either.

    Raises:
        UserError: as `download`.
    """
    from huggingface_hub import is_offline_mode, snapshot_download

    allow, ignore = download_patterns(subfolder)
    if not weights:
        ignore = [*ignore, f"*{WEIGHTS_KIND}"]
    with hub_errors(repo, subfolder):
        root = Path(snapshot_download(repo, allow_patterns=allow, ignore_patterns=ignore, local_dir=local_dir))
    folder = root / subfolder if subfolder else root
    if not folder.is_dir():
        is_off = is_offline_mode()
        if hub_answers and not is_off:
            raise UserError(f"{repo} has no folder {subfolder}{_other_names(repo)}")
        reason = "HF_HUB_OFFLINE switches the hub off" if is_off else "the hub cannot be reached"
        raise UserError(
            f"{shown(repo, subfolder)} is not in the hub's cache here ({root}), and {reason}, so it is unknown whether "
            f"it exists; with a network run: python -m open_r1.checkpoints fetch {shown(repo, subfolder)}"
            f"{'' if shown(repo, subfolder) in released_names() else _other_names(repo)}"
        )
    return folder


@contextmanager
def hub_errors(repo: str, subfolder: str | None) -> Iterator[None]:
    """Turn what the hub's client raises into one line with the remedy."""
    from huggingface_hub.errors import (
        DryRunError,
        EntryNotFoundError,
        GatedRepoError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    name = shown(repo, subfolder)
    try:
        yield
    except (UserError, DryRunError):
        raise
    except GatedRepoError as error:
        raise UserError(f"{name} is gated: accept its terms on the hub and run `hf auth login`") from error
    except RepositoryNotFoundError as error:
        raise UserError(f"{repo} is not on the hub, or private: check the spelling, or `hf auth login`") from error
    except LocalEntryNotFoundError as error:
        raise UserError(
            f"{name} is neither a folder here nor wholly in the hub's cache, and the hub cannot be reached; with a "
            f"network run: python -m open_r1.checkpoints fetch {name} (and unset HF_HUB_OFFLINE)"
        ) from error
    except EntryNotFoundError as error:
        raise UserError(f"{name} holds no checkpoint files{_other_names(repo)}") from error
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise UserError(f"the disk is full while fetching {name}; make room and run the same command again") from (
                error
            )
        raise UserError(f"cannot fetch {name}: {one_line(error)}") from error
    except ValueError as error:
        raise UserError(f"{name} is not a valid name on the hub: {one_line(error)}") from error
    except Exception as error:
        if not type(error).__module__.startswith("httpx"):
            raise
        raise UserError(
            f"the connection broke while fetching {name} ({one_line(error)}); the part that was fetched is kept: run "
            "the same command again to continue"
        ) from error


def shown(repo: str, subfolder: str | None) -> str:
    """A checkpoint's name as the user writes it."""
    return f"{repo}:{subfolder}" if subfolder else repo


def released_names() -> Sequence[str]:
    """The 26 released checkpoints, as the user writes them."""
    return [run.checkpoint for run in matrix()]


def _other_names(repo: str) -> str:
    return f"; known are: {', '.join(released_names())}" if repo == HUB_REPOSITORY else ""


def one_line(error: BaseException) -> str:
    """An exception's message without line breaks, at most 300 characters."""
    return " ".join(str(error).split())[:300]
