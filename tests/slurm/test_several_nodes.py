"""recipes/slurm/train.sbatch on a real SLURM: two nodes train as one, are preempted, lose one, and continue."""

import json
import time
from pathlib import Path

import pytest
from local_slurm import LocalSlurm, wait_for
from node_jobs import submit
from published_sets import save_published_form

from open_r1.common.atomic_files import sha256_file
from open_r1_testbed.tiny_models import build_tiny_checkpoint

pytestmark = pytest.mark.slow

STEPS = 5


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> list[str]:
    """A training of a tiny model without its launcher and its --output_dir: 2 prompts a step of 2 processes."""
    folder = tmp_path_factory.mktemp("nodes")
    build_tiny_checkpoint(folder / "tiny")
    save_published_form(folder / "CT", 8)
    flags = "--num_generations 2 --max_completion_length 6 --save_steps 1 --logging_steps 1 --learning_rate 1e-3"
    return [
        str(repository / "src" / "open_r1" / "grpo_vqa_nothink.py"),
        *("--model_name_or_path", str(folder / "tiny"), "--dataset_name", str(folder / "CT"), *flags.split()),
        *("--max_steps", str(STEPS), "--reward_funcs", f"{repository}/tests/support/held_reward.py:held_reward"),
    ]


@pytest.fixture(scope="module")
def two_nodes(cluster: LocalSlurm, command: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an undisturbed run with a process on each of two nodes."""
    folder = tmp_path_factory.mktemp("undisturbed")
    job = submit(cluster, "train.sbatch", folder, [*command, "--output_dir", str(folder / "out")])
    assert job.wait() == "COMPLETED", job.output[-3000:]
    assert "1 prompts per device x 2 devices x 1 accumulation = 2 prompts and 4 completions" in job.output
    return folder / "out"


def losses(output: Path) -> list[float]:
    history = json.loads((output / "trainer_state.json").read_text())["log_history"]
    return [entry["loss"] for entry in history if "loss" in entry]


def test_two_nodes_train_as_one_node_with_two_processes(
    cluster: LocalSlurm, command: list[str], two_nodes: Path, tmp_path: Path
) -> None:
    one_node = [*command, "--output_dir", str(tmp_path / "out")]
    job = submit(cluster, "train.sbatch", tmp_path, one_node, {"PROCESSES": "2"}, nodes=1)
    assert job.wait() == "COMPLETED", job.output[-3000:]
    assert len(losses(two_nodes)) == STEPS
    assert len(set(losses(two_nodes))) > 1
    assert losses(tmp_path / "out") == pytest.approx(losses(two_nodes), abs=1e-6)
    assert sha256_file(tmp_path / "out" / "model.safetensors") == sha256_file(two_nodes / "model.safetensors")


def test_a_preempted_run_that_loses_a_node_ends_and_continues_to_the_bit(
    cluster: LocalSlurm, command: list[str], two_nodes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold = tmp_path / tmp_path.name
    monkeypatch.setenv("HELD_RUNS", str(tmp_path))
    hold.touch()
    output = tmp_path / "out"
    job = submit(cluster, "train.sbatch", tmp_path, [*command, "--output_dir", str(output)])
    wait_for(lambda: (output / "checkpoint-1").is_dir(), 300)
    cluster.ask("sbatch", "-purgent", "-N2", "--output=/dev/null", "--wrap=true")
    for node in ("n1", "n2"):
        job.wait_for_line(f"{node}: asked to stop; the training saves after its step")
    hold.unlink()
    job.wait_for_line("stopped, its state is saved; back into the queue")
    assert json.loads((output / "run.json").read_text())["status"] == "interrupted"
    hold.touch()
    job.wait_for_line("continuing from ")
    wait_for(lambda: json.loads((output / "run.json").read_text())["status"] == "running", 300)
    time.sleep(1)

    job.lose("n2")
    start = time.monotonic()
    assert job.wait(60) == "FAILED"
    wait_for(lambda: not job.processes(), 60)
    seconds = time.monotonic() - start
    print(f"after one node was lost, all of the job had ended within {seconds:.0f} s")
    hold.unlink()
    again = submit(cluster, "train.sbatch", tmp_path, [*command, "--output_dir", str(output)])
    assert again.wait() == "COMPLETED", again.output[-3000:]
    assert losses(output) == losses(two_nodes)
    assert sha256_file(output / "model.safetensors") == sha256_file(two_nodes / "model.safetensors")
    assert len(json.loads((output / "run.json").read_text())["continued"]) == 2
