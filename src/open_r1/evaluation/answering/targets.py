"""The checkpoints and data sets that a command names, and the result file of each."""

import re
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from open_r1.checkpoints.names import ADAPTER
from open_r1.common.errors import UserError
from open_r1.evaluation.answering.settings import ImageChange, InferenceSettings, OptionsChange


def checkpoint_outputs(names: Sequence[str], output: str, data_sets: int = 1) -> list[tuple[str, str]]:
    """(checkpoint, result file) of every checkpoint; with several `data_sets` (checkpoint, folder of result files).

    The results of a single checkpoint go to `output`. With several checkpoints, or a folder that holds checkpoints,
    `output` is a folder with a file, or folder, for each checkpoint, named after it.

    Raises:
        UserError: `output` is a file where a folder is needed.
    """
    checkpoints = [checkpoint for name in names for checkpoint in _expand(name)]
    is_single = len(checkpoints) == 1 and checkpoints == list(names)
    if (not is_single or data_sets > 1) and (Path(output).is_file() or Path(output).suffix == ".jsonl"):
        counts = [f"{len(checkpoints)} checkpoints"] * (not is_single) + [f"{data_sets} data sets"] * (data_sets > 1)
        raise UserError(f"--output_path {output} is one file for {' and '.join(counts)}; name a folder")
    if is_single:
        return [(checkpoints[0], output)]
    end = "" if data_sets > 1 else ".jsonl"
    stems = _unique_stems(checkpoints)
    return [(name, str(Path(output) / f"{stem}{end}")) for name, stem in zip(checkpoints, stems, strict=True)]


def data_set_outputs(paths: Sequence[str], output: str) -> list[tuple[str, str]]:
    """(data set, result file) of every data set: `output` itself for one, a file in the folder `output` for several.

    Raises:
        UserError: a data set is named twice.
    """
    if len(paths) == 1:
        return [(paths[0], output)]
    return [(path, str(Path(output) / f"{stem}.jsonl")) for path, stem in zip(paths, _unique_stems(paths), strict=True)]


VIEWS: dict[str, tuple[ImageChange, OptionsChange]] = {
    "as_usual": ("shown", "as_given"),
    "options_shuffled": ("shown", "shuffled"),
    "image_none": ("none", "as_given"),
    "image_noise": ("noise", "as_given"),
}
"""What `--all_views` asks: name of the result file -> what happens to images and options. The first two show the same
images, so they are asked together. `--image shuffled` is not among them: where another question's image has the same
answer (every CT image is a CT image), a model that looks is right with it too."""


def all_views(settings: InferenceSettings) -> list[InferenceSettings]:
    """These settings once for every view, each with a result file in the folder that `output_path` names."""
    folder = Path(settings.output_path.removesuffix(".jsonl"))
    return [
        replace(settings, image=image, options=options, output_path=str(folder / f"{name}.jsonl"))
        for name, (image, options) in VIEWS.items()
    ]


def refuse_with_views(output: str, flags: Collection[str]) -> None:
    """Refuse what contradicts `--all_views`.

    Args:
        output: the output path.
        flags: names of the flags that are set.

    Raises:
        UserError: `output` is a file, or a flag sets what the views differ in.
    """
    if clash := [f"--{name}" for name in ("image", "options") if name in flags]:
        raise UserError(f"--all_views sets {' and '.join(clash)} itself; leave it out, or ask for this view alone")
    if Path(output).is_file() or Path(output).suffix == ".jsonl":
        raise UserError(f"--output_path {output} is one file, and --all_views writes {len(VIEWS)}; name a folder")


def _expand(name: str) -> list[str]:
    """The checkpoint itself, or the checkpoints directly below this folder."""
    folder = Path(name).expanduser()
    if not folder.is_dir() or _is_checkpoint(folder):
        return [name]
    below = [str(path) for path in sorted(folder.iterdir()) if path.is_dir() and _is_checkpoint(path)]
    return below or [name]  # `model_source` then says what is wrong with it


def _is_checkpoint(folder: Path) -> bool:
    return (folder / "config.json").is_file() or (folder / ADAPTER).is_file()


def _unique_stems(names: Sequence[str]) -> list[str]:
    """File names without extension: the last components of each name, as many as make all of them different."""
    split_names = [[part for part in re.split(r"[/:]", name) if part not in ("", ".", "..")] for name in names]
    for count in range(1, max(map(len, split_names)) + 1):
        stems = ["_".join(components[-count:]) for components in split_names]
        if len(set(stems)) == len(stems):
            return stems
    raise UserError(f"a checkpoint or data set is named twice: {', '.join(names)}; name each once")
