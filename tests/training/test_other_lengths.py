"""A finished run can be made longer, and any run goes on with another number of processes where its steps stay."""

from pathlib import Path

import pytest
from forked_scripts import in_fork
from other_lengths import SCENARIOS, run_scenario

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", SCENARIOS)
def test_runs_go_on_longer_and_on_other_processes(name: str, tmp_path: Path) -> None:
    in_fork(run_scenario, name, tmp_path)
