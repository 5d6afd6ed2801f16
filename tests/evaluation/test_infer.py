"""An evaluation from flags to result file: every question once, and no answer that was written is ever lost."""

import fcntl
import json
import random
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import datasets
import pytest
import torch
from asked_rows import FAMILIES, loaded, prompts_of, small_settings
from PIL import Image
from sharp_checkpoints import sharp_families

from open_r1.common.errors import UserError
from open_r1.data.loading import data_fingerprint
from open_r1.data.omnimedvqa.source import Question, read_release
from open_r1.evaluation.answering import run
from open_r1.evaluation.answering.manifest import choose_mode, choose_rows, refuse_mixed_families
from open_r1.evaluation.answering.run import INTERRUPTED, infer
from open_r1.evaluation.answering.settings import InferenceSettings
from open_r1.evaluation.scoring.results import read_results
from open_r1.vocabulary.labels import Modality
from open_r1.vocabulary.modes import Mode
from open_r1.vocabulary.prompts import NAMED, TRAIN
from open_r1_testbed.phantoms import make_phantoms
from open_r1_testbed.tiny_models import build_tiny_checkpoint


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> dict[str, Path]:
    """A checkpoint of each family with weights large enough that images and questions change its answers."""
    return sharp_families(tmp_path_factory.mktemp("tiny"), FAMILIES)


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory) -> Path:
    """Four test images with 20 questions."""
    folder = tmp_path_factory.mktemp("data") / "phantoms"
    return make_phantoms(folder, train=1, test=2, modalities=[Modality.CT, Modality.OCT], workers=1)


# --- whole runs ------------------------------------------------------------------------------------------------------


@pytest.fixture
def settings(tiny, phantoms, tmp_path):
    """Settings of a small run, with changes."""

    def make(**changes) -> InferenceSettings:
        output = tmp_path / "out" / "answers.jsonl"
        return small_settings(tiny["qwen2_5_vl"], phantoms, output, **({"max_new_tokens": 4} | changes))

    return make


@pytest.mark.slow
def test_a_run_answers_every_question_once_and_says_how_well(settings, capsys):
    assert infer(settings()) == 0
    file = read_results(settings().output_path)
    assert len(file.results) == len({result.id for result in file.results}) == file.manifest["rows"] == 20
    assert {result.image for result in file.results} == {result.image for result in file.results if result.tokens}
    assert len({result.image for result in file.results}) == 4
    assert {result.modality for result in file.results} == {"CT", "OCT"}
    assert file.manifest["prompt"] == TRAIN[Mode.NOTHINK]
    right = sum(result.correct for result in file.results) / 20
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith(f"accuracy {right:.3f} ± ")
    assert "n = 20" in out[0]
    assert (
        out[1]
        == f"tables and heatmap: python eval/report.py {file.path} --output_dir {file.path.with_suffix('.report')}"
    )


@pytest.mark.slow
def test_a_run_that_was_killed_goes_on_where_its_file_ends(settings, tmp_path):
    complete, torn = tmp_path / "whole.jsonl", tmp_path / "torn.jsonl"
    infer(settings(output_path=str(complete)))
    lines = complete.read_bytes().splitlines(keepends=True)
    torn.write_bytes(b"".join(lines[:6]) + lines[6][:50])  # the manifest, 5 answers, half an answer
    infer(settings(output_path=str(torn), batch_size=3))
    again = torn.read_bytes().splitlines(keepends=True)
    assert again[:6] == lines[:6]
    assert sorted(again[1:]) == sorted(lines[1:])


@pytest.mark.slow
def test_a_finished_run_asks_nothing_again(settings, monkeypatch):
    infer(settings())
    before = Path(settings().output_path).read_bytes()
    monkeypatch.setattr(run, "load_model", None)  # would raise if it were called
    assert infer(settings(batch_size=2, seed=7)) == 0
    assert Path(settings().output_path).read_bytes() == before


@pytest.mark.slow
def test_answers_of_another_run_are_not_mixed_in(settings, tiny, phantoms, tmp_path):
    infer(settings())
    before = Path(settings().output_path).read_bytes()
    fewer = tmp_path / "fewer.json"
    fewer.write_text(json.dumps(json.loads((phantoms / "test.json").read_text())[:-1]))
    changes = {
        "checkpoint_sha256": {"model_path": str(tiny["qwen2_vl"])},
        "prompt ": {"mode": "think"},
        "prompt_name": {"prompt": "readme"},
        "max_pixels": {"max_pixels": 60 * 60},
        "min_pixels": {"min_pixels": 28 * 28},
        "data_sha256": {"prompt_path": str(fewer)},
        "max_new_tokens": {"max_new_tokens": 5},
        "dtype": {"dtype": "bfloat16"},
        "limit": {"limit": 3},
    }
    for key, change in changes.items():
        with pytest.raises(UserError, match="holds results of another run") as error:
            infer(settings(**change))
        assert key in str(error.value)
    assert Path(settings().output_path).read_bytes() == before


@pytest.mark.slow
def test_an_unreadable_image_costs_its_questions_and_not_the_run(settings, phantoms, tmp_path, capsys):
    root = Path(shutil.copytree(phantoms, tmp_path / "root"))
    broken = sorted(root.glob("Images/*/test/*.png"))[0]
    image = broken.read_bytes()
    broken.write_bytes(image[: len(image) // 2])
    here = {"prompt_path": str(root / "test.json"), "image_root": str(root)}
    assert infer(settings(**here)) == 0
    failed = [result for result in read_results(settings().output_path).results if result.error]
    assert len(failed) == 5
    assert {result.outcome for result in failed} == {None}
    assert str(failed[0].error).startswith("unreadable: ")
    captured = capsys.readouterr()
    assert "n = 15" in captured.out
    assert "errors 5" in captured.out
    assert "5 questions could not be asked; the first: " in captured.err
    assert infer(settings(**here, strict=True)) == 1

    broken.write_bytes(image)  # mended: just these are asked, and their failures are forgotten
    valid_lines = [line for line in Path(settings().output_path).read_text().splitlines() if '"error": null' in line]
    assert infer(settings(**here, strict=True)) == 0
    lines = Path(settings().output_path).read_text().splitlines()
    assert len(lines) == 21
    assert lines[1:16] == valid_lines
    assert len([line for line in lines[16:] if '"error": null' in line]) == 5


@pytest.mark.slow
def test_a_run_without_one_readable_image_is_an_error(settings, phantoms, tmp_path):
    root = Path(shutil.copytree(phantoms, tmp_path / "root"))
    for image in root.glob("Images/*/test/*.png"):
        image.write_bytes(b"no image")
    with pytest.raises(UserError, match="not one of 20 questions could be asked"):
        infer(settings(prompt_path=str(root / "test.json"), image_root=str(root)))


@pytest.mark.slow
def test_a_full_disk_keeps_what_was_written(settings, file_size_limit):
    path = Path(settings().output_path)
    with (
        pytest.raises(UserError, match=rf"cannot write {path}: .*results written so far are saved: the same"),
        file_size_limit(6000),
    ):
        infer(settings())
    written = read_results(path).results
    assert 0 < len(written) < 20
    assert infer(settings()) == 0
    assert len(read_results(path).results) == 20


@pytest.mark.slow
def test_an_interrupt_keeps_what_was_written(settings, monkeypatch, capsys):
    real = run.answer_views

    def interrupted(*arguments):
        batches = real(*arguments)
        yield next(batches)
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "answer_views", interrupted)
    assert infer(settings()) == INTERRUPTED
    assert "interrupted; 8 results are saved" in capsys.readouterr().err
    monkeypatch.undo()
    assert infer(settings()) == 0
    assert len(read_results(settings().output_path).results) == 20


def test_two_processes_do_not_write_one_file(settings):
    path = Path(settings().output_path)
    path.parent.mkdir()
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another process is writing"):
            infer(settings())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 0}, "--batch_size 0 must be at least 1"),
        ({"mode": "thinking"}, "--mode 'thinking' does not exist; choose one of think, nothink, think_after"),
        ({"prompt": "mine"}, "--prompt 'mine' does not exist; choose one of train-think"),
        ({"columns": "question"}, "--columns question: 'question' names no column"),
        ({"columns": "text=question"}, "there is no column 'text'; ours are images, image, problem"),
        ({"device": "gpu"}, "--device 'gpu' is not a device"),
        ({"model_path": "./nowhere"}, r"no checkpoint folder \./nowhere"),
        ({"prompt_path": "nowhere"}, "nowhere is not there"),
        ({"image_root": None}, "--image_root"),
        ({"output_path": "."}, "is a folder; name a file"),
        ({"dtype": "int8"}, "--dtype 'int8' does not exist"),
        ({"max_pixels": 1}, "--max_pixels 1"),
    ],
)
def test_flags_that_cannot_be_meant_are_refused_before_anything_is_written(settings, change, message):
    with pytest.raises(UserError, match=message):
        infer(settings(**change))
    assert not Path(settings().output_path).exists()


def test_a_file_of_something_else_is_not_touched(settings, tmp_path):
    notes = tmp_path / "notes.txt"
    notes.write_text("important\n")
    with pytest.raises(UserError, match="is no result file"):
        infer(settings(output_path=str(notes)))
    assert notes.read_text() == "important\n"


@pytest.mark.slow
def test_a_json_list_and_a_saved_three_column_set_get_the_same_answers(settings, phantoms, tmp_path):
    infer(settings())
    rows = json.loads((phantoms / "test.json").read_text())
    columns = {
        "image": [{"bytes": (phantoms / row["image"]).read_bytes(), "path": None} for row in rows],
        "problem": [row["problem"] for row in rows],
        "solution": [row["solution"] for row in rows],
    }
    features = {"image": datasets.Image(), "problem": datasets.Value("string"), "solution": datasets.Value("string")}
    saved = datasets.Dataset.from_dict(columns, features=datasets.Features(features))
    datasets.DatasetDict({"train": saved, "test": saved}).save_to_disk(str(tmp_path / "saved"))
    saved_path = str(tmp_path / "saved.jsonl")
    infer(settings(prompt_path=str(tmp_path / "saved"), image_root=None, output_path=saved_path))

    def told(path: str) -> set[tuple[str, ...]]:
        return {(r.problem, r.solution, r.output, str(r.outcome)) for r in read_results(path).results}

    assert told(saved_path) == told(settings().output_path)
    assert len({result.image for result in read_results(saved_path).results}) == 4


def test_a_image_from_a_file_is_shown_as_a_prepared_set_holds_it(tiny, phantoms, tmp_path):
    """Training saw 384 x 384, so 200 x 100 pixels in a file must not become another number of tokens."""
    Image.linear_gradient("L").resize((200, 100)).save(tmp_path / "wide.png")
    encoder, _ = loaded(tiny["qwen2_5_vl"])
    from_file = {"id": "0", "problem": "Which? A)a, B)b"}
    from_file |= {"images": [{"bytes": None, "path": str(tmp_path / "wide.png")}]}
    data = (tmp_path / "wide.png").read_bytes()
    prompts = prompts_of(encoder, [from_file, from_file | {"images": [{"bytes": data, "path": None}]}])
    assert prompts.grids is not None
    assert prompts.grids.tolist() == [[1, 14, 14], [1, 8, 14]]  # 200 x 200 floors to 196; 7.1 x 14


@pytest.mark.slow
def test_a_text_model_answers_without_images(settings, tiny):
    assert infer(settings(model_path=str(tiny["qwen2"]))) == 0
    assert len(read_results(settings().output_path).results) == 20


def test_limit_draws_by_id_whatever_the_order():
    ids = [f"{number:03d}" for number in range(100)]
    drawn = {ids[index] for index in choose_rows(ids, 10)}
    mixed = random.Random(1).sample(ids, 100)
    assert len(drawn) == 10
    assert drawn == {mixed[index] for index in choose_rows(mixed, 10)}
    assert drawn != set(ids[:10])
    assert choose_rows(ids, None) == choose_rows(ids, 500) == list(range(100))
    assert data_fingerprint(ids) == data_fingerprint(mixed) != data_fingerprint(ids[1:])


def test_the_mode_is_the_one_asked_for_recorded_released_or_no_think(tmp_path):
    released = "yuxianglai117/Med-R1:VQA_CT"
    assert choose_mode("think_after", "readme", released, tmp_path)[0] == Mode.THINK_AFTER
    assert choose_mode(None, "train-think-after", released, tmp_path)[0] == Mode.THINK_AFTER
    assert choose_mode(None, None, released, tmp_path) == (Mode.THINK, "as released")
    assert choose_mode(None, None, "yuxianglai117/Med-R1:Qwen_2.5_3B_nothink/VQA_CT", tmp_path)[0] == Mode.NOTHINK
    assert choose_mode(None, None, "checkpoints/think", tmp_path)[0] == Mode.NOTHINK  # words in a path say nothing
    (tmp_path / "run.json").write_text('{"mode": "think"}')
    assert choose_mode(None, None, "anything", tmp_path) == (Mode.THINK, "from its run.json")
    assert set(NAMED) > {"readme"}


def test_a_checkpoint_is_not_scored_on_the_other_split_family(tmp_path):
    released = "yuxianglai117/Med-R1:VQA_CT"
    refuse_mixed_families(released, tmp_path, Path("data/VQA/OCT_384"))
    refuse_mixed_families(released, tmp_path, Path("some.json"))
    with pytest.raises(UserError, match="trained on the modality CT, tested on the task Lesion Grading"):
        refuse_mixed_families(released, tmp_path, Path("data/VQA/Lesion_Grading_384"))
    (tmp_path / "run.json").write_text('{"data": {"path": "data/VQA/Lesion_Grading_384"}}')
    with pytest.raises(UserError, match="trained on the task Lesion Grading"):
        refuse_mixed_families("output/mine", tmp_path, Path("OCT_test.json"))


@pytest.mark.slow
def test_a_batch_that_does_not_fit_says_what_to_do(settings, monkeypatch):
    def too_large(*_):
        raise torch.cuda.OutOfMemoryError("out of memory")
        yield

    monkeypatch.setattr(run, "answer_views", too_large)
    with pytest.raises(UserError, match="a batch of 8 does not fit on cpu; all results so far are saved"):
        infer(settings())


@pytest.mark.slow
def test_the_command_runs_as_it_stands_in_the_readme(repository, settings, phantoms, tmp_path):
    run_settings = settings()
    command = [sys.executable, "eval/infer.py", "--model_path", run_settings.model_path]
    command += ["--prompt_path", run_settings.prompt_path]
    command += ["--output_path", str(tmp_path / "cli.jsonl"), "--batch_size", "64", "--image_root", str(phantoms)]
    command += ["--max_new_tokens", "2", "--attn_implementation", "flash_attention_2", "--device", "cpu"]
    process = subprocess.run(command, cwd=repository, capture_output=True, text=True, timeout=1800)
    assert process.returncode == 0, process.stderr
    assert [line.split()[0] for line in process.stdout.splitlines()] == ["accuracy", "tables"]
    assert len([line for line in process.stderr.splitlines() if "using sdpa instead" in line]) == 1
    assert len((tmp_path / "cli.jsonl").read_text().splitlines()) == 21


def test_flags_and_defaults_of_the_command(repository, monkeypatch):
    monkeypatch.syspath_prepend(str(repository / "eval"))
    flags = SimpleNamespace(**vars(__import__("infer")))
    required = ["--model_path", "m", "--prompt_path", "d", "--output_path", "o"]
    assert flags.read_flags(required) == [InferenceSettings("m", "d", "o")]
    assert flags.read_flags([*required, "--limit", "3", "--strict"]) == [
        InferenceSettings("m", "d", "o", limit=3, strict=True)
    ]
    assert flags.read_flags(["--checkpoint", "m", *required[2:]]) == [InferenceSettings("m", "d", "o")]
    parsed = flags.read_flags(["--model_path", "a/x", "--model_path", "org/repo:y", *required[2:]])
    assert [(entry.model_path, entry.output_path) for entry in parsed] == [
        ("a/x", "o/x.jsonl"),
        ("org/repo:y", "o/y.jsonl"),
    ]
    defaults = InferenceSettings("m", "d", "o")
    assert (defaults.batch_size, defaults.max_new_tokens, defaults.split) == (64, 256, "test")
    with pytest.raises(UserError, match="unknown flag --batchsize; did you mean --batch_size"):
        flags.read_flags([*required, "--batchsize", "3"])
    with pytest.raises(UserError, match="required: --prompt_path"):
        flags.read_flags(["--model_path", "m", "--output_path", "o"])


@pytest.mark.slow
def test_real_images_and_the_real_vocabulary(settings, real_dir, tmp_path):
    """Photographs, radiographs and ultrasound in grey, palette and RGB, through the real Qwen processor."""
    checkpoint = build_tiny_checkpoint(tmp_path / "real", processor=real_dir / "qwen2_5_vl_processor")
    root = real_dir / "omnimedvqa"
    questions = [item for item in read_release(root) if isinstance(item, Question)]
    rows = [{"image": q.image, "problem": q.problem, "solution": q.solution} for q in questions[::40]]
    (tmp_path / "test.json").write_text(json.dumps(rows))
    here = {"model_path": str(checkpoint), "prompt_path": str(tmp_path / "test.json"), "image_root": str(root)}
    assert infer(settings(**here, max_new_tokens=2, strict=True)) == 0
    results = read_results(settings().output_path).results
    assert len(results) == len(rows) > 8
    assert {result.problem for result in results} == {row["problem"] for row in rows}
