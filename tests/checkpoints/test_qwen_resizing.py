"""qwen-vl-utils beside the image processor: the same sizes, nearly the same pixels, and nothing is ever fetched."""

import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from open_r1.checkpoints.processors import load_processor
from open_r1.checkpoints.qwen_resizing import qwen_size, require_qwen_sizes, resized_by_qwen
from open_r1.common.errors import UserError
from open_r1_testbed.tiny_models import build_tiny_checkpoint

FAMILIES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")


@pytest.fixture(scope="module", params=FAMILIES)
def rules(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder: Path = build_tiny_checkpoint(tmp_path_factory.mktemp("tiny") / request.param, request.param)
    return load_processor(folder, max_pixels=200 * 200).image_processor


def test_both_rules_give_an_image_the_same_size(rules: Any) -> None:
    draw, side, checked = random.Random(0), rules.patch_size * rules.merge_size, 0
    for _ in range(3000):
        width, height = (int(2 ** draw.uniform(3, 12)) for _ in range(2))
        if max(width, height) > 200 * min(width, height):
            continue
        size = qwen_size((width, height), rules)
        if size is None or min(width, height, *size) <= side:
            continue  # of an image that is thinner than a token qwen-vl-utils rounds the short side on its own
        checked += 1
        patches = rules.get_number_of_image_patches(height, width, images_kwargs={})
        assert size[0] * size[1] == patches * rules.patch_size**2, (width, height)
    assert checked > 1200


def test_an_image_is_resized_once_and_to_nearly_the_same_pixels(rules: Any) -> None:
    values = np.random.default_rng(0).integers(0, 256, (23, 17, 3), dtype="uint8")
    image = Image.fromarray(values).resize((173, 331), Image.Resampling.BICUBIC)
    resized = resized_by_qwen(image, rules)
    assert resized.size == qwen_size(image.size, rules) != image.size
    direct, through = (rules(images=[one], return_tensors="pt") for one in (image, resized))
    assert direct["image_grid_thw"].tolist() == through["image_grid_thw"].tolist()
    apart = (direct["pixel_values"] - through["pixel_values"]).abs().mean().item()
    print(f"mean difference of normalized pixel values: {apart:.4f}")
    assert apart < 0.02  # observed: 0.001 to 0.004


def test_nothing_but_an_opened_image_reaches_qwen_vl_utils(rules: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetched(*_: Any, **__: Any) -> None:
        raise AssertionError("an address was opened")

    monkeypatch.setattr("requests.get", fetched)
    for reference in ("http://127.0.0.1:9/x.png", "file:///etc/passwd", "/etc/passwd", "data:image/png;base64,x", 7):
        with pytest.raises(AssertionError, match="anything else would be opened"):
            resized_by_qwen(reference, rules)  # type: ignore[arg-type]


def test_an_image_of_which_nothing_would_be_left(rules: Any) -> None:
    assert qwen_size((2000, 12), rules) is None
    with pytest.raises(ValueError, match="aspect ratio"):
        qwen_size((4020, 20), rules)


def test_other_image_processors_are_refused() -> None:
    with pytest.raises(UserError, match="this checkpoint has a SimpleNamespace; leave the flag out"):
        require_qwen_sizes(SimpleNamespace(size={"height": 336, "width": 336}, patch_size=14))
