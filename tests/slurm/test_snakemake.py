"""The Snakefile of a study, run with Snakemake itself from an environment of its own: `make test-slurm`."""

import os
import shlex
import subprocess
from pathlib import Path

import pytest

from open_r1_testbed.phantom_study import PhantomStudy, differences_of

REPOSITORY = Path(__file__).resolve().parents[2]
SNAKEMAKE = REPOSITORY / ".venv-snakemake" / "bin" / "snakemake"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not SNAKEMAKE.is_file(), reason="Snakemake is not in .venv-snakemake: make test-slurm"),
]


def run(command: list[str], folder: Path) -> str:
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY / "src"), "XDG_CACHE_HOME": str(folder / "cache")}
    process = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout + process.stderr


def test_snakemake_carries_out_the_plan_and_comes_to_the_end_of_a_local_study(tmp_path: Path) -> None:
    """One run and two cells, with the command of docs/clusters.md."""
    study = [*PhantomStudy(modalities=2, max_steps=2, save_steps=1).prepare(REPOSITORY / "scripts", tmp_path)]
    study += ["--only", "CT", "--output_dir"]
    page = (REPOSITORY / "docs" / "clusters.md").read_text()
    (line,) = [line for line in page.splitlines() if line.startswith("snakemake ")]
    snakemake = [str(SNAKEMAKE), *shlex.split(line)[1:]]
    (tmp_path / "Snakefile").write_text(run([*study, "snake", "--emit", "snakemake"], tmp_path))
    dry = run([*snakemake, "--dry-run"], tmp_path)
    assert [line.split() for line in dry.splitlines() if line.startswith(("train  ", "test  ", "report  "))][:3] == [
        ["train", "1"],
        ["test", "1"],
        ["report", "1"],
    ]
    assert "rule train:" in dry
    assert "gpu=1" in dry
    assert not (tmp_path / "snake").exists()

    run([*study, "local"], tmp_path)
    run([*study, "snake", "--items", "train-CT-grpo-nothink"], tmp_path)  # begun in another way
    weights = tmp_path / "snake" / "runs" / "CT-grpo-nothink" / "model.safetensors"
    trained_at = weights.stat().st_mtime_ns
    run(snakemake, tmp_path)
    assert weights.stat().st_mtime_ns == trained_at
    assert differences_of(tmp_path / "local", tmp_path / "snake") == []
    again = run([*snakemake, "--dry-run"], tmp_path)
    assert "rule report:" in again
    assert "rule train:" not in again
    assert "rule test:" not in again
