"""The flags of scripts/run_matrix.py, checked as far as possible without loading a library."""

import argparse
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from open_r1.common.atomic_files import sha256_file
from open_r1.common.command_line import CommandParser
from open_r1.common.errors import UserError
from open_r1.common.redaction import split_secrets
from open_r1.study.execution.leases import PATIENCE
from open_r1.study.planning.prepared_sets import Label
from open_r1.study.planning.slurm_options import SlurmOptions, read_options
from open_r1.vocabulary.labels import Family, parse_label
from open_r1.vocabulary.modes import Mode

FAMILIES: tuple[Family, ...] = ("modality", "task")
EXECUTORS = ("local", "slurm")
FORWARDED_FLAGS = ("train_args", "sft_args", "infer_args")
_REMOVED = {
    "--emit=slurm": "--emit slurm has become --executor slurm, which submits a job per run itself",
    "--emit=shell": "--emit shell has become --emit snakemake",
    "--shard": "--shard is gone: the same command, started several times, shares the work",
}

# Flags that the study sets for each run or cell.
_SET_BY_STUDY_IN_TRAINING = {
    *("--model_name_or_path", "--dataset_name", "--output_dir", "--run_name", "--mode", "--resume_from_checkpoint"),
}
_SET_BY_STUDY_IN_TESTS = {"--model_path", "--checkpoint", "--prompt_path", "--output_path", "--mode", "--split"}


@dataclass(frozen=True)
class StudyFlags:
    """The parsed flags of one command."""

    base: str
    data: Path
    output_dir: Path
    modes: tuple[Mode, ...]
    by: tuple[Family, ...]
    only: tuple[Label, ...]
    items: tuple[str, ...]
    zero_shot: bool
    sft: bool
    nproc_per_node: int
    train_args: tuple[str, ...]
    sft_args: tuple[str, ...]
    infer_args: tuple[str, ...]
    claim_timeout: float
    dry_run: bool
    emit: str | None
    executor: str
    slurm: SlurmOptions
    follow: bool

    def recorded(self) -> dict[str, list[str]]:
        """The forwarded flags as study.json records them: without secrets."""
        return recorded_words({key: getattr(self, key) for key in FORWARDED_FLAGS})

    @property
    def secret_flags(self) -> list[str]:
        """The flags whose value contains a secret."""
        return [f"--{key}" for key in FORWARDED_FLAGS if list(getattr(self, key)) != self.recorded()[key]]

    def files(self) -> dict[str, str]:
        """The SHA-256 of each file that a forwarded flag names: a recipe, a DeepSpeed configuration."""
        words = (*self.train_args, *self.sft_args, *self.infer_args)
        return {word: sha256_file(word) for word in sorted(set(words)) if Path(word).is_file()}


def recorded_words(passed_on: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Forwarded flags without secrets, by the flag of the study that holds them."""
    return {key: split_secrets(words)[0] for key, words in passed_on.items()}


def parser(description: str | None) -> CommandParser:
    """The parser of the command."""
    command_parser = CommandParser(description=description)
    add = command_parser.add_argument
    add("--base", required=True, metavar="MODEL", help="checkpoint to start from: folder, org/repo, org/repo:subfolder")
    add("--data", type=Path, default=Path("data/VQA"), help="folder of prepared sets (default: %(default)s)")
    add("--output_dir", type=Path, default=Path("output/study"), help="folder of the study (default: %(default)s)")
    add("--modes", default="think,nothink", help="answer forms to train: think, nothink, think_after (%(default)s)")
    add("--by", default="modality,task", help="split families of the sets (default: %(default)s)")
    add(
        "--only",
        nargs="+",
        default=[],
        metavar="CT",
        help="only runs trained on these labels, in any published spelling",
    )
    add(
        "--zero_shot",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="also evaluate the untrained base on all test sets, in each mode (default: yes)",
    )
    add("--sft", action="store_true", help="also fine-tune on each set (no-think), to compare with GRPO")
    add("--nproc_per_node", type=int, default=1, metavar="N", help="processes of each run, one per GPU (default: 1)")
    add("--train_args", default="", metavar='"..."', help="flags for every GRPO training, in one string")
    add("--sft_args", default="", metavar='"..."', help="flags for every supervised training, in one string")
    add("--infer_args", default="", metavar='"..."', help="flags for every evaluation, in one string")
    add("--dry_run", action="store_true", help="check the flags, print the plan and run nothing")
    add("--items", nargs="+", default=[], metavar="NAME", help="only these items (train-CT-grpo-think), without report")
    add("--executor", choices=EXECUTORS, default="local", help="work here, or submit SLURM jobs (default: %(default)s)")
    add(
        "--slurm_args",
        default="",
        metavar='"..."',
        help="options of sbatch, in one string: --partition=gpu",
    )
    add("--slurm_config", type=Path, metavar="FILE", help="YAML file with such options (partition: gpu)")
    add("--follow", action="store_true", help="with --executor slurm: show progress until no job is left")
    add("--emit", choices=("snakemake",), help="print a Snakefile of the study instead of running anything")
    add(
        "--claim_timeout",
        type=float,
        default=PATIENCE,
        metavar="SECONDS",
        help="take over the work of another machine after this much silence (default: %(default).0f)",
    )
    return command_parser


def read_flags(description: str | None, arguments: Sequence[str]) -> StudyFlags:
    """Parse and check the command line.

    Raises:
        UserError: a flag is unknown, missing or invalid.
    """
    arguments = _join_values(arguments)
    for name, reason in _REMOVED.items():
        if any(word.startswith(name) for word in arguments):
            raise UserError(reason)
    values = parser(description).parse_args(arguments)
    by = _parse_list("--by", values.by, FAMILIES)
    modes = _parse_list("--modes", values.modes, tuple(mode for mode in Mode if mode.is_trained))
    if values.nproc_per_node < 1:
        raise UserError(f"--nproc_per_node {values.nproc_per_node}: a run needs at least one process")
    if values.sft_args and not values.sft:
        raise UserError("--sft_args has no effect without --sft; add --sft or remove --sft_args")
    if values.executor != "slurm" and (values.slurm_args or values.slurm_config or values.follow):
        raise UserError("--slurm_args, --slurm_config and --follow have no effect without --executor slurm; add it")
    if values.emit and values.executor != "local":
        raise UserError(
            "--emit writes down the study for another engine, so --executor has no effect; remove one of them"
        )
    return StudyFlags(
        base=values.base,
        data=values.data,
        output_dir=values.output_dir,
        modes=modes,
        by=by,
        only=tuple(_parse_only(name, by) for name in values.only),
        items=tuple(values.items),
        zero_shot=values.zero_shot,
        sft=values.sft,
        nproc_per_node=values.nproc_per_node,
        train_args=_split_words("--train_args", values.train_args, _SET_BY_STUDY_IN_TRAINING),
        sft_args=_split_words("--sft_args", values.sft_args, _SET_BY_STUDY_IN_TRAINING),
        infer_args=_split_words("--infer_args", values.infer_args, _SET_BY_STUDY_IN_TESTS),
        claim_timeout=values.claim_timeout,
        dry_run=values.dry_run,
        emit=values.emit,
        executor=values.executor,
        slurm=read_options(values.slurm_config, values.slurm_args, values.nproc_per_node),
        follow=values.follow,
    )


def _join_values(arguments: Sequence[str]) -> list[str]:
    """`--train_args X` as `--train_args=X`; otherwise argparse takes an X that begins with dashes for a flag."""
    joined: list[str] = []
    for word in arguments:
        if joined and joined[-1].removeprefix("--") in (*FORWARDED_FLAGS, "slurm_args", "emit"):
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


def _parse_list(flag: str, text: str, choices: tuple) -> tuple:
    """A comma-separated list of choices, each once, in the order of `choices`."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    unknown = [word for word in words if word not in choices]
    if unknown or not words:
        raise UserError(f"{flag} {text!r} is not valid; choose among {', '.join(choices)}, separated by commas")
    return tuple(choice for choice in choices if choice in words)


def _parse_only(name: str, by: tuple[Family, ...]) -> Label:
    label = parse_label(name, by[0] if len(by) == 1 else None)
    if label is None:
        raise UserError(f"--only {name!r} names no modality or task; write for example CT, 'Lesion Grading' or LG")
    return label


def _split_words(flag: str, text: str, set_by_study: set[str]) -> tuple[str, ...]:
    try:
        words = tuple(shlex.split(text))
    except ValueError as error:
        raise UserError(f"{flag} {text!r} cannot be split into words like a shell command: {error}") from None
    reserved = [
        word for word in words if word.partition("=")[0].replace("-", "_").replace("__", "--", 1) in set_by_study
    ]
    if reserved:
        raise UserError(f"{flag} contains {reserved[0]}, which the study sets for every run; remove it")
    return words
