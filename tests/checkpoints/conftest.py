"""Tiny checkpoints, and copies that a test may change."""

import shutil
from pathlib import Path

import pytest

from open_r1.checkpoints.families import FAMILIES
from open_r1_testbed.tiny_models import build_tiny_checkpoint


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> dict[str, Path]:
    """One checkpoint of each family; never changed, tests work on copies."""
    root = tmp_path_factory.mktemp("tiny")
    return {family: build_tiny_checkpoint(root / family, family, seed=3) for family in FAMILIES}


@pytest.fixture
def copy(tiny, tmp_path):
    """Make a copy of a tiny checkpoint that a test may spoil."""

    def make(family: str = "qwen2_5_vl", name: str = "copy") -> Path:
        return Path(shutil.copytree(tiny[family], tmp_path / name))

    return make
