"""A result file, and a training, is continued only with the images and texts that it was begun with."""

import json
import shutil
from io import BytesIO
from pathlib import Path
from typing import Any

import datasets
import pytest
from PIL import Image, ImageOps

from open_r1.checkpoints.processors import load_processor
from open_r1.common.errors import UserError
from open_r1.data.arrow_sets import QUESTION_FEATURES
from open_r1.data.loading import load_rows
from open_r1.evaluation.answering.run import infer
from open_r1.evaluation.answering.settings import InferenceSettings
from open_r1.evaluation.scoring.results import read_results
from open_r1.evaluation.scoring.train_overlap import load_training_set
from open_r1.training.recovery.resume import require_same_run
from open_r1.training.setup.prompt_check import check_prompts
from open_r1.vocabulary.labels import Modality
from open_r1.vocabulary.modes import Mode
from open_r1_testbed.phantoms import make_phantoms
from open_r1_testbed.tiny_models import build_tiny_checkpoint


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    return build_tiny_checkpoint(tmp_path_factory.mktemp("tiny") / "vl", "qwen2_5_vl", seed=1)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "phantoms"
    return make_phantoms(folder, train=1, test=2, modalities=[Modality.CT, Modality.OCT], workers=1)


@pytest.fixture
def data(pristine, tmp_path) -> Path:
    """Four test images with 20 questions, to be changed."""
    return Path(shutil.copytree(pristine, tmp_path / "data"))


@pytest.fixture
def settings(tiny, data, tmp_path):
    def make(**changes) -> InferenceSettings:
        run_settings = {
            "model_path": str(tiny),
            "prompt_path": str(data / "test.json"),
            "image_root": str(data),
            "output_path": str(tmp_path / "answers.jsonl"),
            "batch_size": 8,
            "max_new_tokens": 2,
            "device": "cpu",
        }
        return InferenceSettings(**(run_settings | changes))

    return make


def cut(path: str, answers: int) -> list[str]:
    """Leave only the first answers in a result file, as a killed run does; returns the lines."""
    lines = Path(path).read_text().splitlines(keepends=True)[: answers + 1]
    Path(path).write_text("".join(lines))
    return lines


def images_of(data: Path, path: str) -> list[Path]:
    """The images of the questions that a result file answers."""
    return sorted({Path(result.image) for result in read_results(path).results})


def invert(image: Path) -> None:
    ImageOps.invert(Image.open(image).convert("RGB")).save(image)


@pytest.mark.slow
def test_answers_to_images_that_were_exchanged_are_not_continued(settings, data):
    run_settings = settings()
    infer(run_settings)
    lines = cut(run_settings.output_path, 6)
    image, *_ = images_of(data, run_settings.output_path)
    before = image.read_bytes()
    answered = sum(str(image) in line for line in lines[1:])
    invert(image)
    with pytest.raises(UserError) as refused:
        infer(run_settings)
    assert f"content_sha256: the images or texts of {answered} of its 6 answered questions" in str(refused.value)
    assert "Put the earlier data back, or choose another output path" in str(refused.value)
    assert Path(run_settings.output_path).read_text() == "".join(lines)
    image.write_bytes(before)
    assert infer(run_settings) == 0
    assert len(read_results(run_settings.output_path).results) == 20


@pytest.mark.slow
def test_a_image_that_no_answer_was_given_to_may_change_and_the_manifest_says_so(settings, data, tmp_path):
    run_settings = settings()
    infer(run_settings)
    untouched = read_results(run_settings.output_path).manifest["content_sha256"]
    cut(run_settings.output_path, 5)  # batches are of one image's questions: some images have not been asked about
    used = images_of(data, run_settings.output_path)
    unused = next(path for path in sorted(data.glob("Images/*/test/*.png")) if path not in used)
    invert(unused)
    assert infer(run_settings) == 0
    changed = read_results(run_settings.output_path)
    anew = settings(output_path=str(tmp_path / "anew.jsonl"))
    infer(anew)
    assert changed.manifest["content_sha256"] == read_results(anew.output_path).manifest["content_sha256"] != untouched
    stored = {result.id: (result.output, result.content) for result in changed.results}
    assert stored == {result.id: (result.output, result.content) for result in read_results(anew.output_path).results}


@pytest.mark.slow
@pytest.mark.parametrize("image", ["shuffled", "none"])
def test_what_counts_is_the_image_that_is_shown(settings, data, image, tmp_path):
    run_settings = settings(image=image)
    infer(run_settings)
    everything = read_results(run_settings.output_path)
    cut(run_settings.output_path, 1)
    (answered,) = read_results(run_settings.output_path).results
    unused = [path for path in sorted(data.glob("Images/*/test/*.png")) if path != Path(answered.image)]
    for path in unused:  # all but the image of the question itself
        invert(path)
    if image == "shuffled":  # it was asked with one of them
        with pytest.raises(UserError, match="content_sha256"):
            infer(run_settings)
    else:
        assert infer(run_settings) == 0
        assert read_results(run_settings.output_path).manifest == everything.manifest


@pytest.mark.slow
def test_sets_of_two_sizes_have_one_data_hash_and_two_content_hashes(settings, data, tmp_path):
    rows: Any = load_rows(data / "test.json", None, data)[0]
    manifests = []
    for side in (384, 112):
        small = []
        for row in rows:
            file = BytesIO()
            Image.open(row["images"][0]["path"]).resize((side, side)).save(file, "PNG")
            small.append({**row, "images": [{"bytes": file.getvalue(), "path": None}]})
        saved = datasets.Dataset.from_list(small, features=QUESTION_FEATURES)
        datasets.DatasetDict({"test": saved}).save_to_disk(str(tmp_path / str(side)))
        run_settings = settings(prompt_path=str(tmp_path / str(side)), output_path=str(tmp_path / f"{side}.jsonl"))
        infer(run_settings)
        manifests.append(read_results(run_settings.output_path).manifest)
    assert len({manifest["data_sha256"] for manifest in manifests}) == 1
    assert len({manifest["content_sha256"] for manifest in manifests}) == 2
    with pytest.raises(UserError, match="content_sha256"):
        infer(settings(prompt_path=str(tmp_path / "112"), output_path=str(tmp_path / "384.jsonl")))


@pytest.mark.slow
def test_a_file_of_before_answers_recorded_their_images_is_continued_with_a_word(settings, capsys):
    run_settings = settings()
    infer(run_settings)
    lines = [json.loads(line) for line in cut(run_settings.output_path, 4)]
    for entry in ("content_sha256", "train_content_sha256"):
        del lines[0]["manifest"][entry]
    for line in lines[1:]:
        del line["content"]
    Path(run_settings.output_path).write_text("".join(json.dumps(line) + "\n" for line in lines))
    capsys.readouterr()
    assert infer(run_settings) == 0
    assert "the images of 4 answered questions are still the same cannot be checked" in capsys.readouterr().err
    file = read_results(run_settings.output_path)
    assert len(file.results) == 20
    assert "content_sha256" not in file.manifest


@pytest.mark.slow
def test_training_images_count_where_answers_are_compared_with_them(data, tmp_path):
    rows: Any = load_rows(data / "train.json", None, data)[0]
    contents = []
    for change in (lambda image: image, ImageOps.invert):
        changed = []
        for row in rows:
            file = BytesIO()
            change(Image.open(row["images"][0]["path"]).convert("RGB")).save(file, "PNG")
            changed.append({**row, "images": [{"bytes": file.getvalue(), "path": None}]})
        folder = tmp_path / str(len(contents))
        saved = datasets.Dataset.from_list(changed, features=QUESTION_FEATURES)
        datasets.DatasetDict({"train": saved}).save_to_disk(str(folder))
        contents.append(load_training_set(str(folder), None).content)
    assert contents[0] != contents[1]
    moved = Path(shutil.copytree(data, tmp_path / "moved"))
    at_first, elsewhere = (load_training_set(str(root / "train.json"), str(root)) for root in (data, moved))
    assert at_first.content == elsewhere.content


def test_a_training_is_not_continued_on_exchanged_images(tiny, data, tmp_path):
    rows: Any = load_rows(data / "train.json", None, data)[0]
    processor = load_processor(tiny)
    checkpoint = tmp_path / "checkpoint-4"
    checkpoint.mkdir()
    (checkpoint / "manifest.json").write_text('{"processes": 1}')

    def story() -> dict:
        content = check_prompts(rows, processor, Mode.NOTHINK, 4096).content
        return {"data": {"ids_sha256": "the same", "content_sha256": content}}

    started = story()
    require_same_run(started, story(), checkpoint, processes=1, engine="DDP")
    invert(Path(rows[0]["images"][0]["path"]))
    with pytest.raises(UserError, match="images or texts of the training questions have changed"):
        require_same_run(started, story(), checkpoint, processes=1, engine="DDP")
    early = {"data": {"ids_sha256": "the same"}}
    require_same_run(early, story(), checkpoint, processes=1, engine="DDP")
