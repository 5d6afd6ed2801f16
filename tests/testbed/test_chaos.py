"""A few of each kind of fault that scripts/chaos.py injects into real runs; `make chaos` injects many."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


def test_runs_survive_kills_damage_signals_and_faults(tmp_path: Path, repository: Path) -> None:
    done = subprocess.run(
        [sys.executable, "scripts/chaos.py", "--quick", "--output_dir", str(tmp_path / "chaos")],
        cwd=repository,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=1800,
    )
    print(done.stdout)
    lines = [line for line in done.stdout.splitlines() if line.partition(":")[0] in KINDS]
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert {kind: sum(line.startswith(f"{kind}:") for line in lines) for kind in KINDS} == KINDS
    assert not any("NOT SURVIVED" in line for line in lines)


KINDS = {"kills": 3, "saving": 1, "damage": 1, "signals": 1, "faults": 7}
