"""A flag that does not exist is one line, which names the one that was meant; on every command."""

import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from open_r1.common import errors
from open_r1.common.command_line import SYNONYMS, CommandParser, suggestion
from open_r1.common.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = sorted(
    str(path.relative_to(ROOT)) for folder in ("eval", "scripts", "benchmarks") for path in (ROOT / folder).glob("*.py")
)
ENTRIES = [f"src/open_r1/{name}.py" for name in ("grpo", "grpo_vqa", "grpo_vqa_nothink", "sft", "sft_vqa")]
MODULES = ("open_r1.checkpoints", "open_r1_testbed.phantoms", "open_r1_testbed.riddles")


def parser() -> CommandParser:
    command = CommandParser(hints={"split": "the train split is taken"})
    command.add_argument("--max_steps", "--max-steps", type=int)
    command.add_argument("--freeze_vision_tower")
    command.add_argument("--output_dir", required=True)
    command.add_argument("--num_train_epochs", type=float)
    return command


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--max_stepz 3", "unknown flag --max_stepz; did you mean --max_steps?"),
        ("--max_stepz=3", "unknown flag --max_stepz; did you mean --max_steps?"),
        ("--max-step 3", "unknown flag --max-step; did you mean --max_steps?"),
        ("-max_steps 3", "unknown flag -max_steps; did you mean --max_steps?"),
        ("--num 3", "unknown flag --num; did you mean --num_train_epochs?"),  # flags are not abbreviated
        ("--epochs 3", "unknown flag --epochs; here it is --num_train_epochs"),
        ("--freeze_vision_modules true", "unknown flag --freeze_vision_modules; here it is --freeze_vision_tower"),
        ("--ouput_path x", "unknown flag --ouput_path; did you mean --output_dir?"),  # misspelt, of another system
        ("--split train", "unknown flag --split; the train split is taken"),
        ("--zzz", "unknown flag --zzz (--help lists the flags)"),
        ("", "the following arguments are required: --output_dir"),
        ("--output_dir x --max_steps many", "argument --max_steps/--max-steps: invalid int value: 'many'"),
    ],
)
def test_an_unknown_flag_is_answered_with_the_one_that_was_meant(words: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        parser().parse_args(words.split())
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_values_are_not_taken_for_flags() -> None:
    read = parser().parse_args(["--output_dir", "a b", "--max_steps", "-3", "--num_train_epochs=-1.5"])
    assert (read.output_dir, read.max_steps, read.num_train_epochs) == ("a b", -3, -1.5)
    several = CommandParser()
    several.add_argument("words", nargs="*")
    assert several.parse_args(["--", "--not_a_flag"]).words == ["--not_a_flag"]


def test_a_name_means_one_thing() -> None:
    names = [name for row in SYNONYMS for name in row]
    assert len(names) == len(set(names))
    assert suggestion("lr", ["learning_rate"], {}) == "; here it is --learning_rate"


@pytest.mark.filterwarnings("ignore:.* found in sys.modules")
@pytest.mark.parametrize("command", [*COMMANDS, *ENTRIES, *MODULES])
def test_every_command_answers_a_typo_in_one_line(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [command, *(["fetch"] if command.endswith("checkpoints") else []), "--sedd", "3"])
    monkeypatch.syspath_prepend(str((ROOT / command).parent))  # where a script finds its neighbours
    run: Callable[..., object] = runpy.run_module if command in MODULES else runpy.run_path
    with pytest.raises(SystemExit) as ended:
        run(command if command in MODULES else str(ROOT / command), run_name="__main__")
    assert ended.value.code == 2
    message = capsys.readouterr().err
    assert message.startswith("error: unknown flag --sedd")
    assert message.count("\n") == 1


LIGHT = [
    *(entry + " --max_stepz 3" for entry in ENTRIES),
    *(entry + " --help" for entry in ENTRIES),
    *("eval/infer.py --modle_path x", "eval/infer.py --help"),
    "eval/infer.py --model_path . --prompt_path . --output_path o",
    *("eval/report.py --ouput_dir x", "eval/blind.py --tran x", "eval/curves.py --ouput x"),
    *("scripts/run_matrix.py --bse x", "scripts/grade_difficulty.py --sedd 1", "scripts/data_prepare.py --sedd 1"),
    *("scripts/prepare_omnimedvqa.py --sedd 1", "scripts/prepare_text_benchmarks.py --sedd 1"),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("command", LIGHT)
def test_a_typo_and_help_do_not_load_torch(command: str) -> None:
    # seconds would say nothing on a busy machine: what made a typo cost 11 of them is torch and what rests on it
    code = (
        "import runpy, sys\n"
        "try:\n    runpy.run_path(sys.argv[1], run_name='__main__')\n"
        "except SystemExit as end:\n"
        "    heavy = {'torch', 'transformers.trainer', 'trl.trainer', 'accelerate', 'peft', 'deepspeed'}\n"
        "    print('loaded:', sorted(heavy & sys.modules.keys()), 'status:', end.code)\n"
    )
    script, *words = command.split()
    process = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.argv = ['-c', *{[script, *words]!r}]\n{_shifted(code)}"],
        cwd=ROOT, capture_output=True, text=True, timeout=600, check=True,
    )  # fmt: skip
    status = 0 if words == ["--help"] else 2
    assert process.stdout.splitlines()[-1] == f"loaded: [] status: {status}", process.stderr


def _shifted(code: str) -> str:
    """The program with the script's own sys.argv, as the script sees it when it is started alone."""
    return f"script = sys.argv[1]\nsys.argv = sys.argv[1:]\n{code.replace('sys.argv[1]', 'script')}"


# ------------------------------------------------------------------------------------------------- several processes


def test_the_first_process_to_meet_an_error_says_it_for_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for rank in range(3):
        (tmp_path / str(rank)).mkdir()
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")

    def status(rank: int, line: str) -> int:
        monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / str(rank) / "error.json"))
        return errors._report(line)

    # torch is loaded here, so nobody waits for the others and each reports that it failed
    assert [status(rank, "error: the same") for rank in (2, 0, 1)] == [2, 2, 2]
    assert status(1, "error: of one alone") == 2
    assert capsys.readouterr().err == "error: the same\nerror: of one alone\n"


SLOW_TO_END = """
import atexit, os, time
from open_r1.common.errors import UserError, run_command
def main():
    if os.environ["LOCAL_RANK"] == "1":
        time.sleep(0.5)
        atexit.register(time.sleep, 1)
    raise UserError("it cannot be used")
run_command(main)
"""


@pytest.mark.slow
def test_a_process_that_takes_its_time_to_end_is_no_other_failure(tmp_path: Path) -> None:
    (tmp_path / "slow_to_end.py").write_text(SLOW_TO_END)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    process = subprocess.run(
        [*torchrun, str(tmp_path / "slow_to_end.py")], capture_output=True, text=True, timeout=600, check=False
    )
    assert process.stderr.splitlines().count("error: it cannot be used") == 1
    assert "<NO_OTHER_FAILURES>" in process.stderr


@pytest.mark.slow
def test_a_typo_under_torchrun_is_printed_once_and_one_process_reports_it() -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=3"]
    process = subprocess.run(
        [*torchrun, "src/open_r1/grpo_vqa.py", "--max_stepz", "3"],
        cwd=ROOT, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert process.returncode == 1  # torchrun's own for a process that failed
    line = "error: unknown flag --max_stepz; did you mean --max_steps? (--help lists the flags)"
    assert process.stderr.splitlines().count(line) == 1
    assert process.stderr.count("Traceback") == 1, "torchrun's, which the program cannot prevent"
    assert "<NO_OTHER_FAILURES>" in process.stderr
    assert process.stderr.count("exitcode  :") == 1
