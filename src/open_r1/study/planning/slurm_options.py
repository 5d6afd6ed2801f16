"""Options of sbatch for the jobs of a study: from --slurm_args and from the YAML file of --slurm_config."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from open_r1.common.errors import UserError

Options = dict[str, str | bool]

_SET_BY_STUDY = {"job-name", "output", "error", "dependency", "array", "wrap", "chdir", "ntasks", "ntasks-per-node"}
_GPU_OPTIONS = ("gpus", "gpus-per-node", "gpus-per-task", "gres")


@dataclass(frozen=True)
class SlurmOptions:
    """Options of sbatch by their long names, `{"partition": "gpu", "exclusive": True}`."""

    train: Options = field(default_factory=dict)
    test: Options = field(default_factory=dict)


def read_options(file: Path | None, text: str, gpus: int) -> SlurmOptions:
    """The options for trainings and for evaluations.

    Args:
        file: YAML, `partition: gpu`; what stands below `train:` or `test:` holds for those jobs only.
        text: options as sbatch takes them; they override the file.
        gpus: per node, unless an option says otherwise; `gpus-per-node: 0` asks for none.

    Raises:
        UserError: the file or the text cannot be read, or sets an option that the study sets.
    """
    config = {} if file is None else _read_yaml(file)
    by_kind = {kind: _checked(config.pop(kind, None) or {}, f"{file}: {kind}") for kind in ("train", "test")}
    shared, last = _checked(config, str(file)), _checked(_split(text), "--slurm_args")
    merged = [_with_gpus({**shared, **by_kind[kind], **last}, gpus) for kind in ("train", "test")]
    return SlurmOptions(*merged)


def _read_yaml(file: Path) -> dict[str, Any]:
    import yaml

    try:
        config = yaml.load(file.read_text(encoding="utf-8"), yaml.BaseLoader)  # values stay text: 4:00:00, 08
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"--slurm_config {file} cannot be read: {' '.join(str(error).split())}") from None
    if not isinstance(config, dict):
        raise UserError(f"--slurm_config {file} is not a list of options; write lines like `partition: gpu`")
    return config


def _split(text: str) -> Options:
    """`--partition=gpu --exclusive` as a mapping."""
    options: Options = {}
    name = ""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UserError(f"--slurm_args {text!r} cannot be split into words like a shell command: {error}") from None
    for word in words:
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            options[name] = value if equals else True
        elif name and options[name] is True and not word.startswith("-"):
            options[name] = word
        else:
            raise UserError(f"--slurm_args contains {word!r}; write options of sbatch in full, as --partition=gpu")
    return options


def _checked(options: Mapping[str, Any], place: str) -> Options:
    """Options under the names that sbatch has; YAML may write them with underscores, and flags as true."""
    if not isinstance(options, Mapping):
        raise UserError(f"{place} is not a list of options; write lines like `partition: gpu`")
    checked: Options = {}
    for name, value in options.items():
        plain = str(name).lstrip("-").replace("_", "-")
        if plain in _SET_BY_STUDY:
            raise UserError(f"{place} contains {plain}, which the study sets for every job; remove it")
        if plain == "nodes" and value not in ("1", "1-1"):
            raise UserError(
                f"{place}: nodes {value}: a run of a study takes one node, with --nproc_per_node GPUs; remove it"
            )
        if not isinstance(value, str | bool):
            raise UserError(f"{place}: the value of {plain} is not a single word")
        if value is False or (isinstance(value, str) and value.lower() == "false"):
            continue
        checked[plain] = True if isinstance(value, str) and value.lower() == "true" else value
    return checked


def _with_gpus(options: Options, gpus: int) -> Options:
    if not any(name in options for name in _GPU_OPTIONS):
        options["gpus-per-node"] = str(gpus)
    if options.get("gpus-per-node") == "0":
        del options["gpus-per-node"]
    return options
