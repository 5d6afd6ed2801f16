"""Build the base of the text demo from nothing: a tiny Qwen2 that can solve riddles, but not under a published prompt.

    python scripts/build_text_base.py --output_dir output/base --seed 0

A Qwen2 with a tokenizer of its own learns riddles about patients that no prepared set holds, asked in several manners
of its own (the bare question, one letter, brackets, ...). So it knows the signs, as a real base knows its medicine,
and GRPO under the published prompt has something to bring out.
"""

import argparse
import random
from pathlib import Path

import torch
from datasets import Dataset

from open_r1.checkpoints import load_model, load_processor
from open_r1.errors import run_command
from open_r1.format_start import MANNERS, own_manner, teach
from open_r1.prompts import TRAIN
from open_r1.resuming import refuse_foreign_output
from open_r1.riddles import OTHER_AGES, sample_riddles
from open_r1.tiny_models import DEFAULT_TEXTS, Shape, build_tiny_checkpoint

SHAPE = Shape(hidden=96, layers=2, heads=4, mlp=192, vocabulary=800)
QUESTIONS = 3840


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--max_steps", type=int, default=200)
    parser.add_argument("--batch_size", type=int, default=32, help="questions per step")
    parser.add_argument("--learning_rate", type=float, default=3e-3)
    flags = parser.parse_args()
    refuse_foreign_output(flags.output_dir)
    riddles = sample_riddles(QUESTIONS, flags.seed, ages=OTHER_AGES)
    answers = [f"<think> </think> <answer> {letter} </answer>" for letter in "ABCD"]
    manners = [instruction + "\n" + form.format("A") for instruction, form in MANNERS]
    texts = [each.problem for each in random.Random(0).sample(riddles, 400)]
    texts += [*list(TRAIN.values()) * 50, *answers * 50, *manners * 20, *DEFAULT_TEXTS]
    build_tiny_checkpoint(flags.output_dir, "qwen2", seed=flags.seed, texts=texts, shape=SHAPE)
    rows = Dataset.from_list([{"image": None, "problem": r.problem, "solution": r.solution} for r in riddles])
    model = load_model(flags.output_dir, dtype=torch.float32)
    tokenizer = load_processor(flags.output_dir)
    losses = teach(
        model, tokenizer, rows, own_manner, flags.seed, flags.max_steps, flags.batch_size, flags.learning_rate
    )
    model.save_pretrained(flags.output_dir)
    weights = sum(weight.numel() for weight in model.parameters())
    print(f"{weights:,} weights; loss {losses[0]:.3f} -> {losses[-1]:.3f} in {len(losses)} steps; {flags.output_dir}")


if __name__ == "__main__":
    run_command(main)
