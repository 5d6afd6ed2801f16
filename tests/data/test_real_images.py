"""The whole way on real images and the real vocabulary: prepare, train on two processes, infer, report."""

import csv
import json
from pathlib import Path

import pytest
from forked_scripts import run_script

from open_r1_testbed.tiny_models import build_tiny_checkpoint

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory, repository: Path, real_dir: Path) -> Path:
    folder = tmp_path_factory.mktemp("real")
    for name in ("src", "eval", "scripts"):
        (folder / name).symlink_to(repository / name)
    build_tiny_checkpoint(folder / "checkpoints" / "tiny", processor=real_dir / "qwen2_5_vl_processor")
    return folder


def run(workplace: Path, command: str, processes: int = 0) -> str:
    script, *arguments = command.split()
    process = run_script(workplace / script, arguments, workplace, processes)
    assert process.returncode == 0, process.stdout[-1000:] + process.stderr[-3000:]
    return process.stdout


def test_from_images_to_a_heatmap_without_a_hand_made_step(workplace: Path, real_dir: Path) -> None:
    release = real_dir / "omnimedvqa"
    output = run(
        workplace,
        f"scripts/prepare_omnimedvqa.py --release {release} --only X-Ray --split image_disjoint --num_workers 2",
    )
    assert "0.0 % of the test questions" in output
    output = run(
        workplace,
        "src/open_r1/grpo_vqa_nothink.py --model_name_or_path checkpoints/tiny --dataset_name data/VQA/X-Ray_384 "
        "--output_dir output/nothink --max_steps 2 --num_generations 2 --max_completion_length 8 "
        "--max_pixels 401408 --save_strategy no",
        processes=2,
    )
    assert "shared prefix verified" in output
    # a 384 x 384 image is 196 tokens, and the published prompts around it are well over 60
    data = json.loads((workplace / "output" / "nothink" / "run.json").read_text())["data"]
    assert 256 < data["longest_prompt"] < 512
    run(
        workplace,
        "eval/infer.py --model_path output/nothink --prompt_path data/VQA/X-Ray_384 --output_path output/x.jsonl "
        "--batch_size 8 --max_new_tokens 8 --limit 12",
    )
    run(workplace, "eval/report.py output/x.jsonl --output_dir output/report")
    rows = list(csv.DictReader((workplace / "output" / "report" / "by_modality.csv").open()))
    assert {row["modality"]: row["n"] for row in rows}["X-Ray"] == "12"
    assert (workplace / "output" / "report" / "heatmap.png").stat().st_size > 10_000
