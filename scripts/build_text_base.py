"""Build the base of the text demo from nothing: a tiny Qwen2 that can solve riddles, but not under a published prompt.

    python scripts/build_text_base.py --output_dir output/base --seed 0

A Qwen2 with a tokenizer of its own learns riddles about patients that no prepared set holds, asked in several manners
of its own (the bare question, a sentence, brackets, ...) and answered with the right option's text. So it knows the
signs, as a real base knows its medicine, and GRPO under the published prompt has something to bring out.
"""

import random

import torch
from datasets import Dataset

from open_r1.checkpoints.loading import load_model
from open_r1.checkpoints.processors import load_processor, no_progress_bars
from open_r1.common.atomic_files import staged_folder
from open_r1.common.command_line import CommandParser
from open_r1.common.errors import run_command
from open_r1.data.text.questions import TextQuestion
from open_r1.vocabulary.prompts import TRAIN
from open_r1_testbed.format_start import TEXT_MANNERS, add_flags, own_manner, teach
from open_r1_testbed.riddles import OTHER_AGES, TOPICS, sample_riddles
from open_r1_testbed.tiny_models import DEFAULT_TEXTS, Shape, build_tiny_checkpoint

# 0.06 is about 0.6 / sqrt(96). With the published models' 0.02, right for widths of thousands, a sign hardly moves the
# letter at first: from some seeds 200 steps taught the form alone, and GRPO then had nothing to bring out.
SHAPE = Shape(hidden=96, layers=2, heads=4, mlp=192, vocabulary=1600, spread=0.06)
QUESTIONS = 2400


def main() -> None:
    parser = CommandParser(description=__doc__)
    add_flags(parser, max_steps=150, batch_size=16, learning_rate=3e-3)
    flags = parser.parse_args()
    riddles = sample_riddles(QUESTIONS, flags.seed, ages=OTHER_AGES)
    rows = Dataset.from_list([{"images": [], "problem": r.problem, "solution": r.solution} for r in riddles])
    with staged_folder(flags.output_dir) as stage:
        build_tiny_checkpoint(stage, "qwen2", seed=flags.seed, texts=texts(riddles), shape=SHAPE)
        model = load_model(stage, dtype=torch.float32)
        losses = teach(
            model,
            load_processor(stage),
            rows,
            own_manner,
            flags.seed,
            flags.max_steps,
            flags.batch_size,
            flags.learning_rate,
        )
        with no_progress_bars():
            model.save_pretrained(stage)
    weights = sum(weight.numel() for weight in model.parameters())
    print(f"{weights:,} weights; loss {losses[0]:.3f} -> {losses[-1]:.3f} in {len(losses)} steps; {flags.output_dir}")


def texts(riddles: list[TextQuestion]) -> list[str]:
    """What the tokenizer learns its words from: questions, the prompts and the forms of answers."""
    words = [word for topic in TOPICS for word in topic.signs]
    answers = [f"<think> </think> <answer> {word} </answer>" for word in words]
    manners = [instruction + "\n" + form.format(text="") for instruction, form in TEXT_MANNERS]
    problems = [riddle.problem for riddle in random.Random(0).sample(riddles, 400)]
    return [*problems, *list(TRAIN.values()) * 50, *answers * 20, *manners * 20, *DEFAULT_TEXTS]


if __name__ == "__main__":
    run_command(main)
