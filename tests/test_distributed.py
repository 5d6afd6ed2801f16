"""However the prompts are laid over processes, micro-batches and ZeRO stages, the trained weights are the same."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from open_r1.tiny_models import build_tiny_checkpoint


class Layout(NamedTuple):
    """Four prompts per optimizer step each time."""

    processes: int
    prompts: int
    accumulation: int
    stage: int = 0
    """DeepSpeed's ZeRO stage; 0 is DDP."""
    budget: int = 0
    """--tokens_per_micro_batch; 0 is none."""
    without: int = 0
    """How many of the four questions have no picture; with 2 one process of two has none at all."""


FIRST = Layout(1, 4, 1)
OTHERS = [Layout(1, 1, 4), Layout(2, 2, 1), Layout(2, 1, 2), Layout(2, 2, 1, budget=300), Layout(2, 2, 1, without=2)]
ZERO = [Layout(2, 1, 2, stage=2), Layout(2, 2, 1, stage=3), Layout(2, 2, 1, 2, budget=300)]
ZERO.append(Layout(2, 2, 1, stage=3, without=2))
Results = Callable[[Layout], dict[str, Any]]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Results:
    folder = tmp_path_factory.mktemp("distributed")
    checkpoint = build_tiny_checkpoint(folder / "tiny")
    found: dict[Layout, dict[str, Any]] = {}

    def train(layout: Layout) -> dict[str, Any]:
        if layout not in found:
            output = folder / "-".join(map(str, layout))
            output.mkdir()
            launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={layout.processes}"]
            arguments = [str(checkpoint), str(output), *map(str, layout[1:])]
            done = subprocess.run(
                [sys.executable, *launcher, "tests/fixed_completions.py", *arguments],
                cwd=repository,
                env=os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
                capture_output=True,
                text=True,
                timeout=300,
            )
            assert done.returncode == 0, done.stderr[-3000:]
            found[layout] = torch.load(output / "result.pt")
        return found[layout]

    return train


@pytest.mark.parametrize("layout", [*OTHERS, *ZERO], ids=str)
def test_layout_of_the_prompts_does_not_change_the_training(trained: Results, layout: Layout) -> None:
    first, second = trained(FIRST._replace(without=layout.without)), trained(layout)
    assert first["norms"][0] > 0.01
    # ACCELERATE_USE_CPU would turn DeepSpeed off without a word: the engine says what really ran
    assert (second["engine"] == "deepspeed") == (layout.stage > 0)
    assert second.get("stage", 0) == layout.stage
    assert second["losses"] == pytest.approx(first["losses"], abs=1e-6)
    assert second["norms"] == pytest.approx(first["norms"], rel=1e-4)
    apart = max((first["weights"][n] - second["weights"][n]).abs().max().item() for n in first["weights"])
    print(f"{layout}: weights differ by at most {apart:.1e}")
    # two steps of Adam at 1e-3: a weight whose gradient is rounding noise may move by a whole step
    together = [torch.cat([value.flatten() for value in each["weights"].values()]) for each in (first, second)]
    assert (together[0] - together[1]).norm() < 1e-3 * together[0].norm()
