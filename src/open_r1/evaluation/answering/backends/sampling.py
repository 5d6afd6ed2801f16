"""Sampling that gives a question the same completion in any batch, order and process.

With one random generator for a batch, a completion would depend on the row's position. Here each (seed, question,
sample) has its own sequence of uniform numbers, one for each step. Inverting the cumulative distribution turns a
number into a token, with exactly the model's probabilities.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
import torch

from open_r1.evaluation.answering.settings import Sampling


def keyed_generator(*key: object) -> np.random.Generator:
    """A random generator that depends on `key` alone and is the same on every machine."""
    digest = hashlib.sha256("\0".join(map(str, key)).encode()).digest()
    return np.random.Generator(np.random.Philox(int.from_bytes(digest[:16], "little")))


def uniforms(sampling: Sampling, names: Sequence[str], steps: int) -> torch.Tensor:
    """(len(names) * count, steps) numbers in [0, 1), the samples of a question next to each other, in float64."""
    rows = [
        keyed_generator(sampling.seed, name, sample).random(steps) for name in names for sample in range(sampling.count)
    ]
    return torch.from_numpy(np.stack(rows))


def draw(logits: torch.Tensor, temperature: float, numbers: torch.Tensor) -> torch.Tensor:
    """(N,) tokens with the probabilities softmax(logits / temperature).

    Args:
        logits: (N, V); minus infinity where a token is impossible.
        temperature: above 0.
        numbers: (N,) uniform in [0, 1).
    """
    # In float64: over 150,000 tokens the rounding of a float32 sum would move the borders between rare tokens.
    cumulated = torch.softmax(logits.double() / temperature, dim=-1).cumsum(dim=-1)
    targets = numbers.to(logits.device)[:, None] * cumulated[:, -1:]
    # The first index whose sum exceeds the target: a token of probability 0 adds nothing, so it is never drawn.
    return torch.searchsorted(cumulated, targets, right=True).squeeze(1).clamp(max=logits.size(1) - 1)
