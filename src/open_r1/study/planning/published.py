"""The published settings of a study's trainings, as flags that --train_args and --sft_args override.

No-think: 2 epochs, as in Med-R1's command for Qwen2.5-VL-3B. Think: 1 epoch, as its 13 runs of Qwen2-VL-2B;
think-after, which was never published, likewise. Both take 4 prompts per optimizer step on however many processes.
Supervised fine-tuning takes 1 epoch at 128 questions per step.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from open_r1.common.errors import UserError
from open_r1.study.planning.flags import StudyFlags
from open_r1.study.planning.plan import Subject
from open_r1.training.command_line.arguments import GRPODefaults, SFTDefaults
from open_r1.training.command_line.flags import Method, TrainingFlags, read_training_flags, require_files
from open_r1.vocabulary.modes import Mode

EPOCHS: dict[Mode, int] = {Mode.NOTHINK: 2, Mode.THINK: 1, Mode.THINK_AFTER: 1}
PROMPTS_PER_STEP: dict[Method, int] = {"grpo": 4, "sft": 128}
_DEFAULTS: dict[Method, type[GRPODefaults] | type[SFTDefaults]] = {"grpo": GRPODefaults, "sft": SFTDefaults}
SHARED = {
    "max_prompt_length": "1024",
    "max_pixels": "401408",
    "attn_implementation": "flash_attention_2",
    "bf16": "true",
    "logging_steps": "1",
}
_NEEDED = ("--model_name_or_path", "base", "--dataset_name", "data")  # of every training; judged elsewhere


def published_flags(
    runs: Sequence[Subject], flags: StudyFlags, study: Mapping[str, Any] | None
) -> dict[str, list[str]]:
    """The flags that the study adds to those of --train_args and --sft_args, by `Subject.way`.

    Args:
        runs: the trainings.
        flags: the command.
        study: study.json of a study that is continued; its runs keep what they began with. One that was begun before
            studies had these settings has none.

    Raises:
        UserError: --train_args or --sft_args cannot be used.
    """
    added: dict[str, list[str]] = {}
    for run in runs:
        if run.way not in added:
            own = read_own_flags(run, flags)
            added[run.way] = [word for item in _settings(run, own, flags.nproc_per_node).items() for word in item]
    if study is None:
        return added
    recorded = study.get("published")
    return {} if recorded is None else added | recorded


def read_own_flags(run: Subject, flags: StudyFlags) -> TrainingFlags:
    """What --train_args or --sft_args says, judged.

    Raises:
        UserError: it cannot be used.
    """
    name, words = ("--sft_args", flags.sft_args) if run.method == "sft" else ("--train_args", flags.train_args)
    try:
        own = read_training_flags(_method(run), [*_NEEDED, *words])
        require_files(own)
    except UserError as error:
        raise UserError(f"{name}: {error}") from None
    return own


def _settings(run: Subject, own: TrainingFlags, processes: int) -> dict[str, str]:
    method = _method(run)
    settings = {**SHARED, "num_train_epochs": str(EPOCHS[run.mode] if method == "grpo" else 1)}
    at_once = own.defaults.per_device_train_batch_size * processes
    settings["gradient_accumulation_steps"] = str(max(1, round(PROMPTS_PER_STEP[method] / at_once)))
    given = own.given | ({"bf16"} if "fp16" in own.given else set())
    return {f"--{name}": value for name, value in settings.items() if name not in given}


def step_notes(checked: Mapping[str, Any], published: Mapping[str, Sequence[str]], processes: int) -> list[str]:
    """A line for every way of training whose step is not the published one, and how it would be.

    Args:
        checked: by way, what the flags mean for a step (`checks.check`).
        published: of `published_flags`.
        processes: of each run.
    """
    notes = []
    for way in published:
        method: Method = "sft" if way.startswith("sft") else "grpo"
        per_step, usual = checked[way]["prompts_per_step"] * processes, PROMPTS_PER_STEP[method]
        if per_step != usual:
            most = usual // _DEFAULTS[method].per_device_train_batch_size
            fitting = [str(count) for count in range(1, most + 1) if most % count == 0]
            notes.append(
                f"note: {way} takes {per_step} prompts per optimizer step; the published runs took {usual}, which "
                f"needs --nproc_per_node {', '.join(fitting[:-1])} or {fitting[-1]} and no batch size in the arguments"
            )
    return notes


def _method(run: Subject) -> Method:
    assert run.method != "zero-shot", "nothing is trained"
    return run.method
