"""Give a base model the format start: a published prompt, answered in form and at random.

    python scripts/teach_format.py --model_name_or_path BASE --dataset_name DATA --output_dir OUT --seed 0

`src/open_r1_testbed/format_start.py` says why. DATA is anything that training takes; its solutions are not used.
"""

from pathlib import Path
from typing import get_args

import torch

from open_r1.checkpoints.loading import load_model
from open_r1.checkpoints.processors import load_processor, no_progress_bars
from open_r1.common.atomic_files import staged_folder
from open_r1.common.command_line import CommandParser
from open_r1.common.errors import run_command
from open_r1.data.loading import load_rows
from open_r1_testbed.format_start import AnswerForm, add_flags, teach_format


def main() -> None:
    parser = CommandParser(description=__doc__)
    parser.add_argument("--model_name_or_path", required=True)
    parser.add_argument("--dataset_name", required=True, help="a prepared data set, or a JSON list with --image_root")
    parser.add_argument("--dataset_train_split", default="train")
    parser.add_argument("--image_root", type=Path)
    parser.add_argument(
        "--answer",
        choices=get_args(AnswerForm),
        default="letter",
        help="thought: a thought and a letter under the think prompt; letter, text: that of an option under the "
        "no-think prompt (default: %(default)s)",
    )
    add_flags(parser, max_steps=80, batch_size=16, learning_rate=1e-3)
    flags = parser.parse_args()
    with staged_folder(flags.output_dir) as stage:
        rows, _ = load_rows(flags.dataset_name, flags.dataset_train_split, flags.image_root)
        processor = load_processor(flags.model_name_or_path)
        model = load_model(flags.model_name_or_path, dtype=torch.float32)
        losses = teach_format(
            model, processor, rows, flags.seed, flags.max_steps, flags.batch_size, flags.learning_rate, flags.answer
        )
        with no_progress_bars():
            model.save_pretrained(stage)
        processor.save_pretrained(stage)
    print(f"format start: loss {losses[0]:.3f} -> {losses[-1]:.3f} in {len(losses)} steps; saved to {flags.output_dir}")


if __name__ == "__main__":
    run_command(main)
