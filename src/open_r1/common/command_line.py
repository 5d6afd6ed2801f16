"""The parser of all commands: a wrong flag is a one-line error that suggests the flag that was probably meant."""

import argparse
import importlib.util
import re
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import field, fields
from difflib import get_close_matches
from typing import Any, NoReturn, get_args

from open_r1.common.errors import UserError

_NUMBER = re.compile(r"-\.?\d.*")
_MIN_SIMILARITY = 0.75  # of two names, above which one is taken for a misspelling of the other; 1 is equal
_SLIP = 0.9  # so similar that nothing else was meant

# Each row: names of the same flag in R1-V, VLM-R1, open-r1, TRL, verl, ms-swift, LLaVA and our own commands. For an
# unknown flag, the error suggests the name in its row that the command has.
SYNONYMS: tuple[frozenset[str], ...] = tuple(
    frozenset(names.split())
    for names in (
        "model_name_or_path model_path base model model_name model_id checkpoint base_model pretrained",
        "dataset_name prompt_path data dataset dataset_path dataset_dir data_path data_dir data_file_paths data_files "
        "train_file train_files train_data train_dataset",
        "eval_dataset_name eval_dataset eval_file eval_data val_files validation_file",
        "output_dir output_path output out out_dir save_dir save_path",
        "image_root image_folders image_folder image_dir image_path images media_dir",
        "freeze_vision_tower freeze_vision_modules freeze_vision freeze_vision_encoder freeze_visual freeze_vit",
        "reward_funcs reward_func reward_function reward_functions reward_method reward rewards",
        "num_generations group_size num_return_sequences rollout_n n_samples_per_prompt",
        "max_completion_length max_new_tokens max_tokens max_response_length generate_max_len",
        "max_prompt_length max_source_length prompt_max_len cutoff_len",
        "per_device_train_batch_size batch_size train_batch_size micro_batch_size bs",
        "gradient_accumulation_steps grad_accum accumulation_steps",
        "learning_rate lr",
        "beta kl_coef kl_beta",
        "num_train_epochs num_epochs epochs total_epochs max_epochs",
        "max_steps num_steps max_train_steps steps",
        "use_peft use_lora lora peft lora_enable",
        "lora_r lora_rank",
        "load_in_4bit qlora use_qlora",
        "report_to wandb use_wandb",
        "run_name wandb_run_name exp_name experiment_name",
        "attn_implementation attn_impl flash_attn use_flash_attn use_flash_attention_2",
        "dtype torch_dtype precision",
        "max_pixels image_max_pixels max_image_pixels",
        "min_pixels image_min_pixels min_image_pixels",
        "temperature temp",
        "seed random_seed",
        "num_workers workers num_proc dataset_num_proc",
        "nproc_per_node num_gpus gpus num_processes",
        "resume_from_checkpoint resume",
        "samples num_samples n_samples",
        "limit max_samples max_examples",
    )
)


def one_of(choices: Iterable[str]) -> str:
    """The choices of a flag as --help shows them: `{think,nothink}`."""
    return "{" + ",".join(choices) + "}"


def flag(default: Any, text: str, choices: Iterable[str] = ()) -> Any:
    """A field of a dataclass that `add_fields` makes a flag of; `text` is what --help says about it."""
    return field(default=default, metadata={"help": text, "choices": tuple(choices)})


def add_fields(parser: argparse.ArgumentParser, settings: Any, names: Collection[str] = ()) -> None:
    """Add the flags of a dataclass, all or those named, to a parser. A flag that is not given parses as None.

    transformers.HfArgumentParser does the same and takes a second to import.
    """
    for entry in fields(settings):
        if not entry.metadata or (names and entry.name not in names):
            continue
        text, choices = entry.metadata["help"], entry.metadata["choices"]
        if entry.type is bool:
            parser.add_argument(f"--{entry.name}", action="store_true", default=None, help=text)
            continue
        kind = next((kind for kind in (int, float) if kind in (entry.type, *get_args(entry.type))), str)
        text += "" if entry.default is None else f" (default: {entry.default})"
        parser.add_argument(f"--{entry.name}", type=kind, metavar=one_of(choices) if choices else None, help=text)


class CommandParser(argparse.ArgumentParser):
    """An `ArgumentParser` that raises a `UserError` for every error and suggests a flag for an unknown one.

    Flags cannot be abbreviated. --help keeps the line breaks of the program's docstring.

    Args:
        hints: what to say about flags of other systems that have no counterpart here, by name without dashes.
    """

    def __init__(self, *args: Any, hints: Mapping[str, str] | None = None, **kwargs: Any) -> None:
        kwargs.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        kwargs.setdefault("allow_abbrev", False)
        super().__init__(*args, **kwargs)
        self.hints = hints or {}

    def error(self, message: str) -> NoReturn:
        """Refuse the command line.

        Raises:
            UserError: always.
        """
        raise UserError(f"{message} (--help lists the flags)")

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        """As argparse, but an unknown flag is reported before a missing one."""
        words = list(sys.argv[1:] if args is None else args)
        if self._subparsers is None:  # else the flags may belong to the subcommand
            self._refuse_unknown(words)
        return super().parse_known_args(words, namespace)

    def _refuse_unknown(self, words: Iterable[str]) -> None:
        for word in words:
            if word == "--":
                return
            flag = word.partition("=")[0]
            is_flag = len(word) > 1 and word[0] == "-" and " " not in flag and not _NUMBER.fullmatch(word)
            if is_flag and flag not in self._option_string_actions:
                self.error(f"unknown flag {flag}{self.suggestion(flag)}")

    def suggestion(self, flag: str, dashes: str = "--") -> str:
        """The end of an error about an unknown flag: "; did you mean --max_steps?", or nothing.

        Args:
            flag: as it was typed, or a key of a --config file.
            dashes: written before a suggested name.
        """
        candidates = {option[2:].replace("-", "_") for option in self._option_string_actions if option.startswith("--")}
        return suggestion(flag, candidates, self.hints, dashes)


def suggestion(flag: str, candidates: Iterable[str], hints: Mapping[str, str], dashes: str = "--") -> str:
    """See `CommandParser.suggestion`; `candidates` are names without dashes, written with underscores."""
    candidates = sorted(candidates)
    name = flag.lstrip("-").replace("-", "_")
    if name in candidates:
        return f"; did you mean --{name}?"
    if name in hints:
        return f"; {hints[name]}"
    if synonyms := _synonyms_of([name], candidates):
        return f"; here it is {' or '.join(dashes + candidate for candidate in synonyms)}"
    similar = get_close_matches(name, candidates, n=1, cutoff=_SLIP)
    similar = similar or get_close_matches(name, candidates, n=2, cutoff=_MIN_SIMILARITY)
    similar = similar or [candidate for candidate in candidates if len(name) > 2 and candidate.startswith(name)][:3]
    similar = similar or _synonyms_of(
        get_close_matches(name, frozenset().union(*SYNONYMS), n=1, cutoff=_MIN_SIMILARITY), candidates
    )
    return f"; did you mean {' or '.join(dashes + candidate for candidate in similar)}?" if similar else ""


def _synonyms_of(names: Collection[str], candidates: Iterable[str]) -> list[str]:
    """The candidates that are synonyms of one of `names`."""
    return [candidate for row in SYNONYMS if row.intersection(names) for candidate in candidates if candidate in row]


def require_vllm(flag: str, alternative: str) -> None:
    """Refuse a flag that needs vLLM, an optional package, before anything is loaded.

    Args:
        flag: the flag.
        alternative: what to do without vLLM.

    Raises:
        UserError: vLLM is not installed.
    """
    if importlib.util.find_spec("vllm") is None:
        raise UserError(
            f"{flag}: vllm is not installed; pip install '.[vllm]' on a machine with a GPU, or {alternative}"
        )
