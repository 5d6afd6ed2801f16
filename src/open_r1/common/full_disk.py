"""What an error says about a disk that takes no more, whichever library met it. Standard library only."""

import errno
import re

REFUSALS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file grew over the size that the system allows",
    errno.EROFS: "the file system is read-only",
}
# torch.save hides the system's error: of a file that it could not write on to, it knows a wrong position
_TORCH = re.compile(r"inline_container|PytorchStreamWriter|iostream error")


def refused_write(error: BaseException | None) -> str | None:
    """Why the disk takes no more, if that is what an error, or one behind it, means; None if it means something else.

    Args:
        error: an OSError, or what safetensors, torch, pyarrow or datasets have made of one.
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        hidden = re.search(r"\(?os error (\d+)", str(error))  # of safetensors
        number = error.errno if isinstance(error, OSError) else int(hidden[1]) if hidden else None
        if number in REFUSALS:
            return REFUSALS[number]
        if isinstance(error, RuntimeError) and _TORCH.search(str(error)):
            return "the disk takes no more"
        error = error.__cause__ or error.__context__
    return None
