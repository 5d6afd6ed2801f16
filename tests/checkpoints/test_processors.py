"""Processors of checkpoints: pixel limits, padding, and checkpoints that have none."""

import json
from pathlib import Path

import pytest
from PIL import Image

from open_r1.checkpoints import processors
from open_r1.checkpoints.families import FAMILIES
from open_r1.checkpoints.processors import load_processor
from open_r1.common.errors import UserError


@pytest.mark.parametrize(
    ("max_pixels", "side"),
    [(112 * 112, 84), (113 * 113, 112), (401408, 392)],
    # 384 / (384 / 112) / 28 = 4 - 1e-15 in floating point, floored to 3: 84. 384 / 28 = 13.7, rounded to 14: 392.
)
def test_pixel_limits_decide_how_large_an_image_is_shown(tiny, max_pixels, side):
    processor = load_processor(tiny["qwen2_5_vl"], max_pixels=max_pixels)
    image = Image.new("RGB", (384, 384), "red")
    grid = processor.image_processor(images=[image], return_tensors="pt")["image_grid_thw"].tolist()
    assert grid == [[1, side // 14, side // 14]]


def test_min_pixels_enlarges_a_small_image(tiny):
    processor = load_processor(tiny["qwen2_vl"], min_pixels=200 * 200, max_pixels=300 * 300)
    grid = processor.image_processor(images=[Image.new("RGB", (56, 56))], return_tensors="pt")["image_grid_thw"]
    assert grid.tolist() == [[1, 16, 16]]  # 200 / 28 = 7.1, rounded up to 8: 8 * 28 = 224 = 16 * 14


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"max_pixels": 700}, "--max_pixels 700 is less than one token's 28 x 28 = 784"),
        ({"min_pixels": 5000, "max_pixels": 4000}, "--min_pixels 5000 must lie between 1 and --max_pixels 4000"),
        ({"min_pixels": -1}, "--min_pixels -1"),
    ],
)
def test_pixel_limits_that_make_no_sense_are_refused(tiny, limits, message):
    with pytest.raises(UserError, match=message):
        load_processor(tiny["qwen2_5_vl"], **limits)


def test_processors_pad_on_the_left(tiny):
    for family in FAMILIES:
        processor = load_processor(tiny[family])
        tokenizer = getattr(processor, "tokenizer", processor)
        rows = tokenizer(["one two three", "one"], padding=True)["attention_mask"]
        assert rows[1][0] == 0
        assert rows[1][-1] == 1


def strip_processor(folder: Path) -> Path:
    for name in processors.PROCESSOR_FILES:
        (folder / name).unlink(missing_ok=True)
    return folder


def test_a_checkpoint_without_a_processor_takes_the_named_one(copy, tiny):
    bare = strip_processor(copy())
    with pytest.raises(UserError, match=r"has no processor .*--processor Qwen/Qwen2\.5-VL-3B-Instruct"):
        load_processor(bare)
    assert load_processor(bare, processor=str(tiny["qwen2_5_vl"])).image_processor is not None
    with pytest.raises(UserError, match="no tokenizer or no image processor"):
        load_processor(bare, processor=str(bare))
    with pytest.raises(UserError, match=r"no folder \./nowhere"):
        load_processor(bare, processor="./nowhere")


def test_a_checkpoint_without_a_processor_takes_that_of_the_model_it_was_trained_from(copy, tiny, capsys):
    bare = strip_processor(copy())
    config = json.loads((bare / "config.json").read_text())
    (bare / "config.json").write_text(json.dumps(config | {"_name_or_path": str(tiny["qwen2_5_vl"])}))
    assert load_processor(bare).image_processor is not None
    assert "taking the one of" in capsys.readouterr().err


def test_a_damaged_processor_is_an_error_of_one_line(copy):
    folder = copy()
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(UserError, match=r"^the processor in .* does not load: [^\n]*--processor Qwen/"):
        load_processor(folder)
