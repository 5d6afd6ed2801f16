"""A browser for the tests of pages, and a small evaluation for the others."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from asked_rows import small_settings
from chromium import chromium
from sharp_checkpoints import sharp_checkpoint

from open_r1.evaluation.answering.settings import InferenceSettings
from open_r1.vocabulary.labels import Modality
from open_r1_testbed.phantoms import make_phantoms


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as driver:
        yield driver
        driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Path:
    """A checkpoint with weights large enough that images and questions change its answers."""
    return sharp_checkpoint(tmp_path_factory.mktemp("views") / "tiny")


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory) -> Path:
    """Four test images with 20 questions, and eight to train on."""
    folder = tmp_path_factory.mktemp("data") / "phantoms"
    return make_phantoms(folder, train=4, test=2, modalities=[Modality.CT, Modality.OCT], workers=1)


@pytest.fixture
def settings(tiny, phantoms, tmp_path):
    """Settings of a small run, with changes."""

    def make(name: str = "out", **changes) -> InferenceSettings:
        return small_settings(tiny, phantoms, tmp_path / f"{name}.jsonl", **changes)

    return make
