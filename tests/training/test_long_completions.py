"""2,000-token completions train within a bound that does not hold tokens x vocabulary.

What a training pass takes beside the weights, for N scored tokens, a prompt of P, completions of C, vocabulary V and
hidden size H in float32 on a CPU:

- the head: 8 tiles of 256 tokens x 32,768 rows, 256 MiB, whatever N and V are. All logits at once would be
  4 * N * V bytes, and three times that with their softmax and gradient;
- gradients: those of the weights, and one more V x H while the head adds up its own;
- what autograd keeps: linear in N, and one mask of 4 * C * (P - 1 + C) bytes per prompt and pass, not one per layer
  and not one per completion.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

GROUP, LENGTH = 2, 2000


@pytest.fixture(scope="module")
def memory(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> dict[str, float]:
    """What one pass over 2 completions of 2,000 tokens took in a process of its own, in MiB."""
    command = [
        sys.executable,
        "tests/support/long_pass.py",
        str(tmp_path_factory.mktemp("long")),
        str(GROUP),
        str(LENGTH),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    process = subprocess.run(command, cwd=repository, env=environment, capture_output=True, text=True, timeout=1800)
    assert process.returncode == 0, process.stderr[-3000:]
    return json.loads(process.stdout.splitlines()[-1])


def test_a_pass_never_holds_the_logits_of_all_tokens(memory: dict[str, float]) -> None:
    # 256 MiB of tiles, 3 x 37 MiB of gradients (151,936 x 64 x 4 bytes each), 62 MiB kept: 429; seen 366
    assert memory["grown"] < 512, memory
    # all logits once would be 4 x 4,000 x 151,936 bytes
    assert 4 * GROUP * LENGTH * 151_936 / 2**20 > 4 * 512  # 2,318


def test_autograd_keeps_what_is_linear_in_tokens_and_one_mask(memory: dict[str, float]) -> None:
    prefix = memory["tokens"] - GROUP * LENGTH
    mask = 4 * LENGTH * (prefix + LENGTH) / 2**20  # 17 MiB
    # Two layers of hidden 64, MLP 128, 4 + 2 + 2 heads of 16: seen 11.2 KiB a token, at 500-token completions too.
    # A bool mask would be kept as a float one by every layer for every completion: 51 MiB more.
    assert memory["kept"] < mask + 12 * memory["tokens"] / 1024, memory
    assert memory["kept"] > mask, memory
