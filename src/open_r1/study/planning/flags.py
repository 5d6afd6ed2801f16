"""The flags of scripts/run_matrix.py, as far as they can be judged without loading anything."""

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
from open_r1.vocabulary.labels import Family, parse_label
from open_r1.vocabulary.modes import Mode

FAMILIES: tuple[Family, ...] = ("modality", "task")
SCHEDULERS = ("slurm", "shell")
PASSED_ON = ("train_args", "sft_args", "infer_args")

# What the study sets itself for each run or cell.
_OURS_IN_TRAINING = {
    *("--model_name_or_path", "--dataset_name", "--output_dir", "--run_name", "--mode", "--resume_from_checkpoint"),
}
_OURS_IN_TESTS = {"--model_path", "--checkpoint", "--prompt_path", "--output_path", "--mode", "--split"}


@dataclass(frozen=True)
class StudyFlags:
    """What was asked for."""

    base: str
    data: Path
    output_dir: Path
    modes: tuple[Mode, ...]
    by: tuple[Family, ...]
    only: tuple[Label, ...]
    shard: tuple[int, int] | None
    zero_shot: bool
    sft: bool
    nproc_per_node: int
    train_args: tuple[str, ...]
    sft_args: tuple[str, ...]
    infer_args: tuple[str, ...]
    claim_timeout: float
    dry_run: bool
    emit: str | None

    def recorded(self) -> dict[str, list[str]]:
        """The flags to pass on as study.json has them, without secrets."""
        return recorded_words({key: getattr(self, key) for key in PASSED_ON})

    @property
    def secret_flags(self) -> list[str]:
        """Which of the flags hold a secret."""
        return [f"--{key}" for key in PASSED_ON if list(getattr(self, key)) != self.recorded()[key]]

    def files(self) -> dict[str, str]:
        """The SHA-256 of each file that is named among the flags to pass on: a recipe, a DeepSpeed configuration."""
        words = (*self.train_args, *self.sft_args, *self.infer_args)
        return {word: sha256_file(word) for word in sorted(set(words)) if Path(word).is_file()}


def recorded_words(passed_on: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Flags to pass on, by the flag of the study that holds them, without secrets."""
    return {key: split_secrets(words)[0] for key, words in passed_on.items()}


def parser(description: str | None) -> CommandParser:
    """The command's flags."""
    made = CommandParser(description=description)
    add = made.add_argument
    add("--base", required=True, metavar="MODEL", help="checkpoint to start from: folder, org/repo, org/repo:subfolder")
    add("--data", type=Path, default=Path("data/VQA"), help="folder of prepared sets (default: %(default)s)")
    add("--output_dir", type=Path, default=Path("output/study"), help="folder of the study (default: %(default)s)")
    add("--modes", default="think,nothink", help="answer forms to train: think, nothink, think_after (%(default)s)")
    add("--by", default="modality,task", help="split families of the sets (default: %(default)s)")
    add("--only", nargs="+", default=[], metavar="CT", help="only the runs trained on these; any published spelling")
    add(
        "--zero_shot",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="ask the base all test questions too, in each mode (default: yes; it trains nothing)",
    )
    add("--sft", action="store_true", help="fine-tune on each set as well (no-think), for a column beside GRPO")
    add("--nproc_per_node", type=int, default=1, metavar="N", help="processes of each run, one per GPU (default: 1)")
    add("--train_args", default="", metavar='"..."', help="flags for every GRPO training, in one string")
    add("--sft_args", default="", metavar='"..."', help="flags for every supervised training, in one string")
    add("--infer_args", default="", metavar='"..."', help="flags for every evaluation, in one string")
    add("--dry_run", action="store_true", help="check and print the plan, do nothing")
    add("--shard", metavar="I/N", help="do the I-th of N parts of the runs (1/8 to 8/8), each with its cells")
    add("--emit", choices=SCHEDULERS, help="print a job script instead of running anything")
    add(
        "--claim_timeout",
        type=float,
        default=PATIENCE,
        metavar="SECONDS",
        help="take over the work of a machine that was silent for so long (default: %(default).0f)",
    )
    return made


def read_flags(description: str | None, arguments: Sequence[str]) -> StudyFlags:
    """The command line, judged.

    Raises:
        UserError: a flag is unknown, missing or makes no sense.
    """
    given = parser(description).parse_args(_joined(arguments))
    by = _listed("--by", given.by, FAMILIES)
    modes = _listed("--modes", given.modes, tuple(mode for mode in Mode if mode.is_trained))
    if given.nproc_per_node < 1:
        raise UserError(f"--nproc_per_node {given.nproc_per_node}: a run needs at least one process")
    if given.sft_args and not given.sft:
        raise UserError("--sft_args does nothing without --sft; add it or leave the flags out")
    return StudyFlags(
        base=given.base,
        data=given.data,
        output_dir=given.output_dir,
        modes=modes,
        by=by,
        only=tuple(_only(name, by) for name in given.only),
        shard=None if given.shard is None else _shard(given.shard),
        zero_shot=given.zero_shot,
        sft=given.sft,
        nproc_per_node=given.nproc_per_node,
        train_args=_words("--train_args", given.train_args, _OURS_IN_TRAINING),
        sft_args=_words("--sft_args", given.sft_args, _OURS_IN_TRAINING),
        infer_args=_words("--infer_args", given.infer_args, _OURS_IN_TESTS),
        claim_timeout=given.claim_timeout,
        dry_run=given.dry_run,
        emit=given.emit,
    )


def _joined(arguments: Sequence[str]) -> list[str]:
    """`--train_args X` as `--train_args=X`: argparse takes an X that begins with dashes for a flag otherwise."""
    found: list[str] = []
    for word in arguments:
        if found and found[-1].removeprefix("--") in PASSED_ON:
            found[-1] += f"={word}"
        else:
            found.append(word)
    return found


def _listed(flag: str, text: str, known: tuple) -> tuple:
    """A comma-separated list of known words, each once, in the order of `known`."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    strange = [word for word in words if word not in known]
    if strange or not words:
        raise UserError(f"{flag} {text!r} does not exist; choose among {', '.join(known)}, separated by commas")
    return tuple(each for each in known if each in words)


def _only(name: str, by: tuple[Family, ...]) -> Label:
    label = parse_label(name, by[0] if len(by) == 1 else None)
    if label is None:
        raise UserError(f"--only {name!r} names no modality or task; CT, 'Lesion Grading' or LG would")
    return label


def _shard(text: str) -> tuple[int, int]:
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise UserError(f"--shard {text!r} is no part of a whole; write 1/4 to 4/4 for four machines")
    return int(number), int(count)


def _words(flag: str, text: str, ours: set[str]) -> tuple[str, ...]:
    try:
        words = tuple(shlex.split(text))
    except ValueError as error:
        raise UserError(f"{flag} {text!r} cannot be taken apart as a shell would: {error}") from None
    taken = [word for word in words if word.partition("=")[0].replace("-", "_").replace("__", "--", 1) in ours]
    if taken:
        raise UserError(f"{flag} holds {taken[0]}, which the study sets itself for every run; leave it out")
    return words
