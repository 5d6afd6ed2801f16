"""All prompt texts. Training and evaluation build their messages only here.

The wordings of `think`, `nothink` and `readme` are Med-R1's, byte for byte: the released checkpoints were trained on
the first two, and the third is in its README. The wordings of `think_after`, which was never published, and of
`direct` are ours.
"""

from typing import Any

from open_r1.common.errors import UserError
from open_r1.vocabulary.modes import Mode

_PLACEHOLDER = "{Question}"

# One template per mode; `{Question}` is the problem as in the data, options included.
TRAIN: dict[Mode, str] = {
    Mode.THINK: (
        "{Question} Your task: 1. Think through the question step by step, enclose your reasoning process in "
        "<think>...</think> tags. 2. Then provide the correct single-letter choice (A, B, C, D,...) inside "
        "<answer>...</answer> tags. 3. No extra information or text outside of these tags."
    ),
    Mode.NOTHINK: (
        "{Question} Your task: 1. Provide the correct single-letter choice (A, B, C, D,...) inside "
        "<answer>...</answer> tags. 2. No extra information or text outside of this tag."
    ),
    Mode.THINK_AFTER: (
        "{Question} Your task: 1. Provide the correct single-letter choice (A, B, C, D,...) inside "
        "<answer>...</answer> tags. 2. Then explain step by step why this choice is correct, enclose your "
        "explanation in <think>...</think> tags. 3. No extra information or text outside of these tags."
    ),
}

# What `--prompt` can select in evaluation.
NAMED: dict[str, str] = {
    "train-think": TRAIN[Mode.THINK],
    "train-nothink": TRAIN[Mode.NOTHINK],
    "train-think-after": TRAIN[Mode.THINK_AFTER],
    "readme": (
        "{Question} First output the thinking process in <think> </think> and final choice (A, B, C, D ...) in "
        "<answer> </answer> tags."
    ),
    "direct": "{Question} Answer with the letter of the correct option and nothing else.",
}


def prompt_name(mode: Mode) -> str:
    """The name in `NAMED` of a mode's default prompt: the training prompt, or `direct`."""
    if not mode.is_trained:
        return mode.value
    return f"train-{mode.value.replace('_', '-')}"


def question_text(problem: str, mode: Mode, prompt: str | None = None) -> str:
    """The text of the user turn: the problem in the mode's training prompt, or in a named one.

    Raises:
        UserError: `prompt` is not in `NAMED`.
    """
    name = prompt_name(mode) if prompt is None else prompt
    if name not in NAMED:
        raise UserError(f"there is no prompt {name!r}; choose among: {', '.join(NAMED)}")
    return NAMED[name].replace(_PLACEHOLDER, problem)  # not str.format: a problem may hold braces


def build_messages(problem: str, mode: Mode, has_image: bool = True, prompt: str | None = None) -> list[dict[str, Any]]:
    """One user turn: the image first, then the text; no system turn.

    The image element is a placeholder; the image itself is passed to the processor with the messages. Without
    an image the content is a plain string, which chat templates of text models need and all others accept.

    Raises:
        UserError: `prompt` is not in `NAMED`.
    """
    text = question_text(problem, mode, prompt)
    content = [{"type": "image"}, {"type": "text", "text": text}] if has_image else text
    return [{"role": "user", "content": content}]
