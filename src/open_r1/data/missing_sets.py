"""Error messages for data sets that are missing."""

import os
import re

from open_r1.common.errors import UserError

_HUB_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*")


def require_data(flag: str, name: str) -> None:
    """Refuse a data set that is not on this disk.

    Raises:
        UserError: it is missing; the message says how to get it.
    """
    if not os.path.exists(name):  # which is False of any name, however long
        raise UserError(f"{flag} {missing_data(name)}")


def missing_data(name: str | os.PathLike) -> str:
    """`X is not there` and what to do; for a name like a data set's on the hub, how to download it."""
    text = os.fspath(name)
    if _HUB_NAME.fullmatch(text) and not os.path.isdir(text.partition("/")[0]):
        return (
            f"{text} is not there, and data sets are not downloaded from the hub: `hf download {text} --repo-type "
            f"dataset --local-dir data/{text.partition('/')[2]}` does it; data/README.md says how to prepare it"
        )
    return (
        f"{text} is not there; give a folder that scripts/prepare_omnimedvqa.py or scripts/data_prepare.py made, "
        "a saved DatasetDict, or a JSON file"
    )
