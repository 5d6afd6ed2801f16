"""Each row of the table of docs/models.md says of a family what the code does with it."""

import re
from pathlib import Path
from typing import Any

import pytest
from groups import IDS
from transformers import AutoModelForCausalLM

from open_r1.checkpoints.families import family_of
from open_r1.checkpoints.loading import load_model
from open_r1.modeling.family_probe import decoding_support
from open_r1.training.grpo.verification import unshared_reason
from open_r1_testbed.tiny_models import FAMILIES, Shape, build_model, build_tiny_checkpoint

REPOSITORY = Path(__file__).resolve().parents[2]
REASONS = {
    "no: windows": "use sliding-window attention",
    "no: images without grids": "are not patches with grids",
    "no: packed rows are not exact": "of a packed row differ by",
    "no: cannot be decoded": "a cached token cannot be computed",
}


def table() -> dict[str, dict[str, str]]:
    """model_type -> column -> cell."""
    rows = [line for line in (REPOSITORY / "docs/models.md").read_text().splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    columns, body = cells[0], cells[2:]
    return {name: dict(zip(columns, row, strict=True)) for row in body for name in re.findall(r"`(\w+)`", row[0])}


TABLE = table()


def tiny(name: str, folder: Path) -> Any:
    if name in FAMILIES:
        return load_model(build_tiny_checkpoint(folder / name, name))
    model: Any = build_model(name, Shape(), 320, IDS, seed=0)
    if name in ("mistral", "phi3"):  # as published: transformers' own default has a window
        model.config.sliding_window = None
        return AutoModelForCausalLM.from_config(model.config)
    return model


def test_all_tiny_families_have_a_row() -> None:
    assert set(FAMILIES) <= set(TABLE)


@pytest.mark.slow
@pytest.mark.parametrize("name", TABLE)
def test_the_row_says_what_the_code_does(name: str, tmp_path: Path) -> None:
    row, model, family = TABLE[name], tiny(name, tmp_path), family_of(name)
    assert family is not None
    assert ("images" in row["trains on"]) == family.has_vision
    reason, shared = unshared_reason(model), row["shared prefix"]
    if shared.startswith("yes"):
        assert reason is None
    else:
        assert REASONS[shared.split(",")[0]] in str(reason)
    assert row["evaluation"] == ("yes" if decoding_support(model).refusal is None else "no")


def test_vllm_was_tried_with_the_families_of_its_tests() -> None:
    tests = (REPOSITORY / "tests/vllm_cpu/test_vllm_cpu.py").read_text()
    tried = set(re.findall(r'"(\w+)"', re.search(r"^FAMILIES = \((.*)\)$", tests, re.MULTILINE)[1]))  # type: ignore[index]
    assert {name for name, row in TABLE.items() if row["vLLM"] == "yes"} == tried
