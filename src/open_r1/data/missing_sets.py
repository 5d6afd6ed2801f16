"""Names of data sets on the hub, and error messages for data sets that are missing."""

import os
import re
from dataclasses import dataclass

from open_r1.common.errors import UserError

_HUB_NAME = re.compile(r"(?P<repository>\w[\w.-]*/\w[\w.-]*)(?::(?P<folder>\w[\w./-]*))?(?:@(?P<revision>\w[\w./-]*))?")


OFFLINE = "HF_HUB_OFFLINE is set"


@dataclass(frozen=True)
class HubName:
    """A data set on the hub: `org/name`, `org/name:folder`, and with `@revision` a branch, a tag or a commit."""

    repository: str
    folder: str | None = None
    """The folder of one set in a repository with several; the configuration in the hub's words."""
    revision: str | None = None


def hub_name(name: str | os.PathLike) -> HubName | None:
    """The set on the hub that a name means; None for a name that is a file or folder here, or should be one."""
    match = _HUB_NAME.fullmatch(os.fspath(name))
    if match is None or os.path.exists(os.fspath(name)) or os.path.isdir(match["repository"].partition("/")[0]):
        return None
    return HubName(**match.groupdict())


def require_data(flag: str, name: str) -> None:
    """Refuse a data set that is not on this disk. One of the hub is looked for later, unless there is no network.

    Raises:
        UserError: it is missing; the message says how to get it.
    """
    if os.path.exists(name):  # which is False of any name, however long
        return
    on_hub = hub_name(name)
    if on_hub is None:
        raise UserError(f"{flag} {missing_data(name)}")
    from huggingface_hub import constants  # a tenth of a second, which only such a name costs

    cached = os.path.join(constants.HF_HUB_CACHE, f"datasets--{on_hub.repository.replace('/', '--')}")
    if constants.HF_HUB_OFFLINE and not os.path.isdir(cached):
        raise UserError(f"{flag} {unreachable(name, on_hub, OFFLINE)}")


def missing_data(name: str | os.PathLike) -> str:
    """`X is not there` and what to do."""
    return (
        f"{os.fspath(name)} is not there; give a folder that scripts/prepare_omnimedvqa.py or scripts/data_prepare.py "
        "made, a saved DatasetDict, a JSON, JSON Lines or Parquet file, a folder of such files, or a set of the hub as "
        "org/name"
    )


def unreachable(name: str, on_hub: HubName, reason: str) -> str:
    """Why a set of the hub cannot be had, and how to bring it here by hand."""
    folder = f"data/{on_hub.repository.partition('/')[2]}"
    return (
        f"{name} is not there, and it cannot be fetched from the hub ({reason}): where there is a network, "
        f"`hf download {on_hub.repository} --repo-type dataset --local-dir {folder}` fetches it; then give {folder} "
        "in its place"
    )
