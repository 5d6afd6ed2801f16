"""The entry scripts as a user starts them: the published command word for word, and what goes wrong in one line."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from forked_scripts import run_script
from published_sets import free_port, questions, save_published_form

from open_r1.checkpoints.loading import load_model
from open_r1.checkpoints.processors import load_processor
from open_r1_testbed.tiny_models import build_tiny_checkpoint

# FACTS: as the authors published it, but for the port, which must be free here.
PUBLISHED = (
    '--nproc_per_node=2 --nnodes=1 --node_rank=0 --master_addr="127.0.0.1" --master_port={port} '
    "src/open_r1/grpo_vqa_nothink.py --output_dir ./output/Modality_CT "
    "--model_name_or_path ./checkpoints/Qwen2.5-VL-3B-Instruct --dataset_name ./data/VQA/CT_384 "
    "--max_prompt_length 1024 --per_device_train_batch_size 1 --gradient_accumulation_steps 2 --logging_steps 1 "
    "--bf16 --report_to wandb --gradient_checkpointing false --attn_implementation flash_attention_2 "
    "--max_pixels 401408 --num_train_epochs 2 --run_name Qwen2.5-VL-3B-GRPO-CT --save_steps 200 "
    "--save_only_model true --num_generations 4"
)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    """A folder as a user has it after the README's preparations, with a tiny checkpoint under the real name."""
    folder = tmp_path_factory.mktemp("workplace")
    (folder / "src").symlink_to(repository / "src")
    build_tiny_checkpoint(folder / "checkpoints" / "Qwen2.5-VL-3B-Instruct", "qwen2_5_vl")
    save_published_form(folder / "data" / "VQA" / "CT_384", 8)
    return folder


def run(workplace: Path, *arguments: str, launcher: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", *launcher.split()] if launcher else [sys.executable]
    return subprocess.run(
        [*command, *arguments],
        cwd=workplace,
        env=user_environment(workplace),
        capture_output=True,
        text=True,
        timeout=1800,
    )


def run_again(workplace: Path, *arguments: str, processes: int = 0) -> subprocess.CompletedProcess[str]:
    """As `run`, in forks; the published command shows that an entry starts by itself."""
    return run_script(workplace / arguments[0], arguments[1:], workplace, processes, user_environment(workplace))


def user_environment(workplace: Path) -> dict[str, str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("WANDB", "PYTEST"))}
    return clean | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "HOME": str(workplace)}


@pytest.fixture(scope="module")
def published_run(workplace: Path) -> subprocess.CompletedProcess[str]:
    words = PUBLISHED.format(port=free_port()).replace('"', "").split()
    script = words.index("src/open_r1/grpo_vqa_nothink.py")
    return run(workplace, *words[script:], launcher=" ".join(words[:script]))


@pytest.mark.slow
def test_the_published_command_runs_word_for_word(published_run: Any, workplace: Path) -> None:
    assert published_run.returncode == 0, published_run.stderr[-3000:]
    output = published_run.stdout
    line = "1 prompts per device x 2 devices x 2 accumulation = 4 prompts and 16 completions per optimizer step"
    assert line in output
    story = json.loads((workplace / "output" / "Modality_CT" / "run.json").read_text())
    # 8 prompts / 4 per step x 2 epochs = 4 steps
    assert (story["status"], story["steps"], story["mode"]) == ("done", 4, "nothink")
    assert story["completions_per_step"] == 16
    assert story["data"]["prompts"] == 8


LIBRARY_MESSAGES = (
    *("find_unused_parameters", "Setting accelerator to CPU", "Writing model shards", "Loading weights"),
    *("tokenizer has new PAD", "FutureWarning", "DeprecationWarning", "UserWarning", "just got forked"),
)


@pytest.mark.slow
def test_libraries_print_nothing_that_a_user_can_do_nothing_about(published_run: Any) -> None:
    lines = (published_run.stdout + published_run.stderr).splitlines()
    assert [line for line in lines if any(message in line for message in LIBRARY_MESSAGES)] == []


@pytest.mark.slow
@pytest.mark.parametrize("script", ["sft_vqa.py", "grpo_vqa_nothink.py --shared_prefix false --num_generations 2"])
def test_two_processes_do_not_search_for_weights_that_are_all_used(script: str, workplace: Path) -> None:
    flags = (
        "--model_name_or_path ./checkpoints/Qwen2.5-VL-3B-Instruct --dataset_name ./data/VQA/CT_384 "
        f"--output_dir ./output/{script[:4]} --max_steps 1 --per_device_train_batch_size 1 "
        "--gradient_accumulation_steps 1 --save_strategy no"
    )
    process = run_again(workplace, *f"src/open_r1/{script} {flags}".split(), processes=2)
    assert process.returncode == 0, process.stderr[-3000:]
    assert "find_unused_parameters" not in process.stdout + process.stderr


@pytest.mark.slow
def test_files_have_the_permissions_of_other_files(published_run: Any, workplace: Path) -> None:
    """A library that writes weights through a temporary file of 0600 keeps them from the group."""
    umask = os.umask(0)
    os.umask(umask)
    files = [path for path in (workplace / "output" / "Modality_CT").rglob("*") if path.is_file()]
    assert any(path.name == "model.safetensors" for path in files)
    modes = {path.name: path.stat().st_mode & 0o777 for path in files}
    assert {name: oct(mode) for name, mode in modes.items() if mode != 0o666 & ~umask} == {}


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_what_this_machine_lacks_costs_one_line_each(published_run: Any) -> None:
    lines = published_run.stdout.splitlines()
    for word in ("--bf16", "flash_attention_2", "wandb:", "--save_only_model", "shared prefix:"):
        assert len([line for line in lines if word in line and "{" not in line]) == 1, word


@pytest.mark.slow
def test_the_trained_checkpoint_loads_and_differs_from_its_start(published_run: Any, workplace: Path) -> None:
    trained = load_model(workplace / "output" / "Modality_CT", dtype=torch.float32)
    load_processor(workplace / "output" / "Modality_CT")
    start = load_model(workplace / "checkpoints" / "Qwen2.5-VL-3B-Instruct", dtype=torch.float32).state_dict()
    after = trained.state_dict()
    assert after.keys() == start.keys()
    assert all(torch.isfinite(value).all() for value in after.values())
    assert (workplace / "output" / "Modality_CT" / "trainer_state.json").is_file()


@pytest.mark.slow
def test_a_finished_run_is_not_overwritten(published_run: Any, workplace: Path) -> None:
    words = PUBLISHED.format(port=free_port()).replace('"', "").split()
    script = words.index("src/open_r1/grpo_vqa_nothink.py")
    again = run_again(workplace, *words[script:])
    assert again.returncode == 2
    assert again.stderr.strip().splitlines()[-1].startswith("error: --output_dir output/Modality_CT holds a finished")
    assert "Traceback" not in again.stderr


BASE = (
    "src/open_r1/grpo_vqa.py --model_name_or_path checkpoints/Qwen2.5-VL-3B-Instruct --dataset_name data/VQA/CT_384 "
    "--num_generations 2 --max_completion_length 8 --max_steps 1 --save_strategy no --output_dir"
)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["think", "think_after"])
def test_think_entry_trains_both_of_its_modes(workplace: Path, mode: str) -> None:
    process = run_again(workplace, *BASE.split(), f"output/{mode}", "--mode", mode)
    assert process.returncode == 0, process.stderr[-3000:]
    assert json.loads((workplace / "output" / mode / "run.json").read_text())["mode"] == mode


@pytest.mark.slow
def test_json_list_with_an_image_root_trains_and_bad_rows_are_named(workplace: Path) -> None:
    root = workplace / "pictures"
    root.mkdir()
    rows = questions(6)
    entries = []
    for i in range(6):
        (root / f"slice {i}..PNG").write_bytes(rows["image"][i]["bytes"])
        entries.append({"image": f"slice {i}..PNG", "problem": rows["problem"][i], "solution": rows["solution"][i]})
    (root / "slice 0..PNG").write_bytes(rows["image"][0]["bytes"][:90])  # truncated
    entries[1]["image"] = "../checkpoints/Qwen2.5-VL-3B-Instruct/config.json"  # leaves the root
    entries[2]["solution"] = "<answer> G </answer>"  # not offered
    (workplace / "list.json").write_text(json.dumps(entries))
    arguments = BASE.replace("data/VQA/CT_384", "list.json").split()
    process = run_again(workplace, *arguments, "output/json", "--image_root", "pictures")
    assert process.returncode == 0, process.stderr[-3000:]
    data = json.loads((workplace / "output" / "json" / "run.json").read_text())["data"]
    assert data["prompts"] == 3
    assert len(data["dropped"]) + len(data["unreadable"]) == 3


@pytest.mark.slow
def test_every_knob_of_the_shared_prefix_at_once(workplace: Path) -> None:
    knobs = (
        "--freeze_vision_tower --use_peft --lora_on language --tokens_per_micro_batch 600 --resample_dead_groups 1 "
        "--try_longest_batch true --per_device_train_batch_size 2 --max_steps 5 --logging_steps 1"
    )
    process = run_again(workplace, *BASE.split(), "output/knobs", *knobs.split())
    assert process.returncode == 0, process.stderr[-3000:]
    output = process.stdout
    assert "vision features once per image and run" in output
    assert "longest batch: " in output
    assert "estimate: " in output
    table = [line for line in output.splitlines() if line.startswith("  vision tower")]
    assert "0 train (0.00%)" in table[0]
    logged = json.loads((workplace / "output" / "knobs" / "trainer_state.json").read_text())["log_history"][0]
    assert {"groups_dead", "groups_replaced", "groups_left_out", "tokens/computed"} - logged.keys() == {
        "groups_left_out"  # KL is on, so every group is computed
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("--no_such_flag 1", "no_such_flag"),
        ("--mode sideways", "sideways"),
        ("--dataset_name data/VQA/none", "data/VQA/none"),
        ("--model_name_or_path checkpoints/none", "checkpoints/none"),
        ("--reward_funcs kindness", "kindness"),
        ("--max_prompt_length 20", "--max_prompt_length 20"),
        ("--overlong_prompts refuse --max_prompt_length 100", "a prompt is never cut"),
        ("--per_device_train_batch_size 64", "fewer than the 64"),
        ("--lora_on language", "without --use_peft"),
        ("--use_peft --lora_on eyes", "does not exist"),
        ("--use_peft --lora_on both --lora_target_modules q_proj", "leave one out"),
        ("--tokens_per_micro_batch 0", "is not a number of tokens"),
        ("--resample_dead_groups 2 --shared_prefix false", "need the shared prefix"),
        ("--resample_dead_groups 2 --reward_funcs format", "needs the accuracy reward"),
        ("--resume_from_checkpoint output/x/checkpoint-2", "is not a folder"),
    ],
)
def test_bad_input_is_one_line_and_exit_status_2(
    workplace: Path, change: str, message: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from open_r1.common.errors import run_command
    from open_r1.training.grpo_run import train_grpo
    from open_r1.vocabulary.modes import Mode

    monkeypatch.chdir(workplace)
    monkeypatch.setattr(sys, "argv", [*BASE.split(), "output/bad", *change.split()])
    with pytest.raises(SystemExit) as stopped:
        run_command(lambda: train_grpo(Mode.THINK))
    assert stopped.value.code == 2
    error_line = capfd.readouterr().err.strip().splitlines()[-1]
    assert error_line.startswith("error: ")
    assert message in error_line
    assert not (workplace / "output" / "bad" / "run.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "limit", "reason"),  # bytes: 789,376 of weights, twice as many of AdamW
    [
        ("", 60_000, "the file became larger than"),
        ("--save_strategy steps --save_steps 1", 1_000_000, "the disk cannot be written"),
    ],
    ids=["weights", "optimizer"],
)
def test_a_disk_that_fills_up_while_saving_is_one_line(
    workplace: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    file_size_limit: Any,
    flags: str,
    limit: int,
    reason: str,
) -> None:
    from open_r1.common.errors import run_command
    from open_r1.training.grpo_run import train_grpo
    from open_r1.vocabulary.modes import Mode

    monkeypatch.chdir(workplace)
    monkeypatch.setattr(sys, "argv", [*BASE.split(), "output/full", *flags.split()])
    with pytest.raises(SystemExit) as stopped, file_size_limit(limit):
        run_command(lambda: train_grpo(Mode.THINK))
    assert stopped.value.code == 2
    error_line = capfd.readouterr().err.strip().splitlines()[-1]
    assert error_line.startswith(f"error: cannot write the checkpoint to output/full: {reason}")
    assert "there is no checkpoint to resume from, so the same command starts the run again" in error_line
    assert json.loads((workplace / "output" / "full" / "run.json").read_text())["status"] == "running"


def test_an_output_folder_with_something_else_is_refused(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from open_r1.common.errors import UserError
    from open_r1.training.recovery.resume import checkpoint_to_continue, refuse_foreign_output

    thesis = workplace / "thesis"
    thesis.mkdir()
    (thesis / "chapter1.txt").write_text("years of work")
    with pytest.raises(UserError, match="holds other files"):
        refuse_foreign_output(thesis)
    with pytest.raises(UserError, match="is a file"):
        refuse_foreign_output(thesis / "chapter1.txt")
    assert (thesis / "chapter1.txt").read_text() == "years of work"
    interrupted = workplace / "interrupted"
    (interrupted / "checkpoint-200").mkdir(parents=True)
    (interrupted / "run.json").write_text('{"status": "running"}')
    with pytest.raises(UserError, match=r"all of its checkpoints are damaged \(checkpoint-200: manifest"):
        checkpoint_to_continue(interrupted, None)


def test_two_runs_do_not_write_to_one_folder(workplace: Path) -> None:
    from types import SimpleNamespace

    from open_r1.common.errors import UserError
    from open_r1.common.locks import claimed
    from open_r1.training import run_lifecycle

    folder = workplace / "output" / "twice"
    training: Any = SimpleNamespace(
        process_index=0, output_dir=str(folder), resume_from_checkpoint=None, device="cpu", publish_to=None
    )
    training.gradient_accumulation_steps = 1
    training.num_train_epochs, training.max_steps = 1.0, -1
    with pytest.MonkeyPatch.context() as patch, claimed(folder):
        patch.setattr(run_lifecycle, "LOCK_TIMEOUT", 0.2)
        with (
            pytest.raises(UserError, match=r"another process .* is writing to"),
            run_lifecycle.locked_output_folder(training),
        ):
            pass
    with run_lifecycle.locked_output_folder(training) as continued:  # free again
        assert continued is None
        assert (folder / ".claim").is_file()
    assert not folder.exists()
