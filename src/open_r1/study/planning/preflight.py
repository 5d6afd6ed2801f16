"""A study's training and evaluation flags before the first run: `python -m open_r1.study.planning.preflight < REQUEST`.

A process of its own: the parsers load torch, and on a GPU machine they would take memory for as long as a study runs.
The request is JSON {"trainings": {way ("grpo-think"): flags of one run}; "infer": flags of one evaluation, or null;
"script": eval/infer.py; "base": checkpoint, or null where it is not to be looked for}. The answer is the last line of
standard output, JSON {way: {"prompts_per_step" of one process, "epochs", "max_steps"}, "base_sha256"}.
"""

import importlib.util
import json
import subprocess
import sys
from typing import Any

from open_r1.common.errors import UserError, run_command


def check(request: dict[str, Any]) -> dict[str, Any]:
    """Have a request looked at by a process of its own.

    Raises:
        UserError: a flag is not known or makes no sense, or the base cannot be had.
    """
    done = subprocess.run(
        [sys.executable, "-m", "open_r1.study.planning.preflight"],
        input=json.dumps(request),
        capture_output=True,
        text=True,
    )
    if done.returncode == 2:
        raise UserError(done.stderr.strip().splitlines()[-1].removeprefix("error: "))
    if done.returncode:
        raise UserError(f"the flags of the study could not be checked:\n{done.stderr.strip()[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"base_sha256": None}
    if request["infer"]:
        _infer_flags(request["script"], request["infer"])
    for way, flags in request["trainings"].items():
        method = way.partition("-")[0]
        found[way] = _training(flags, _sft() if method == "sft" else _grpo(), method)
    if request["base"]:
        from open_r1.checkpoints.folder import fingerprint
        from open_r1.checkpoints.names import model_source

        found["base_sha256"] = fingerprint(model_source(request["base"]))
    return found


def _infer_flags(script: str, flags: list[str]) -> None:
    spec = importlib.util.spec_from_file_location("infer", script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    try:
        module.read_flags(flags)
    except UserError as error:
        raise UserError(f"--infer_args: {error}") from None


def _grpo() -> tuple[type, type]:
    from open_r1.training.command_line.arguments import VQAArguments
    from open_r1.training.command_line.grpo_config import GRPOTrainingConfig

    return VQAArguments, GRPOTrainingConfig


def _sft() -> tuple[type, type]:
    from open_r1.training.command_line.arguments import QuestionArguments
    from open_r1.training.sft_run import SFTTrainingConfig

    return QuestionArguments, SFTTrainingConfig


def _training(flags: list[str], classes: tuple[type, type], method: str) -> dict[str, Any]:
    from trl import ModelConfig

    from open_r1.training.command_line.parsing import parse_into

    try:
        _, training, _ = parse_into((*classes, ModelConfig), flags, None)
    except UserError as error:
        raise UserError(f"{'--sft_args' if method == 'sft' else '--train_args'}: {error}") from None
    return {
        "prompts_per_step": training.prompts_per_step,
        "epochs": training.num_train_epochs,
        "max_steps": training.max_steps,
    }


def main() -> None:
    """Answer the request on standard input."""
    print(json.dumps(_answer(json.load(sys.stdin))))


if __name__ == "__main__":
    run_command(main)
