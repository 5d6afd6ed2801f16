"""lmms-eval itself loads the shipped tasks and asks a model: `make test-lmms`, in an environment of its own."""

import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from open_r1.checkpoints.processors import load_processor
from open_r1.data.loading import load_rows
from open_r1.evaluation.answering.encoder import Encoder
from open_r1.evaluation.scoring.results import graded_result
from open_r1.grading.grader import Outcome
from open_r1.vocabulary.modes import Mode
from open_r1_testbed.phantoms import make_phantoms, save_prepared

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("lmms_eval") is None, reason="lmms-eval is absent: make test-lmms"),
]
ROWS = 20
PRETRAINED = "pretrained=Qwen/Qwen2.5-VL-3B-Instruct,min_pixels=3136,max_pixels=12845056"
TASK, FOLDER = "open_r1_vqa_CT", "data/VQA/CT_384"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a prepared set of 40 test questions, where the task looks for it."""
    root = tmp_path_factory.mktemp("lmms")
    make_phantoms(root / "phantoms", train=1, test=1)
    save_prepared(root / "phantoms", root / FOLDER)
    return root


@pytest.fixture(scope="module")
def base(repository: Path) -> Path:
    """A tiny Qwen2.5-VL that answers questions about drawn images."""
    return repository / "src" / "open_r1_testbed" / "tiny_base"


@pytest.fixture(scope="module")
def config(repository: Path) -> dict[str, Any]:
    """The shipped settings."""
    return yaml.safe_load((repository / "eval" / "lmms_eval" / "qwen2_5_vl.yaml").read_text())


def asked(
    place: Path, repository: Path, model_args: str, monkeypatch: pytest.MonkeyPatch
) -> tuple[list[Mapping[str, Any]], dict[str, float], list[dict[str, torch.Tensor]]]:
    """lmms-eval's samples and results of the first ROWS questions, and what its model was given for each."""
    from lmms_eval.evaluator import simple_evaluate  # pyright: ignore[reportMissingImports]
    from lmms_eval.tasks import TaskManager  # pyright: ignore[reportMissingImports]
    from transformers import Qwen2_5_VLForConditionalGeneration

    model_class: Any = Qwen2_5_VLForConditionalGeneration
    given: list[dict[str, torch.Tensor]] = []
    generate = model_class.generate

    def watched(model: Any, **inputs: Any) -> Any:
        given.append({name: value for name, value in inputs.items() if isinstance(value, torch.Tensor)})
        return generate(model, **inputs)

    monkeypatch.setattr(model_class, "generate", watched)
    monkeypatch.chdir(place)
    tasks = TaskManager(include_path=str(repository / "eval" / "lmms_eval"), include_defaults=False)
    run = simple_evaluate(
        model="qwen2_5_vl",
        model_args=f"{model_args},device_map=cpu",
        tasks=[TASK],
        limit=ROWS,
        device="cpu",
        batch_size=1,
        task_manager=tasks,
    )
    return sorted(run["samples"][TASK], key=lambda sample: sample["doc_id"]), run["results"][TASK], given


def test_it_finds_every_task_and_group(repository: Path) -> None:
    from lmms_eval.tasks import TaskManager  # pyright: ignore[reportMissingImports]

    tasks = TaskManager(include_path=str(repository / "eval" / "lmms_eval"), include_defaults=False).all_tasks
    shipped = {path.stem for path in (repository / "eval" / "lmms_eval" / "open_r1_vqa").glob("*.yaml")}
    assert set(tasks) == shipped
    assert len(shipped) == 8 + 5 + 2


def test_prompts_patches_and_scores_are_ours(
    place: Path, repository: Path, base: Path, config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The tiny model has limits of its own, and sees 112 x 112 pixels of an image.
    size = load_processor(base).image_processor.size
    limits = f"min_pixels={size['shortest_edge']},max_pixels={size['longest_edge']}"
    model_args = config["model_args"].replace(PRETRAINED, f"pretrained={base},{limits}")
    assert limits in model_args
    samples, scores, given = asked(place, repository, model_args, monkeypatch)
    assert len(samples) == len(given) == ROWS

    rows, _ = load_rows(place / FOLDER, "test")
    prompts = Encoder(load_processor(base), Mode.NOTHINK)([rows[number] for number in range(ROWS)]).prompts
    assert sorted(inputs["input_ids"][0].tolist() for inputs in given) == sorted(prompts.tokens)
    grids = {tuple(grid) for grid in prompts.grids.tolist()}
    assert {tuple(inputs["image_grid_thw"][0].tolist()) for inputs in given} == grids == {(1, 8, 8)}

    outputs = [sample["filtered_resps"][0] for sample in samples]
    ours = [graded_result(sample["doc"], "", text, 0) for sample, text in zip(samples, outputs, strict=True)]
    assert [sample["accuracy"] for sample in samples] == [float(result.correct) for result in ours]
    assert [bool(sample["unparsed"]) for sample in samples] == [result.outcome is Outcome.UNPARSED for result in ours]
    assert scores["accuracy,none"] == pytest.approx(sum(result.correct for result in ours) / ROWS)
    assert 0 < scores["accuracy,none"] < 1


def test_the_shipped_limits_are_those_of_the_published_processor(real_dir: Path, config: dict[str, Any]) -> None:
    published = json.loads((real_dir / "qwen2_5_vl_processor" / "processor_config.json").read_text())
    size = published["image_processor"]["size"]
    assert config["model_args"].endswith(f"min_pixels={size['shortest_edge']},max_pixels={size['longest_edge']}")


def test_without_the_limits_it_would_enlarge_images(
    place: Path, repository: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    *_, given = asked(place, repository, f"pretrained={base}", monkeypatch)
    assert {tuple(inputs["image_grid_thw"][0].tolist()) for inputs in given} == {(1, 32, 32)}
