"""A run's record, and the model card command."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from local_hub import LocalHub

STORY: dict[str, Any] = {
    "method": "grpo",
    "mode": "nothink",
    "base_model": "/scratch/anna/checkpoints/Qwen2.5-VL-3B-Instruct",
    "command": "/scratch/anna/src/open_r1/grpo_vqa_nothink.py --dataset_name /scratch/anna/CT_384 --hub_token hf_abc "
    "--output_dir=./output/CT --beta 0.04",
    "prompt": "{Question} Your task: ...",
    "prompts_per_step": 4,
    "completions_per_step": 16,
    "steps": 100,
    "hardware": "8 x H200",
    "packages": {"trl": "1.16.0", "torch": "2.13.0"},
    "commit": "abc",
    "started": "2026-11-21T12:00:00+00:00",
    "data": {
        "path": "/scratch/anna/CT_384",
        "prompts": 40,
        "longest_prompt": 310,
        "pictures": "all",
        "dropped": ["patient-0815.png: truncated", "patient-4711.png: not offered"],
        "too_long": [["patient-1234", 2000]],
        "unreadable": [],
        "sets": [
            {
                "path": "/scratch/anna/CT_384",
                "prompts": 40,
                "pictures": "all",
                "manifest": {
                    "settings": {"split": "image_disjoint"},
                    "inputs": {"/scratch/anna/Splits/CT.json": "11"},
                    "outputs": {"train/data.arrow": {"sha256": "d1" * 32, "bytes": 12345}},
                    "report": {"dropped": ["patient-0815"]},
                },
            }
        ],
    },
}


def online(hub: LocalHub, home: Path) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    clean |= {"OMP_NUM_THREADS": "1", "WANDB_MODE": "offline", "HF_HUB_DISABLE_XET": "1"}
    return clean | {"HF_ENDPOINT": hub.url, "HF_HOME": str(home), "HF_TOKEN": "hf_secret"}


def run(hub: LocalHub, place: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words],
        cwd=place,
        env=online(hub, place / "home"),
        capture_output=True,
        text=True,
        timeout=1800,
    )
