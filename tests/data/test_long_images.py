"""An image that the model's image processor refuses costs its question, in evaluation and in training, not the run."""

from io import BytesIO
from pathlib import Path

import datasets
import pytest
from PIL import Image

from open_r1.checkpoints.processors import image_refusal, load_processor
from open_r1.data.loading import load_rows
from open_r1.evaluation.answering.run import infer
from open_r1.evaluation.answering.settings import InferenceSettings
from open_r1.evaluation.scoring.results import read_results
from open_r1.training.setup.prompt_check import check_prompts
from open_r1.vocabulary.modes import Mode
from open_r1_testbed.tiny_models import build_tiny_checkpoint

SIZES = [(64, 64), (4020, 20), (4000, 20), (9, 1900), (48, 80)]  # sides 201 and 211 times the other are refused


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    """A published three-column set, whose images are taken as they are stored."""
    images = []
    for size in SIZES:
        file = BytesIO()
        Image.new("RGB", size, "gray").save(file, "PNG")
        images.append({"bytes": file.getvalue(), "path": None})
    problems = [f"Is number {number} shown? A)yes, B)no" for number in range(len(SIZES))]
    columns = {"image": images, "problem": problems, "solution": ["<answer> A </answer>"] * len(SIZES)}
    features = {"image": datasets.Image(), "problem": datasets.Value("string"), "solution": datasets.Value("string")}
    folder = tmp_path_factory.mktemp("data") / "set"
    datasets.Dataset.from_dict(columns, features=datasets.Features(features)).save_to_disk(str(folder))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen2_vl"])
def test_a_image_longer_than_the_processor_takes_is_left_out_and_counted(saved, family, tmp_path, capsys):
    checkpoint = build_tiny_checkpoint(tmp_path / family, family, seed=1)
    output = tmp_path / "answers.jsonl"
    settings = InferenceSettings(
        model_path=str(checkpoint), prompt_path=str(saved), output_path=str(output), max_new_tokens=2, device="cpu"
    )
    assert infer(settings) == 0
    results = {result.problem: result for result in read_results(output).results}
    errors = [results[f"Is number {number} shown? A)yes, B)no"].error for number in range(len(SIZES))]
    assert [error is not None for error in errors] == [False, True, False, True, False]
    assert str(errors[1]).startswith("not-taken: the image is 4020 x 20 pixels, which the model's image processor")
    assert "2 questions could not be asked" in capsys.readouterr().err

    rows, _ = load_rows(saved)
    checked = check_prompts(rows, load_processor(checkpoint), Mode.NOTHINK, 4096)
    assert checked.usable == [0, 2, 4]
    assert [reason[:27] for _, reason in checked.unreadable] == [
        "the image is 4020 x 20 pixe",
        "the image is 9 x 1900 pixel",
    ]


def test_the_limit_is_the_processors_own(tmp_path):
    processor = load_processor(build_tiny_checkpoint(tmp_path / "vl", "qwen2_5_vl", seed=1))

    class Stricter:
        """An image processor with another limit."""

        class image_processor:
            merge_size = 2

            @staticmethod
            def get_number_of_image_patches(height: int, width: int, images_kwargs: dict) -> int:
                raise ValueError("no image is wide enough")

    assert image_refusal((64, 64), processor) is None
    assert "no image is wide enough" in str(image_refusal((64, 64), Stricter()))
    assert image_refusal((64, 64), processor.tokenizer) is None
