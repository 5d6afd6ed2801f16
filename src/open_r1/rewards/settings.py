"""Types, flags and helpers that all rewards share."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from open_r1.common.errors import UserError
from open_r1.grading.judge.endpoint import endpoint_of

Completion = str | Sequence[dict[str, Any]]
Reward = Callable[..., Sequence[Any]]
"""Takes completions and columns by keyword; returns a number, or None where it says nothing, for each completion."""
CORRECTNESS = ("accuracy", "medical_accuracy", "closed", "exact", "judge")
"""Names of the rewards that say whether an answer is right (1) or wrong; of several a run is judged by the first."""


def completion_text(completion: Completion) -> str:
    """The text of a completion, which TRL passes as a string or as messages."""
    if isinstance(completion, str):
        return completion
    content = completion[-1]["content"] if completion else ""
    if isinstance(content, str):
        return content
    return "".join(block.get("text") or "" for block in content)


@dataclass(kw_only=True)
class RewardSettings:
    """The flags of the rewards `cosine`, `repetition` and `judge`; defaults of the first two are Open-R1's."""

    cosine_max_len: int | None = field(
        default=None,
        metadata={
            "help": "Reward cosine: length in tokens from which it no longer changes (default: max_completion_length)."
        },
    )
    cosine_max_value_correct: float = field(
        default=1.0, metadata={"help": "Reward cosine: value of the shortest correct answer."}
    )
    cosine_min_value_correct: float = field(
        default=0.5, metadata={"help": "Reward cosine: value of the longest correct answer."}
    )
    cosine_min_value_wrong: float = field(
        default=0.0, metadata={"help": "Reward cosine: value of the shortest wrong answer."}
    )
    cosine_max_value_wrong: float = field(
        default=-0.5, metadata={"help": "Reward cosine: value of the longest wrong answer."}
    )
    repetition_n_grams: int = field(default=3, metadata={"help": "Reward repetition: n, the words per n-gram."})
    repetition_max_penalty: float = field(
        default=-1.0, metadata={"help": "Reward repetition: value of a completion that only repeats itself."}
    )

    judge: list[str] | None = field(
        default=None,
        metadata={
            "help": "Reward judge: address of an OpenAI-compatible server, and the model's name there.",
            "metavar": "URL MODEL",
        },
    )
    judge_cache: str | None = field(
        default=None, metadata={"help": "Reward judge: file of its verdicts (default: below ~/.cache/open-r1-med)."}
    )

    def check(self) -> None:
        """Refuse invalid settings.

        Raises:
            UserError: a length or n below 1, a positive penalty, or a judge that is no address and name.
        """
        if self.judge:
            endpoint_of(self.judge)
        if self.cosine_max_len is not None and self.cosine_max_len < 1:
            raise UserError(f"--cosine_max_len {self.cosine_max_len} is not a length in tokens; give 1 or more")
        if self.repetition_n_grams < 1:
            raise UserError(f"--repetition_n_grams {self.repetition_n_grams} is not a number of words; give 1 or more")
        if self.repetition_max_penalty > 0:
            raise UserError(
                f"--repetition_max_penalty {self.repetition_max_penalty} would reward repetition; give 0 or less"
            )


def with_name(reward: Reward, name: str) -> Reward:
    """Set the name under which TRL logs a reward."""
    reward.__name__ = name
    return reward
