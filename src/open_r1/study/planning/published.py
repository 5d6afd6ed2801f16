"""The published settings of a study's trainings, as flags that --train_args and --sft_args override.

No-think: 2 epochs, as in Med-R1's command for Qwen2.5-VL-3B. Think: 1 epoch, as in its 13 runs of Qwen2-VL-2B.
Think-after, which was never published, has the settings of think. All take 4 prompts per optimizer step, whatever the
number of processes. Supervised fine-tuning takes 1 epoch at 128 questions per step.
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
_PLACEHOLDERS = ("--model_name_or_path", "base", "--dataset_name", "data")  # required flags; checked elsewhere


def published_flags(
    runs: Sequence[Subject], flags: StudyFlags, study: Mapping[str, Any] | None
) -> dict[str, list[str]]:
    """The flags that the study adds to --train_args and --sft_args, by `Subject.way`.

    Args:
        runs: the trainings.
        flags: of the command.
        study: study.json of a study that is continued; its settings are kept. A study from before these settings
            existed has none and gets none.

    Raises:
        UserError: --train_args or --sft_args is invalid.
    """
    added: dict[str, list[str]] = {}
    for run in runs:
        if run.way not in added:
            user_flags = read_user_flags(run, flags)
            added[run.way] = [
                word for item in _settings(run, user_flags, flags.nproc_per_node).items() for word in item
            ]
    if study is None:
        return added
    recorded = study.get("published")
    return {} if recorded is None else added | recorded


def read_user_flags(run: Subject, flags: StudyFlags) -> TrainingFlags:
    """Parse and check --train_args or --sft_args.

    Raises:
        UserError: a flag in it is invalid.
    """
    name, words = ("--sft_args", flags.sft_args) if run.method == "sft" else ("--train_args", flags.train_args)
    try:
        user_flags = read_training_flags(_method(run), [*_PLACEHOLDERS, *words])
        require_files(user_flags)
    except UserError as error:
        raise UserError(f"{name}: {error}") from None
    return user_flags


def _settings(run: Subject, user_flags: TrainingFlags, processes: int) -> dict[str, str]:
    method = _method(run)
    settings = {**SHARED, "num_train_epochs": str(EPOCHS[run.mode] if method == "grpo" else 1)}
    questions_per_pass = user_flags.defaults.per_device_train_batch_size * processes
    settings["gradient_accumulation_steps"] = str(max(1, round(PROMPTS_PER_STEP[method] / questions_per_pass)))
    set_by_user = user_flags.set_names | ({"bf16"} if "fp16" in user_flags.set_names else set())
    return {f"--{name}": value for name, value in settings.items() if name not in set_by_user}


def step_notes(
    flag_meanings: Mapping[str, Any], flags_by_way: Mapping[str, Sequence[str]], processes: int
) -> list[str]:
    """A line for every way of training whose prompts per step differ from the published runs, with the remedy.

    Args:
        flag_meanings: by way, what the flags mean for a step (`preflight.check`).
        flags_by_way: from `published_flags`.
        processes: of each run.
    """
    notes = []
    for way in flags_by_way:
        method: Method = "sft" if way.startswith("sft") else "grpo"
        per_step, published = flag_meanings[way]["prompts_per_step"] * processes, PROMPTS_PER_STEP[method]
        if per_step != published:
            process_limit = published // _DEFAULTS[method].per_device_train_batch_size
            fitting = [str(count) for count in range(1, process_limit + 1) if process_limit % count == 0]
            notes.append(
                f"note: {way} takes {per_step} prompts per optimizer step; the published runs took {published}, which "
                f"needs --nproc_per_node {', '.join(fitting[:-1])} or {fitting[-1]} and no batch size in the arguments"
            )
    return notes


def _method(run: Subject) -> Method:
    assert run.method != "zero-shot", "nothing is trained"
    return run.method
