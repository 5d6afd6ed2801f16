"""One run over several data sets, of images and of text: what is trained on, and that it trains."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import DatasetDict, concatenate_datasets
from forked_scripts import run_script

from open_r1.checkpoints.loading import load_model
from open_r1.checkpoints.processors import load_processor
from open_r1.common.errors import UserError
from open_r1.data.loading import load_rows
from open_r1.training.command_line.parsing import parse
from open_r1.training.grpo_run import train_grpo
from open_r1.training.setup.questions import load_sets
from open_r1.vocabulary.labels import Modality
from open_r1.vocabulary.modes import Mode
from open_r1_testbed.format_start import teach_format
from open_r1_testbed.phantoms import make_phantoms, save_prepared
from open_r1_testbed.riddles import make_riddles
from open_r1_testbed.tiny_models import TINY_BASE

SMALL = (
    "--num_generations 4 --max_completion_length 8 --max_steps 2 --logging_steps 1 --learning_rate 1e-3 "
    "--report_to none --save_strategy no --disable_tqdm true --beta 0.1"
)


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """20 training questions about images, 24 without."""
    folder = tmp_path_factory.mktemp("sets")
    phantoms = make_phantoms(folder / "phantoms", 2, 1, modalities=[Modality.CT, Modality.MRI])
    return save_prepared(phantoms, folder / "pictures"), make_riddles(folder / "riddles", 24, 24)


@pytest.fixture(scope="module")
def start(sets: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny base with the form of an answer, so that completions earn different rewards."""
    folder = tmp_path_factory.mktemp("start") / "start"
    model, processor = load_model(TINY_BASE, dtype=torch.float32), load_processor(TINY_BASE)
    teach_format(model, processor, load_rows(sets[0], "train")[0], steps=50, batch=8)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def flags(start: Path, sets: tuple[Path, ...], out: Path) -> list[str]:
    data = ["--dataset_name", *map(str, sets)]
    return ["--model_name_or_path", str(start), *data, "--output_dir", str(out), *SMALL.split()]


@pytest.mark.slow
def test_images_and_text_train_a_vision_model_in_one_run(
    start: Path,
    sets: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "run"
    monkeypatch.setattr("sys.argv", ["grpo_vqa.py", *flags(start, sets, out), "--per_device_train_batch_size", "8"])
    train_grpo(Mode.NOTHINK)
    story = json.loads((out / "run.json").read_text())
    assert (story["status"], story["steps"]) == ("done", 2)
    assert [(row["path"], row["prompts"]) for row in story["data"]["sets"]] == [
        (str(sets[0]), 20),
        (str(sets[1]), 24),
    ]
    assert story["data"]["prompts"] == 44
    assert story["data"]["sets"][1]["manifest"]["kind"] == "text"
    printed = capsys.readouterr().out
    assert f"data: 44 prompts from {sets[0]} (20), {sets[1]} (24)" in printed
    assert "shared prefix verified" in printed
    before = load_model(start, dtype=torch.float32).state_dict()
    after = load_model(out, dtype=torch.float32).state_dict()
    unmoved = [name for name, value in before.items() if torch.equal(value, after[name])]
    # 16 prompts of a shuffled mixture hold images and text, so language and vision have both moved
    assert not [name for name in unmoved if value_can_move(name)], unmoved


def value_can_move(name: str) -> bool:
    """Biases of keys cancel in a softmax and get no gradient but rounding."""
    return not name.endswith("k_proj.bias")


@pytest.mark.slow
def test_two_processes_train_on_a_mixture_under_gradient_checkpointing(
    start: Path, sets: tuple[Path, Path], tmp_path: Path, repository: Path
) -> None:
    """One prompt per process: in some step one process holds an image and the other holds none."""
    script = repository / "src" / "open_r1" / "grpo_vqa_nothink.py"
    arguments = ["--max_steps", "6", "--per_device_train_batch_size", "1", "--gradient_checkpointing", "true"]
    process = run_script(script, [*flags(start, sets, tmp_path / "run"), *arguments], repository, processes=2)
    assert process.returncode == 0, process.stderr[-3000:]
    assert json.loads((tmp_path / "run" / "run.json").read_text())["steps"] == 6


def test_a_question_of_two_sets_counts_once(sets: tuple[Path, Path], tmp_path: Path) -> None:
    rows, _ = load_rows(sets[1], "train")
    fresh_folder = make_riddles(tmp_path / "other", 24, 24, seed=9)
    fresh, _ = load_rows(fresh_folder, "train")
    combined = concatenate_datasets([rows.select(range(3)), fresh])
    DatasetDict({"train": combined}).save_to_disk(str(tmp_path / "both"))
    joined, dropped, manifests = load_sets([str(sets[1]), str(tmp_path / "both")], None)
    assert len(joined) == 24 + 24  # 3 of 27 were there
    assert [row.reason for row in dropped] == ["repeated-question"] * 3
    assert [len(manifest["ids"]) for manifest in manifests] == [24, 24]


def test_one_set_is_recorded_as_before_and_a_set_named_twice_is_refused(tmp_path: Path) -> None:
    base = ["--model_name_or_path", "m", "--output_dir", str(tmp_path)]
    script, _, _ = parse([*base, "--dataset_name", "a", "b", "--mode", "think"])
    assert script.dataset_name == ["a", "b"]
    config = tmp_path / "config.yaml"
    for text, expected in (("dataset_name: a\n", ["a"]), ("dataset_name: [a, b]\n", ["a", "b"])):
        config.write_text(text + f"model_name_or_path: m\noutput_dir: {tmp_path}\n")
        read: Any = parse(["--config", str(config)])[0]
        assert read.dataset_name == expected
    with pytest.raises(UserError, match="names a twice"):
        parse([*base, "--dataset_name", "a", "b", "a"])
