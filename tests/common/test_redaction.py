"""No secret is written down: planted in every form, searched for in every file of a run, an evaluation and a study."""

import json
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from forked_scripts import run_script
from model_cards import STORY
from published_sets import save_published_form
from searched_files import holding

from open_r1.checkpoints.model_card import card
from open_r1.common.errors import UserError, run_command
from open_r1.common.redaction import HIDDEN, known_secrets, names_secret, public_copy, recorded_command, redacted
from open_r1.study.execution.study_file import read_study
from open_r1.study.planning.flags import read_flags
from open_r1.training.command_line.grpo_config import GRPOTrainingConfig
from open_r1_testbed.tiny_models import build_tiny_checkpoint

ON_THE_LINE = "plantedOnTheLine0815"
IN_A_FILE = "plantedInTheFile0815"
IN_AN_ADDRESS = "plantedInTheAddress0815"
IN_JSON = "plantedInJson0815"
OF_THE_HUB = "hf_plantedInTheEnvironment0815"
OF_WANDB = "0123456789abcdef" * 2 + "01234567"
EVERY_SECRET = (ON_THE_LINE, IN_A_FILE, IN_AN_ADDRESS, IN_JSON, OF_THE_HUB, OF_WANDB)


@pytest.mark.parametrize(
    "typed",
    [
        f"--hub_token {ON_THE_LINE}",
        f"--hub-token {ON_THE_LINE}",
        f"--hub_token={ON_THE_LINE}",
        f"--hub-token={ON_THE_LINE}",
        f"--hub_tok {ON_THE_LINE}",
        f"--hub-t={ON_THE_LINE}",
        f"--push_to_hub_token {ON_THE_LINE}",
        f"--passwd {ON_THE_LINE}",
        f"--db-password={ON_THE_LINE}",
        f"--apiKey {ON_THE_LINE}",
        f"--wandb_key {ON_THE_LINE}",
        f"--env NAME={ON_THE_LINE}",
        f"-e NAME={ON_THE_LINE}",
        f"HF_TOKEN={ON_THE_LINE} x.py",
        f"--data s3://KEY:{ON_THE_LINE}@bucket/x",
        f"--data KEY:{ON_THE_LINE}@host",
        f"--data https://{ON_THE_LINE}@host/x",
        f"""--generation_kwargs '{{"deep": [{{"api_key": "{ON_THE_LINE}"}}]}}'""",
        f"--train_args '--hub_token {ON_THE_LINE} --max_steps 3'",
        f"'--train_args=--max_steps 3 --hub-token={ON_THE_LINE}'",
        f"--train_args '--hub_token={ON_THE_LINE} --max_steps 3'",
        f"--note {OF_THE_HUB}",
        "--note ghp_0123456789abcdefghij0123",
    ],
)
def test_a_command_is_written_down_without_its_secrets(typed: str) -> None:
    command = f"x.py --beta 0.04 {typed} --seed -1"
    text = card(STORY | {"command": command, "note": f"the same once more: {ON_THE_LINE}"})
    for secret in (ON_THE_LINE, OF_THE_HUB, "ghp_"):
        assert secret not in text
    assert "x.py --beta 0.04 " in text
    assert "--seed -1" in text


def test_what_is_no_secret_stays() -> None:
    words = ["x.py", "--max_new_tokens", "5", "--eos_token", "<|im_end|>", "--importance_sampling_level", "token"]
    words += ["--config=a b.yaml", "--lr", "-1e-6", "--tokens_per_micro_batch=64", "--push_to_hub", "true"]
    joined = "x.py --max_new_tokens 5 --eos_token '<|im_end|>' --importance_sampling_level token "
    joined += "'--config=a b.yaml' --lr -1e-6 --tokens_per_micro_batch=64 --push_to_hub true"
    assert recorded_command(words) == joined
    for name in ("PWD", "OLDPWD", "include_num_input_tokens_seen", "hub_model_id", "pad_token", "monkey"):
        assert not names_secret(name), name


def test_a_secret_is_hidden_wherever_it_occurs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_SERVICE_PASSWORD", ON_THE_LINE)
    monkeypatch.setenv("SHORT_TOKEN", "CT")  # no secret is so short, and CT is a word of ours
    secrets = known_secrets({"hub_token": IN_A_FILE, "nested": {"api_key": IN_JSON}}, words=[])
    value = {"a": [f"see {ON_THE_LINE}/{IN_A_FILE}", {"b": (f"{IN_JSON}!", "CT", 3, None)}], "token": "abc"}
    hidden = {"a": [f"see {HIDDEN}/{HIDDEN}", {"b": (f"{HIDDEN}!", "CT", 3, None)}], "token": HIDDEN}
    assert redacted(value, secrets) == hidden


def test_an_error_that_repeats_the_command_line_hides_its_secrets(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["x.py", "--hub-token", ON_THE_LINE])

    def main() -> int:
        raise UserError(f"'--hub-token {ON_THE_LINE}' cannot be used")

    with pytest.raises(SystemExit):
        run_command(main)
    assert capfd.readouterr().err == f"error: '--hub-token {HIDDEN}' cannot be used\n"


def test_training_arguments_are_pickled_without_secrets_and_keep_them(tmp_path: Path) -> None:
    arguments = GRPOTrainingConfig(output_dir=str(tmp_path), hub_token=ON_THE_LINE, report_to="none", use_cpu=True)
    public = pickle.loads(pickle.dumps(public_copy(arguments)))
    assert (arguments.hub_token, public.hub_token) == (ON_THE_LINE, HIDDEN)
    assert public.learning_rate == arguments.learning_rate
    assert public.output_dir == arguments.output_dir
    with_comet = SimpleNamespace(hf_deepspeed_config={"comet": {"api_key": IN_JSON}}, deepspeed_plugin=None)
    assert IN_JSON.encode() not in pickle.dumps(public_copy(with_comet))


# --- every file of a run ---------------------------------------------------------------------------------------------


def holders(folder: Path) -> set[str]:
    """The files below a folder that hold a secret, in their bytes or packed."""
    return holding(folder, re.compile("|".join(EVERY_SECRET).encode()))


def test_the_search_looks_into_packed_files(tmp_path: Path) -> None:
    torch.save(SimpleNamespace(hub_token=ON_THE_LINE), tmp_path / "training_args.bin")
    assert holders(tmp_path) == {"training_args.bin"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny base and a data set, and below it everything that the commands write."""
    folder = tmp_path_factory.mktemp("secrets")
    build_tiny_checkpoint(folder / "tiny")
    save_published_form(folder / "CT", 4)
    return folder


def run(place: Path, *words: str) -> subprocess.CompletedProcess[str]:
    process = subprocess.run(
        [sys.executable, *words], cwd=place, env=environment(place), capture_output=True, text=True, timeout=1800
    )
    return with_log(place, process, Path(words[0]))


def run_in_fork(place: Path, script: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """As `run`, where no secret is on the command line: a fork has another one, which libraries could write down."""
    return with_log(place, run_script(script, words, place, environment=environment(place)), script)


def environment(place: Path) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
    return clean | {"HF_TOKEN": OF_THE_HUB, "WANDB_API_KEY": OF_WANDB, "WANDB_MODE": "offline", "HOME": str(place)}


def with_log(place: Path, process: subprocess.CompletedProcess[str], script: Path) -> subprocess.CompletedProcess[str]:
    (place / "logs").mkdir(exist_ok=True)
    (place / "logs" / script.name).write_text(process.stdout + process.stderr)
    return process


@pytest.mark.slow
def test_no_file_of_a_training_or_its_evaluation_holds_a_secret(place: Path, repository: Path) -> None:
    (place / "given").mkdir()
    recipe = place / "given" / "recipe.yaml"
    recipe.write_text(f"vllm_server_base_url: http://me:{IN_AN_ADDRESS}@127.0.0.1:1\n")
    kwargs = json.dumps({"top_k": 5, "api_key": IN_JSON})
    flags = "--model_name_or_path tiny --dataset_name CT --num_generations 2 --max_completion_length 4 --max_steps 1 "
    flags += "--save_steps 1 --report_to wandb --output_dir out --log_completions true"
    script = str(repository / "src" / "open_r1" / "grpo_vqa_nothink.py")
    words = [*flags.split(), "--hub-token", ON_THE_LINE, "--config", str(recipe), "--chat_template_kwargs", kwargs]
    process = run(place, script, *words)
    assert process.returncode == 0, process.stderr[-3000:]
    recipe.unlink()
    checkpoint = place / "out" / "checkpoint-1"
    assert (checkpoint / "training_args.bin").is_file()
    saved = torch.load(checkpoint / "training_args.bin", weights_only=False)
    assert (saved.hub_token, saved.max_steps) == (HIDDEN, 1)
    story = json.loads((place / "out" / "run.json").read_text())
    assert "--hub" not in story["command"]
    assert story["training_arguments"]["vllm_server_base_url"] == f"http://me:{HIDDEN}@127.0.0.1:1"
    assert "--dataset_name CT" in (place / "out" / "README.md").read_text()

    answers = ("--model_path", "out", "--prompt_path", "CT", "--output_path", "answers/CT.jsonl", "--split", "train")
    process = run_in_fork(place, repository / "eval" / "infer.py", *answers, "--max_new_tokens", "4")
    assert process.returncode == 0, process.stderr[-3000:]
    process = run_in_fork(place, repository / "eval" / "report.py", "answers/CT.jsonl", "--output_dir", "report")
    assert process.returncode == 0, process.stderr[-3000:]
    assert {path.name for path in place.iterdir()} >= {"out", "wandb", "answers", "report", "logs"}
    assert holders(place) == set()


@pytest.mark.slow
def test_a_token_in_a_file_of_flags_is_as_secret(place: Path, repository: Path) -> None:
    (place / "elsewhere").mkdir()
    recipe = place / "elsewhere" / "recipe.yaml"
    recipe.write_text(f"hub_token: {IN_A_FILE}\n")
    flags = "--model_name_or_path tiny --dataset_name CT --per_device_train_batch_size 2 --max_steps 1 "
    flags += (
        f"--gradient_accumulation_steps 1 --save_steps 1 --report_to tensorboard --output_dir sft --config {recipe}"
    )
    process = run(place, str(repository / "src" / "open_r1" / "sft_vqa.py"), *flags.split())
    assert process.returncode == 0, process.stderr[-3000:]
    recipe.unlink()
    assert holders(place) == set()


@pytest.mark.slow
def test_a_study_writes_no_secret_and_puts_none_into_a_job_script(place: Path, repository: Path) -> None:
    save_published_form(place / "data" / "CT_384", 4)
    training_flags = (
        f"--num_generations 2 --max_completion_length 4 --max_steps 1 --save_steps 1 --hub_token={ON_THE_LINE}"
    )
    words = ["--base", "tiny", "--data", "data", "--modes", "nothink", "--by", "modality", "--no-zero_shot"]
    words += ["--output_dir", "study", "--train_args", training_flags, "--infer_args", "--max_new_tokens 4"]
    script = str(repository / "scripts" / "run_matrix.py")
    process = run(place, script, *words)
    assert process.returncode == 0, process.stdout + process.stderr
    study = place / "study"
    assert (study / "runs" / "CT-grpo-nothink" / "checkpoint-1" / "training_args.bin").is_file()
    assert "--max_steps 1" in (study / "logs" / "train-CT-grpo-nothink.log").read_text()
    assert holders(place) == set()
    again = run(place, script, *(word.replace(ON_THE_LINE, IN_A_FILE) for word in words))  # a token may be renewed
    assert again.returncode == 0, again.stdout + again.stderr
    assert "2 of 2 items are done" in again.stdout
    assert holders(place) == set()

    refused = run(place, script, *words, "--emit", "snakemake")
    assert refused.returncode == 2
    assert refused.stderr.startswith(
        "error: --train_args contains a secret, which everyone who can read the job's files would see"
    )


def test_a_study_of_before_is_continued_without_its_secrets(tmp_path: Path) -> None:
    older: dict[str, Any] = {"study": 1, "train_args": ["--hub_token", ON_THE_LINE, "--max_steps", "1"]}
    (tmp_path / "study.json").write_text(json.dumps(older))
    there = read_study(tmp_path)
    assert there is not None
    assert there["train_args"] == ["--max_steps", "1"]
    flags = read_flags(None, ["--base", "b", "--train_args", f"--max_steps 1 --hub_token {IN_A_FILE}"])
    assert flags.recorded()["train_args"] == there["train_args"]
