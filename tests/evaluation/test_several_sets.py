"""Several checkpoints and several data sets in one command."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from asked_rows import outputs

from open_r1.checkpoints.loading import load_model
from open_r1.checkpoints.processors import load_processor
from open_r1.common.errors import UserError
from open_r1.evaluation.answering.backends.generator import Generator
from open_r1.evaluation.answering.encoder import Encoder
from open_r1.evaluation.answering.perturbations import View
from open_r1.evaluation.answering.run import infer, infer_all
from open_r1.evaluation.answering.settings import InferenceSettings, Sampling
from open_r1.evaluation.answering.targets import checkpoint_outputs
from open_r1.evaluation.scoring.results import read_results
from open_r1.vocabulary.modes import Mode


def load(tiny: Path, sampling: Sampling | None = None, view: View | None = None) -> tuple[Encoder, Generator]:
    encoder = Encoder(load_processor(tiny), Mode.NOTHINK, view=view or View())
    return encoder, Generator(load_model(tiny, torch.float32), encoder.tokenizer, 6, sampling)


@pytest.mark.slow
def test_an_adapter_and_its_merged_checkpoint_answer_alike(settings, tiny, tmp_path):
    model = load_model(tiny, torch.float32)
    config = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    adapted: Any = peft.get_peft_model(model, config)
    adapted.peft_config["default"].base_model_name_or_path = str(tiny)
    adapted.save_pretrained(tmp_path / "runs" / "adapter")
    merged = adapted.merge_and_unload()
    merged.save_pretrained(tmp_path / "runs" / "merged")
    load_processor(tiny).save_pretrained(tmp_path / "runs" / "merged")
    every = [
        settings(model_path=name, output_path=path)
        for name, path in checkpoint_outputs([str(tmp_path / "runs"), str(tiny)], str(tmp_path / "results"))
    ]
    assert infer_all(every) == 0
    assert sorted(path.name for path in (tmp_path / "results").iterdir()) == [
        "adapter.jsonl",
        "merged.jsonl",
        "tiny.jsonl",
    ]
    outputs_of = [outputs(entry) for entry in every]
    assert outputs_of[0] == outputs_of[1] != outputs_of[2]


@pytest.mark.slow
def test_one_checkpoint_that_cannot_be_used_does_not_stop_the_others(settings, tiny, tmp_path, capsys):
    every = [settings("bad", model_path=str(tmp_path)), settings("good", model_path=str(tiny))]
    assert infer_all(every) == 2
    assert len(read_results(every[1].output_path).results) == 20
    assert "holds no config.json" in capsys.readouterr().err


def test_result_files_are_named_after_their_checkpoints(tmp_path):
    for name in ("CT", "OCT"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
    (tmp_path / "logs").mkdir()
    assert checkpoint_outputs([str(tmp_path / "CT")], "out.jsonl") == [(str(tmp_path / "CT"), "out.jsonl")]
    assert [Path(path).name for _, path in checkpoint_outputs([str(tmp_path)], "out")] == ["CT.jsonl", "OCT.jsonl"]
    named = checkpoint_outputs(["a/x/last", "b/x/last", "org/repo:sub"], "out")
    assert [path for _, path in named] == ["out/a_x_last.jsonl", "out/b_x_last.jsonl", "out/org_repo_sub.jsonl"]
    with pytest.raises(UserError, match="one file for 2 checkpoints; name a folder"):
        checkpoint_outputs(["a", "b"], "out.jsonl")
    with pytest.raises(UserError, match="named twice: a, a"):
        checkpoint_outputs(["a", "a"], "out")


def test_each_of_several_data_sets_has_its_result_file(load_script):
    read = load_script("eval/infer.py").read_flags
    sets = ["--prompt_path", "data/CT_384", "data/MRI_384", "--output_path"]
    single = read(["--model_path", "org/repo:sub", *sets, "out"])
    assert [(entry.prompt_path, entry.output_path) for entry in single] == [
        ("data/CT_384", "out/CT_384.jsonl"),
        ("data/MRI_384", "out/MRI_384.jsonl"),
    ]
    two = read(["--model_path", "o/a", "--model_path", "o/b", *sets, "out"])
    assert [entry.output_path for entry in two] == [
        f"out/{checkpoint}/{name}.jsonl" for checkpoint in ("a", "b") for name in ("CT_384", "MRI_384")
    ]
    with pytest.raises(UserError, match="one file for 2 data sets; name a folder"):
        read(["--model_path", "o/a", *sets, "out.jsonl"])


@pytest.mark.slow
def test_the_model_is_loaded_once_for_several_data_sets(tiny, phantoms, tmp_path, monkeypatch, capsys):
    from open_r1.evaluation.answering import run

    loaded = []
    load = run.load_model
    monkeypatch.setattr(run, "load_model", lambda *arguments: loaded.append(arguments) or load(*arguments))
    lists = [tmp_path / "a.json", tmp_path / "b.json"]
    rows = json.loads((phantoms / "test.json").read_text())[:4]
    for path, half in zip(lists, (rows[:2], rows[2:]), strict=True):
        path.write_text(json.dumps(half))
    shared = {"model_path": str(tiny), "image_root": str(phantoms), "max_new_tokens": 4, "device": "cpu"}
    together = [
        InferenceSettings(prompt_path=str(path), output_path=str(tmp_path / f"{path.stem}.jsonl"), **shared)
        for path in lists
    ]
    assert run.infer_all(together) == 0
    assert len(loaded) == 1
    alone = InferenceSettings(prompt_path=str(lists[1]), output_path=str(tmp_path / "alone.jsonl"), **shared)
    assert run.infer_all([alone]) == 0
    outputs = [[r.output for r in read_results(tmp_path / f"{name}.jsonl").results] for name in ("b", "alone")]
    assert outputs[0] == outputs[1]
    longer = [
        replace(entry, max_new_tokens=3 + k, output_path=f"{entry.output_path}{k}") for k, entry in enumerate(together)
    ]
    assert run.infer_all(longer) == 0
    assert len(loaded) == 4  # other settings ask for another model


@pytest.mark.slow
def test_force_scores_across_split_families_and_says_so(settings, phantoms, tmp_path, tiny, capsys):
    trained = tmp_path / "trained"
    trained.mkdir()
    for file in tiny.iterdir():
        (trained / file.name).symlink_to(file)
    (trained / "run.json").write_text('{"mode": "nothink", "data": {"path": "data/VQA/Lesion_Grading_384"}}')
    (tmp_path / "OCT_test.json").write_text((phantoms / "test.json").read_text())
    crossed = {"model_path": str(trained), "prompt_path": str(tmp_path / "OCT_test.json")}
    with pytest.raises(UserError, match="--force evaluates anyway"):
        infer(settings(**crossed))
    assert infer(settings(**crossed, force=True)) == 0
    manifest = read_results(settings().output_path).manifest
    assert manifest["forced"] is True
    assert (manifest["trained_on"], manifest["tested_on"]) == ("Lesion Grading", "OCT")
    assert "forced: trained on the task Lesion Grading" in capsys.readouterr().err
