"""A small release and its preparation, for the tests of preparation, and a folder of images for those of rows."""

import json
import shutil
from pathlib import Path

import pytest
from image_rows import COLOURS, png
from small_release import ASKED, MODALITIES, SMALL, make_release

from open_r1.data.omnimedvqa.prepare import Preparation, prepare
from open_r1.data.omnimedvqa.source import Question, read_release
from open_r1.vocabulary.labels import Modality


@pytest.fixture(scope="session")
def shared_release(tmp_path_factory) -> Path:
    return make_release(tmp_path_factory.mktemp("release"))


@pytest.fixture
def release(shared_release, tmp_path) -> Path:
    """A release that the test may change."""
    return Path(shutil.copytree(shared_release, tmp_path / "release"))


@pytest.fixture
def build(release, tmp_path):
    def run(output: str = "out", **options):
        source = {} if "splits_dir" in options else {"release": release}
        return prepare(Preparation(**{"output_dir": tmp_path / output, "encoding": SMALL, **source, **options}))

    return run


@pytest.fixture
def splits(release, tmp_path) -> Path:
    """Med-R1's files: the families drawn apart, one question without a modality."""
    rows = [row for row in read_release(release) if isinstance(row, Question)]
    folder = tmp_path / "splits"

    def write(family: str, name: str, side: str, members: list[Question]) -> None:
        path = folder / family / side / f"{name}_{side}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        published = [{"image": row.image, "problem": row.problem, "solution": row.solution} for row in members]
        path.write_text(json.dumps(published))

    for modality, name in MODALITIES.items():
        label_rows = [row for row in rows if row.modality is modality][::-1]
        if modality is Modality.CT:
            write("modality", "unknown", "train", [label_rows.pop()])
        write("modality", name, "test", label_rows[:5])
        write("modality", name, "train", label_rows[5:])
    for task in ASKED:
        label_rows = [row for row in rows if row.task is task]
        write("question_type", task.value, "train", label_rows[:30])
        write("question_type", task.value, "test", label_rows[30:])
    return folder


@pytest.fixture
def parquet_cache(tmp_path, monkeypatch) -> Path:
    """Where datasets converts Parquet files to."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    return tmp_path / "cache"


@pytest.fixture
def root(tmp_path) -> Path:
    """A folder with an image of each colour."""
    folder = tmp_path / "root"
    folder.mkdir()
    for colour in COLOURS:
        (folder / f"{colour}.png").write_bytes(png(colour))
    return folder
