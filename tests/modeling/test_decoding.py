"""The decoding loop: transformers' own tokens, what a GPU is launched per token, and graphs that are recorded once."""

from typing import Any, ClassVar
from unittest.mock import patch

import pytest
import torch
from fake_cuda import fake_gpu
from fake_models import fake_model, fake_prompts, published_config
from groups import IDS, make_groups, stock_inputs
from transformers import GenerationConfig

from open_r1.modeling.decoding.steps import COLUMNS, FixedSteps
from open_r1.training.grpo.rollout import GroupSampler
from open_r1_testbed.tiny_models import Shape, build_model

FAMILIES = ("qwen2_5_vl", "qwen2_vl", "qwen3_vl", "qwen2", "llama")
GROUP = 3
NEW = 24
BASE: dict[str, Any] = {"max_new_tokens": NEW, "pad_token_id": 300}
OPTIONS: dict[str, dict[str, Any]] = {
    "greedy": {"do_sample": False},
    "sampled": {"do_sample": True, "temperature": 1.3, "top_k": 0},
    "nucleus": {"do_sample": True, "temperature": 0.8, "top_p": 0.9, "min_p": 0.01},
    "penalty": {"do_sample": True, "top_k": 40, "repetition_penalty": 1.4, "no_repeat_ngram_size": 2},
    "at least 9": {"do_sample": True, "min_new_tokens": 9, "suppress_tokens": [40, 41]},
}


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest) -> Any:
    """A tiny model whose distributions have a few likely tokens."""
    built: Any = build_model(request.param, Shape(), 320, IDS, seed=0)
    with torch.no_grad():
        for parameter in built.parameters():
            if parameter.ndim >= 2:
                parameter.mul_(3.0)
    return built.eval()


def prompts_of(model: Any) -> Any:
    has_images = hasattr(model.config, "vision_config")
    grids = [[(1, 12, 16), (1, 8, 8)], [(1, 16, 16)], []] if has_images else [[], [], []]
    return make_groups(model.config, grids, [40, 33, 52], [[3] * GROUP] * 3)


def stock_tokens(model: Any, groups: Any, config: GenerationConfig) -> list[list[int]]:
    """By `generate`, with each prompt repeated."""
    ids, mask, length, extra = stock_inputs(groups)
    inputs = {"input_ids": ids[:, :-length], "attention_mask": mask[:, :-length]}
    if extra:
        inputs |= {"pixel_values": extra["pixel_values"], "image_grid_thw": extra["image_grid_thw"]}
        inputs["mm_token_type_ids"] = extra["mm_token_type_ids"][:, :-length]
    torch.manual_seed(5)
    with torch.no_grad():
        return model.generate(**inputs, generation_config=config)[:, ids.size(1) - length :].tolist()


def settings(model: Any, groups: Any, options: str) -> GenerationConfig:
    """Options with such end tokens that the rows end at different steps, the first before a look at a GPU."""
    free = stock_tokens(model, groups, GenerationConfig(**BASE | OPTIONS[options] | {"eos_token_id": 319}))
    ends = [free[row][step] for row, step in ((0, 2), (4, 9), (8, 15))]
    return GenerationConfig(**BASE | OPTIONS[options] | {"eos_token_id": ends})


def sampler_as_on_a_gpu(model: Any, config: GenerationConfig, recorded: bool = False) -> GroupSampler:
    """Looks every 8 tokens and keeps rows by powers of two, as on a GPU."""
    sampler = GroupSampler()
    loop: Any = sampler._loop_for(model, config)
    loop._on_gpu, loop._steps._recorded, loop._steps._block = True, recorded, COLUMNS
    return sampler


@pytest.mark.slow
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("as_on_a_gpu", [False, True], ids=["look each token", "look every 8"])
def test_tokens_are_those_of_generate(model: Any, options: str, as_on_a_gpu: bool) -> None:
    groups = prompts_of(model)
    config = settings(model, groups, options)
    expected = stock_tokens(model, groups, config)
    sampler = sampler_as_on_a_gpu(model, config) if as_on_a_gpu else GroupSampler()
    torch.manual_seed(5)
    drawn = sampler.sample_groups(model, groups.prompts, GROUP, config).tolist()
    width = max(len(expected[0]), len(drawn[0]))
    padded = [[row + [300] * (width - len(row)) for row in rows] for rows in (expected, drawn)]
    assert padded[0] == padded[1]
    if config.do_sample:
        assert len({row.index(300) if 300 in row else NEW for row in padded[1]}) > 2, "rows end at different steps"


def test_so_many_model_calls_as_tokens(model: Any) -> None:
    calls = []
    handle = model.register_forward_pre_hook(lambda *_: calls.append(1))
    config = GenerationConfig(**BASE | {"do_sample": False, "eos_token_id": 319, "min_new_tokens": NEW})
    tokens = GroupSampler().sample_groups(model, prompts_of(model).prompts, GROUP, config)
    handle.remove()
    assert tokens.shape == (9, NEW)
    assert len(calls) == NEW


@pytest.mark.slow
def test_a_step_is_captured_whole(model: Any) -> None:
    """No branch of a step depends on a number, so that a CUDA graph of it holds for every token."""
    groups = prompts_of(model)
    config = settings(model, groups, "sampled")
    torch.manual_seed(5)
    expected = GroupSampler().sample_groups(model, groups.prompts, GROUP, config)
    torch._dynamo.reset()
    compiled = torch.compile(FixedSteps.compute, fullgraph=True, backend="eager", dynamic=False)
    sampler = sampler_as_on_a_gpu(model, config)
    torch.manual_seed(5)
    with patch.object(FixedSteps, "compute", compiled):
        drawn = sampler.sample_groups(model, groups.prompts, GROUP, config)
    assert drawn[:, : expected.size(1)].tolist() == expected.tolist()


class Recording:
    """Stands for a CUDA graph on a machine without a GPU: a replay computes the step again, into the same memory."""

    made: ClassVar[list[tuple[int, int]]] = []
    replayed = 0

    def __init__(self, steps: FixedSteps, rows: int, columns: int) -> None:
        self.steps, self.size = steps, (rows, columns)
        self.logits = torch.empty(0)
        Recording.made.append(self.size)

    def replay(self) -> None:
        Recording.replayed += 1
        self.logits.copy_(self.steps.compute(*self.size))

    def record(self) -> tuple["Recording", torch.Tensor]:
        """As capture does: the step does not run, but its result has a place."""
        self.logits = torch.full((self.size[0], 320), torch.nan)
        return self, self.logits


@pytest.mark.slow
def test_each_size_is_recorded_once_and_serves_later_calls(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    groups = prompts_of(model)
    config = settings(model, groups, "sampled")
    monkeypatch.setattr(Recording, "made", [])
    monkeypatch.setattr(Recording, "replayed", 0)
    monkeypatch.setattr(FixedSteps, "_record", lambda steps, rows, columns: Recording(steps, rows, columns).record())
    expected = stock_tokens(model, groups, config)
    sampler = sampler_as_on_a_gpu(model, config, recorded=True)
    for call in range(3):
        torch.manual_seed(5)
        drawn = sampler.sample_groups(model, groups.prompts, GROUP, config)
        assert drawn[:, : len(expected[0])].tolist() == expected
        if call == 0:
            recorded, replayed = list(Recording.made), Recording.replayed
    assert recorded[0] == (9, COLUMNS)
    assert recorded[1:] == [(count, COLUMNS) for count, _ in recorded[1:] if count in (8, 4, 2, 1)]
    assert Recording.made == recorded, "later calls record nothing"
    assert Recording.replayed > 2 * replayed
    with torch.no_grad():
        weight = model.lm_head.weight
        weight.data = weight.data.clone()
    sampler.sample_groups(model, groups.prompts, GROUP, config)
    assert Recording.made[len(recorded)] == (9, COLUMNS), "weights that moved are recorded anew"


def test_what_cannot_be_recorded_is_computed(
    model: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("operation not permitted when stream is capturing")

    groups = prompts_of(model)
    config = settings(model, groups, "greedy")
    monkeypatch.setattr(FixedSteps, "_record", refuse)
    expected = stock_tokens(model, groups, config)
    drawn = sampler_as_on_a_gpu(model, config, recorded=True).sample_groups(model, groups.prompts, GROUP, config)
    assert drawn[:, : len(expected[0])].tolist() == expected
    assert "not permitted when stream is capturing" in caplog.text
    assert len(caplog.records) == 1


def cost_of_tokens(config: Any, rows: int, last: int) -> tuple[int, float, int]:
    """Launches and GB written for the third token, and waits of the host between the second and the `last`."""
    with fake_gpu() as gpu, torch.no_grad():
        model = fake_model(config, torch.bfloat16)
        prompts = fake_prompts(model, 4)
        costs = {}
        for length in dict.fromkeys((1, 2, 3, last)):  # the first call makes copies of weights
            options = GenerationConfig(
                do_sample=True, top_k=0, max_new_tokens=length, pad_token_id=0, eos_token_id=5, suppress_tokens=[7]
            )
            sampler = sampler_as_on_a_gpu(model, options)
            with gpu.measured() as cost:
                assert sampler.sample_groups(model, prompts, rows // 4, options).shape == (rows, length)
            costs[length] = cost
        launches, written = costs[3].launches - costs[2].launches, costs[3].written - costs[2].written
        waits = sum(costs[last].syncs.values()) - sum(costs[2].syncs.values())
        return launches, written / 1e9, waits


@pytest.mark.slow
def test_a_token_of_32_rows_of_the_3b_in_launches_bytes_and_waits() -> None:
    launches, written, waits = cost_of_tokens(published_config("qwen2_5_vl_3b"), 32, last=3)
    assert launches <= 900
    assert written <= 0.8
    assert waits == 0


@pytest.mark.slow
def test_the_host_waits_for_nothing_between_two_looks() -> None:
    for name in ("qwen2_5_vl_3b", "qwen2_vl_2b"):
        assert cost_of_tokens(published_config(name, layers=2), 8, last=8)[2] == 0
