"""A real SLURM for the tests of a module, where its programs are installed."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from local_slurm import LocalSlurm, local_slurm, missing_programs

SUPPORT = Path(__file__).resolve().parents[1] / "support"


@pytest.fixture(scope="module")
def cluster(repository: Path) -> Iterator[LocalSlurm]:
    """Two nodes of one processor each; their jobs import from here."""
    if missing := missing_programs():
        pytest.skip(f"SLURM is not installed ({', '.join(missing)}): make test-slurm")
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))  # not pytest's, whose paths are too long for sockets
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(map(str, (repository / "src", SUPPORT))))
        patch.setenv("OMP_NUM_THREADS", "1")
        with local_slurm(folder) as running:
            patch.setenv("SLURM_CONF", running.environment["SLURM_CONF"])
            patch.setenv("PATH", running.environment["PATH"])
            yield running
    shutil.rmtree(folder, ignore_errors=True)
