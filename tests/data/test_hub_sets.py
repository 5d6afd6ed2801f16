"""Data sets of the hub by name, against a hub on this machine: what is fetched, from which commit, and what is not."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from local_hub import COMMIT, LocalHub
from published_sets import png

from open_r1.common.errors import UserError
from open_r1.data.loading import load_rows
from open_r1.data.missing_sets import HubName, hub_name, require_data
from open_r1.evaluation.scoring.results import read_results
from open_r1_testbed.tiny_models import build_tiny_checkpoint

LOAD = """
import json, sys
from open_r1.common.errors import UserError
from open_r1.data.loading import load_rows
from open_r1.data.readers.hub_sets import commit_of
from open_r1.data.row_images import row_images

for name, split in json.loads(sys.argv[1]):
    try:
        rows, dropped = load_rows(name, split)
        sizes = [[image.size for image in row_images(row)] for row in rows]
        print(json.dumps([rows["problem"][:], sizes, len(dropped), commit_of(name)]))
    except UserError as error:
        print(json.dumps(str(error)))
"""


def parquet(*problems: str, **columns: list[Any]) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"problem": [*problems], "solution": ["yes"] * len(problems), **columns}), sink)
    return sink.getvalue().to_pybytes()


def loaded(home: Path, address: str, *wanted: tuple[str, str | None], **variables: str) -> list[Any]:
    """For each (name, split) the problems, sizes of images, dropped rows and the commit; or the error."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    process = subprocess.run(
        [sys.executable, "-c", LOAD, json.dumps(wanted)],
        env=clean | {"HF_HOME": str(home), "HF_ENDPOINT": address} | variables,
        cwd=home.parent,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert process.returncode == 0, process.stderr[-2000:]
    return [json.loads(line) for line in process.stdout.splitlines()]


@pytest.mark.slow
def test_one_split_is_fetched_and_its_commit_is_recorded(tmp_path):
    image = {"bytes": png((9, 9, 9)), "path": None}
    line = json.dumps({"problem": "Is it a?", "solution": "yes"})
    with_image = json.dumps({"images": ["a.png"], "problem": "Is it a?", "solution": "yes"})
    files = {
        "README.md": b"# A set",
        "loader.py": b"raise SystemExit('code of a repository was run')",
        "data/train-00000-of-00001.parquet": parquet("Train?"),
        "data/test-00000-of-00002.parquet": parquet("One?", images=[[image, image]]),
        "data/test-00001-of-00002.parquet": parquet("Two?", images=[[image]]),
    }
    repositories = {
        "org/parquet": files,
        "org/lines": {"MM/test.jsonl": line.encode(), "Text/test.jsonl": with_image.encode()},
        "org/none": {"loader.py": b"", "data.zip": b"x"},
    }
    wanted = [
        ("org/parquet", "test"),
        ("org/lines:MM", "test"),
        ("org/parquet", "validation"),
        ("org/lines", "test"),
        ("org/lines:Text@main", "test"),
        ("org/none:data", None),
        ("org/nowhere", None),
    ]
    home = tmp_path / "home"
    with LocalHub(repositories) as hub:
        two, lines, no_split, two_folders, with_images, none, nowhere = loaded(home, hub.url, *wanted)
        fetched = [request.path for request in hub.requests if "/resolve/" in request.path]
    assert two == [["One?", "Two?"], [[[384, 384]] * 2, [[384, 384]]], 0, COMMIT]
    assert lines == [["Is it a?"], [[]], 0, COMMIT]
    assert "names images by path; give the folder" in with_images
    assert "org/parquet has no validation split, only test, train" in no_split
    assert "has the split test in 2 folders (MM, Text)" in two_folders
    assert "the folder data of org/none holds no Parquet or JSON files" in none
    assert "cannot be fetched from the hub (there is no such set, or it is private: check the spelling" in nowhere
    assert not [path for path in fetched if path.endswith((".py", ".md", ".zip")) or "train-" in path]
    # what was fetched is there without a network, and says its commit; the rest says what to do
    for address, variables in (("http://127.0.0.1:9", {}), (hub.url, {"HF_HUB_OFFLINE": "1"})):
        again, other = loaded(home, address, ("org/parquet", "test"), ("org/other", None), **variables)
        assert again == two
        assert (
            "`hf download org/other --repo-type dataset --local-dir data/other` fetches it; then give data/o" in other
        )
        assert "\n" not in other


def test_names_as_on_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    assert hub_name("org/name") == HubName("org/name")
    assert hub_name("org/name:MM@v1.0") == HubName("org/name", "MM", "v1.0")
    assert hub_name("org/na.me@refs/convert/parquet") == HubName("org/na.me", None, "refs/convert/parquet")
    for name in (
        "data/CT_384",
        "./org/name",
        "/org/name",
        "org/name/more",
        "name",
        "org/../x",
        "http://x/y",
        "",
        "a/b:",
    ):
        assert hub_name(name) is None, name
        with pytest.raises(UserError, match="is not there"):
            require_data("--dataset_name", f"{name}\0" if name == "" else name)


def test_without_a_network_one_line_says_what_to_do():
    with pytest.raises(
        UserError, match=r"\(HF_HUB_OFFLINE is set\).*`hf download nobody/nothing --repo-type"
    ) as caught:
        load_rows("nobody/nothing", "train")
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_training_and_evaluation_record_the_commit(tmp_path, repository):
    build_tiny_checkpoint(tmp_path / "tiny", "qwen2_5_vl")
    image = {"bytes": png((9, 9, 9)), "path": None}
    questions = [f"Is it {number}?" for number in range(4)]
    files = {
        f"data/{split}-00000-of-00001.parquet": parquet(*questions, image=[image] * 4) for split in ("train", "test")
    }
    clean = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    with LocalHub({"org/vqa": files}) as hub:
        environment = clean | {"HF_HOME": str(tmp_path / "home"), "HF_ENDPOINT": hub.url, "OMP_NUM_THREADS": "1"}

        def run(script: str, flags: str) -> None:
            process = subprocess.run(
                [sys.executable, str(repository / script), *flags.split()],
                cwd=tmp_path,
                env=environment,
                capture_output=True,
                text=True,
                timeout=1800,
            )
            assert process.returncode == 0, process.stderr[-2000:]

        training = (
            "--model_name_or_path tiny --dataset_name org/vqa --output_dir out --max_steps 1 --num_generations 2 "
        )
        training += "--max_completion_length 3 --save_strategy no --report_to none --max_pixels 3136"
        run("src/open_r1/grpo_vqa_nothink.py", training)
        evaluation = (
            "--model_path tiny --prompt_path org/vqa --train_path org/vqa --output_path answers.jsonl --device cpu "
        )
        run("eval/infer.py", f"{evaluation} --max_new_tokens 2 --max_pixels 3136")
    (data_set,) = json.loads((tmp_path / "out" / "run.json").read_text())["data"]["sets"]
    assert (data_set["path"], data_set["commit"], data_set["prompts"]) == ("org/vqa", COMMIT, 4)
    file = read_results(tmp_path / "answers.jsonl")
    assert (file.manifest["data"], file.manifest["data_commit"], len(file.results)) == ("org/vqa", COMMIT, 4)
