"""Teach a model the form of an answer and nothing about answers: the start from which GRPO has something to gain.

A model that was trained on the right answers under the very prompt that GRPO uses is sure of itself: all
completions of a group agree, and a group that agrees has no gradient. So the demo's base, which knows the pictures
under a prompt of its own, is shown the published prompt with letters drawn at random from those that the question
offers. What it learns is the tags; its letters become nearly uniform. What it knew is still there for GRPO to find.
"""

import random
from collections.abc import Iterator
from typing import Any

import torch
from datasets import Dataset
from torch.nn.functional import cross_entropy

from open_r1.answers import options_in
from open_r1.prompts import build_messages
from open_r1.runs import Mode
from open_r1.vqa_data import row_image

WARMUP = 5  # steps


def teach_format(
    model: Any,
    processor: Any,
    rows: Dataset,
    seed: int = 0,
    steps: int = 80,
    batch: int = 16,
    learning_rate: float = 1e-3,
) -> list[float]:
    """Train `model` in place on `<answer> X </answer>`, X uniform among the offered letters; the loss of each step.

    Args:
        model: a vision-language model in float32.
        processor: its processor, padding on the left, as `load_processor` gives it.
        rows: rows of `load_vqa`; their solutions are not looked at.
        seed: decides rows and letters.
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
        loss = _loss(model, processor, [rows[place] for place in chosen], rng)
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


def _loss(model: Any, processor: Any, rows: list[dict[str, Any]], rng: random.Random) -> torch.Tensor:
    """Mean cross-entropy of the answers' tokens; the prompts are read and not learnt."""
    tokenizer = processor.tokenizer
    answers = [f"<answer> {rng.choice(list(options_in(row['problem'])))} </answer>" for row in rows]
    endings = [answer + tokenizer.eos_token for answer in answers]
    prompts = [
        processor.apply_chat_template(
            build_messages(row["problem"], Mode.NOTHINK), tokenize=False, add_generation_prompt=True
        )
        for row in rows
    ]
    texts = [prompt + ending for prompt, ending in zip(prompts, endings, strict=True)]
    pictures = [row_image(row) for row in rows]
    inputs = processor(text=texts, images=pictures, padding=True, return_tensors="pt").to(model.device)
    lengths = torch.tensor([len(tokenizer(ending)["input_ids"]) for ending in endings], device=model.device)
    longest = int(lengths.max())
    # left padding: every answer ends at the last column, and the token before it predicts its first
    logits = model(**inputs, logits_to_keep=longest + 1).logits[:, :-1]  # (rows, longest, vocabulary)
    labels = inputs["input_ids"][:, -longest:]
    learnt = torch.arange(longest, 0, -1, device=model.device) <= lengths[:, None]
    return cross_entropy(logits[learnt], labels[learnt])
