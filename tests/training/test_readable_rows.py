"""A set that is moved, damaged or rewritten while it is trained on costs its questions, not the run."""

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from PIL import Image
from transformers import TrainerCallback

from open_r1.checkpoints.loading import load_model
from open_r1.checkpoints.processors import load_processor
from open_r1.common.errors import UserError
from open_r1.data.row_images import image_keys, row_images
from open_r1.training.command_line.grpo_config import GRPOTrainingConfig
from open_r1.training.grpo.image_feed import ImageFeed
from open_r1.training.grpo.trainer import SharedPrefixGRPOTrainer
from open_r1.training.setup.readable_rows import ReadableRows
from open_r1.vocabulary.modes import Mode
from open_r1.vocabulary.prompts import build_messages
from open_r1_testbed.tiny_models import build_tiny_checkpoint


def draw(folder: Path, count: int) -> list[dict[str, Any]]:
    folder.mkdir()
    rows = []
    for number in range(count):
        path = folder / f"{number}.png"
        Image.new("RGB", (56, 56), (number, 0, 0)).save(path)
        rows.append(
            {"id": str(number), "images": [{"bytes": None, "path": str(path)}], "problem": f"Q{number}? A)x, B)y"}
        )
    return rows


@pytest.fixture
def feed() -> ImageFeed:
    return ImageFeed(row_images, image_keys, None, torch.device("cpu"))


def test_a_question_whose_image_is_gone_is_replaced_by_one_that_opens(tmp_path, feed):
    rows, lines = draw(tmp_path / "set", 6), []
    readable = ReadableRows(feed, lines.append)
    batch = [rows[number] for number in (0, 0, 1, 1, 2, 2)]
    assert readable(batch, 2, rows) is batch
    Path(rows[1]["images"][0]["path"]).unlink()
    Path(rows[3]["images"][0]["path"]).write_bytes(b"half a pictu")
    replaced = readable(batch, 2, rows)
    assert replaced[:2] + replaced[4:] == batch[:2] + batch[4:]
    assert replaced[2] == replaced[3]
    assert replaced[2]["id"] not in ("1", "3")
    assert readable(batch, 2, rows) == replaced  # the same one every time
    assert list(readable.left_out) == ["1"]
    assert lines[0].startswith("skipped during training: question 1: ")
    assert [len(opened) for opened in feed.images(replaced[::2])] == [1, 1, 1]


def test_a_set_that_is_gone_ends_the_run_in_one_line(tmp_path, feed):
    rows = draw(tmp_path / "set", 3)
    (tmp_path / "set").rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"images of 3 other questions .* Was the data set moved or rewritten") as ended:
        ReadableRows(feed, print)(rows, 1, rows)
    assert "\n" not in str(ended.value)


class Exchange(TrainerCallback):
    """After the first step the folder of half the images becomes a link to other images."""

    def __init__(self, folder: Path, outside: Path) -> None:
        self.folder, self.outside = folder, outside

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == 1:
            self.folder.rename(self.folder.with_name("before"))
            self.folder.symlink_to(self.outside)


@pytest.mark.slow
@pytest.mark.parametrize("shared_prefix", [True, False])
def test_a_folder_that_becomes_a_link_while_training_is_not_followed(tmp_path, shared_prefix, capsys):
    folder = build_tiny_checkpoint(tmp_path / "vl", "qwen2_5_vl")
    rows = draw(tmp_path / "good", 2) + [row | {"id": f"bad {row['id']}"} for row in draw(tmp_path / "bad", 2)]
    draw(tmp_path / "outside", 2)
    data = Dataset.from_list(rows)

    def add_prompt(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        return batch | {"prompt": [build_messages(problem, Mode.NOTHINK) for problem in batch["problem"]]}

    rewarded_ids: list[str] = []

    def reward(completions: list[Any], id: list[str], **_: Any) -> list[float]:
        rewarded_ids.extend(id)
        return [float(len(completion[0]["content"])) for completion in completions]

    config = GRPOTrainingConfig(
        output_dir=str(tmp_path / "out"),
        per_device_train_batch_size=4,
        num_generations=2,
        max_completion_length=3,
        max_steps=3,
        save_strategy="no",
        disable_tqdm=True,
    )
    trainer: Any = SharedPrefixGRPOTrainer(
        model=load_model(folder, dtype=torch.float32),
        args=config,
        reward_funcs=[reward],
        train_dataset=data.with_transform(add_prompt),
        processing_class=load_processor(folder),
        open_images=row_images,
        image_keys=image_keys,
        shared_prefix=shared_prefix,
        callbacks=[Exchange(tmp_path / "bad", tmp_path / "outside")],
    )
    trainer.train()
    assert trainer.state.global_step == 3
    assert set(rewarded_ids[:8]) == {"0", "1", "bad 0", "bad 1"}
    assert set(rewarded_ids[8:]) == {"0", "1"}
    assert set(trainer.readable.left_out) == {"bad 0", "bad 1"}
    assert "leads elsewhere since a folder on the way was exchanged" in capsys.readouterr().out
