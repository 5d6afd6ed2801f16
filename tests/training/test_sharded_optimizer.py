"""The optimizer's state divided among two processes trains the same weights, holds half and goes on from any part."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from forked_scripts import run_script

from open_r1.checkpoints.loading import load_model
from open_r1_testbed.tiny_models import build_tiny_checkpoint

pytestmark = pytest.mark.slow  # two processes

Runs = Callable[[str, int], dict[str, Any]]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Runs:
    """(name of a run, process) -> what it found; see tests/support/sharded_runs.py."""
    folder = tmp_path_factory.mktemp("sharded")
    checkpoint = build_tiny_checkpoint(folder / "tiny")
    load_model(checkpoint, dtype=torch.bfloat16).float().save_pretrained(checkpoint)
    script = repository / "tests" / "support" / "sharded_runs.py"
    finished = run_script(script, [str(checkpoint), str(folder)], repository, processes=2)
    assert finished.returncode == 0, finished.stderr[-3000:]
    return lambda name, rank: torch.load(folder / f"{name}-{rank}.pt")


def apart(first: dict[str, Any], second: dict[str, Any]) -> float:
    """The largest difference between two runs' weights."""
    assert first["weights"].keys() == second["weights"].keys()
    return max((first["weights"][n] - second["weights"][n]).abs().max().item() for n in first["weights"])


def test_divided_trains_the_same_weights_as_whole_and_moves_them(runs: Runs) -> None:
    whole, divided = runs("whole", 0), runs("divided", 0)
    assert (whole["optimizer"], divided["optimizer"]) == ("AdamW", "ShardedOptimizer")
    assert all(weight.dtype == torch.float32 for weight in divided["weights"].values())
    # gradients of the two micro-batches are added after the mean over the processes instead of before: rounding
    print(f"whole and divided differ by at most {apart(whole, divided):.1e}")
    assert apart(whole, divided) < 1e-7
    assert apart(divided, runs("divided", 1)) == 0
    for run in (whole, divided):
        start = run["before"]
        assert all(torch.equal(weight, weight.bfloat16().float()) for weight in start.values())
        moved = sum(int((weight != start[name]).sum()) for name, weight in run["weights"].items())
        count = sum(weight.numel() for weight in start.values())
        print(f"{run['optimizer']}: {moved / count:.2%} of the weights moved in 20 steps at 1e-6")
        assert moved >= 0.99 * count


def test_a_process_holds_half_of_the_state_and_one_copy_of_the_gradients(runs: Runs) -> None:
    whole = runs("whole", 0)
    weights = sum(weight.nbytes for weight in whole["weights"].values())
    assert whole["state"] == 2 * weights  # two moments, float32
    shares = [runs("divided", rank)["state"] / whole["state"] for rank in (0, 1)]
    print(f"shares of the state: {shares}")
    assert sum(shares) == 1
    assert max(shares) < 0.55  # a weight is not divided
    divided = runs("divided", 0)
    # all of them lie in DDP's few buckets, and nothing else does
    assert divided["gradients"] == weights
    assert divided["storages"] < divided["tensors"] / 4
    assert divided["storage_bytes"] == divided["gradients"]
    assert whole["storages"] == whole["tensors"]


@pytest.mark.parametrize("name", ["divided_again", "then_whole", "then_divided"])
def test_a_checkpoint_goes_on_divided_or_not(runs: Runs, name: str) -> None:
    expected = runs("divided", 0)
    difference = apart(runs(name, 0), expected)
    print(f"{name}: differs by {difference:.1e} from a run that was not interrupted")
    assert difference < (1e-9 if name == "divided_again" else 1e-7)
