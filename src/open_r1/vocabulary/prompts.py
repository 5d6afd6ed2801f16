"""All prompt texts. Training and evaluation build their messages only here.

The wordings of `think`, `nothink` and `readme` for questions of choice are Med-R1's, byte for byte: the released
checkpoints were trained on the first two, and the third is in its README. The wordings of `think_after`, which was
never published, of `direct`, and all those for closed and open questions, whose answer is no letter, are ours.
"""

import re
from collections.abc import Iterable, Mapping
from itertools import count
from typing import Any

from open_r1.common.errors import UserError
from open_r1.vocabulary.answer_types import AnswerType
from open_r1.vocabulary.modes import Mode

_PLACEHOLDER = "{Question}"

IMAGE_MARK = "<image>"
"""An image stands in place of this mark in a problem; without marks the images come first."""

_NUMBERED_MARK = re.compile(r"<image#\d+>")

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

# The same prompts for questions whose answer is no letter; `{Answer}` is what ANSWERS says of the answer type.
_WITHOUT_LETTERS: dict[str, str] = {
    "train-think": (
        "{Question} Your task: 1. Think through the question step by step, enclose your reasoning process in "
        "<think>...</think> tags. 2. Then provide the correct answer, {Answer}, inside <answer>...</answer> tags. "
        "3. No extra information or text outside of these tags."
    ),
    "train-nothink": (
        "{Question} Your task: 1. Provide the correct answer, {Answer}, inside <answer>...</answer> tags. "
        "2. No extra information or text outside of this tag."
    ),
    "train-think-after": (
        "{Question} Your task: 1. Provide the correct answer, {Answer}, inside <answer>...</answer> tags. "
        "2. Then explain step by step why this answer is correct, enclose your explanation in <think>...</think> "
        "tags. 3. No extra information or text outside of these tags."
    ),
    "readme": (
        "{Question} First output the thinking process in <think> </think> and the final answer, {Answer}, in "
        "<answer> </answer> tags."
    ),
    "direct": "{Question} Answer with {Answer} and nothing else.",
}

ANSWERS: dict[AnswerType, str] = {
    AnswerType.CLOSED: "yes, no or one of the words that the question offers",
    AnswerType.OPEN: "a word, a number or a short phrase",
}
"""What the answer of a question without letters is, in the words of the prompts."""


def prompt_name(mode: Mode) -> str:
    """The name in `NAMED` of a mode's default prompt: the training prompt, or `direct`."""
    if not mode.is_trained:
        return mode.value
    return f"train-{mode.value.replace('_', '-')}"


def wording(mode: Mode, prompt: str | None = None, answer_type: AnswerType = AnswerType.CHOICE) -> str:
    """The text of a prompt with `{Question}` in place of the problem.

    Args:
        mode: the form of the completion.
        prompt: a name in `NAMED`; None for the training prompt of the mode.
        answer_type: of the question.

    Raises:
        UserError: `prompt` is not in `NAMED`.
    """
    name = prompt_name(mode) if prompt is None else prompt
    if name not in NAMED:
        raise UserError(f"there is no prompt {name!r}; choose among: {', '.join(NAMED)}")
    if answer_type is AnswerType.CHOICE:
        return NAMED[name]
    return _WITHOUT_LETTERS[name].replace("{Answer}", ANSWERS[answer_type])


def recorded_prompt(mode: Mode, prompt: str | None, answer_types: Iterable[str]) -> tuple[str, str]:
    """Name and wording of the prompts of a set, for its record; one of each for every answer type in it.

    The name of a question of choice is that in `NAMED`; those of the others end in their answer type, as in
    `train-think-open`.
    """
    present = {AnswerType(answer_type) for answer_type in answer_types} or {AnswerType.CHOICE}
    name = prompt_name(mode) if prompt is None else prompt
    types = [answer_type for answer_type in AnswerType if answer_type in present]
    names = [name if answer_type is AnswerType.CHOICE else f"{name}-{answer_type}" for answer_type in types]
    return ", ".join(names), "\n".join(wording(mode, prompt, answer_type) for answer_type in types)


def question_text(
    problem: str, mode: Mode, prompt: str | None = None, answer_type: AnswerType = AnswerType.CHOICE
) -> str:
    """The text of the user turn: the problem in the mode's training prompt, or in a named one.

    Raises:
        UserError: `prompt` is not in `NAMED`.
    """
    return wording(mode, prompt, answer_type).replace(_PLACEHOLDER, problem)  # no str.format: a problem may hold braces


def build_messages(
    problem: str,
    mode: Mode,
    images: int = 1,
    prompt: str | None = None,
    answer_type: AnswerType = AnswerType.CHOICE,
) -> list[dict[str, Any]]:
    """One user turn: the images where the marks of the problem stand, or else first, then the text; no system turn.

    An image element is a placeholder; the images themselves are passed to the processor with the messages. Without
    an image the content is a plain string, which chat templates of text models need and all others accept.

    Args:
        problem: as in the data, options included; with as many image marks as images, or none.
        mode: the form of the completion.
        images: how many images the question shows.
        prompt: a name in `NAMED`; None for the training prompt of the mode.
        answer_type: of the question; it decides the wording.

    Raises:
        UserError: `prompt` is not in `NAMED`.
    """
    text = question_text(problem, mode, prompt, answer_type)
    if not images:
        return [{"role": "user", "content": text}]
    pieces = text.split(IMAGE_MARK)
    if len(pieces) != images + 1:
        pieces = [""] * images + [text]
    content: list[dict[str, Any]] = []
    for place, piece in enumerate(pieces):
        content += [{"type": "image"}] if place else []
        content += [{"type": "text", "text": piece}] if piece else []
    return [{"role": "user", "content": content}]


def row_messages(row: Mapping[str, Any], mode: Mode, prompt: str | None = None) -> list[dict[str, Any]]:
    """`build_messages` of a row of `load_rows`: its problem, with as many images as it has, for its answer type."""
    return build_messages(row["problem"], mode, len(row["images"]), prompt, AnswerType(row["answer_type"]))


# ------------------------------------------------------------------------------------------------ image marks


def number_marks(problem: str) -> str:
    """The problem with the marks of its images numbered from 0 on, if there are several: `<image#0>`, `<image#1>`."""
    if problem.count(IMAGE_MARK) < 2:
        return problem
    numbers = count()
    return re.sub(IMAGE_MARK, lambda _: f"<image#{next(numbers)}>", problem)


def plain_marks(problem: str) -> str:
    """The problem with the plain marks that `number_marks` numbered."""
    return _NUMBERED_MARK.sub(IMAGE_MARK, problem)


def mark_order(problem: str) -> list[int]:
    """The numbers of the numbered marks of a problem, in the order in which they stand."""
    return [int(mark[len("<image#") : -1]) for mark in _NUMBERED_MARK.findall(problem)]
