"""GRPO, SFT and evaluation on Parquet with columns of other names, any split names, several images and answer types."""

import json
import os
import subprocess
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from forked_scripts import run_script
from PIL import Image
from report_files import images_in

from open_r1.evaluation.scoring.results import read_results
from open_r1_testbed.tiny_models import build_tiny_checkpoint

pytestmark = pytest.mark.slow

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
KINDS = (
    ("Which is it? A)CT, B)MRI", "<answer> B </answer>"),
    ("Is it normal?", "no"),
    ("Where is the lesion?", "left lung"),
)


def png(number: int) -> dict[str, Any]:
    file = BytesIO()
    values = np.random.default_rng(number).integers(0, 256, (56 + 28 * (number % 3), 84, 3), dtype="uint8")
    Image.fromarray(values).save(file, "PNG")
    return {"bytes": file.getvalue(), "path": f"{number}.png"}


def rows(count: int, first: int = 0) -> list[dict[str, Any]]:
    """Questions of all answer types with none to six images; one in eight shows more than is taken."""
    made = []
    for number in range(first, first + count):
        problem, solution = KINDS[number % 3]
        images = 20 if number % 8 == 7 else number % 7
        pictures = [png(number * 31 + place) for place in range(images)]
        made.append({"pictures": pictures, "question": f"{number}: {problem}", "answer": solution})
    return made


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint, and a set with the splits `learn` and `dev`."""
    folder = tmp_path_factory.mktemp("forms")
    build_tiny_checkpoint(folder / "tiny", "qwen2_5_vl")
    schema = pa.schema([("pictures", pa.list_(IMAGE)), ("question", pa.string()), ("answer", pa.string())])
    (folder / "set" / "data").mkdir(parents=True)
    for split, count, first in (("learn", 16, 0), ("dev", 8, 100)):
        for part in range(2):
            table = pa.Table.from_pylist(rows(count // 2, first + part * count // 2), schema)
            pq.write_table(table, folder / "set" / "data" / f"{split}-0000{part}-of-00002.parquet")
    return folder


def run(place: Path, repository: Path, script: str, flags: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"HF_DATASETS_CACHE": str(place / "cache")}
    process = run_script(repository / script, flags.split(), place, environment=environment)
    assert process.returncode == 0, process.stderr[-3000:]
    return process


DATA = "--columns images=pictures,problem=question,solution=answer"
COMMON = (
    f"--model_name_or_path tiny --dataset_name set {DATA} --dataset_train_split learn --dataset_test_split dev "
    "--max_steps 2 --logging_steps 1 --save_strategy no --report_to none --max_pixels 3136 --max_prompt_length 400 "
)


def test_grpo_trains_and_evaluates_on_it(place: Path, repository: Path) -> None:
    flags = f"{COMMON} --output_dir grpo --num_generations 2 --per_device_train_batch_size 4 --max_completion_length 4 "
    flags += "--eval_strategy steps --eval_steps 2 --max_eval_samples 4 --reward_funcs accuracy format"
    process = run(place, repository, "src/open_r1/grpo_vqa_nothink.py", flags)
    assert "shared prefix verified" in process.stdout
    record = json.loads((place / "grpo" / "run.json").read_text())
    assert record["status"] == "done"
    data = record["data"]
    assert [entry.split("reason='")[1].split("'")[0] for entry in data["dropped"]] == ["too-many-images"] * 2
    assert sum(data["answer_types"].values()) + len(data["too_long"]) == 14
    assert set(data["answer_types"]) == {"choice", "closed", "open"}
    assert data["pictures"] == "some"
    assert [line.count("{Question}") for line in record["prompt"].split("\n")] == [1, 1, 1]
    assert data["evaluation"]["prompts"] == 7


def test_prompts_over_the_limit_are_counted_and_dropped(place: Path, repository: Path) -> None:
    flags = f"{COMMON.replace('400', '140')} --output_dir short --num_generations 2 --per_device_train_batch_size 2 "
    run(place, repository, "src/open_r1/grpo_vqa_nothink.py", f"{flags} --max_completion_length 4")
    data = json.loads((place / "short" / "run.json").read_text())["data"]
    assert data["too_long"]
    assert all(length > 140 for _, length in data["too_long"])
    assert data["longest_prompt"] <= 140
    assert data["prompts"] + len(data["too_long"]) == 14


def test_sft_trains_on_answers_of_every_type(place: Path, repository: Path) -> None:
    flags = f"{COMMON} --output_dir sft --per_device_train_batch_size 2 --gradient_accumulation_steps 1"
    run(place, repository, "src/open_r1/sft_vqa.py", flags)
    assert json.loads((place / "sft" / "run.json").read_text())["status"] == "done"


def test_evaluation_answers_it_and_the_report_shows_its_images(place: Path, repository: Path) -> None:
    flags = f"--model_path tiny --prompt_path set --split dev --train_split learn {DATA} --output_path out/dev.jsonl "
    process = run(place, repository, "eval/infer.py", f"{flags} --max_new_tokens 4 --max_pixels 3136 --device cpu")
    assert "blind floor from set (its learn split)" in process.stderr
    file = read_results(place / "out" / "dev.jsonl")
    assert (len(file.results), file.missing) == (7, 0)
    assert file.manifest["columns"] == DATA.split()[1]
    assert all(result.blind is not None for result in file.results)
    run(place, repository, "eval/report.py", "out/dev.jsonl --output_dir report --with_items")
    assert len(images_in(place / "report" / "report.html")) == 6  # one of seven questions has no image
    floors = run(place, repository, "eval/blind.py", f"--data set --train_split learn --test_split dev {DATA}").stdout
    assert "closed questions, most frequent answer" in floors
    assert "2 rows of train cannot be used" in floors
