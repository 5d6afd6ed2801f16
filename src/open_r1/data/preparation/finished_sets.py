"""Prepared sets: the folder of unfinished work, the manifest of a complete set, and what it was made with."""

import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from open_r1.common.atomic_files import (
    MANIFEST,
    disk_errors,
    read_manifest,
    refuse_foreign,
    sha256_file,
    write_json,
)
from open_r1.common.errors import UserError
from open_r1.common.locks import claimed
from open_r1.data.images import ImageError, resolve

UNPACKED = "images"
"""Folder of images whose bytes stood in rows, within a folder of unfinished work."""

_PACKAGES = ("pillow", "pyarrow", "datasets")  # whose versions decide the bytes


@contextmanager
def unfinished_work(output_dir: Path, stage: Path, encoded: str) -> Iterator[None]:
    """The folder `stage` within the block, for this process alone; removed at its end.

    After an error of the user, a full disk among them, the encoded images in it stay for the next run.

    Args:
        output_dir: claimed meanwhile.
        stage: below it.
        encoded: name of the folder in it that holds encoded images.
    """
    with claimed(output_dir):
        with disk_errors(output_dir):
            stage.mkdir(exist_ok=True)
        try:
            yield
        except (OSError, UserError):
            is_kept = _keep_images(stage, encoded)
            state = f"the images encoded so far stay in {stage} for the same command"
            with disk_errors(output_dir, state if is_kept else "no incomplete output was left"):
                raise
        shutil.rmtree(stage, ignore_errors=True)


def _keep_images(stage: Path, encoded: str) -> bool:
    """Remove what the next run makes anew: everything but images that were encoded or unpacked; returns if any were."""
    for leftover in stage.iterdir():
        if leftover.name not in (encoded, UNPACKED) or not any(leftover.iterdir()):
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
    is_kept = any(stage.iterdir())
    if not is_kept:
        stage.rmdir()
    return is_kept


def write_manifest(stage: Path, content: Mapping[str, Any], hashes: Mapping[Path, str]) -> None:
    """Write the manifest of a set, after everything else in its folder.

    Args:
        stage: the folder, complete but for the manifest.
        content: `version`, `settings`, `inputs`, `report` and what else is worth keeping.
        hashes: SHA-256 of files that need not be read again.
    """
    outputs = {
        str(path.relative_to(stage)): {"sha256": hashes.get(path) or sha256_file(path), "bytes": path.stat().st_size}
        for path in sorted(stage.rglob("*"))
        if path.is_file()
    }
    packages = {name: metadata.version(name) for name in _PACKAGES}
    write_json(stage / MANIFEST, {**content, "packages": packages, "outputs": outputs})


def finished_manifest(folder: Path, remedy: str = "remove it to build it anew") -> dict[str, Any] | None:
    """The manifest of a complete set whose files are all there; None if the set is still to be built.

    Raises:
        UserError: the folder holds something else, or a file of the set is missing or of another size.
    """
    refuse_foreign(folder)
    manifest = read_manifest(folder)
    for name, stored in (manifest or {}).get("outputs", {}).items():
        if not (folder / name).is_file() or (folder / name).stat().st_size != stored["bytes"]:
            raise UserError(f"{folder} is damaged ({name}); {remedy}")
    return manifest


def refuse_differences(
    folder: Path, expected: Mapping[str, Any], recorded: Mapping[str, Any], remedy: str = "remove it to build it anew"
) -> None:
    """Refuse a complete set that was made with other settings or inputs.

    Raises:
        UserError: names every difference between what is `expected` now and what the manifest has `recorded`.
    """
    differences = [
        f"{key} (was {recorded.get(key)!s:.20}, is {value!s:.20})"
        for key, value in expected.items()
        if recorded.get(key) != value
    ]
    if differences:
        raise UserError(
            f"{folder} was made with other settings or inputs: {', '.join(differences)}; {remedy}, or choose another "
            "--output_dir"
        )


def digest_of(lines: Iterable[str]) -> str:
    """SHA-256 of lines, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line.encode() + b"\n")
    return digest.hexdigest()


def size_of(reference: str, root: Path) -> int:
    """Bytes of the image file that a reference names below a root; -1 if there is none."""
    try:
        return os.stat(resolve(reference, root)).st_size
    except (ImageError, OSError):
        return -1
