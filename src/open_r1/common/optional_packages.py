"""vLLM is an extra: who asks for it without having it is told before anything is loaded."""

import importlib.util

from open_r1.common.errors import UserError


def require_vllm(asked: str, instead: str) -> None:
    """Raise a `UserError` unless vLLM is installed.

    Args:
        asked: the flag that wants it.
        instead: what to do without it.
    """
    if importlib.util.find_spec("vllm") is None:
        raise UserError(f"{asked}: vllm is not installed; pip install '.[vllm]' on a machine with a GPU, or {instead}")
