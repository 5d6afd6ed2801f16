"""Prepared VQA sets train and are evaluated as they are: closed, open and choice, with one and with several images."""

import json
from pathlib import Path

import pytest
from vqa_sets import draw, prepared, rad_folder, rad_row, write

from open_r1.evaluation.answering.run import infer
from open_r1.evaluation.answering.settings import InferenceSettings
from open_r1.evaluation.scoring.results import read_results
from open_r1.training.grpo_run import train_grpo
from open_r1.vocabulary.modes import Mode
from open_r1_testbed.tiny_models import TINY_BASE

FLAGS = (
    "--num_generations 4 --max_completion_length 8 --max_steps 2 --logging_steps 1 --report_to none --save_strategy no "
    "--disable_tqdm true --per_device_train_batch_size 4 --reward_funcs accuracy closed token_f1"
)


@pytest.fixture
def closed_and_open(tmp_path: Path) -> Path:
    """VQA-RAD with 8 closed and 8 open questions on each side."""
    answers = [("Yes", "CLOSED"), ("left lung", "OPEN")] * 8
    rows = [
        rad_row(number, answer=answer, answer_type=mark, phrase_type=kind, question=f"What is {kind} {number}?")
        for kind in ("freeform", "test_freeform")
        for number, (answer, mark) in enumerate(answers)
    ]
    return prepared("vqa_rad", rad_folder(tmp_path / "rad", rows), tmp_path / "VQA")[0].folder


@pytest.fixture
def several_images(tmp_path: Path) -> Path:
    """MedXpertQA with questions on one, three and six images."""
    names = [f"MM-{number}.jpeg" for number in range(6)]
    draw(tmp_path / "images", names)
    rows = [
        {"question": f"On {count}?", "options": {"A": "x", "B": "y"}, "label": "B", "images": names[:count]}
        for count in (1, 3, 6)
    ]
    write(tmp_path / "MM/test.jsonl", rows)
    return prepared("medxpertqa_mm", tmp_path, tmp_path / "VQA")[0].folder


@pytest.mark.slow
def test_a_prepared_set_trains(closed_and_open: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["--model_name_or_path", str(TINY_BASE), "--dataset_name", str(closed_and_open)]
    monkeypatch.setattr("sys.argv", ["grpo_vqa.py", *words, "--output_dir", str(tmp_path / "run"), *FLAGS.split()])
    train_grpo(Mode.NOTHINK)
    record = json.loads((tmp_path / "run/run.json").read_text())
    assert (record["status"], record["steps"], record["data"]["prompts"]) == ("done", 2, 16)
    assert record["data"]["sets"][0]["manifest"]["kind"] == "vqa"


@pytest.mark.slow
def test_prepared_sets_are_evaluated(closed_and_open: Path, several_images: Path, tmp_path: Path) -> None:
    for folder, count in ((closed_and_open, 16), (several_images, 3)):
        output = tmp_path / f"{folder.name}.jsonl"
        infer(
            InferenceSettings(
                model_path=str(TINY_BASE),
                prompt_path=str(folder),
                output_path=str(output),
                max_new_tokens=4,
                device="cpu",
            )
        )
        results = read_results(output).results
        assert len(results) == count
        assert all(result.outcome is not None for result in results)
