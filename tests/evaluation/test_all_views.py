"""All views of a set in one command: the lines of four commands, with the images that views share encoded once."""

import json
from pathlib import Path

import pytest
from asked_rows import small_settings
from sharp_checkpoints import sharp_checkpoint

from open_r1.common.errors import UserError
from open_r1.evaluation.answering import run
from open_r1.evaluation.answering.backends import decoder
from open_r1.evaluation.answering.encoder import Encoder
from open_r1.evaluation.answering.run import infer, infer_all
from open_r1.evaluation.answering.settings import InferenceSettings
from open_r1.evaluation.answering.targets import VIEWS, all_views
from open_r1.evaluation.scoring.results import read_results
from open_r1.vocabulary.labels import Modality
from open_r1_testbed.phantoms import make_phantoms


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    """Settings of a run over 20 questions on 4 images, by the name of its output."""
    root = tmp_path_factory.mktemp("views")
    make_phantoms(root / "phantoms", train=1, test=2, modalities=[Modality.CT, Modality.OCT], workers=1)
    checkpoint = sharp_checkpoint(root / "model")

    def make(output: Path, **changes) -> InferenceSettings:
        return small_settings(checkpoint, root / "phantoms", output, **changes)

    return make


def lines_of(path: Path) -> dict[str, dict]:
    """id -> result line; the manifest, without its time, under an empty id."""
    manifest, *lines = map(json.loads, path.read_text().splitlines())
    return {"": manifest["manifest"] | {"started": None}} | {line["id"]: line for line in lines}


@pytest.mark.slow
def test_they_are_the_lines_of_four_commands(settings, tmp_path, capsys, monkeypatch):
    opened, loads = [], []
    real_open, real_load = Encoder._open, run.load_model
    monkeypatch.setattr(Encoder, "_open", lambda self, *a: (images := real_open(self, *a), opened.extend(images))[0])
    monkeypatch.setattr(run, "load_model", lambda *a: (loads.append(a), real_load(*a))[1])
    assert infer_all(all_views(settings(tmp_path / "views", batch_size=40))) == 0
    assert len(loads) == 1
    real = [key for key in opened if not key.startswith("noise")]
    assert len(real) == 4  # the images of both views that show them, once
    assert capsys.readouterr().out.splitlines()[-1] == (
        f"one report of all runs: python eval/report.py {tmp_path}/views/*.jsonl --output_dir REPORT"
    )
    for name, (image, options) in VIEWS.items():
        infer(settings(tmp_path / f"{name}.jsonl", image=image, options=options, batch_size=40))
        alone = lines_of(tmp_path / f"{name}.jsonl")
        assert lines_of(tmp_path / "views" / f"{name}.jsonl") == alone
        assert len(alone) == 21
    texts = {name: [line.get("output") for line in lines_of(tmp_path / f"{name}.jsonl").values()] for name in VIEWS}
    assert len({str(outputs) for outputs in texts.values()}) == 4


@pytest.mark.slow
def test_the_prefix_of_an_image_is_computed_once_for_both_orders_of_the_options(settings, tmp_path, monkeypatch):
    prefixes, real = [], decoder._shared_prefixes
    monkeypatch.setattr(
        decoder, "_shared_prefixes", lambda prompts: (shared := real(prompts), prefixes.append(len(shared[0])))[0]
    )
    infer_all(all_views(settings(tmp_path / "views", batch_size=40))[:2])
    assert prefixes == [4]  # 40 prompts about 4 images


@pytest.mark.slow
def test_they_continue_where_they_were_stopped(settings, tmp_path):
    views = all_views(settings(tmp_path / "views"))
    infer_all(views)
    whole = {view.output_path: lines_of(Path(view.output_path)) for view in views}
    for number, view in enumerate(views):
        path = Path(view.output_path)
        lines = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(b"".join(lines[: 3 + 5 * number]) + b'{"id": "torn')
    assert infer_all(views) == 0
    for view in views:
        assert lines_of(Path(view.output_path)) == whole[view.output_path]
    (tmp_path / "views" / "image_noise.jsonl").unlink()
    assert infer_all(views) == 0
    assert len(read_results(tmp_path / "views" / "image_noise.jsonl").results) == 20


@pytest.mark.slow
def test_text_questions_have_no_views_of_images(settings, tmp_path, capsys):
    rows = [{"problem": f"What is {n}? A)one, B)two, C)three", "solution": "A"} for n in range(6)]
    data = tmp_path / "test.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    views = all_views(settings(tmp_path / "views", prompt_path=str(data), image_root=None))
    assert infer_all(views) == 0
    assert capsys.readouterr().err.count("would change nothing: not asked") == 2
    assert sorted(path.name for path in (tmp_path / "views").iterdir()) == ["as_usual.jsonl", "options_shuffled.jsonl"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--output_path out --image none", "--all_views sets --image itself"),
        ("--output_path out --options shuffled", "--all_views sets --options itself"),
        ("--output_path out.jsonl", "out.jsonl is one file, and --all_views writes 4; name a folder"),
    ],
)
def test_flags_that_contradict_are_refused(load_script, flags, message):
    script = load_script("eval/infer.py")
    with pytest.raises(UserError, match=message):
        script.read_flags(f"--model_path m --prompt_path d --all_views {flags}".split())


def test_each_of_several_sets_has_a_folder_of_views(load_script):
    script = load_script("eval/infer.py")
    flags = "--model_path m --prompt_path data/CT data/MRI --output_path out --all_views --letter_probs"
    files = [settings.output_path for settings in script.read_flags(flags.split())]
    assert files == [f"out/{data}/{name}.jsonl" for data in ("CT", "MRI") for name in VIEWS]
