"""Build the base of the text demo from nothing: a tiny Qwen2 that can solve riddles, but not under a published prompt.

    python scripts/build_text_base.py --output_dir output/base --seed 0

A Qwen2 with a tokenizer of its own learns to read lists of options, then riddles about patients that no prepared set
holds, asked in several manners of its own (the bare question, a sentence, brackets, ...) and answered with an option's
word and then its letter. So it knows the signs, as a real base knows its medicine, and GRPO under the published prompt
has something to bring out.
"""

import random
from typing import Any

import torch
from datasets import Dataset

from open_r1.answers import LETTERS, render_lines
from open_r1.checkpoints import load_model, load_processor
from open_r1.command_line import CommandParser
from open_r1.errors import run_command
from open_r1.files import staged_folder
from open_r1.first_reading import Lesson, begin_alike, look_back, read_options
from open_r1.format_start import MANNERS, add_flags, own_manner, teach
from open_r1.prompts import TRAIN
from open_r1.riddles import OPTIONS, OTHER_AGES, TOPICS, sample_riddles
from open_r1.text_sources import TextQuestion
from open_r1.tiny_models import DEFAULT_TEXTS, Shape, build_tiny_checkpoint

# 0.06 is about 0.6 / sqrt(96). With the published models' 0.02, right for widths of thousands, a sign hardly moves the
# letter at first: from some seeds 200 steps taught the form alone, and GRPO then had nothing to bring out.
SHAPE = Shape(hidden=96, layers=3, heads=4, mlp=192, vocabulary=1600, spread=0.06)
QUESTIONS = 2400
WORDS = [word for topic in TOPICS for word in topic.signs]
QUERIES = 12  # words asked for in a list


def main() -> None:
    parser = CommandParser(description=__doc__)
    add_flags(parser, max_steps=150, batch_size=16, learning_rate=3e-3)
    flags = parser.parse_args()
    riddles = sample_riddles(QUESTIONS, flags.seed, ages=OTHER_AGES)
    rows = Dataset.from_list([{"image": None, "problem": r.problem, "solution": r.solution} for r in riddles])
    with staged_folder(flags.output_dir) as stage:
        build_tiny_checkpoint(stage, "qwen2", seed=flags.seed, texts=texts(riddles), shape=SHAPE)
        model = load_model(stage, dtype=torch.float32)
        tokenizer = load_processor(stage)
        for words, step, share in learn_to_read(model, tokenizer, flags.seed):
            print(f"reading {words} words: {share:.3f} right after {step} steps", flush=True)
        losses = teach(
            model,
            tokenizer,
            rows,
            own_manner,
            flags.seed,
            flags.max_steps,
            flags.batch_size,
            flags.learning_rate,
        )
        model.save_pretrained(stage)
    weights = sum(weight.numel() for weight in model.parameters())
    print(f"{weights:,} weights; loss {losses[0]:.3f} -> {losses[-1]:.3f} in {len(losses)} steps; {flags.output_dir}")


def learn_to_read(model: Any, tokenizer: Any, seed: int) -> list[tuple[int, int, float]]:
    """Teach which letter stands before a word of a list, in place; what was reached, as `read_options` says it."""

    def encode(text: str) -> list[int]:
        return tokenizer(text)["input_ids"]

    def listed(count: int, rng: random.Random) -> Lesson:
        options = rng.sample(WORDS[:count], OPTIONS)
        lesson = Lesson()
        lesson.add(encode(render_lines("?", options)))
        for place in (rng.randrange(OPTIONS) for _ in range(QUERIES)):
            lesson.add(encode(f" {options[place]}"))
            lesson.add(encode(f" {LETTERS[place]}"), learn=True)
        return lesson

    letters = [encode(f" {letter}")[0] for letter in LETTERS[:OPTIONS]]
    look_back(model, seed, distance=2)  # A, ), word
    begin_alike(model, [(spaced, encode(letter)[0]) for spaced, letter in zip(letters, LETTERS, strict=False)])
    model.train()
    return read_options(model, listed, len(WORDS), torch.tensor(letters), tokenizer.pad_token_id, random.Random(seed))


def texts(riddles: list[TextQuestion]) -> list[str]:
    """What the tokenizer learns its words from: questions, the prompts and the forms of answers."""
    answers = [f"<think> {word} </think> <answer> {letter} </answer>" for letter in "ABCD" for word in WORDS]
    manners = [instruction + "\n" + form.format(text=" ", letter="A") for instruction, form in MANNERS]
    asked = [each.problem for each in random.Random(0).sample(riddles, 400)]
    return [
        *asked,
        *list(TRAIN.values()) * 50,
        *answers * 4,
        *(f" {word}" for word in WORDS * 60),
        *manners * 20,
        *DEFAULT_TEXTS,
    ]


if __name__ == "__main__":
    run_command(main)
