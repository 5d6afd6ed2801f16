"""The adapted vision tower against transformers' own: values, gradients, attention calls and waits of the host."""

import copy
from typing import Any

import pytest
import torch
from fake_cuda import DEVICE, backward, fake_gpu
from fake_models import fake_model, fake_prompts, packed_log_probs, published_config
from transformers import Qwen2_5_VLConfig, Qwen2VLConfig
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VisionTransformerPretrainedModel
from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2VisionTransformerPretrainedModel

from open_r1.modeling import vision_attention
from open_r1.modeling.vision_attention import LAYOUTS, Layouts, Rows, adapt_tower, insert_features

GRIDS = {
    "one image": [[1, 28, 28]],
    "equal images": [[1, 16, 16], [1, 16, 16]],
    "different images and a video": [[1, 28, 28], [1, 14, 20], [2, 6, 10], [1, 4, 4]],
}
PATCH = 3 * 2 * 14 * 14


def tower(family: str, attention: str = "sdpa") -> Any:
    torch.manual_seed(0)
    if family == "qwen2_5_vl":
        sizes = {"hidden_size": 64, "intermediate_size": 96, "out_hidden_size": 48, "fullatt_block_indexes": [1]}
        config = Qwen2_5_VLConfig(vision_config={"depth": 3, "num_heads": 4, "window_size": 112, **sizes})
        return Qwen2_5_VisionTransformerPretrainedModel._from_config(
            config.vision_config, attn_implementation=attention
        )
    config = Qwen2VLConfig(vision_config={"depth": 3, "num_heads": 4, "embed_dim": 64, "hidden_size": 48})
    return Qwen2VisionTransformerPretrainedModel._from_config(config.vision_config, attn_implementation=attention)


def features_and_gradients(model: Any, patches: torch.Tensor, grids: torch.Tensor) -> tuple[torch.Tensor, Any]:
    features = model(patches, grid_thw=grids).pooler_output
    weights = torch.linspace(-1, 1, features.numel(), dtype=features.dtype).view_as(features)
    (features * weights).sum().backward()
    return features.detach(), [weight.grad for weight in model.parameters()]


@pytest.mark.slow
@pytest.mark.parametrize("grids", GRIDS.values(), ids=GRIDS)
@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen2_vl"])
def test_features_and_gradients_are_those_of_the_stock_tower(family: str, grids: list[list[int]]) -> None:
    stock = tower(family)
    ours = copy.deepcopy(stock)
    adapt_tower(ours)
    sizes = torch.tensor(grids)
    patches = torch.randn(int(sizes.prod(1).sum()), PATCH)
    expected, expected_gradients = features_and_gradients(stock, patches, sizes)
    features, gradients = features_and_gradients(ours, patches, sizes)
    difference = ((features - expected).abs().max() / expected.abs().max()).item()
    pairs = list(zip(gradients, expected_gradients, strict=True))
    largest = max(((mine - theirs).norm() / theirs.norm()).item() for mine, theirs in pairs)
    print(f"features differ by {difference:.1e} of the largest, gradients by {largest:.1e} of their norm")
    assert difference < 5e-6  # observed: 1.0e-6
    assert largest < 2e-5  # observed: 3.6e-6


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen2_vl"])
def test_a_layer_attends_in_two_calls_at_most(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def counted(*args: Any, **kwargs: Any) -> torch.Tensor:
        calls.append(args[0].shape)
        return torch.nn.functional.scaled_dot_product_attention(*args, **kwargs)

    monkeypatch.setattr(vision_attention, "scaled_dot_product_attention", counted)
    model = tower(family)
    adapt_tower(model)
    for grids, most in ((GRIDS["equal images"], 1 + 1 + 1), (GRIDS["different images and a video"], 2 + 2 + 2)):
        calls.clear()
        sizes = torch.tensor(grids)
        model(torch.randn(int(sizes.prod(1).sum()), PATCH), grid_thw=sizes)
        assert len(calls) == most


def test_eager_attention_stays_transformers_own() -> None:
    stock = tower("qwen2_5_vl", "eager")
    ours = copy.deepcopy(stock)
    adapt_tower(ours)
    sizes = torch.tensor(GRIDS["one image"])
    patches = torch.randn(784, PATCH)
    expected, features = (model(patches, grid_thw=sizes).pooler_output for model in (stock, ours))
    assert (features - expected).abs().max() < 1e-6  # the patches' embedding alone differs
    assert ours.blocks[0].attn.forward.__func__ is type(ours.blocks[0].attn).forward


def test_spans_of_different_lengths_become_the_two_batches_with_the_least_to_compute() -> None:
    # two batches: {2, 3} and {9, 10} cost 2 * 9 + 2 * 100 = 218; {2, 3, 9} and {10} would cost 3 * 81 + 100 = 343
    rows = Rows([9, 2, 10, 3], torch.device("cpu"))
    assert [(start, stop, width) for start, stop, width, _ in rows.batches] == [(0, 6, 3), (6, 26, 10)]
    # short batch: patches 9, 10 and nothing; then 21, 22, 23
    assert rows.patches[:6].tolist() == [9, 10, 0, 21, 22, 23]
    assert rows.empty[:6].tolist() == [False, False, True, False, False, False]
    assert rows.patches[rows.places].tolist() == list(range(24))
    assert not rows.empty[rows.places].any()


def test_inserted_features_are_those_of_masked_scatter() -> None:
    torch.manual_seed(0)
    embeddings, features = torch.randn(2, 5, 3, requires_grad=True), torch.randn(4, 3, requires_grad=True)
    is_image = torch.tensor([[0, 1, 1, 0, 0], [1, 0, 0, 0, 1]]).bool()
    expected = embeddings.masked_scatter(is_image[..., None], features)
    inserted = insert_features(embeddings, is_image, features)
    weights = torch.randn(2, 5, 3)
    gradients = torch.autograd.grad((inserted * weights).sum(), (embeddings, features))
    expected_gradients = torch.autograd.grad((expected * weights).sum(), (embeddings, features))
    assert torch.equal(inserted, expected)
    assert all(map(torch.equal, gradients, expected_gradients))
    with pytest.raises(ValueError, match="4 image tokens and their images 3 features"):
        insert_features(embeddings, is_image, features[:3])


@pytest.mark.slow
def test_layouts_are_remembered_but_not_without_end() -> None:
    layouts = Layouts(tower("qwen2_5_vl").config, stock=False)
    cpu = torch.device("cpu")
    first = layouts(torch.tensor([[1, 4, 4]]), cpu)
    assert layouts(torch.tensor([[1, 4, 4]]), cpu) is first
    for images in range(2, LAYOUTS + 2):
        layouts(torch.tensor([[1, 4, 4]] * images), cpu)
    assert len(layouts._layouts) == LAYOUTS
    assert layouts(torch.tensor([[1, 4, 4]]), cpu) is not first


@pytest.mark.slow
@pytest.mark.parametrize(("name", "images"), [("qwen2_5_vl_3b", 1), ("qwen2_5_vl_3b", 3), ("qwen2_vl_2b", 2)])
def test_on_a_gpu_a_layer_attends_in_one_call_and_the_host_waits_for_nothing(name: str, images: int) -> None:
    with fake_gpu() as gpu:
        model = fake_model(published_config(name, layers=2))
        prompts = fake_prompts(model, images)
        tower = model.model.visual
        grids = prompts.vision["image_grid_thw"]
        with gpu.measured() as cost, torch.autocast("cuda", dtype=torch.bfloat16):
            features = torch.cat(model.model.get_image_features(prompts.vision["pixel_values"], grids).pooler_output)
            backward(features.float().sum())
        assert features.device == DEVICE
        assert dict(cost.attention) == {"varlen": 2}
        assert not cost.syncs
        assert all(weight.grad is not None for weight in tower.parameters())


@pytest.mark.slow
def test_on_a_gpu_in_full_precision_windows_are_rows_of_a_batch() -> None:
    with fake_gpu() as gpu:
        model = fake_model(published_config("qwen2_5_vl_3b", layers=2))
        with gpu.measured() as cost:
            packed_log_probs(model, fake_prompts(model), bf16=False)
        # windows of 64 patches and of fewer, the whole image, and two layers of text
        assert sum(cost.attention.values()) == 2 + 1 + 2
