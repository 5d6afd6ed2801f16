"""How a tiny model learns to read: to name the letter that stands before a word in a list of options.

From the weights that transformers draws, or with all words from the start, a model this small stays at chance for
thousands of steps. `look_back` gives it what larger models find by themselves: heads that look back from a word to
its letter, and heads that look for the token they stand on. From there on a few words, then more, then all take some
400 steps.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn.functional import cross_entropy

IGNORED = -100  # the label of a token that is read and not learnt
OTHER_WEIGHT = 0.1  # in the loss, of tokens that are neither a word nor a letter

Encode = Callable[[str], list[int]]


@dataclass
class Lesson:
    """Token ids, and the same ids where they are to be learnt, else `IGNORED`."""

    ids: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)

    def add(self, tokens: Sequence[int], learn: bool = False) -> None:
        """Append tokens that are read, or read and learnt."""
        self.ids.extend(tokens)
        self.labels.extend(tokens if learn else [IGNORED] * len(tokens))


def look_back(model: Any, seed: int, sharpness: float = 6.0, spread: float = 0.1) -> None:
    """Set up attention heads for reading, in place: before any training.

    Half of the first layer's heads look one token back: their biases are a constant key and, turned by one position, a
    constant query, so that the rotary embedding makes that token's score the highest. Half of the heads of
    every later layer look for equal tokens: query and key are the same projection. What heads and MLPs add is made
    small against the embeddings, which would drown in it.

    Args:
        model: a Qwen2, or a Qwen-VL with one inside, with fresh weights.
        seed: of the projections.
        sharpness: size of the biases; that token gets a score of about 4 above its neighbours.
        spread: standard deviation of the projections.
    """
    text = getattr(model.model, "language_model", model.model)
    config = text.config
    head = config.hidden_size // config.num_attention_heads
    sharing = config.num_attention_heads // config.num_key_value_heads  # query heads of the first key head
    theta = config.rope_parameters["rope_theta"]
    turn = theta ** (-torch.arange(head // 2) / (head // 2))  # radians per position
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        text.embed_tokens.weight *= 2.5
        for number, layer in enumerate(text.layers):
            attention = layer.self_attn
            attention.o_proj.weight *= 0.3
            layer.mlp.down_proj.weight *= 0.3
            key, query = attention.k_proj, attention.q_proj
            if number == 0:
                key.weight[:head] *= 0.1
                query.weight[: sharing * head] *= 0.1
                key.bias[:head] = sharpness * torch.cat([torch.ones(head // 2), torch.zeros(head // 2)])
                query.bias[: sharing * head] = sharpness * torch.cat([turn.cos(), -turn.sin()]).repeat(sharing)
            else:
                shared_key = spread * torch.randn(head, config.hidden_size, generator=generator)
                key.weight[:head] = shared_key
                query.weight[: sharing * head] = shared_key.repeat(sharing, 1)


def begin_alike(model: Any, pairs: Sequence[tuple[int, int]]) -> None:
    """Let the embeddings of two tokens for the same thing, such as "A" and " A", begin nearly alike; in place."""
    rows = model.get_input_embeddings().weight
    with torch.no_grad():
        for left, right in pairs:
            rows[left] = 0.3 * rows[left] + rows[right]


def stacked(lessons: Sequence[Lesson], padding: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and labels, (lessons, longest). Padded on the right: causal attention keeps that out of what is learnt."""
    longest = max(len(lesson.ids) for lesson in lessons)
    ids = torch.full((len(lessons), longest), padding)
    labels = torch.full_like(ids, IGNORED)
    for row, lesson in enumerate(lessons):
        ids[row, : len(lesson.ids)] = torch.tensor(lesson.ids)
        labels[row, : len(lesson.labels)] = torch.tensor(lesson.labels)
    return ids, labels


def learnt(model: Any, ids: torch.Tensor, labels: torch.Tensor, **images: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of the tokens to learn, (n, vocabulary), and these tokens, (n,)."""
    hidden = model.model(input_ids=ids, **images).last_hidden_state
    chosen = labels[:, 1:] != IGNORED
    return model.lm_head(hidden[:, :-1][chosen]), labels[:, 1:][chosen]


def weighted_loss(logits: torch.Tensor, labels: torch.Tensor, telling: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy in which tokens that are not `telling` count little."""
    weights = torch.where(torch.isin(labels, telling), 1.0, OTHER_WEIGHT)
    return (cross_entropy(logits, labels, reduction="none") * weights).sum() / weights.sum()


def adamw(model: Any, rate: float) -> torch.optim.AdamW:
    """Decay for matrices alone."""
    matrices = [weight for weight in model.parameters() if weight.ndim > 1]
    vectors = [weight for weight in model.parameters() if weight.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": 0.02}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98))


def update(model: Any, optimizer: torch.optim.Optimizer, losses: Sequence[torch.Tensor], rate: float) -> None:
    """One step down the sum of the losses, gradient norm at most 1."""
    optimizer.zero_grad()
    torch.stack(list(losses)).sum().backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()


def batches(count: int, size: int, rng: random.Random) -> Iterator[list[int]]:
    """Endless batches of numbers below `count`; every number comes up once before any comes up again."""
    order: list[int] = []
    while True:
        while len(order) < size:
            order = rng.sample(range(count), count) + order
        yield [order.pop() for _ in range(size)]


def read_options(
    model: Any,
    listed: Callable[[int, random.Random], Lesson],
    words: int,
    letters: torch.Tensor,
    padding: int,
    rng: random.Random,
    most: int = 500,
    rate: float = 3e-3,
) -> list[tuple[int, int, float]]:
    """Teach reading, in place: 6 words, then 12, 24 and all; the next when nine of ten letters are right.

    Args:
        model: after `look_back`.
        listed: makes a lesson with options from the first so many words, asked for in turn.
        words: how many there are.
        letters: their tokens.
        padding: the padding token.
        rng: what the lessons are drawn from.
        most: steps at most.
        rate: learning rate after 40 steps of warm-up.

    Returns:
        For each number of words: the words, steps so far, share of right letters.
    """
    reached, optimizer, step = [], adamw(model, rate), 0
    for count in (6, 12, 24, words):
        recent: list[float] = []
        while sum(recent[-20:]) < 20 * (0.95 if count == words else 0.9) and step < most:
            ids, labels = stacked([listed(count, rng) for _ in range(48)], padding)
            logits, wanted = learnt(model, ids, labels)
            step += 1
            update(model, optimizer, [weighted_loss(logits, wanted, letters)], rate * min(1.0, step / 40))
            recent.append((logits.argmax(-1) == wanted).float().mean().item())
        reached.append((count, step, sum(recent[-20:]) / max(1, len(recent[-20:]))))
    return reached
