"""A study's trainings have the published settings of their mode, on any number of processes, until told otherwise."""

import json
from pathlib import Path
from typing import Any

import pytest
from tiny_study import CHECKED, prepared, save

from open_r1.common.atomic_files import write_json
from open_r1.common.errors import UserError
from open_r1.study.execution.commands import Commands
from open_r1.study.execution.leases import Leases
from open_r1.study.execution.study_file import STUDY_FILE, begin_or_continue, make_manifest
from open_r1.study.execution.time_left import Forecast
from open_r1.study.planning import published
from open_r1.study.planning.flags import read_flags
from open_r1.study.planning.plan import Plan, make_plan
from open_r1.study.planning.preflight import answer
from open_r1.study.planning.prepared_sets import find_sets
from open_r1.study.planning.published import published_flags, step_notes
from open_r1.study.run import run_study
from open_r1.vocabulary.labels import Modality
from open_r1.vocabulary.modes import Mode

CT = (12_567, 3_241)  # questions of the published split


def study_of(tmp_path: Path, *arguments: str, modes: str = "think,nothink") -> tuple[Any, Plan]:
    flags = read_flags(None, ["--base", "base", "--output_dir", str(tmp_path / "study"), "--modes", modes, *arguments])
    sets = prepared(tmp_path, [Modality.CT], *CT)
    return flags, make_plan(sets, flags.modes, flags.zero_shot, flags.sft)


def steps(tmp_path: Path, *arguments: str) -> dict[str, int]:
    """Run -> optimizer steps, of the flags that each entry script is really given."""
    flags, plan = study_of(tmp_path, *arguments)
    commands = Commands(tmp_path, flags, published_flags(plan.runs, flags, None))
    trainings = {run.way: commands.training_flags(run) for run in plan.runs}
    checked = answer({"trainings": trainings, "infer": None, "script": "", "base": None})
    forecast = Forecast(Leases(tmp_path), checked, flags.nproc_per_node, plan.items)
    return {item.subject.name: forecast.units(item) for item in plan.items if item.kind == "train"}


@pytest.mark.parametrize("processes", ["1", "2", "4"])
def test_the_trainings_of_ct_take_as_many_steps_as_published(tmp_path: Path, processes: str) -> None:
    assert steps(tmp_path, "--nproc_per_node", processes, "--sft") == {
        # 12,567 questions, 4 a step: 3,141 whole steps; the 3 that are left fill none
        "CT-grpo-think": 3_141,
        # two such epochs: 2 x 3,141 (2 x 12,567 / 4 = 6,283 would be, if the rest of an epoch were carried over)
        "CT-grpo-nothink": 6_282,
        # 128 a step, the last one smaller: 98.2
        "CT-sft-nothink": 99,
    }


def test_arguments_go_before_what_was_published(tmp_path: Path) -> None:
    assert steps(tmp_path, "--train_args", "--num_train_epochs 1.5")["CT-grpo-nothink"] == 4_712  # 1.5 x 3,141
    assert steps(tmp_path, "--train_args", "--gradient_accumulation_steps 1")["CT-grpo-think"] == 12_567
    assert steps(tmp_path, "--train_args", "--max_steps 7") == {"CT-grpo-think": 7, "CT-grpo-nothink": 7}


@pytest.mark.parametrize(
    ("processes", "arguments", "accumulation"),
    [
        ("1", "", "4"),
        ("2", "", "2"),  # the published command
        ("4", "", "1"),
        ("2", "--per_device_train_batch_size 2", "1"),  # 2 x 2 x 1 = 4
        ("1", "--per_gpu_train_batch_size 2", "2"),  # by its old name
        ("3", "", "1"),  # 3 instead of 4
        ("8", "", "1"),
    ],
)
def test_four_prompts_a_step_on_any_number_of_processes_that_divides_it(
    tmp_path: Path, processes: str, arguments: str, accumulation: str
) -> None:
    flags, plan = study_of(tmp_path, "--nproc_per_node", processes, "--train_args", arguments)
    words = published_flags(plan.runs, flags, None)["grpo-think"]
    assert words[words.index("--gradient_accumulation_steps") + 1] == accumulation


def test_what_a_recipe_sets_is_not_set_again(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("num_train_epochs: 5\nmax_pixels: 50176\nfp16: true\n")
    flags, plan = study_of(tmp_path, "--train_args", f"--config {recipe} --max_prompt_length 512")
    assert published_flags(plan.runs, flags, None)["grpo-nothink"] == [
        *("--attn_implementation", "flash_attention_2", "--logging_steps", "1", "--gradient_accumulation_steps", "4"),
    ]


def test_a_step_that_cannot_be_the_published_one_is_said(tmp_path: Path) -> None:
    flags, plan = study_of(tmp_path, "--nproc_per_node", "3", modes="nothink")
    words = published_flags(plan.runs, flags, None)
    checked = {"grpo-nothink": {"prompts_per_step": 1}}
    (note,) = step_notes(checked, words, 3)
    assert "takes 3 prompts per optimizer step; the published runs took 4" in note
    assert "--nproc_per_node 1, 2 or 4" in note
    assert step_notes({"grpo-nothink": {"prompts_per_step": 2}}, words, 2) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--max_stepz 3", "--train_args: unknown flag --max_stepz; did you mean --max_steps?"),
        ("--reward_funcs acuracy", "--train_args: there is no reward 'acuracy'"),
        ("--deepspeed no.json", "--train_args: --deepspeed no.json is not a file"),
        ("--num_train_epochs two", "--train_args: argument --num_train_epochs"),
    ],
)
def test_a_typo_in_the_arguments_is_found_while_the_plan_is_made(tmp_path: Path, arguments: str, message: str) -> None:
    flags, plan = study_of(tmp_path, "--train_args", arguments)
    with pytest.raises(UserError) as caught:
        published_flags(plan.runs, flags, None)
    assert str(caught.value).startswith(message)


# ------------------------------------------------------------------------------------------------------ begun studies


def test_a_study_keeps_the_settings_that_it_began_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flags, plan = study_of(tmp_path, modes="nothink")
    words = published_flags(plan.runs, flags, None)
    begin_or_continue(flags.output_dir, make_manifest(flags, plan, prepared(tmp_path, [Modality.CT]), CHECKED, words))
    recorded = json.loads((flags.output_dir / STUDY_FILE).read_text())
    assert recorded["published"] == words
    monkeypatch.setitem(published.EPOCHS, Mode.NOTHINK, 9)
    larger_flags, larger_plan = study_of(tmp_path, modes="think,nothink")
    later = published_flags(larger_plan.runs, larger_flags, recorded)
    assert later["grpo-nothink"] == words["grpo-nothink"]
    assert later.keys() == {"grpo-think", "grpo-nothink"}
    manifest = make_manifest(larger_flags, larger_plan, prepared(tmp_path, [Modality.CT]), CHECKED, later)
    begin_or_continue(flags.output_dir, manifest)
    assert json.loads((flags.output_dir / STUDY_FILE).read_text())["published"] == later


def test_a_study_from_before_the_published_settings_continues_without_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(tmp_path / "data" / "CT_384", 11, 3)
    arguments = ["--base", "org/base", "--data", str(tmp_path / "data"), "--by", "modality", "--modes", "nothink"]
    arguments += ["--output_dir", str(tmp_path / "study"), "--no-zero_shot", "--dry_run"]
    flags = read_flags(None, arguments)
    sets = find_sets(flags.data, flags.by)[0]
    plan = make_plan(sets, flags.modes, False, False)
    checked = {"base_sha256": "0", "grpo": {"prompts_per_step": 1, "epochs": 3.0, "max_steps": -1}}
    manifest = make_manifest(flags, plan, sets, checked, {})
    del manifest["published"]  # as studies were recorded before
    flags.output_dir.mkdir()
    write_json(flags.output_dir / STUDY_FILE, manifest)
    assert run_study(tmp_path / "scripts" / "run_matrix.py", None, arguments) == 0
    output = capsys.readouterr().out
    assert "note: this study was started without the published settings and continues without them" in output
    assert "CT-grpo-nothink" in output
    assert next(line for line in output.splitlines() if line.startswith("CT-grpo")).split()[1:3] == [
        "11",
        "33",
    ]  # 3 x 11
