"""Evaluate a checkpoint: it answers the test questions of a data set, and each answer is graded.

    python eval/infer.py --model_path CHECKPOINT --prompt_path data/VQA/CT_384 --output_path output/CT.jsonl
    torchrun --nproc_per_node=8 eval/infer.py ...     8 processes share the questions, one GPU each

Each batch of answers is written to the result file (JSON lines) as soon as it is graded. After an interruption the same
command continues where it stopped, also with another number of processes. With several checkpoints or data sets,
--output_path is a folder, and each combination gets a result file in it. eval/report.py makes a report of result files.
"""

import os

# Two cores and two thread teams (the model's, the images'): a thread that waits must sleep, not spin.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read once, when torch is imported

from open_r1.checkpoints.names import local_source
from open_r1.common.command_line import CommandParser, add_fields
from open_r1.common.errors import UserError, run_command
from open_r1.data.missing_sets import require_data
from open_r1.evaluation.answering.settings import InferenceSettings
from open_r1.evaluation.answering.targets import all_views, checkpoint_outputs, data_set_outputs, refuse_with_views


def read_flags(arguments: list[str] | None = None) -> list[InferenceSettings]:
    """The command line as settings, one for each result file; defaults stand in `InferenceSettings`."""
    parser = CommandParser(description=__doc__)
    add = parser.add_argument
    add(
        *("--model_path", "--checkpoint"),
        required=True,
        action="append",
        help="folder, org/repo or org/repo:subfolder (see checkpoints/README.md), merged or a LoRA adapter; "
        "may be given several times, or name a folder of runs",
    )
    add(
        "--prompt_path",
        required=True,
        nargs="+",
        help="prepared folder (data/VQA/CT_384), saved DatasetDict, Parquet, JSON Lines or JSON list, or org/name on "
        "the hub; of several each has its result file",
    )
    add(
        "--output_path",
        required=True,
        help="JSON lines file; one that is there is continued. Several checkpoints, data sets or views: a folder",
    )
    add(
        "--all_views",
        action="store_true",
        default=None,
        help="ask as usual, with shuffled options, without images and with noise; a result file each",
    )
    add_fields(parser, InferenceSettings)
    flags = {name: value for name, value in vars(parser.parse_args(arguments)).items() if value is not None}
    names, output, data = flags.pop("model_path"), flags.pop("output_path"), flags.pop("prompt_path")
    in_views = flags.pop("all_views", False)
    if in_views:
        refuse_with_views(output, flags)
    every = [
        InferenceSettings(model_path=name, prompt_path=path, output_path=file, **flags)
        for name, place in checkpoint_outputs(names, output, len(data))
        for path, file in data_set_outputs(data, place)
    ]
    return [view for settings in every for view in all_views(settings)] if in_views else every


def require_paths(every: list[InferenceSettings]) -> None:
    """Refuse names of folders, data sets and checkpoints that are not there, before anything is loaded.

    Raises:
        UserError: one that all of several evaluations need, or that the only one needs, is not there.
    """
    first = every[0]
    if (
        len({(settings.model_path, settings.prompt_path) for settings in every}) == 1
    ):  # of several those that can be done are done
        local_source(first.model_path)
        require_data("--prompt_path", first.prompt_path)
    if first.train_path is not None:
        require_data("--train_path", first.train_path)
    if first.image_root is not None and not os.path.isdir(first.image_root):
        raise UserError(f"--image_root {first.image_root} is no folder")


def main() -> int:
    """Judge the flags, then load the libraries and ask."""
    settings = read_flags()
    require_paths(settings)
    from open_r1.evaluation.answering.run import infer_all

    return infer_all(settings)


if __name__ == "__main__":
    run_command(main)
