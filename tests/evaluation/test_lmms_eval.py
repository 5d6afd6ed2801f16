"""The lmms-eval tasks say what lmms-eval reads, for every published set, and grade as this project does."""

import importlib.util
from pathlib import Path
from typing import Any

import datasets
import pytest
import yaml

from open_r1.vocabulary.labels import Modality, Task
from open_r1.vocabulary.modes import Mode
from open_r1.vocabulary.prompts import question_text
from open_r1_testbed.phantoms import make_phantoms, save_prepared

FOLDER = Path(__file__).resolve().parents[2] / "eval" / "lmms_eval" / "open_r1_vqa"


def read(path: Path) -> dict[str, Any]:
    """A task file as lmms-eval reads it: `include` first, `!function file.name` as that function."""

    class Loader(yaml.SafeLoader):
        pass

    Loader.add_constructor("!function", lambda _, node: function(path.parent, str(node.value)))
    config = yaml.load(path.read_text(), Loader)
    included = config.pop("include", None)
    return {**(read(path.parent / included) if included else {}), **config}


def function(folder: Path, name: Any) -> Any:
    file, _, attribute = name.partition(".")
    spec = importlib.util.spec_from_file_location(file, folder / f"{file}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, attribute)


@pytest.mark.parametrize("label", [*Modality, *Task])
def test_every_set_has_a_task_on_its_prepared_folder(label):
    name = f"open_r1_vqa_{label.folder.removesuffix('_384')}"
    config = read(FOLDER / f"{name}.yaml")
    assert config["task"] == name
    assert config["dataset_path"] == f"data/VQA/{label.folder}"
    assert config["dataset_kwargs"] == {"load_from_disk": True}
    assert (config["test_split"], config["output_type"]) == ("test", "generate_until")
    assert config["generation_kwargs"]["do_sample"] is False
    assert all(callable(config[key]) for key in ("doc_to_visual", "doc_to_text", "process_results"))


@pytest.mark.parametrize(("name", "labels"), [("modalities", Modality), ("tasks", Task)])
def test_groups_name_the_tasks_of_one_family(name, labels):
    config = read(FOLDER / f"open_r1_vqa_{name}.yaml")
    assert config["group"] == f"open_r1_vqa_{name}"
    assert config["task"] == [f"open_r1_vqa_{label.folder.removesuffix('_384')}" for label in labels]


@pytest.mark.slow
def test_functions_serve_a_prepared_folder(tmp_path):
    make_phantoms(tmp_path / "phantoms", train=1, test=1)
    config = read(FOLDER / "open_r1_vqa_CT.yaml")
    folder = save_prepared(tmp_path / "phantoms", tmp_path / "prepared")
    rows: list[Any] = list(datasets.DatasetDict.load_from_disk(str(folder))[config["test_split"]])
    assert len(rows) == 40
    scores = []
    for number, doc in enumerate(rows):
        (image,) = config["doc_to_visual"](doc)
        assert (image.mode, image.size) == ("RGB", (384, 384))
        assert config["doc_to_text"](doc) == question_text(doc["problem"], Mode.NOTHINK)
        gold = doc[config["doc_to_target"]]
        output = [gold, "<answer> E </answer>", "no idea"][number % 3]
        scores.append(config["process_results"](doc, [output]))
    # 14 of 40 right, the rest unreadable: E is not offered
    metrics = [metric["metric"] for metric in config["metric_list"]]
    assert [sum(score[name] for score in scores) for name in metrics] == [14, 26]
    assert {metric["aggregation"] for metric in config["metric_list"]} == {"mean"}
