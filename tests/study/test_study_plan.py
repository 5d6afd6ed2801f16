"""What a study consists of, what its flags mean, and which studies are refused; job scripts that a shell can read."""

import json
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
from study_children import write_answers, write_training
from tiny_study import CHECKED, prepared, save, worker_of

from open_r1.common.atomic_files import write_json
from open_r1.common.errors import UserError
from open_r1.study.execution.commands import Commands
from open_r1.study.execution.leases import Leases
from open_r1.study.execution.study_file import begin_or_continue, make_manifest
from open_r1.study.execution.time_left import Forecast, plan_lines
from open_r1.study.planning.flags import read_flags
from open_r1.study.planning.plan import make_plan
from open_r1.study.planning.prepared_sets import DataSet, find_sets
from open_r1.vocabulary.labels import Modality, Task, family_of
from open_r1.vocabulary.modes import Mode
from open_r1.vocabulary.releases import matrix

ALL = [*Modality, *Task]
BOTH = (Mode.THINK, Mode.NOTHINK)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All thirteen sets, as they are named below data/VQA."""
    folder = tmp_path_factory.mktemp("data VQA")
    for label in ALL:
        save(folder / label.folder)
    (folder / "notes").mkdir()
    (folder / ".partial").mkdir()
    return folder


@pytest.fixture(scope="module")
def sets(data: Path) -> list[DataSet]:
    """Those, as they are found."""
    return find_sets(data, ("modality", "task"))[0]


# ------------------------------------------------------------------------------------------------------------ the plan


@pytest.mark.slow
def test_the_published_study_is_26_runs_and_178_cells(sets: list[DataSet], data: Path) -> None:
    plan = make_plan(sets, BOTH, zero_shot=False, sft=False)
    # 2 modes x (8 + 5) sets = 26; 2 modes x (8 x 8 + 5 x 5) = 2 x 89 = 178
    assert (len(plan.runs), len(plan.cells)) == (26, 178)
    assert len(plan.runs) == len(matrix())
    assert find_sets(data, ("task",))[1] == ["notes"]
    assert all(
        family_of(subject.trained_on.label) == data_set.family for subject, data_set in plan.cells if subject.trained_on
    ), "a checkpoint is tested inside its own split family alone"
    assert {(data_set.train, data_set.test) for data_set in sets} == {(3, 2)}


@pytest.mark.parametrize(
    ("modes", "families", "zero_shot", "sft", "runs", "cells"),
    [
        (BOTH, ("modality",), False, False, 16, 128),  # 2 x 8, 2 x 8 x 8
        (BOTH, ("task",), False, False, 10, 50),  # 2 x 5, 2 x 5 x 5
        ((Mode.THINK,), ("modality", "task"), False, False, 13, 89),
        (BOTH, ("modality", "task"), True, False, 26, 204),  # and the base in both modes on 13 sets
        (BOTH, ("modality", "task"), True, True, 39, 293),  # and 13 no-think fine-tunings with 89 cells
    ],
)
def test_counts(
    sets: list[DataSet], modes: Any, families: Any, zero_shot: bool, sft: bool, runs: int, cells: int
) -> None:
    plan = make_plan([data_set for data_set in sets if data_set.family in families], modes, zero_shot, sft)
    assert (len(plan.runs), len(plan.cells)) == (runs, cells)
    assert len({item.name for item in plan.items}) == len(plan.items)


def test_a_set_without_one_side_is_trained_on_or_tested_on_alone(tmp_path: Path) -> None:
    save(tmp_path / "CT_384", train=0)
    save(tmp_path / "MRI_384", test=0)
    plan = make_plan(find_sets(tmp_path, ("modality",))[0], (Mode.THINK,), zero_shot=False, sft=False)
    assert [item.name for item in plan.items] == ["train-MRI-grpo-think", "test-MRI-grpo-think"]
    assert [data_set.label for _, data_set in plan.cells] == [Modality.CT]


def test_only_takes_runs_by_what_they_are_trained_on_and_zero_shot_by_what_it_is_tested_on() -> None:
    plan = make_plan(prepared(Path("d"), ALL), BOTH, zero_shot=True, sft=False)
    selected = plan.only([Modality.ULTRASOUND, Task.GRADING])
    assert [subject.name for subject in selected.runs] == [
        f"{name}-grpo-{mode}" for name in ("US", "Lesion_Grading") for mode in BOTH
    ]
    # zero-shot 2 modes x 2 sets; 2 modes x (8 + 5)
    assert len(selected.cells) == 4 + 26
    with pytest.raises(UserError, match="no run of this study is trained on it"):
        make_plan(prepared(Path("d"), [Modality.CT]), BOTH, False, False).only([Modality.OCT])


def test_mr_is_read_by_the_family_that_is_asked_for(tmp_path: Path) -> None:
    save(tmp_path / "MR_384")
    assert find_sets(tmp_path, ("modality",))[0][0].label is Modality.MRI
    assert find_sets(tmp_path, ("task",))[0][0].label is Task.MODALITY
    with pytest.raises(UserError, match="contains no prepared set"):
        find_sets(tmp_path, ("modality", "task"))


def test_data_that_cannot_be_meant_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a folder"):
        find_sets(tmp_path / "none", ("modality",))
    save(tmp_path / "CT_384")
    save(tmp_path / "CT_112")
    with pytest.raises(UserError, match="are both CT"):
        find_sets(tmp_path, ("modality",))


# ---------------------------------------------------------------------------------------------------------- the flags


def flags_of(*arguments: str, base: str = "base", output: str = "out") -> Any:
    return read_flags(None, ["--base", base, "--output_dir", output, *arguments])


def test_flags_for_the_runs_are_one_string_each_and_may_begin_with_dashes() -> None:
    flags = flags_of("--train_args", "--bf16", "--infer_args=--limit 8", "--modes", "think,nothink", "--only", "us")
    assert flags.train_args == ("--bf16",)
    assert flags.infer_args == ("--limit", "8")
    assert flags.modes == BOTH
    assert flags.only == (Modality.ULTRASOUND,)
    assert flags_of("--only", "MR", "--by", "task").only == (Task.MODALITY,)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--modes", "sideways"], "--modes 'sideways' is not valid"),
        (["--by", "organ"], "--by 'organ' is not valid"),
        (["--only", "Kidney"], "'Kidney' is no modality or task"),
        (["--only", "MR"], "ambiguous"),
        (["--shard", "1/2"], "--shard is gone: the same command, started several times, shares the work"),
        (["--emit", "slurm"], "--emit slurm has become --executor slurm"),
        (["--emit=shell"], "--emit shell has become --emit snakemake"),
        (["--follow"], "have no effect without --executor slurm"),
        (["--slurm_args", "--partition=gpu"], "have no effect without --executor slurm"),
        (["--nproc_per_node", "0"], "at least one process"),
        (["--train_args", "--output_dir elsewhere"], "--train_args contains --output_dir"),
        (["--train_args", "--max_steps 3 --model-name-or-path x"], "--train_args contains --model-name-or-path"),
        (["--infer_args", "--mode=think"], "--infer_args contains --mode=think"),
        (["--train_args", "--run_name 'a"], "cannot be split into words"),
        (["--sft_args", "--max_steps 3"], "has no effect without --sft"),
        (["--no_such_flag"], "no_such_flag"),
    ],
)
def test_flags_that_make_no_sense_are_refused(arguments: list[str], message: str) -> None:
    with pytest.raises(UserError, match="(?s)" + message.replace("(", r"\(")):
        flags_of(*arguments)


def test_commands_are_those_that_a_user_would_type(tmp_path: Path) -> None:
    commands = Commands(tmp_path, flags_of("--nproc_per_node", "2", "--train_args", "--bf16 --save_steps 200", "--sft"))
    plan = make_plan(prepared(Path("data"), [Modality.CT, Modality.MRI]), BOTH, zero_shot=True, sft=True)
    command_lines = {item.name: shlex.join(commands.command_of(item)) for item in plan.items}
    torchrun = f"{sys.executable} -m torch.distributed.run --standalone --nproc_per_node=2 {tmp_path}"
    start = "--model_name_or_path base --dataset_name data/CT_384 --output_dir"
    assert command_lines["train-CT-grpo-think"] == (
        f"{torchrun}/src/open_r1/grpo_vqa.py {start} out/runs/CT-grpo-think "
        "--run_name base-CT-grpo-think --bf16 --save_steps 200"
    )
    assert command_lines["train-CT-sft-nothink"] == (
        f"{torchrun}/src/open_r1/sft_vqa.py {start} out/runs/CT-sft-nothink --run_name base-CT-sft-nothink"
    )
    assert command_lines["test-zero-shot-think"] == (
        f"{torchrun}/eval/infer.py --model_path base --prompt_path data/CT_384 data/MRI_384 "
        "--output_path out/cells/zero-shot-think --mode think"
    )
    item = plan.items[3]
    assert commands.test(item.subject, item.sets[:1])[-4:-2] == [
        "--output_path",
        f"out/cells/{item.subject.name}/CT_384.jsonl",
    ]


# ------------------------------------------------------------------------------------------------- what it will cost


def test_steps_follow_from_prompts_and_time_from_what_is_finished(tmp_path: Path) -> None:
    sets = prepared(Path("d"), [Modality.CT, Modality.MRI], train=11, test=40)
    plan = make_plan(sets, (Mode.NOTHINK,), zero_shot=False, sft=True)
    leases = Leases(tmp_path)
    checked = {**CHECKED, "grpo": {"prompts_per_step": 1, "epochs": 2.0, "max_steps": -1}}
    forecast = Forecast(leases, checked, 2, plan.items)
    steps = {item.name: forecast.units(item) for item in plan.items}
    # GRPO 11 // (1 x 2) = 5 steps x 2 epochs; SFT ceil(11 / (4 x 2)) = 2; tests 2 x 40 questions
    assert steps["train-CT-grpo-nothink"] == 10
    assert steps["train-CT-sft-nothink"] == 2
    assert steps["test-CT-grpo-nothink"] == 80
    assert "when the first item of this study is finished" in forecast.line(plan.items)
    assert "24 optimizer steps, 320 answers" in forecast.line(plan.items)  # 2 x (10 + 2), 4 x 80
    write_json(tmp_path / "train-CT-grpo-nothink.1.end", {"outcome": "done", "seconds": 30.0, "units": 10})
    (tmp_path / "train-CT-grpo-nothink.1").write_text("{}")
    assert forecast.seconds(plan.items) == (3.0 * 24, ["test"])  # SFT by the pace of GRPO, 3 s a step
    assert "about 72 s for one worker at the pace so far, without answers" in forecast.line(plan.items)
    write_json(tmp_path / "test-CT-grpo-nothink.1.end", {"outcome": "done", "seconds": 8.0, "units": 80})
    (tmp_path / "test-CT-grpo-nothink.1").write_text("{}")
    assert forecast.seconds(plan.items) == (pytest.approx(72 + 32), [])


def test_the_plan_says_what_is_done(tmp_path: Path) -> None:
    worker = worker_of(tmp_path)
    folder = worker.commands.folder
    write_training(folder.run(worker.items[0].subject))
    for data_set in worker.items[1].sets:
        write_answers(folder.cell(worker.items[0].subject, data_set))
    write_training(folder.run(worker.items[2].subject))
    worker.find_done()
    plan = make_plan(prepared(tmp_path, (Modality.CT, Modality.MRI)), (Mode.NOTHINK,), False, False)
    lines = plan_lines(plan, plan, worker.finished, worker.forecast)
    assert lines[1].split() == ["CT-grpo-nothink", "10", "5", "2", "8", "done"]
    assert lines[2].split() == ["MRI-grpo-nothink", "10", "5", "2", "8", "trained"]
    assert lines[3] == "plan: 2 runs, 4 cells; 3 of 4 items are done"


# ------------------------------------------------------------------------------------------------ one study, one folder


def manifest(output: Path, labels: Any = (Modality.CT,), checked: Any = CHECKED, **flag_values: str) -> dict[str, Any]:
    flags = flags_of(
        *(word for name, value in flag_values.items() for word in (f"--{name}", value)), output=str(output)
    )
    sets = prepared(Path("d"), labels)
    return make_manifest(flags, make_plan(sets, flags.modes, False, False), sets, checked, {})


def test_the_same_study_continues_and_a_larger_one_grows(tmp_path: Path) -> None:
    study = tmp_path / "study"
    assert begin_or_continue(study, manifest(study, modes="nothink")) == []
    assert begin_or_continue(study, manifest(study, modes="nothink")) == []
    begin_or_continue(study, manifest(study, (Modality.CT, Modality.OCT), modes="nothink,think"))
    there = json.loads((study / "study.json").read_text())
    assert (len(there["runs"]), len(there["cells"])) == (4, 8)
    with pytest.raises(UserError, match="a study with 10 more runs and cells"):  # 3 runs and 7 cells less
        begin_or_continue(study, manifest(study, modes="nothink"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"checked": {**CHECKED, "base_sha256": "1"}}, r"--base \(base then, base now\)"),
        ({"train_args": "--max_steps 4"}, r"--train_args \('' then, '--max_steps 4' now\)"),
        ({"infer_args": "--limit 4"}, r"--infer_args \('' then, '--limit 4' now\)"),
        ({"nproc_per_node": "2"}, r"--nproc_per_node \(1 then, 2 now\)"),
    ],
)
def test_another_study_in_the_same_folder_is_refused_by_what_differs(tmp_path: Path, change: Any, message: str) -> None:
    study = tmp_path / "study"
    begin_or_continue(study, manifest(study))
    before = (study / "study.json").read_bytes()
    with pytest.raises(UserError, match=message):
        begin_or_continue(study, manifest(study, **change))
    assert (study / "study.json").read_bytes() == before


def test_other_data_and_a_changed_recipe_are_refused(tmp_path: Path) -> None:
    study, recipe = tmp_path / "study", tmp_path / "recipe.yaml"
    recipe.write_text("max_steps: 3\n")
    manifest_before = manifest(study, train_args=f"--config {recipe}")
    begin_or_continue(study, manifest_before)
    other_data = json.loads(json.dumps(manifest_before))
    other_data["sets"]["CT"]["sha256"] = "1"
    with pytest.raises(UserError, match="the data of CT"):
        begin_or_continue(study, other_data)
    recipe.write_text("max_steps: 4\n")
    with pytest.raises(UserError, match=r"the content of .*recipe\.yaml"):
        begin_or_continue(study, manifest(study, train_args=f"--config {recipe}"))


def test_other_packages_are_a_note_and_foreign_folders_an_error(tmp_path: Path) -> None:
    study = tmp_path / "study"
    begin_or_continue(study, manifest(study))
    later = manifest(study)
    later["packages"] = {**later["packages"], "torch": "0.1"}
    (note,) = begin_or_continue(study, later)
    assert "started with other packages: torch" in note
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years")
    with pytest.raises(UserError, match="not empty and not a study"):
        begin_or_continue(tmp_path / "thesis", manifest(study))
