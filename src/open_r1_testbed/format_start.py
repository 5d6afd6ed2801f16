"""Teach a tiny model: the form of an answer and nothing about answers, or the answers under prompts of its own.

The former is the start from which GRPO has something to gain.

A model that was trained on the right answers under the very prompt that GRPO uses is sure of itself: all
completions of a group agree, and a group that agrees has no gradient. So the demos' bases, which know the answers
under prompts of their own, are shown the published prompt with options drawn at random from those that the question
offers. What they learn is the tags; their answers become nearly uniform. What they knew is still there for GRPO to
find.
"""

import argparse
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import torch
from datasets import Dataset
from torch.nn.functional import cross_entropy

from open_r1.data.row_images import row_images
from open_r1.grading.problems import options_in, solution_letter
from open_r1.vocabulary.modes import Mode
from open_r1.vocabulary.prompts import row_messages

# How the base with eyes is asked and how it answers, with an option's text and then its letter: the first is its own
# prompt, the bare question. Several, so that what it knows does not hang on one wording; none with <think> and <answer>
# tags, which the format start has to teach it.
MANNERS = (
    ("", "It is {text} {letter}."),
    (" Name the option and its letter.", "I see {text} {letter}, so {letter}."),
    (" Write the right option as a sentence.", "The right option is {text} {letter}. Answer: {letter}."),
    (" Reply in brackets.", "[ {text} {letter} ] [ {letter} ]"),
    (" Name one option. Do not explain. Stop after the letter.", "1. {text} {letter} 2. {letter}"),
    (
        " Put the right option inside <choice>...</choice> tags and its letter inside <letter>...</letter> tags.",
        "<choice> {text} {letter} </choice> <letter> {letter} </letter>",
    ),
)
# The same for the base of the text demo, which is too small to read options and answers with their text.
TEXT_MANNERS = (
    ("", "Answer: {text}"),
    (" Answer with one option.", "Answer: {text}"),
    (" Write the right option as a sentence.", "The answer is {text}."),
    (" Choose one of the options.", "I choose {text}."),
    (" Reply in brackets.", "[ {text} ]"),
    (" Put the right option inside <choice>...</choice> tags.", "<choice> {text} </choice>"),
    (" Name the option inside <option>...</option> tags. Add nothing else.", "<option> {text} </option>"),
)
WARMUP = 5  # steps

Lesson = Callable[[dict[str, Any], random.Random], tuple[list[dict[str, Any]], str]]
"""The messages that a row is asked with, and the answer to learn."""
AnswerForm = Literal["letter", "thought", "text"]
"""How options are answered: by letter, by letter after a thought, or by their text."""


def add_flags(parser: argparse.ArgumentParser, max_steps: int, batch_size: int, learning_rate: float) -> None:
    """The flags that every command that teaches has: where the model goes, the seed, and how long it learns."""
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--max_steps", type=int, default=max_steps, help="default: %(default)s")
    parser.add_argument("--batch_size", type=int, default=batch_size, help="questions per step (default: %(default)s)")
    parser.add_argument("--learning_rate", type=float, default=learning_rate, help="at its highest (%(default)s)")


def teach_format(
    model: Any,
    processor: Any,
    rows: Dataset,
    seed: int = 0,
    steps: int = 80,
    batch: int = 16,
    learning_rate: float = 1e-3,
    answer: AnswerForm = "letter",
) -> list[float]:
    """Train `model` in place on answers in form and at random; the loss of each step.

    The arguments are those of `teach`; the solutions of the rows are not looked at.

    Args:
        answer: `letter` and `text`: under the no-think prompt, an option's letter or text; `thought`: under the think
            prompt, a thought of an option's text and letter, then that letter.
    """
    return teach(model, processor, rows, FORMS[answer], seed, steps, batch, learning_rate)


def letter_alone(row: dict[str, Any], rng: random.Random) -> tuple[list[dict[str, Any]], str]:
    """The published no-think prompt, answered in form and at random: `<answer> C </answer>`."""
    messages = row_messages(row, Mode.NOTHINK)
    return messages, f"<answer> {rng.choice(list(options_in(row['problem'])))} </answer>"


def thought_and_letter(row: dict[str, Any], rng: random.Random) -> tuple[list[dict[str, Any]], str]:
    """The published think prompt, answered in form and at random: `<think> spleen C </think> <answer> C </answer>`."""
    messages = row_messages(row, Mode.THINK)
    letter, text = rng.choice(list(options_in(row["problem"]).items()))
    return messages, f"<think> {text} {letter} </think> <answer> {letter} </answer>"


def text_alone(row: dict[str, Any], rng: random.Random) -> tuple[list[dict[str, Any]], str]:
    """The published no-think prompt, answered in form and at random: `<answer> naloxone </answer>`."""
    messages = row_messages(row, Mode.NOTHINK)
    return messages, f"<answer> {rng.choice(list(options_in(row['problem']).values()))} </answer>"


FORMS: dict[AnswerForm, Lesson] = {"letter": letter_alone, "thought": thought_and_letter, "text": text_alone}


def own_manner(row: dict[str, Any], rng: random.Random) -> tuple[list[dict[str, Any]], str]:
    """A text question in one of `TEXT_MANNERS`, answered rightly."""
    instruction, form = rng.choice(TEXT_MANNERS)
    text = options_in(row["problem"])[solution_letter(row["solution"])]
    return [{"role": "user", "content": row["problem"] + instruction}], form.format(text=text)


def teach(
    model: Any,
    processor: Any,
    rows: Dataset,
    lesson: Lesson,
    seed: int,
    steps: int,
    batch: int,
    learning_rate: float,
) -> list[float]:
    """Train `model` in place on the answers of `lesson`; the loss of each step.

    Args:
        model: in float32.
        processor: its processor or tokenizer, padding on the left, as `load_processor` gives it.
        rows: rows of `load_rows`.
        lesson: what a row asks and what is to be answered.
        seed: decides the order of the rows and what the lesson draws.
        steps: optimizer steps (AdamW, 5 steps of warm-up, then linear to 0, gradient norm at most 1).
        batch: questions per step.
        learning_rate: at its highest.
    """
    rng = random.Random(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _share(step, steps))
    model.train()
    losses = []
    for chosen, _ in zip(_batches(len(rows), batch, rng), range(steps), strict=False):
        loss = _loss(model, processor, [rows[place] for place in chosen], lesson, rng)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    model.eval()
    return losses


def _share(step: int, steps: int) -> float:
    """Share of the learning rate in this step."""
    return min(1.0, (step + 1) / WARMUP) * (1 - step / steps)


def _batches(count: int, size: int, rng: random.Random) -> Iterator[list[int]]:
    """Endless batches of row numbers; every row comes up once before any comes up again."""
    order: list[int] = []
    while True:
        while len(order) < size:
            order = rng.sample(range(count), count) + order
        yield [order.pop() for _ in range(size)]


def _loss(model: Any, processor: Any, rows: list[dict[str, Any]], lesson: Lesson, rng: random.Random) -> torch.Tensor:
    """Mean cross-entropy of the answers' tokens; the prompts are read and not learnt."""
    tokenizer = getattr(processor, "tokenizer", processor)
    lessons = [lesson(row, rng) for row in rows]
    endings = [answer + tokenizer.eos_token for _, answer in lessons]
    prompts = [
        processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True) for messages, _ in lessons
    ]
    texts = [prompt + ending for prompt, ending in zip(prompts, endings, strict=True)]
    images = [row_images(row) for row in rows if row["images"]]
    inputs = processor(text=texts, **({"images": images} if images else {}), padding=True, return_tensors="pt").to(
        model.device
    )
    lengths = torch.tensor([len(tokenizer(ending)["input_ids"]) for ending in endings], device=model.device)
    longest = int(lengths.max())
    # left padding: every answer ends at the last column, and the token before it predicts its first
    logits = model(**inputs, logits_to_keep=longest + 1).logits[:, :-1]  # (rows, longest, vocabulary)
    labels = inputs["input_ids"][:, -longest:]
    learnt = torch.arange(longest, 0, -1, device=model.device) <= lengths[:, None]
    return cross_entropy(logits[learnt], labels[learnt])
