"""vLLM is an optional package: a flag that needs it is refused before anything is loaded."""

import importlib.util

from open_r1.common.errors import UserError


def require_vllm(flag: str, alternative: str) -> None:
    """Raise a `UserError` unless vLLM is installed.

    Args:
        flag: the flag that needs it.
        alternative: what to do without it.
    """
    if importlib.util.find_spec("vllm") is None:
        raise UserError(
            f"{flag}: vllm is not installed; pip install '.[vllm]' on a machine with a GPU, or {alternative}"
        )
