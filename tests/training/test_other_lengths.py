"""A finished run can be made longer, and any run goes on with another number of processes where its steps stay."""

import subprocess
import sys
from pathlib import Path

import pytest
from other_lengths import SCENARIOS

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", SCENARIOS)
def test_runs_go_on_longer_and_on_other_processes(name: str, tmp_path: Path, repository: Path) -> None:
    script = str(repository / "tests" / "support" / "other_lengths.py")
    process = subprocess.run(
        [sys.executable, script, str(tmp_path), name], capture_output=True, text=True, timeout=3600
    )
    assert process.returncode == 0, process.stdout[-2000:] + process.stderr[-4000:]
