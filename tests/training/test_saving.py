"""Checkpoints are complete or absent, damage has a name, and the only good one is never deleted."""

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from open_r1.common.errors import UserError
from open_r1.training.recovery.checkpoint_store import (
    STAGE,
    clear_stage,
    damage,
    newest_first,
    prune,
    publish_files,
    require,
    seal,
    set_aside,
)
from open_r1.training.recovery.resume import checkpoint_to_continue, refuse_foreign_output, require_same_run

FILES = {"model.safetensors": b"w" * 100, "optimizer.pt": b"o" * 50, "global_step4/rank0.pt": b"z" * 10}


def save(run: Path, step: int, resumable: bool = True) -> Path:
    stage = clear_stage(run) / f"checkpoint-{step}"
    for name, data in FILES.items():
        (stage / name).parent.mkdir(parents=True, exist_ok=True)
        (stage / name).write_bytes(data)
    seal(stage, run / f"checkpoint-{step}", {"resumable": resumable, "processes": 2, "engine": "DDP"})
    return run / f"checkpoint-{step}"


def test_a_sealed_checkpoint_is_whole_and_every_kind_of_damage_is_named(tmp_path: Path) -> None:
    folder = save(tmp_path, 4)
    assert damage(folder) is None
    (folder / "optimizer.pt").write_bytes(b"o" * 49 + b"p")
    assert damage(folder) == "optimizer.pt has changed since it was saved"
    (folder / "optimizer.pt").write_bytes(b"o" * 49)
    assert damage(folder) == "optimizer.pt has 49 bytes instead of 50"
    (folder / "global_step4" / "rank0.pt").unlink()
    (folder / "optimizer.pt").write_bytes(FILES["optimizer.pt"])
    assert damage(folder) == "global_step4/rank0.pt is missing"
    os.rename(folder, tmp_path / "checkpoint-5")
    assert damage(tmp_path / "checkpoint-5") == "manifest.json belongs to something else"
    for text in ("", "[]", "{}", '{"files": 3}', '{"files": {"a": 1}}', "{" * 5000):
        (tmp_path / "checkpoint-5" / "manifest.json").write_text(text)
        assert "manifest.json" in str(damage(tmp_path / "checkpoint-5"))


def test_what_a_killed_save_leaves_is_no_checkpoint(tmp_path: Path) -> None:
    save(tmp_path, 2)
    stage = clear_stage(tmp_path) / "checkpoint-4"
    stage.mkdir()
    (stage / "model.safetensors").write_bytes(b"half")
    assert [path.name for path in newest_first(tmp_path)] == ["checkpoint-2"]
    assert list(clear_stage(tmp_path).iterdir()) == []


def test_the_oldest_go_and_the_newest_and_the_best_stay(tmp_path: Path) -> None:
    for step in (2, 10, 4, 6):
        save(tmp_path, step)
    prune(tmp_path, None)
    assert [path.name for path in newest_first(tmp_path)] == [f"checkpoint-{n}" for n in (10, 6, 4, 2)]
    prune(tmp_path, 1, spare=[tmp_path / "checkpoint-4"])
    assert [path.name for path in newest_first(tmp_path)] == ["checkpoint-10", "checkpoint-4"]
    assert not list(tmp_path.glob(".removing*"))


def test_a_checkpoint_that_lacks_something_is_not_sealed(tmp_path: Path) -> None:
    (tmp_path / "rng_state_0.pth").touch()
    require(tmp_path, ["rng_state_0.pth", "rng*"])
    with pytest.raises(UserError, match=r"lacks rng_state_1\.pth .* all of them share"):
        require(tmp_path, ["rng_state_0.pth", "rng_state_1.pth"])


def test_final_files_replace_earlier_ones_and_leave_no_stage(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("old")
    stage = clear_stage(tmp_path)
    (stage / "config.json").write_text("new")
    (stage / "model.safetensors").write_bytes(b"w")
    publish_files(stage, tmp_path)
    assert (tmp_path / "config.json").read_text() == "new"
    assert not (tmp_path / STAGE).exists()


def test_the_newest_whole_checkpoint_is_gone_on_from_and_damaged_ones_are_kept_aside(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"status": "running"}')
    assert checkpoint_to_continue(tmp_path, None) is None
    undamaged, damaged = save(tmp_path, 2), save(tmp_path, 4)
    (damaged / "optimizer.pt").unlink()
    lines: list[str] = []
    assert checkpoint_to_continue(tmp_path, None, lines.append) == undamaged
    assert "checkpoint-4 is damaged (optimizer.pt is missing)" in lines[0]
    assert (tmp_path / "damaged-checkpoint-4" / "model.safetensors").is_file()
    assert set_aside(save(tmp_path, 4)).name == "damaged-checkpoint-4-2"


def test_what_cannot_be_gone_on_from_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"status": "running"}')
    older = save(tmp_path, 1)
    save(tmp_path, 2, resumable=False)
    with pytest.raises(UserError, match="saved with --save_only_model true"):
        checkpoint_to_continue(tmp_path, None)
    with pytest.raises(UserError, match="holds checkpoint-2, which this run would overwrite"):
        checkpoint_to_continue(tmp_path, str(older))
    (older / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"is damaged: model\.safetensors is missing"):
        checkpoint_to_continue(tmp_path / "new", str(older))
    with pytest.raises(UserError, match="is not a folder"):
        checkpoint_to_continue(tmp_path / "new", str(tmp_path / "nowhere"))
    (tmp_path / "run.json").write_text('{"status": "done"}')
    with pytest.raises(UserError, match="holds a finished run"):
        refuse_foreign_output(tmp_path)
    (tmp_path / "run.json").write_text('{"status": ')
    with pytest.raises(UserError, match=r"run\.json cannot be read"):
        refuse_foreign_output(tmp_path)


def test_another_run_is_not_continued_and_free_settings_may_change(tmp_path: Path) -> None:
    checkpoint = save(tmp_path, 4)
    story = {
        "mode": "nothink",
        "method": "sft",
        "prompts_per_step": 4,
        "data": {"ids_sha256": "a"},
        "training_arguments": {
            "learning_rate": 1e-6,
            "run_name": "x",
            "logging_steps": 1,
            "save_steps": 5,
            "gradient_accumulation_steps": 1,
        },
        "script_arguments": {"dataset_name": ["d"]},
    }
    new_record = json.loads(json.dumps(story))
    new_record["training_arguments"] |= {"run_name": "y", "logging_steps": 10, "save_steps": 1}
    require_same_run(story, new_record, checkpoint, processes=2, engine="DDP")
    new_record["training_arguments"]["learning_rate"] = 1e-5
    new_record["data"]["ids_sha256"] = "b"
    new_record["prompts_per_step"] = 6
    with pytest.raises(UserError) as refused:
        require_same_run(story, new_record, checkpoint, processes=3, engine="DDP")
    for words in (
        "2 processes then, 3 now (4 prompts per step cannot be divided among 3 processes with 2 each",
        "--learning_rate was 1e-06, is 1e-05",
        "training questions or their order",
    ):
        assert words in str(refused.value)


@pytest.mark.parametrize(
    ("processes", "prompts", "accumulation", "problem"),
    [
        (2, 2, 2, None),
        (1, 2, 4, None),
        (1, 2, 2, "prompts_per_step was 8, is 4"),
        (3, 2, 1, "8 prompts per step cannot be divided among 3 processes with 2 each; 1, 2, 4 processes can do it"),
        (1, 16, 1, "cannot be divided among 1 processes with 16 each; lower --per_device_train_batch_size"),
    ],
)
def test_another_number_of_processes_keeps_the_prompts_of_a_step(
    processes: int, prompts: int, accumulation: int, problem: str | None, tmp_path: Path
) -> None:
    """A run of 4 processes with 2 prompts each; a refusal names what would keep the 8 prompts."""

    def record(processes: int, prompts: int, accumulation: int) -> dict[str, Any]:
        per_step = processes * prompts * accumulation
        flags = {"gradient_accumulation_steps": accumulation, "steps_per_generation": accumulation}
        flags["per_device_train_batch_size"] = prompts
        return {"method": "grpo", "prompts_per_step": per_step, "training_arguments": flags}

    checkpoint, stage = tmp_path / "checkpoint-4", clear_stage(tmp_path) / "checkpoint-4"
    stage.mkdir()
    seal(stage, checkpoint, {"resumable": True, "processes": 4, "engine": "DDP"})
    now = record(processes, prompts, accumulation)
    if problem is None:
        require_same_run(record(4, 2, 1), now, checkpoint, processes, engine="DDP")
    else:
        with pytest.raises(UserError, match=re.escape(problem)):
            require_same_run(record(4, 2, 1), now, checkpoint, processes, engine="DDP")


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        ({"dataloader_drop_last": True}, "with --dataloader_drop_last True the questions of a step depend on"),
        ({"auto_find_batch_size": True}, "with --auto_find_batch_size True the questions of a step depend on"),
        ({"train_sampling_strategy": "group_by_length"}, "with --train_sampling_strategy group_by_length the"),
        ({"train_sampling_strategy": "sequential"}, None),
        ({}, None),
    ],
    ids=["drop last", "batch size", "by length", "sequential", "as usual"],
)
def test_supervised_runs_move_where_the_order_of_questions_stays(
    flags: dict[str, Any], problem: str | None, tmp_path: Path
) -> None:
    arguments = {"gradient_accumulation_steps": 2, **flags}
    record = {"method": "sft", "prompts_per_step": 4, "training_arguments": arguments}
    checkpoint = save(tmp_path, 4)
    if problem is None:
        require_same_run(record, record, checkpoint, 1, "DDP")
    else:
        with pytest.raises(UserError, match=f"2 processes then, 1 now .{problem}"):
            require_same_run(record, record, checkpoint, 1, "DDP")


@pytest.mark.parametrize("engine", ["FSDP", "ZeRO-2"])
def test_what_another_engine_wrote_is_not_read(engine: str, tmp_path: Path) -> None:
    record = {"training_arguments": {}}
    with pytest.raises(UserError, match=f"DDP wrote it, and {engine} cannot read it; launch with the same"):
        require_same_run(record, record, save(tmp_path, 4), 2, engine)
