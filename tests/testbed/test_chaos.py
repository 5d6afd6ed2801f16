"""A few of each kind of fault that scripts/chaos.py injects into real runs; `make chaos` injects many."""

import json
import os
import subprocess
import sys
from pathlib import Path

import filelock
import pytest

from open_r1_testbed.damaged_checkpoints import DAMAGES
from open_r1_testbed.injected_faults import FAULTS

pytestmark = pytest.mark.slow

# What `--quick` goes through, in its order.
SCENARIOS = {
    "kills": ["one process evaluates", "two processes evaluate", "one of two processes is killed"],
    "saving": ["kills while saving"],
    "damage": list(DAMAGES),
    "signals": ["one of two processes that evaluate"],
    "faults": list(FAULTS),
}
ALL = [(kind, number) for kind, names in SCENARIOS.items() for number in range(len(names))]


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> dict[str, list[str]]:
    """What the script prints of each kind of scenario. It runs once, whichever processes of pytest-xdist ask."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    result = folder / "chaos.json"
    with filelock.FileLock(folder / "chaos.lock"):
        if not result.exists():
            command = [sys.executable, "scripts/chaos.py", "--quick", "--output_dir", str(folder / "chaos")]
            environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
            run = subprocess.run(command, cwd=repository, env=environment, capture_output=True, text=True, timeout=1800)
            result.write_text(json.dumps([run.returncode, run.stdout, run.stderr[-3000:]]))
    _, output, errors = json.loads(result.read_text())
    print(output, errors)
    return {kind: [line for line in output.splitlines() if line.startswith(f"{kind}: ")] for kind in SCENARIOS}


@pytest.mark.parametrize(("kind", "number"), ALL, ids=[f"{kind}: {SCENARIOS[kind][number]}" for kind, number in ALL])
def test_a_run_survives(lines: dict[str, list[str]], kind: str, number: int) -> None:
    line = lines[kind][number]
    assert "NOT SURVIVED" not in line, line
    if kind in ("damage", "faults"):
        assert SCENARIOS[kind][number] in line


def test_these_are_all_scenarios(lines: dict[str, list[str]]) -> None:
    assert {kind: len(lines_of_kind) for kind, lines_of_kind in lines.items()} == {
        k: len(names) for k, names in SCENARIOS.items()
    }
