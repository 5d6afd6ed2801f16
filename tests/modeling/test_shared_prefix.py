"""The packed row against stock TRL's row per completion: values, gradients, no leaks, sampled tokens."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import torch
from groups import IDS, Groups, make_groups, packed_logps, stock_inputs, stock_logps
from transformers import GenerationConfig
from trl.trainer.utils import add_fused_lm_head

from open_r1.modeling.packed_rows import IGNORED, pack, packed_mask, packed_positions
from open_r1.modeling.prompt_batch import completion_lengths
from open_r1.modeling.segment_attention import ATTENTION, adapt_backbone, use_attention
from open_r1.training.grpo.rollout import GroupSampler
from open_r1_testbed.tiny_models import Shape, build_model

FAMILIES = ("qwen2_5_vl", "qwen2_vl", "qwen3_vl", "qwen2", "llama")
GRIDS = [(12, 16), (8, 8), (16, 8), (4, 20), (10, 10), (6, 14)]
CASES = {
    "one prompt, lengths 1 to 10": ([[(1, 28, 28)]], [80], [[3, 10, 7, 10, 1, 5, 9, 4]]),
    "three prompts, other grids, other lengths": (
        [[(1, 28, 28)], [(1, 16, 24)], [(1, 20, 12)]],
        [80, 45, 61],
        [[3, 10, 7, 1], [12, 2, 5, 6], [8, 8, 8, 8]],
    ),
    "two images, one image, text only": (
        [[(1, 12, 16), (1, 8, 8)], [(1, 16, 16)], []],
        [40, 33, 52],
        [[3, 10, 7], [12, 2, 5], [4, 1, 9]],
    ),
    "one to six images and none": (
        [[(1, *GRIDS[(n + i) % 6]) for i in range(n)] for n in (6, 1, 0, 2, 5, 3, 4)],
        [40, 33, 52, 30, 61, 20, 45],
        [[3, 10, 7], [12, 2, 9], [4, 1, 12], [9, 6, 11], [1, 7, 10], [5, 5, 12], [2, 8, 11]],
    ),
    "long completions": ([[(1, 8, 8)], [(1, 14, 14)]], [80, 30], [[128, 10, 33], [5, 60, 128]]),
}


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest) -> Any:
    """A tiny model whose outputs are far from uniform, which scores as in training."""
    built: Any = build_model(request.param, Shape(), 320, IDS, seed=0)
    with torch.no_grad():
        for parameter in built.parameters():
            if parameter.ndim >= 2:
                parameter.mul_(3.0)
    add_fused_lm_head(built, temperature=1.0, outputs=("log_probs", "entropy"))
    adapt_backbone(built.model)
    return built.train()


def groups_for(model: Any, case: str) -> Groups:
    grids, texts, lengths = CASES[case]
    if not hasattr(model.config, "vision_config"):
        grids = [[] for _ in grids]
    return make_groups(model.config, grids, texts, lengths)


def test_layout_of_one_row_by_hand() -> None:
    # prompt 5 6 7 (one pad before), completions 8 9 and 4 (one pad after): row = 0 5 6 | 7 8 | 7 4
    packed = pack(
        torch.tensor([[0, 5, 6, 7]]),
        torch.tensor([[0, 1, 1, 1]]),
        torch.tensor([[0, 0, 1, 2]]),
        torch.tensor([[[8, 9], [4, 0]]]),
        torch.tensor([[[1, 1], [1, 0]]]),
    )
    assert packed.input_ids.tolist() == [[0, 5, 6, 7, 8, 7, 4]]
    assert packed.labels.tolist() == [[8, 9, 4, IGNORED]]
    # both segments begin at the last prompt token's position, 2
    assert packed.position_ids.tolist() == [[0, 0, 1, 2, 3, 2, 3]]
    assert packed.attention_mask is not None
    assert packed.attention_mask[0, 0].int().tolist() == [
        [1, 0, 0, 0, 0, 0, 0],  # the pad sees itself alone
        [0, 1, 0, 0, 0, 0, 0],
        [0, 1, 1, 0, 0, 0, 0],
        [0, 1, 1, 1, 0, 0, 0],
        [0, 1, 1, 1, 1, 0, 0],
        [0, 1, 1, 0, 0, 1, 0],  # the second segment does not see the first
        [0, 1, 1, 0, 0, 1, 1],
    ]


def test_every_rope_axis_counts_on_from_the_last_prompt_token() -> None:
    positions = torch.tensor([[[0, 1, 5]], [[0, 2, 5]], [[0, 3, 5]]])  # (3, 1, P)
    assert packed_positions(positions, 2, 2).tolist() == [
        [[0, 1, 5, 6, 5, 6]],
        [[0, 2, 5, 6, 5, 6]],
        [[0, 3, 5, 6, 5, 6]],
    ]


def test_a_group_of_eight_is_a_row_of_a_seventh_of_the_tokens() -> None:
    prompt, completions = torch.ones(1, 310, dtype=torch.long), torch.ones(1, 8, 10, dtype=torch.long)
    packed = pack(prompt, prompt, torch.arange(310)[None], completions, completions)
    assert packed.input_ids.shape == (1, 389)  # 310 - 1 + 8 * 10, against 8 * (310 + 10) = 2560


def test_no_query_is_without_a_key() -> None:
    assert packed_mask(torch.tensor([[0, 0, 1]]), 3, 4).any(dim=-1).all()


@pytest.fixture
def segment_attention(model: Any) -> Iterator[None]:
    """The language model attends segment by segment; the vision tower keeps its own attention."""
    use_attention(model, ATTENTION)
    yield
    use_attention(model, "sdpa")


@pytest.mark.slow
@pytest.mark.parametrize("by_segment", [False, True], ids=["4D mask", "by segment"])
@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients_equal_stock_trl(
    model: Any, case: str, by_segment: bool, request: pytest.FixtureRequest
) -> None:
    if by_segment:
        request.getfixturevalue("segment_attention")
    groups = groups_for(model, case)
    mask = groups.completion_mask.flatten(0, 1)
    weights = torch.randn(len(mask), generator=torch.Generator().manual_seed(3))

    def run(function: Any) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
        model.zero_grad(set_to_none=True)
        logps, entropies = function(model, groups)
        policy = -((torch.exp(logps - logps.detach()) * weights[:, None] * mask).sum(1) / mask.sum(1)).mean()
        (policy + 0.01 * (entropies * mask).sum() / mask.sum()).backward()
        gradients = {name: p.grad.double() for name, p in model.named_parameters() if p.grad is not None}
        return logps.detach(), entropies.detach(), gradients

    stock, ours = run(stock_logps), run(partial(packed_logps, by_segment=by_segment))
    is_scored = mask.bool()
    logp_difference = (stock[0] - ours[0]).abs()[is_scored].max().item()
    entropy_difference = (stock[1] - ours[1]).abs()[is_scored].max().item()
    assert stock[2].keys() == ours[2].keys()
    # a gradient that is zero up to rounding has no direction
    real = [name for name, gradient in stock[2].items() if gradient.norm() > 1e-6]
    assert len(real) > 0.8 * len(stock[2])
    cosine = min(torch.cosine_similarity(stock[2][n].flatten(), ours[2][n].flatten(), dim=0).item() for n in real)
    print(f"{case}: log-prob {logp_difference:.1e}, entropy {entropy_difference:.1e}, 1 - cosine {1 - cosine:.1e}")
    assert logp_difference < 1e-5
    assert entropy_difference < 1e-5
    assert cosine > 1 - 1e-9


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_in_bfloat16_it_is_as_close_to_float32_as_stock_trl(model: Any, case: str) -> None:
    groups = groups_for(model, case)
    is_scored = groups.completion_mask.flatten(0, 1).bool()
    with torch.no_grad():
        exact = stock_logps(model, groups)[0][is_scored]
        model.to(torch.bfloat16)
        try:
            vision = groups.prompts.vision
            groups.prompts.vision = {k: v.bfloat16() if v.is_floating_point() else v for k, v in vision.items()}
            scores = [function(model, groups)[0][is_scored].float() for function in (stock_logps, packed_logps)]
        finally:
            model.to(torch.float32)
    stock, ours = ((exact - logps).abs().mean().item() for logps in scores)
    print(f"{case}: mean difference to float32, stock {stock:.2e}, ours {ours:.2e}")
    # observed: ours / stock between 0.77 and 1.01
    assert 1e-4 < ours < 1.1 * stock


def test_one_completion_never_changes_another(model: Any) -> None:
    groups = groups_for(model, "three prompts, other grids, other lengths")
    with torch.no_grad():
        before, _ = packed_logps(model, groups)
        groups.completion_ids[1, 2, 0] += 1
        after, _ = packed_logps(model, groups)
    is_scored = groups.completion_mask.flatten(0, 1).bool()
    changed = ((before != after) & is_scored).any(dim=1).nonzero().flatten().tolist()
    assert changed == [1 * 4 + 2]  # bitwise: only the completion whose token was changed


def test_by_segment_one_completion_never_changes_another(model: Any, segment_attention: None) -> None:
    groups = groups_for(model, "three prompts, other grids, other lengths")
    with torch.no_grad():
        before, _ = packed_logps(model, groups, by_segment=True)
        groups.completion_ids[1, 2, 0] += 1
        after, _ = packed_logps(model, groups, by_segment=True)
    is_scored = groups.completion_mask.flatten(0, 1).bool()
    assert ((before != after) & is_scored).any(dim=1).nonzero().flatten().tolist() == [1 * 4 + 2]


def test_one_image_changes_only_its_own_group(model: Any) -> None:
    if not hasattr(model.config, "vision_config"):
        pytest.skip("a text family has no images")
    groups = groups_for(model, "three prompts, other grids, other lengths")
    with torch.no_grad():
        before, _ = packed_logps(model, groups)
        groups.prompts.vision["pixel_values"][28 * 28 + 5] += 3.0  # a patch of the second prompt's image
        after, _ = packed_logps(model, groups)
    is_scored = groups.completion_mask.flatten(0, 1).bool()
    difference = ((before - after).abs() * is_scored).amax(dim=1).view(3, 4).amax(dim=1)
    assert difference[1] > 1e-3
    # The vision tower multiplies all images in one matrix, so the others may move by rounding: observed 0.
    assert difference[[0, 2]].max() < 1e-6


@pytest.mark.parametrize("sampled", [False, True], ids=["greedy", "sampled"])
def test_group_sampling_gives_the_tokens_of_stock_generation(model: Any, sampled: bool) -> None:
    groups = groups_for(model, "two images, one image, text only")
    config = GenerationConfig(
        max_new_tokens=12,
        do_sample=sampled,
        temperature=1.0,
        top_k=0,
        eos_token_id=302,
        pad_token_id=300,
        suppress_tokens=[303, 304, 305, 306],
    )
    ids, mask, length, extra = stock_inputs(groups)
    inputs = {"input_ids": ids[:, :-length], "attention_mask": mask[:, :-length]}
    if extra:
        inputs |= {"pixel_values": extra["pixel_values"], "image_grid_thw": extra["image_grid_thw"]}
        inputs["mm_token_type_ids"] = extra["mm_token_type_ids"][:, :-length]
    with torch.no_grad():
        torch.manual_seed(5)
        stock = model.generate(**inputs, generation_config=config)[:, ids.size(1) - length :]
    torch.manual_seed(5)
    ours = GroupSampler().sample_groups(model, groups.prompts, 3, config)
    assert len({tuple(row) for row in ours.tolist()}) > 1
    assert stock.tolist() == ours.tolist()


def test_completion_ends_with_its_first_end_token() -> None:
    tokens = torch.tensor([[7, 2, 0, 0], [7, 7, 7, 7], [2, 0, 2, 0], [7, 7, 3, 0]])
    assert completion_lengths(tokens, [2, 3]).tolist() == [2, 4, 1, 3]
