"""The model card: what was trained and how well it does, and nothing that names a row, a path or a secret."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from local_hub import LocalHub
from model_cards import STORY, run
from published_sets import save_published_form

from open_r1.checkpoints.folder import fingerprint
from open_r1.checkpoints.model_card import card, public_command, public_name, write_card
from open_r1.common.errors import UserError
from open_r1.evaluation.reporting.model_card import accuracy_table
from open_r1.evaluation.scoring.result_writer import ResultWriter
from open_r1.evaluation.scoring.results import graded_result
from open_r1_testbed.tiny_models import build_tiny_checkpoint

ROOT = Path(__file__).resolve().parents[2]


def front(text: str) -> dict[str, Any]:
    return yaml.safe_load(text.split("---\n")[1])


def test_a_card_says_what_was_trained_on_what_and_how() -> None:
    text = card(STORY)
    assert front(text) == {
        "library_name": "transformers",
        "base_model": "Qwen/Qwen2.5-VL-3B-Instruct",
        "license": "other",
        "pipeline_tag": "image-text-to-text",
        "tags": ["medical", "visual-question-answering", "grpo"],
    }
    assert "# Qwen2.5-VL-3B-Instruct after GRPO on CT_384" in text
    assert "| CT_384 | 40 | image_disjoint | all |" in text
    assert "Left out: 2 unusable, 1 over the prompt limit. Longest prompt: 310 tokens." in text
    assert f"| CT_384/train/data.arrow | {'d1' * 32} | 12,345 |" in text
    assert "grpo_vqa_nothink.py --dataset_name CT_384 --output_dir=./output/CT --beta 0.04\n" in text
    assert "torch 2.13.0, trl 1.16.0" in text
    assert "It is no medical device" in text
    assert "Not measured yet." in text


def test_a_card_names_no_row_no_path_and_no_secret() -> None:
    text = card(STORY)
    for word in ("patient-", "scratch", "anna", "hf_abc", "hub_token", "0815"):
        assert word not in text, word


@pytest.mark.parametrize(
    ("command", "public"),
    [
        ("x.py --a /home/me/b c", "x.py --a b c"),
        ("x.py --out=~/b --hub_token=abc --lr 1e-6", "x.py --out=b --lr 1e-6"),
        ("x.py --wandb_key abc --n 2", "x.py --n 2"),
        ("x.py ../../else/data", "x.py data"),
        ("x.py 'unbalanced", "x.py ''\"'\"'unbalanced'"),
    ],
)
def test_commands_without_paths_and_secrets(command: str, public: str) -> None:
    assert public_command(command) == public


def test_base_names() -> None:
    assert public_name("./checkpoints/Qwen2-VL-2B-Instruct") == "Qwen/Qwen2-VL-2B-Instruct"
    assert public_name("yuxianglai117/Med-R1:VQA_CT") == "yuxianglai117/Med-R1:VQA_CT"
    assert public_name("/data/private/mine") == "mine"
    assert "base_model: yuxianglai117/Med-R1\n" in card(STORY | {"base_model": "yuxianglai117/Med-R1:VQA_CT"})
    assert "base_model" not in front(card(STORY | {"base_model": "/data/private/mine"}))
    assert front(card(STORY, is_adapter=True))["library_name"] == "peft"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as a finished run leaves it."""
    folder = build_tiny_checkpoint(tmp_path_factory.mktemp("card") / "out")
    (folder / "run.json").write_text(json.dumps(STORY))
    for name in ("trainer_state.json", "training_args.bin", "completions/completions_00001.parquet"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("patient-0815")
    (folder / "checkpoint-1").mkdir()
    (folder / "checkpoint-1" / "model.safetensors").write_text("patient-0815")
    return folder


def results(path: Path, checkpoint: str, right: int, wrong: int) -> Path:
    manifest = {"checkpoint": "out", "checkpoint_sha256": checkpoint, "data": "/scratch/anna/CT_384"}
    with ResultWriter(path, manifest | {"split": "test", "mode": "nothink", "rows": right + wrong}) as writer:
        for i in range(right + wrong):
            row = {"id": str(i), "problem": "What? A)x, B)y", "solution": "<answer> A </answer>", "modality": "CT"}
            output = "<answer> A </answer>" if i < right else "<answer> B </answer>"
            writer.write(graded_result(row, f"patient-{i}", output, 5))
    return path


def test_accuracies_stand_with_n_and_standard_error(trained: Path, tmp_path: Path) -> None:
    file = results(tmp_path / "CT.jsonl", fingerprint(trained), 75, 25)
    text = write_card(trained, STORY, accuracy_table(trained, [file])).read_text()
    # sqrt(0.75 * 0.25 / 99) = 4.35 points: 100 images, one question each
    assert "| CT_384 (test, nothink) | all | 100 | 75.0 ± 4.4 | " in text
    assert "| 50.0 | 0.0 |" in text  # chance of two options; all were read
    assert "patient-" not in text
    with pytest.raises(UserError, match="whose weights are not those of"):
        accuracy_table(trained, [results(tmp_path / "other.jsonl", "00", 1, 1)])


@pytest.mark.slow
def test_publishing_sends_weights_and_card_and_nothing_else(trained: Path, tmp_path: Path) -> None:
    with LocalHub({}) as hub:
        process = run(hub, tmp_path, str(ROOT / "eval" / "model_card.py"), str(trained), "--push_to", "org/mine")
        assert process.returncode == 0, process.stderr[-3000:]
        assert f"published: {hub.url}/org/mine" in process.stdout
        sent = hub.pushed["org/mine"]
    assert {"README.md", "config.json", "model.safetensors", "tokenizer.json"} <= sent.keys()
    assert sent["model.safetensors"] == (trained / "model.safetensors").read_bytes()
    assert not {"run.json", "trainer_state.json", "training_args.bin"} & sent.keys()
    assert not [name for name in sent if "/" in name]
    assert b"patient-" not in b"".join(sent.values())
    assert sent["README.md"].startswith(b"---\nlibrary_name: transformers")


@pytest.mark.slow
def test_push_to_hub_publishes_once_when_the_run_is_done(tmp_path: Path, repository: Path) -> None:
    build_tiny_checkpoint(tmp_path / "tiny")
    save_published_form(tmp_path / "CT", 2)
    flags = (
        "--model_name_or_path tiny --dataset_name CT --num_generations 2 --max_completion_length 4 --max_steps 2 "
        "--save_steps 1 --log_completions true --output_dir out --push_to_hub true --hub_model_id org/trained"
    )
    with LocalHub({}) as hub:
        process = run(hub, tmp_path, str(repository / "src" / "open_r1" / "grpo_vqa_nothink.py"), *flags.split())
        assert process.returncode == 0, process.stderr[-3000:]
        commits = [request for request in hub.requests if "/commit/" in request.path]
        sent = hub.pushed["org/trained"]
    assert len(commits) == 1
    assert "--push_to_hub: org/trained gets weights and model card when training ends" in process.stdout
    assert sent["model.safetensors"] == (tmp_path / "out" / "model.safetensors").read_bytes()
    assert sent["README.md"] == (tmp_path / "out" / "README.md").read_bytes()
    assert b"# tiny after GRPO on CT" in sent["README.md"]
    assert b"slice" not in b"".join(value for name, value in sent.items() if name != "model.safetensors")


def test_without_run_json_there_is_no_card(tmp_path: Path, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from open_r1.evaluation.reporting.model_card import main

    monkeypatch.setattr(sys, "argv", ["model_card", str(tmp_path)])
    with pytest.raises(UserError, match=r"holds no run\.json"):
        main()
