"""Names of checkpoints: folders, released ones, the hub, and what a run left beside its weights."""

import shutil

import pytest
from huggingface_hub import constants
from huggingface_hub.utils import filter_repo_objects

from open_r1.checkpoints import names
from open_r1.checkpoints.folder import fingerprint, run_record
from open_r1.checkpoints.hub import download_patterns
from open_r1.checkpoints.loading import load_model
from open_r1.checkpoints.names import model_source
from open_r1.checkpoints.processors import processor_fingerprint
from open_r1.common.errors import UserError
from open_r1.vocabulary.releases import matrix


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "./checkpoints/Qwen2.5-VL-3B-Instruct",
            "hf download Qwen/Qwen2.5-VL-3B-Instruct --local-dir checkpoints/Qwen2.5-VL-3B-Instruct",
        ),
        ("checkpoints/mine", "no checkpoint folder checkpoints/mine"),
        ("/nowhere/at/all", "no checkpoint folder"),
        ("just-a-word", "org/repo or org/repo:subfolder"),
        ("org/repo:../../etc", "no checkpoint folder"),
        ("https://example.org/model", "no checkpoint folder"),
        ("yuxianglai117/Med-R1", "root of yuxianglai117/Med-R1 holds no model"),
        ("org/not-in-the-cache:part", r"cannot be reached.*checkpoints fetch org/not-in-the-cache:part"),
    ],
)
def test_a_name_that_leads_nowhere_gets_the_remedy(name, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(UserError, match=message):
        model_source(name)


def test_the_root_of_the_released_repository_lists_all_26_folders():
    with pytest.raises(UserError) as error:
        model_source("yuxianglai117/Med-R1")
    assert all(run.checkpoint in str(error.value) for run in matrix())


@pytest.mark.slow
def test_a_folder_without_a_config_says_what_lies_below(tiny):
    with pytest.raises(UserError, match="checkpoints below it: gemma3, qwen2, qwen2_5_vl, qwen2_vl"):
        model_source(tiny["qwen2"].parent)
    with pytest.raises(UserError, match="is a file"):
        model_source(tiny["qwen2"] / "config.json")


def test_a_subfolder_on_the_hub_is_read_from_the_cache_without_a_network(tiny, tmp_path, monkeypatch):
    repository = tmp_path / "models--yuxianglai117--Med-R1"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    snapshot = repository / "snapshots" / ("0" * 40)
    shutil.copytree(tiny["qwen2_vl"], snapshot / "VQA_CT")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    assert model_source("yuxianglai117/Med-R1:VQA_CT") == snapshot / "VQA_CT"
    assert type(load_model("yuxianglai117/Med-R1:VQA_CT")).__name__ == "Qwen2VLForConditionalGeneration"
    with pytest.raises(UserError, match=r"VQA_XRay is not in the hub's cache .* known are: .*Med-R1:VQA_X-Ray,"):
        model_source("yuxianglai117/Med-R1:VQA_XRay")
    with pytest.raises(UserError) as error:
        model_source("yuxianglai117/Med-R1:VQA_MRI")  # which exists, only not here
    assert "VQA_MRI is not in the hub's cache here" in str(error.value)
    assert "HF_HUB_OFFLINE switches the hub off" in str(error.value)
    assert "python -m open_r1.checkpoints fetch yuxianglai117/Med-R1:VQA_MRI" in str(error.value)
    assert "known are" not in str(error.value)


def test_only_weights_and_texts_of_the_one_checkpoint_are_fetched():
    files = [
        "README.md",
        "config.json",
        "model.safetensors",
        "VQA_CT/config.json",
        "VQA_CT/merges.txt",
        "VQA_CT/chat_template.jinja",
        "VQA_CT/model-00001-of-00002.safetensors",
        "VQA_CT/optimizer.pt",
        "VQA_CT/pytorch_model.bin",
        "VQA_CT/modeling.py",
        "VQA_CT/checkpoint-200/config.json",
        "VQA_CTX/config.json",
    ]
    allow, ignore = download_patterns("VQA_CT")
    assert [f for f in files if f in set(filter_repo_objects(files, allow_patterns=allow, ignore_patterns=ignore))] == [
        "VQA_CT/config.json",
        "VQA_CT/merges.txt",
        "VQA_CT/chat_template.jinja",
        "VQA_CT/model-00001-of-00002.safetensors",
    ]
    allow, ignore = download_patterns(None)
    names = set(filter_repo_objects(files, allow_patterns=allow, ignore_patterns=ignore))
    assert names == {"config.json", "model.safetensors"}


def test_every_released_checkpoint_can_be_named():
    for run in matrix():
        match = names.HUB_NAME.fullmatch(run.checkpoint)
        assert match is not None
        assert match["subfolder"] == run.subfolder


def test_the_run_record_is_found_beside_the_weights_and_above_an_intermediate_checkpoint(tmp_path):
    inner = tmp_path / "checkpoint-20"
    inner.mkdir()
    assert run_record(inner) is None
    (tmp_path / "run.json").write_text('{"mode": "think"}')
    assert run_record(inner) == run_record(tmp_path) == {"mode": "think"}


def test_the_fingerprint_follows_the_weights_and_not_the_place(copy):
    first_folder, second = copy(name="first"), copy(name="second")
    assert fingerprint(first_folder) == fingerprint(second)
    (second / "notes.json").write_text("{}")
    assert fingerprint(first_folder) == fingerprint(second)
    assert processor_fingerprint(first_folder) == processor_fingerprint(second)
    data = bytearray((second / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (second / "model.safetensors").write_bytes(data)
    assert fingerprint(first_folder) != fingerprint(second)
    assert processor_fingerprint(first_folder) == processor_fingerprint(second)


def test_the_readme_names_every_released_checkpoint_and_how_to_fetch_it(repository):
    text = (repository / "checkpoints" / "README.md").read_text()
    for run in matrix():
        mark = "seen" if run.is_confirmed else "presumed"
        fetch = f'hf download yuxianglai117/Med-R1 --include "{run.subfolder}/*" --local-dir checkpoints/Med-R1'
        assert f"| {run.label} | `{run.checkpoint}` | {mark} | `{fetch}` |" in text
