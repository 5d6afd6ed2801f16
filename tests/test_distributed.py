"""However the prompts are laid over processes and micro-batches, the trained weights are the same."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from open_r1.tiny_models import build_tiny_checkpoint

# processes, prompts per device, accumulation: four prompts per optimizer step each time
LAYOUTS = [(1, 4, 1), (1, 1, 4), (2, 2, 1), (2, 1, 2)]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("distributed")
    checkpoint = build_tiny_checkpoint(folder / "tiny")
    found = []
    for processes, prompts, accumulation in LAYOUTS:
        output = folder / f"{processes}-{prompts}-{accumulation}"
        output.mkdir()
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
        arguments = [str(checkpoint), str(output), str(prompts), str(accumulation)]
        done = subprocess.run(
            [sys.executable, *launcher, "tests/fixed_completions.py", *arguments],
            cwd=repository,
            env=os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=200,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        found.append(torch.load(output / "result.pt"))
    return found


@pytest.mark.parametrize("other", range(1, len(LAYOUTS)), ids=[str(layout) for layout in LAYOUTS[1:]])
def test_layout_of_the_prompts_does_not_change_the_training(results: list[dict[str, Any]], other: int) -> None:
    first, second = results[0], results[other]
    assert first["norms"][0] > 0.01
    assert second["losses"] == pytest.approx(first["losses"], abs=1e-6)
    assert second["norms"] == pytest.approx(first["norms"], rel=1e-4)
    apart = max((first["weights"][n] - second["weights"][n]).abs().max().item() for n in first["weights"])
    print(f"{LAYOUTS[other]}: weights differ by at most {apart:.1e}")
    # two steps of Adam at 1e-3: a weight whose gradient is rounding noise may move by a whole step
    together = [torch.cat([value.flatten() for value in each["weights"].values()]) for each in (first, second)]
    assert (together[0] - together[1]).norm() < 1e-3 * together[0].norm()
