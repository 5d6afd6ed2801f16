"""Measure how difficult each training question is for a checkpoint, as training with --curriculum needs it.

    python scripts/grade_difficulty.py --model_path CHECKPOINT --prompt_path data/VQA/CT_384 --output_path CT.difficulty
    torchrun --nproc_per_node=8 scripts/grade_difficulty.py ...     8 processes share the questions, one GPU each

The checkpoint answers every question of the train split --samples times. The pass rate of a question is the share of
right answers; with --easy_from and --hard_to it makes the question easy, medium or hard. Answers are saved at once to
OUTPUT.answers.jsonl, so the same command continues after an interruption. A second run with other thresholds grades the
saved answers and needs no new ones.
"""

import os
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read once, when torch is imported

from open_r1.checkpoints.names import local_source
from open_r1.common.command_line import CommandParser, add_fields
from open_r1.common.errors import UserError, run_command
from open_r1.data.missing_sets import require_data
from open_r1.evaluation.answering.settings import InferenceSettings
from open_r1.evaluation.scoring.difficulty import Thresholds, counts, grade_answers

SAMPLES = 8
SHARED_FLAGS = (  # with eval/infer.py
    *("image_root", "columns", "mode", "prompt", "batch_size", "max_new_tokens", "min_pixels", "max_pixels"),
    *("dtype", "device", "backend", "seed"),
)


def main() -> int:
    """Answer what is not answered yet, then write the difficulty file."""
    parser = CommandParser(description=__doc__)
    add = parser.add_argument
    add("--model_path", required=True, help="folder, org/repo or org/repo:subfolder")
    add("--prompt_path", required=True, help="prepared folder, saved DatasetDict, or JSON list with --image_root")
    add("--output_path", type=Path, required=True, help="the difficulty file, JSON lines")
    add("--samples", type=int, default=SAMPLES, help="completions per question (default: %(default)s)")
    add("--temperature", type=float, default=1.0, help="of sampling (default: %(default)s, as in training)")
    add("--easy_from", type=float, default=Thresholds.easy_from, help="easy: this pass rate or more (%(default)s)")
    add("--hard_to", type=float, default=Thresholds.hard_to, help="hard: this pass rate or less (%(default)s)")
    add("--split", help="name of the split (default: train)")
    add_fields(parser, InferenceSettings, SHARED_FLAGS)
    flags = {name: value for name, value in vars(parser.parse_args()).items() if value is not None}
    output: Path = flags.pop("output_path")
    thresholds = Thresholds(flags.pop("easy_from"), flags.pop("hard_to"))
    if flags["samples"] < 2:
        raise UserError(f"--samples {flags['samples']}: a pass rate needs at least 2 samples of each question")
    answers = output.with_name(output.name + ".answers.jsonl")
    settings = InferenceSettings(**{"split": "train", **flags}, output_path=str(answers))
    local_source(settings.model_path)
    require_data("--prompt_path", settings.prompt_path)
    from open_r1.evaluation.answering.run import infer  # which loads torch

    status = infer(settings)
    if status == 0 and int(os.environ.get("RANK", "0")) == 0:
        graded = grade_answers(answers, output, thresholds)
        shares = ", ".join(f"{count} {label}" for label, count in counts(graded).items())
        mean = sum(question.pass_rate for question in graded) / len(graded)
        print(f"{output}: {shares}; mean pass rate {mean:.3f} of {len(graded)} questions")
    return status


if __name__ == "__main__":
    run_command(main)
