"""Finds the folder of a checkpoint by its name: a local folder, `org/repo` or `org/repo:subfolder`."""

import os
import re
from pathlib import Path

from open_r1.checkpoints.hub import download, fetch_texts, released_names
from open_r1.common.errors import UserError
from open_r1.vocabulary.releases import HUB_REPOSITORY

ADAPTER = "adapter_config.json"
HUB_NAME = re.compile(r"(?P<repo>\w[\w.-]*/\w[\w.-]*)(?::(?P<subfolder>\w[\w.-]*(?:/\w[\w.-]*)*))?")


def model_source(name: str | os.PathLike) -> Path:
    """The local folder of a checkpoint, downloaded from the hub first if `name` is not a folder.

    Only safetensors, JSON, text and chat template files are fetched: no pickles, no optimizer states, no code.
    Without a network (or with HF_HUB_OFFLINE=1) the hub's local cache is used.

    Raises:
        UserError: the folder or repository does not exist or holds no checkpoint, or it is not in the cache and
            there is no network.
    """
    name = os.fspath(name)
    folder = local_source(name)
    if folder is not None:
        return folder
    repo, _, subfolder = name.partition(":")
    return _require_config(download(repo, subfolder or None), name)


def local_source(name: str) -> Path | None:
    """The folder of a checkpoint on this disk; None for a name on the hub. Nothing is downloaded.

    Raises:
        UserError: the folder does not exist or holds no checkpoint, or the name on the hub names no checkpoint.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return _require_config(folder, name)
    if folder.exists():
        raise UserError(f"{name} is a file; a checkpoint is a folder with config.json and safetensors in it")
    hub = HUB_NAME.fullmatch(name)
    if hub is None or _means_local(name):
        raise UserError(f"there is no checkpoint folder {name}; {_how_to_fetch(folder)}")
    repo, subfolder = hub["repo"], hub["subfolder"]
    if repo == HUB_REPOSITORY and subfolder is None:
        raise UserError(f"the root of {repo} holds no model; name one of its folders: {', '.join(released_names())}")
    return None


def _means_local(name: str) -> bool:
    """Whether a name is meant as a path: `./x/y`, `~/x`, `/x/y`, or `checkpoints/x` if that folder exists here."""
    return name.startswith((".", "~", os.sep)) or Path(name).parts[0] == "checkpoints" or Path(name).parent.is_dir()


def _how_to_fetch(folder: Path) -> str:
    if re.fullmatch(r"Qwen2(\.5)?-VL-\d+B-Instruct", folder.name):
        return f"fetch it with: hf download Qwen/{folder.name} --local-dir {folder}"
    return "checkpoints/README.md says how to fetch each; a name on the hub is org/repo or org/repo:subfolder"


def _require_config(folder: Path, name: str) -> Path:
    if (folder / "config.json").is_file() or (folder / ADAPTER).is_file():
        return folder
    below = sorted(str(path.parent.relative_to(folder)) for path in folder.glob("*/config.json"))
    below += sorted(str(path.parent.relative_to(folder)) for path in folder.glob("*/*/config.json"))
    hint = f"; it has checkpoints below it: {', '.join(below)}" if below else "; is it a checkpoint folder?"
    raise UserError(f"{name} holds no config.json{hint}")


def processor_folder(name: str) -> Path:
    """Like `model_source`, but the folder needs only a processor, not a model.

    Raises:
        UserError: the folder or repository does not exist.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    hub = HUB_NAME.fullmatch(name)
    if hub is None or _means_local(name):
        raise UserError(f"there is no folder {name} to take a processor from; {_how_to_fetch(folder)}")
    return fetch_texts(hub["repo"], hub["subfolder"], weights=False)
