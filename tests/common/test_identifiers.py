"""Who a patient is stays in the data: no tracker, no page, no table and no card repeats it unless that is asked for.

A made-up name and record number stand in questions, options, image paths, the images' own fields, rows that are
dropped and completions. Then everything that a run leaves is searched, packed parts too.
"""

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from report_files import block_of, images_in, questions_in
from searched_files import BLOCK, FILE, HEAD, NAME, RECORD, holding, layers, photograph

from open_r1.data.images import decode
from open_r1.data.loading import load_rows
from open_r1.data.row_images import image_key
from open_r1.evaluation.reporting.report import write_report
from open_r1.evaluation.scoring.result_writer import ResultWriter
from open_r1.evaluation.scoring.results import Result, graded_result
from open_r1_testbed.tiny_models import build_tiny_checkpoint

PLANTED = re.compile(
    rb"q\0?u\0?a\0?c\0?k\0?e\0?n\0?b|z\0?e\0?b\0?u\0?l\0?o\0?n|4\0?7\0?1\0?1\0?-\0?0\0?8", re.IGNORECASE
)
CONTROL = "a-run-name-that-must-be-found"


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    """A folder in which two steps were trained with wandb, offline, and tensorboard."""
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    folder = tmp_path_factory.mktemp("run")
    build_tiny_checkpoint(folder / "model")
    (folder / "trackers.yaml").write_text("report_to: [wandb, tensorboard]\n")
    command = (
        f"{repository}/src/open_r1/grpo_vqa_nothink.py --model_name_or_path model --dataset_name {data}/train.json "
        f"--image_root {data} --output_dir out --config trackers.yaml --run_name {CONTROL} --max_steps 2 "
        "--logging_steps 1 --num_generations 2 --per_device_train_batch_size 2 --max_completion_length 8 "
        "--save_steps 2 --disable_tqdm true"
    )
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("WANDB", "PYTEST"))}
    process = subprocess.run(
        [sys.executable, *command.split()],
        cwd=folder,
        env={**clean, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "HOME": str(folder)},
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert process.returncode == 0, process.stderr[-3000:]
    (folder / "console.txt").write_text(process.stdout + process.stderr)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight questions about one made-up patient, and three that cannot be used."""
    folder = tmp_path_factory.mktemp("data")
    rows = []
    for place in range(8):
        path = folder / f"{FILE}-{place}.img"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(photograph(place))
        problem = f"What has {NAME} ({RECORD}), case {place}? A)Quackenbush syndrome, B)a cyst, C)nothing"
        rows.append(
            {"image": f"{FILE}-{place}.img", "problem": problem, "solution": f"<answer> {'ABC'[place % 3]} </answer>"}
        )
    bad = [
        {**rows[0], "image": f"{FILE}-none.img"},
        {**rows[1], "problem": f"What has {NAME}?"},
        {**rows[2], "solution": f"{NAME}"},
    ]
    (folder / f"{FILE}-torn.img").write_bytes(photograph(0)[:90])
    bad.append({**rows[0], "image": f"{FILE}-torn.img"})
    (folder / "train.json").write_text(json.dumps(rows + bad))
    return folder


@pytest.mark.slow
def test_trackers_and_checkpoints_do_not_name_patients(run: Path) -> None:
    files = holding(run, re.compile(CONTROL.encode()))
    # the search finds what is there: in wandb's log, in tensorboard's events, in what transformers saves
    assert any(name.endswith(".wandb") for name in files), files
    assert any("events.out.tfevents" in name for name in files), files
    # these stay on this machine: run.json says which rows were left out, groups.jsonl shows questions and completions
    assert holding(run, PLANTED) == {"out/run.json", "out/groups.jsonl"}
    assert (run / "out" / "checkpoint-2").is_dir()
    dropped = json.loads((run / "out" / "run.json").read_text())["data"]
    assert len(dropped["dropped"]) == 3
    assert len(dropped["unreadable"]) == 1


@pytest.mark.slow
def test_the_card_of_a_run_does_not_name_patients(run: Path) -> None:
    cards = list((run / "out").rglob("README.md"))
    assert cards
    assert [card for card in cards if PLANTED.search(card.read_bytes())] == []


# --------------------------------------------------------------------------------------------------------- report


@pytest.fixture(scope="module")
def results(data: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two result files whose outputs and error lines name the patient."""
    folder = tmp_path_factory.mktemp("results")
    rows: list[Any] = list(load_rows(data / "train.json", None, data)[0])
    paths = []
    for name in ("before", "after"):
        with ResultWriter(
            folder / f"{name}.jsonl", {"data": str(data / "train.json"), "image_root": str(data)}
        ) as writer:
            for place, row in enumerate(rows):
                labels = {"modality": "CT", "task": "Disease Diagnosis"}
                output = f"<think>{NAME} is ill</think><answer>{'ABC'[(place + len(name)) % 3]}</answer>"
                result: Result = graded_result({**row, **labels}, image_key(row), output, 9)
                writer.write(result)
        paths.append(folder / f"{name}.jsonl")
    return paths


@pytest.mark.slow
def test_a_report_does_not_name_patients_unless_asked(results: list[Path], tmp_path: Path) -> None:
    write_report(results, tmp_path / "plain")
    assert (tmp_path / "plain" / "report.html").is_file()
    # the published form holds questions and answers: that is what it is for
    assert holding(tmp_path / "plain", PLANTED) == {"before/results.json", "after/results.json"}
    page = (tmp_path / "plain" / "report.html").read_text()
    assert block_of(tmp_path / "plain" / "report.html", "index") == ""
    assert "--with_items" in page
    write_report(results, tmp_path / "asked", with_items=True)
    assert holding(tmp_path / "asked", PLANTED) == {"before/results.json", "after/results.json"}
    questions = questions_in(tmp_path / "asked" / "report.html")  # packed: a search through the file does not see it
    assert PLANTED.search(json.dumps(questions).encode())


@pytest.mark.slow
def test_images_in_a_page_lose_their_own_fields(results: list[Path], tmp_path: Path) -> None:
    write_report(results, tmp_path / "asked", with_items=True)
    images = images_in(tmp_path / "asked" / "report.html")
    assert len(images) == 8
    assert [data for data in images if any(PLANTED.search(layer) for layer in layers(data, "x.jpg"))] == []


def test_a_image_is_read_without_its_own_fields() -> None:
    for place in range(4):
        raw = photograph(place)
        assert any(PLANTED.search(layer) for layer in layers(raw, "x"))  # or the next line would mean nothing
        stream = io.BytesIO()
        decode(raw).save(stream, "PNG")
        assert not any(PLANTED.search(layer) for layer in layers(stream.getvalue(), "x"))


def test_a_text_that_a_block_of_wandb_cuts_is_found(tmp_path: Path) -> None:
    first_piece = b"x" * (BLOCK - 2 * HEAD - 8) + NAME[:8].encode()  # up to the end of the first block
    last_piece = NAME[8:].encode() + b"y" * 50
    pieces = (b"\2" + first_piece, b"\4" + last_piece)  # the kinds of a first and of a last piece
    chunks = [bytes(4) + (len(piece) - 1).to_bytes(2, "little") + piece for piece in pieces]
    data = b":W&B" + bytes(3) + b"".join(chunks)
    assert len(data) == BLOCK + HEAD + len(last_piece)
    (tmp_path / "run.wandb").write_bytes(data)
    assert NAME.encode() not in data
    assert holding(tmp_path, re.compile(NAME.encode())) == {"run.wandb"}
