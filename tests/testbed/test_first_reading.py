"""Heads that look back from the start, equal embeddings for equal words, and lessons that learn what they should."""

import random

import pytest
import torch
from transformers import AutoModelForCausalLM

from open_r1_testbed.first_reading import (
    IGNORED,
    Lesson,
    begin_alike,
    learnt,
    look_back,
    read_options,
    stacked,
    weighted_loss,
)
from open_r1_testbed.tiny_models import Shape, build_tiny_checkpoint

SHAPE = Shape(hidden=96, layers=3, heads=4, mlp=192, spread=0.06)


@pytest.fixture
def model(tmp_path):
    folder = build_tiny_checkpoint(tmp_path, "qwen2", shape=SHAPE)
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")


def attention(model, ids: torch.Tensor) -> list[torch.Tensor]:
    """Per layer (heads, to, from) of a single sequence."""
    return [layer[0] for layer in model(ids, output_attentions=True).attentions]


def test_half_of_the_first_heads_look_back_and_later_ones_for_the_same_token(model) -> None:
    look_back(model, 0)
    # a list as those of options: equal tokens are 13 apart
    ids = torch.randperm(200, generator=torch.Generator().manual_seed(0))[:13].repeat(2)[None] + 50
    first, *later = attention(model, ids)
    back = torch.stack([first[:2, place, place - 1] for place in range(6, 26)])
    assert back.mean() > 0.6, back.mean()  # a fresh head gives each of 20 tokens about 0.05
    same = torch.stack([layer[:2, place, place - 13] for layer in later for place in range(13, 26)])
    rest = torch.stack([layer[:2, place, place - 12] for layer in later for place in range(13, 26)])
    assert same.mean() > 4 * rest.mean(), (same.mean(), rest.mean())


def test_two_tokens_of_a_word_begin_nearly_alike(model) -> None:
    rows = model.get_input_embeddings().weight
    first, second = rows[5].clone(), rows[6].clone()
    begin_alike(model, [(5, 6)])
    assert torch.equal(rows[5], 0.3 * first + second)
    assert torch.equal(rows[6], second)
    # independent before: cosine about 0; then 1 / sqrt(1 + 0.3 ** 2) = 0.96
    assert torch.cosine_similarity(rows[5], rows[6], dim=0).item() == pytest.approx(0.96, abs=0.03)


def test_only_what_is_to_be_learnt_counts_and_padding_does_not(model) -> None:
    long, short = Lesson(), Lesson()
    long.add([5, 6, 7])
    long.add([8, 9], learn=True)
    short.add([5, 6])
    short.add([7], learn=True)
    ids, labels = stacked([long, short], 0)
    assert ids.tolist() == [[5, 6, 7, 8, 9], [5, 6, 7, 0, 0]]
    assert labels.tolist() == [[IGNORED, IGNORED, IGNORED, 8, 9], [IGNORED, IGNORED, 7, IGNORED, IGNORED]]
    logits, wanted = learnt(model, ids, labels)
    assert wanted.tolist() == [8, 9, 7]
    alone, _ = learnt(model, *stacked([short], 0))
    torch.testing.assert_close(logits[2:], alone)
    losses = torch.nn.functional.cross_entropy(logits, wanted, reduction="none")
    # 8 tells, the others weigh a tenth: (l8 + 0.1 l9 + 0.1 l7) / 1.2
    expected = (losses[0] + 0.1 * losses[1] + 0.1 * losses[2]) / 1.2
    torch.testing.assert_close(weighted_loss(logits, wanted, torch.tensor([8])), expected)


def test_reading_stops_at_its_limit_and_says_how_far_it_came(model) -> None:
    def listed(count: int, rng: random.Random) -> Lesson:
        lesson = Lesson()
        lesson.add([10, rng.randrange(20, 20 + count)])
        lesson.add([11], learn=True)
        return lesson

    look_back(model, 0)
    reached = read_options(model, listed, 30, torch.tensor([11]), 0, random.Random(0), most=3)
    assert [(words, steps) for words, steps, _ in reached] == [(6, 3), (12, 3), (24, 3), (30, 3)]
