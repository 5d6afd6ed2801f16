"""However the prompts lie over processes, micro-batches, ZeRO stages and FSDP, the trained weights are the same."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from forked_scripts import run_script
from launch_variables import launch_variables
from published_sets import free_port, save_published_form

from open_r1.checkpoints.loading import load_model
from open_r1_testbed.tiny_models import build_tiny_checkpoint

pytestmark = pytest.mark.slow

QUIET = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


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
    """How many of the four questions have no image; with 2 one process of two has none at all."""
    fsdp: int = 0
    """1: FSDP 2 through `accelerate launch` with the CPU recipe."""
    several: int = 0
    """1: questions with six images, none, one and three."""


FIRST = Layout(1, 4, 1)
OTHERS = [Layout(1, 1, 4), Layout(2, 2, 1), Layout(2, 1, 2), Layout(2, 2, 1, budget=300), Layout(2, 2, 1, without=2)]
ZERO = [Layout(2, 1, 2, stage=1), Layout(2, 1, 2, stage=2), Layout(2, 2, 1, stage=3), Layout(2, 2, 1, 2, budget=300)]
ZERO.append(Layout(2, 2, 1, stage=3, without=2))
SEVERAL = [Layout(2, 2, 1, several=1), Layout(2, 1, 2, budget=900, several=1), Layout(2, 2, 1, stage=3, several=1)]
FSDP = [Layout(2, 1, 2, fsdp=1), Layout(2, 2, 1, budget=300, without=2, fsdp=1)]
Results = Callable[[Layout], dict[str, Any]]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Results:
    folder = tmp_path_factory.mktemp("distributed")
    checkpoint = build_tiny_checkpoint(folder / "tiny")
    script = repository / "tests" / "support" / "fixed_completions.py"
    recipes = repository / "recipes" / "accelerate_configs"
    results: dict[Layout, dict[str, Any]] = {}

    def train(layout: Layout) -> dict[str, Any]:
        if layout not in results:
            output = folder / "-".join(map(str, layout))
            output.mkdir()
            arguments = [str(checkpoint), str(output), *map(str, layout[1:])]
            environment = os.environ | QUIET
            if layout.fsdp:
                environment |= launch_variables(recipes / "fsdp_cpu.yaml", layout.processes)
            process = run_script(script, arguments, repository, layout.processes, environment)
            assert process.returncode == 0, process.stderr[-3000:]
            results[layout] = torch.load(output / "result.pt")
        return results[layout]

    return train


@pytest.mark.parametrize("layout", [*OTHERS, *SEVERAL, *ZERO, *FSDP], ids=str)
def test_layout_of_the_prompts_does_not_change_the_training(trained: Results, layout: Layout) -> None:
    reference, divided = trained(FIRST._replace(without=layout.without, several=layout.several)), trained(layout)
    assert reference["norms"][0] > 0.01
    # ACCELERATE_USE_CPU would turn DeepSpeed off without a word: the engine says what really ran
    assert divided["engine"] == ("fsdp2" if layout.fsdp else "deepspeed" if layout.stage else "torch")
    assert divided.get("stage", 0) == layout.stage
    assert divided["losses"] == pytest.approx(reference["losses"], abs=1e-6)
    assert divided["norms"] == pytest.approx(reference["norms"], rel=1e-4)
    apart = max((reference["weights"][n] - divided["weights"][n]).abs().max().item() for n in reference["weights"])
    print(f"{layout}: weights differ by at most {apart:.1e}")
    # two steps of Adam at 1e-3: a weight whose gradient is rounding noise may move by a whole step
    together = [torch.cat([value.flatten() for value in result["weights"].values()]) for result in (reference, divided)]
    assert (together[0] - together[1]).norm() < 1e-3 * together[0].norm()


@pytest.mark.parametrize(
    "meeting",
    [
        "--master_addr=127.0.0.1 --master_port={port} --node_rank={rank}",
        "--rdzv_backend=c10d --rdzv_id=CT --rdzv_endpoint=127.0.0.1:{port}",
    ],
    ids=["published flags", "docs/clusters.md"],
)
def test_two_nodes_train_as_one(meeting: str, tmp_path: Path, repository: Path) -> None:
    """A torchrun on each machine, here both on this one; of the second form every machine has the same command."""
    build_tiny_checkpoint(tmp_path / "tiny")
    save_published_form(tmp_path / "CT", 4)
    port = free_port()
    flags = "--model_name_or_path tiny --dataset_name CT --output_dir out --num_generations 2 --max_completion_length 4"
    words = f"{repository}/src/open_r1/grpo_vqa_nothink.py {flags} --max_steps 1 --logging_steps 1 --save_strategy no"
    launches = [f"--nproc_per_node=1 --nnodes=2 {meeting.format(port=port, rank=rank)}" for rank in (0, 1)]
    nodes = [
        subprocess.Popen(
            [sys.executable, "-m", "torch.distributed.run", *launch.split(), *words.split()],
            cwd=tmp_path,
            env=os.environ | QUIET,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for launch in launches
    ]
    outputs = [node.communicate(timeout=1800)[0] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], outputs[0][-2000:] + outputs[1][-2000:]
    line = "1 prompts per device x 2 devices x 1 accumulation = 2 prompts and 4 completions"
    assert sorted(line in output for output in outputs) == [False, True], "one node says it for both"
    story = json.loads((tmp_path / "out" / "run.json").read_text())
    assert (story["status"], story["steps"], story["prompts_per_step"]) == ("done", 1, 2)
    load_model(tmp_path / "out", dtype=torch.float32)
