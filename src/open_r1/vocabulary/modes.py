"""The modes in which a model is asked to answer."""

from enum import StrEnum


class Mode(StrEnum):
    """What a completion has to look like: thoughts first, no thoughts, or the answer first and thoughts after.

    `direct`, the letter alone, is for models that were not trained here: evaluation knows it, training does not.
    """

    THINK = "think"
    NOTHINK = "nothink"
    THINK_AFTER = "think_after"
    DIRECT = "direct"

    @property
    def is_trained(self) -> bool:
        """Whether a model can be trained to it."""
        return self is not Mode.DIRECT
