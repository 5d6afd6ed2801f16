"""Fixtures shared by the tests: no network, one thread, the real data where it is present."""

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["WANDB_MODE"] = "offline"
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def repository() -> Path:
    """The folder that holds README.md."""
    return REPOSITORY


@pytest.fixture(scope="session")
def real_dir() -> Path:
    """Real pictures, questions, split files and a real processor; they are no part of the repository."""
    folder = REPOSITORY.parent / "shared" / "real"
    if not folder.is_dir():
        pytest.skip(f"real data is not here ({folder}); it is not part of the repository")
    return folder


@pytest.fixture(scope="session")
def load_script() -> Callable[[str], Any]:
    """Imports a command of the repository by its path, `eval/report.py`, without running it."""

    def load(name: str) -> Any:
        path = REPOSITORY / name
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load
