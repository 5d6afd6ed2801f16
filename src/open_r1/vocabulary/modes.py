"""The modes: what form of answer the prompt asks for."""

from enum import StrEnum


class Mode(StrEnum):
    """The form of a completion: thoughts first, no thoughts, or the answer first and thoughts after.

    `direct`, the letter alone, is for models that were not trained here and is available in evaluation only.
    """

    THINK = "think"
    NOTHINK = "nothink"
    THINK_AFTER = "think_after"
    DIRECT = "direct"

    @property
    def is_trained(self) -> bool:
        """Whether a model can be trained in this mode."""
        return self is not Mode.DIRECT
