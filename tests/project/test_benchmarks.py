"""benchmarks/gpu_check.py on a tiny model: the script and the benchmarks it is made of run to their end."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow


def run_check(repository: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(repository / "benchmarks" / "gpu_check.py"), *words],
        env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=1800,
    )


def test_the_check_measures_every_part(repository: Path, tmp_path: Path) -> None:
    checked = run_check(repository, "--output", str(tmp_path / "table.json"))
    logs = {log.name: log.read_text()[-2000:] for log in tmp_path.glob("*.log")}
    assert checked.returncode == 0, (checked.stdout, checked.stderr[-2000:], logs)
    table = json.loads((tmp_path / "table.json").read_text())
    rows: dict[str, dict[str, Any]] = {}
    for row in table["rows"]:
        rows.setdefault(row["part"], {}).update(row)
    assert rows.keys() == {"ceilings", "correctness", "rollout", "step", "evaluation", "vllm"}
    assert table["unfinished"] == []
    assert rows["correctness"]["same_tokens"] == 1
    assert 0 <= rows["correctness"]["one_minus_cosine"] < 1e-5
    assert rows["step"]["step_ratio"] > 0
    assert rows["evaluation"]["questions_per_s"] > 0


def test_a_part_that_fails_leaves_the_others_and_status_1(repository: Path, tmp_path: Path) -> None:
    words = ["--parts", "ceilings", "evaluation", "--checkpoint", str(tmp_path / "none")]
    checked = run_check(repository, *words, "--output", str(tmp_path / "table.json"))
    assert checked.returncode == 1
    table = json.loads((tmp_path / "table.json").read_text())
    assert [row["part"] for row in table["rows"]] == ["ceilings"]
    assert len(table["unfinished"]) == 1
    assert table["unfinished"][0].startswith("evaluation: failed: ")
    assert "none" in table["unfinished"][0]
