"""Recognizes errors about a disk that cannot be written, whichever library raises them. Standard library only."""

import errno
import re

REFUSALS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file became larger than the system allows",
    errno.EROFS: "the file system is read-only",
}
# torch.save hides the system's error and reports a wrong file position instead
_TORCH = re.compile(r"inline_container|PytorchStreamWriter|iostream error")


def refused_write(error: BaseException | None) -> str | None:
    """Why the disk cannot be written, if an error or one of its causes means that; else None.

    Args:
        error: an OSError, or an error that safetensors, torch, pyarrow or datasets raise in its place.
    """
    visited_ids: set[int] = set()
    while error is not None and id(error) not in visited_ids:
        visited_ids.add(id(error))
        error_number = re.search(r"\(?os error (\d+)", str(error))  # in messages of safetensors
        number = error.errno if isinstance(error, OSError) else int(error_number[1]) if error_number else None
        if number in REFUSALS:
            return REFUSALS[number]
        if isinstance(error, RuntimeError) and _TORCH.search(str(error)):
            return "the disk cannot be written"
        error = error.__cause__ or error.__context__
    return None
