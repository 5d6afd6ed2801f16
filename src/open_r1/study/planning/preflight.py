"""Checks a study's training and evaluation flags: `python -m open_r1.study.planning.preflight < REQUEST`.

This is a separate process because the parsers load torch, which would hold memory for as long as a study runs. The
request is JSON {"trainings": {way ("grpo-think"): flags of one run}; "infer": flags of one evaluation, or null;
"script": eval/infer.py; "base": checkpoint, or null to skip it}. The answer is the last line of standard output,
JSON {way: {"prompts_per_step" of one process, "epochs", "max_steps"}, "base_sha256"}.
"""

import importlib.util
import json
import subprocess
import sys
from typing import Any

from open_r1.common.errors import UserError, run_command


def check(request: dict[str, Any]) -> dict[str, Any]:
    """Check a request in a new process and return its answer.

    Raises:
        UserError: a flag is unknown or invalid, or the base is not available.
    """
    process = subprocess.run(
        [sys.executable, "-m", "open_r1.study.planning.preflight"],
        input=json.dumps(request),
        capture_output=True,
        text=True,
    )
    if process.returncode == 2:
        raise UserError(process.stderr.strip().splitlines()[-1].removeprefix("error: "))
    if process.returncode:
        raise UserError(f"the flags of the study could not be checked:\n{process.stderr.strip()[-2000:]}")
    return json.loads(process.stdout.strip().splitlines()[-1])


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """The answer to a request, computed in this process.

    Raises:
        UserError: as `check`.
    """
    reply: dict[str, Any] = {"base_sha256": None}
    if request["infer"]:
        _check_infer_flags(request["script"], request["infer"])
    for way, flags in request["trainings"].items():
        method = way.partition("-")[0]
        reply[way] = _training_meaning(flags, _sft_classes() if method == "sft" else _grpo_classes(), method)
    if request["base"]:
        from open_r1.checkpoints.folder import fingerprint
        from open_r1.checkpoints.names import model_source

        reply["base_sha256"] = fingerprint(model_source(request["base"]))
    return reply


def _check_infer_flags(script: str, flags: list[str]) -> None:
    spec = importlib.util.spec_from_file_location("infer", script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    try:
        module.read_flags(flags)
    except UserError as error:
        raise UserError(f"--infer_args: {error}") from None


def _grpo_classes() -> tuple[type, type]:
    from open_r1.training.command_line.arguments import VQAArguments
    from open_r1.training.command_line.grpo_config import GRPOTrainingConfig

    return VQAArguments, GRPOTrainingConfig


def _sft_classes() -> tuple[type, type]:
    from open_r1.training.command_line.arguments import QuestionArguments
    from open_r1.training.sft_run import SFTTrainingConfig

    return QuestionArguments, SFTTrainingConfig


def _training_meaning(flags: list[str], classes: tuple[type, type], method: str) -> dict[str, Any]:
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
    print(json.dumps(answer(json.load(sys.stdin))))


if __name__ == "__main__":
    run_command(main)
