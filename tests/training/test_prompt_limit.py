"""Prompt lengths are counted as the processor makes them, and nothing is cut."""

import io
from typing import Any

import datasets
import pytest
from joined_processes import in_processes
from PIL import Image

from open_r1.checkpoints.processors import load_processor
from open_r1.data.readers.image_columns import ROW_FEATURES
from open_r1.training.setup import prompt_check
from open_r1.training.setup.prompt_check import PromptCheck, check_prompts
from open_r1.vocabulary.modes import Mode
from open_r1.vocabulary.prompts import build_messages
from open_r1_testbed.tiny_models import build_tiny_checkpoint

SIZES = [(384, 384), (384, 192), (100, 300), (56, 56)]


def image(size: tuple[int, int]) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (90, 20, 20)).save(buffer, "PNG")
    return buffer.getvalue()


def rows(contents: list[bytes]) -> datasets.Dataset:
    columns: dict[str, list[Any]] = {name: [None] * len(contents) for name in ROW_FEATURES}
    columns["images"] = [[{"bytes": content, "path": f"{i}.png"}] for i, content in enumerate(contents)]
    columns["answer_type"], columns["aliases"] = ["choice"] * len(contents), [[]] * len(contents)
    columns["problem"] = ["What is it?" + " Look closely." * i + " A)one, B)two" for i in range(len(contents))]
    columns["solution"] = ["<answer> A </answer>"] * len(contents)
    columns["id"] = [f"row{i}" for i in range(len(contents))]
    return datasets.Dataset.from_dict(columns, features=ROW_FEATURES)


@pytest.fixture(scope="module", params=["own", "real"])
def processor(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    real = request.getfixturevalue("real_dir") / "qwen2_5_vl_processor" if request.param == "real" else None
    folder = build_tiny_checkpoint(tmp_path_factory.mktemp("tiny"), processor=real)
    return load_processor(folder, max_pixels=401408 if real else None)


def length_by_the_processor(processor: Any, row: Any) -> int:
    text = processor.apply_chat_template(
        build_messages(row["problem"], Mode.NOTHINK), tokenize=False, add_generation_prompt=True
    )
    opened = Image.open(io.BytesIO(row["images"][0]["bytes"]))
    return len(processor(text=[text], images=[opened])["input_ids"][0])


@pytest.mark.slow
def test_the_count_is_the_processors_own(processor: Any) -> None:
    data = rows([image(size) for size in SIZES])
    lengths = [length_by_the_processor(processor, row) for row in data]
    assert len(set(lengths)) == len(SIZES)
    for limit in (min(lengths), max(lengths) - 1):
        checked = check_prompts(data, processor, Mode.NOTHINK, limit)
        assert checked.too_long == [(f"row{i}", length) for i, length in enumerate(lengths) if length > limit]
        assert checked.usable == [i for i, length in enumerate(lengths) if length <= limit]
        assert checked.longest == max(length for length in lengths if length <= limit)


@pytest.mark.slow
def test_a_image_that_does_not_open_is_named_and_left_out(processor: Any) -> None:
    complete = image((384, 384))
    checked = check_prompts(rows([complete, complete[:80], b"no image"]), processor, Mode.THINK, 4096)
    assert checked.usable == [0]
    assert [name for name, _ in checked.unreadable] == ["row1", "row2"]


@pytest.mark.slow
def test_each_image_is_opened_by_one_process(processor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    data = rows([image(size) for size in SIZES] + [b"no image"])
    alone = check_prompts(data, processor, Mode.NOTHINK, limit=120)
    assert alone.usable
    assert alone.too_long
    assert alone.unreadable
    opened: list[str] = []
    open_image = prompt_check.open_undecoded
    monkeypatch.setattr(
        prompt_check, "open_undecoded", lambda undecoded, name: opened.append(name) or open_image(undecoded, name)
    )

    def check() -> tuple[PromptCheck, list[str]]:
        return check_prompts(data, processor, Mode.NOTHINK, limit=120), opened

    results = in_processes(check)
    assert [result for result, _ in results] == [alone, alone]
    assert [sorted(names) for _, names in results] == [["row0", "row1"], ["row2", "row3", "row4"]]
