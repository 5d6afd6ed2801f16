"""What the rewards need to know beside the completions: their signature, how they read text, and their flags."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from open_r1.common.errors import UserError

Completion = str | Sequence[dict[str, Any]]
Reward = Callable[..., list[float]]


def completion_text(completion: Completion) -> str:
    """The text that the model wrote, from either form in which TRL hands it over."""
    if isinstance(completion, str):
        return completion
    content = completion[-1]["content"] if completion else ""
    if isinstance(content, str):
        return content
    return "".join(part.get("text") or "" for part in content)


@dataclass(kw_only=True)
class RewardSettings:
    """The flags of the rewards `cosine` and `repetition`; defaults are Open-R1's."""

    cosine_max_len: int | None = field(
        default=None,
        metadata={"help": "Reward cosine: length in tokens at which it bottoms out (default: max_completion_length)."},
    )
    cosine_max_value_correct: float = field(default=1.0, metadata={"help": "Reward cosine: shortest right answer."})
    cosine_min_value_correct: float = field(default=0.5, metadata={"help": "Reward cosine: longest right answer."})
    cosine_min_value_wrong: float = field(default=0.0, metadata={"help": "Reward cosine: shortest wrong answer."})
    cosine_max_value_wrong: float = field(default=-0.5, metadata={"help": "Reward cosine: longest wrong answer."})
    repetition_n_grams: int = field(default=3, metadata={"help": "Reward repetition: words in a run that is counted."})
    repetition_max_penalty: float = field(
        default=-1.0, metadata={"help": "Reward repetition: what a completion earns that only repeats itself."}
    )

    def check(self) -> None:
        """Refuse settings that mean nothing.

        Raises:
            UserError: a length or a run below 1, or a penalty that is none.
        """
        if self.cosine_max_len is not None and self.cosine_max_len < 1:
            raise UserError(f"--cosine_max_len {self.cosine_max_len} leaves no length to scale by; give 1 or more")
        if self.repetition_n_grams < 1:
            raise UserError(f"--repetition_n_grams {self.repetition_n_grams} counts nothing; give 1 or more")
        if self.repetition_max_penalty > 0:
            raise UserError(
                f"--repetition_max_penalty {self.repetition_max_penalty} would pay for repeating; give <= 0"
            )


def _named(reward: Reward, name: str) -> Reward:
    """Under this name TRL logs a reward."""
    reward.__name__ = name
    return reward
