"""Build the tiny base of the testbed (`src/open_r1_testbed/tiny_base`) from nothing, on one core, without a network.

    python scripts/build_tiny_base.py --output_dir src/open_r1_testbed/tiny_base

A Qwen2.5-VL of 0.99 M parameters with a tokenizer of its own learns, one after the other, to read (which letter stands
before a word of a list, in text alone), to see (the words for what an image shows), and both together: it answers
questions, whose options stand in any order, with the right option's word and then its letter, under prompts of its own
and not under any published one. So it knows the images, as a real base model does, and GRPO under the published
prompt has something to bring out. The phantoms are drawn from a stream of their own: `make_phantoms` never draws them.

The same machine and libraries give the same bytes. Another machine may round differently, so the weights are
shipped and their hash is recorded in the tests.
"""

import argparse
import math
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from open_r1.checkpoints.processors import no_progress_bars
from open_r1.common.atomic_files import usual_modes
from open_r1.common.command_line import CommandParser
from open_r1.common.errors import run_command
from open_r1.grading.problems import options_in
from open_r1.vocabulary.labels import Modality, Task
from open_r1.vocabulary.prompts import TRAIN
from open_r1_testbed.first_reading import (
    Lesson,
    adamw,
    batches,
    begin_alike,
    learnt,
    look_back,
    read_options,
    stacked,
    update,
    weighted_loss,
)
from open_r1_testbed.format_start import MANNERS
from open_r1_testbed.phantom_images import draw
from open_r1_testbed.phantom_questions import LETTERS, Phantom, answer, options_for, question, sample_phantoms
from open_r1_testbed.tiny_models import DEFAULT_TEXTS, Shape, build_tiny_checkpoint

BASE_SHAPE = Shape(
    hidden=128,
    layers=4,
    heads=4,
    mlp=256,
    vision_hidden=64,
    vision_depth=2,
    vision_heads=4,
    vocabulary=900,
    spread=0.06,
)
STREAM = 2  # make_phantoms draws from streams 0 and 1 of its seed
WORDS = tuple(
    dict.fromkeys(str(word) for task in Task for modality in Modality for word in options_for(modality, task))
)
LISTS = tuple(dict.fromkeys(options_for(modality, task) for task in Task for modality in Modality))
ATTRIBUTES = dict(zip(Task, ("organ", "lesion", "grade", "technique", "rim"), strict=True))
HEAD = (
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "<|im_start|>user\n<|vision_start|>{image}<|vision_end|>"
)
TURN = "<|im_end|>\n<|im_start|>assistant\n"
NEXT = "<|im_end|>\n<|im_start|>user\n"
QUERIES = 12  # words asked for in a list without an image


class Pupil:
    """The model with its processor, and every image kept as the processor made it."""

    def __init__(self, folder: Path) -> None:
        self.model: Any = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
        self.processor: Any = AutoProcessor.from_pretrained(folder)
        self.tokenizer = self.processor.tokenizer
        self._encoded: dict[str, list[int]] = {}
        self.letters = torch.tensor([self.encode(f" {letter}")[0] for letter in LETTERS])
        self.telling = torch.cat([self.letters, torch.tensor([self.encode(f" {word}")[0] for word in WORDS])])
        self.image = ""  # the image tokens of one image

    def encode(self, text: str) -> list[int]:
        if text not in self._encoded:
            self._encoded[text] = self.tokenizer(text)["input_ids"]
        return self._encoded[text]

    def see(self, phantoms: list[Phantom]) -> tuple[torch.Tensor, torch.Tensor]:
        """Pixels, float16 (images, patches, values), and the grid that all of them share, (3,)."""
        pixels, grid = [], torch.empty(0)
        for start in range(0, len(phantoms), 64):
            images = [draw(phantom) for phantom in phantoms[start : start + 64]]
            inputs = self.processor.image_processor(images, return_tensors="pt")
            grid = inputs["image_grid_thw"][0]
            pixels.append(inputs["pixel_values"].half().view(len(images), int(grid.prod()), -1))
        self.image = "<|image_pad|>" * (int(grid.prod()) // 4)  # 2 x 2 patches become one token
        return torch.cat(pixels), grid

    def logits(
        self, lessons: list[Lesson], pixels: torch.Tensor | None = None, grid: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits of the learnt tokens, (n, vocabulary), and these tokens, (n,)."""
        ids, labels = stacked(lessons, self.tokenizer.pad_token_id)
        if pixels is None or grid is None:
            return learnt(self.model, ids, labels)
        return learnt(
            self.model,
            ids,
            labels,
            pixel_values=pixels.float().flatten(0, 1),
            image_grid_thw=grid.expand(len(lessons), 3),
            mm_token_type_ids=(ids == self.model.config.image_token_id).int(),
        )

    # --- lessons ---------------------------------------------------------------------------------------------

    def listed(self, words: int, rng: random.Random) -> Lesson:
        """Four options, and the letters of twelve of them; half the lists are real ones once all words are known."""
        chosen = rng.sample(rng.choice(LISTS) if words == len(WORDS) and rng.random() < 0.5 else WORDS[:words], 4)
        lesson = Lesson()
        self._offer(lesson, chosen)
        for _ in range(QUERIES):
            place = rng.randrange(4)
            lesson.add(self.encode(f" {chosen[place]}"))
            lesson.add(self.encode(f" {LETTERS[place]}"), learn=True)
        return lesson

    def told(self, rng: random.Random) -> Lesson:
        """Four options, and in each of `MANNERS` the letter of one of them, whose word is told."""
        chosen = rng.sample(rng.choice(LISTS), 4)
        lesson = Lesson()
        self._offer(lesson, chosen)
        for _, form in rng.sample(MANNERS, len(MANNERS)):
            self._answer(lesson, form, rng.choice(chosen), chosen, read=True)
        return lesson

    def _offer(self, lesson: Lesson, words: Sequence[str]) -> None:
        for place, word in enumerate(words):
            lesson.add(
                self.encode(f" {LETTERS[place]}") + self.encode(f"){word}") + self.encode("," if place < 3 else "")
            )

    def _answer(self, lesson: Lesson, form: str, word: str, offered: Sequence[str], read: bool = False) -> None:
        """An answer in a manner's form; with `read` only its letter is to be learnt."""
        letter = LETTERS[list(offered).index(word)]
        for index, text in enumerate(form.split(" {letter}")):
            if index:
                lesson.add(self.encode(f" {letter}"), learn=True)
            lesson.add(self.tokens(text.format(text=word)), learn=not read)
        lesson.add(self.encode("<|im_end|>"), learn=True)

    def named(self, phantom: Phantom, rng: random.Random) -> Lesson:
        """An image with its attributes named."""
        lesson = Lesson()
        lesson.add(self.encode(HEAD.format(image=self.image)))
        self._name(lesson, phantom, rng)
        return lesson

    def _name(self, lesson: Lesson, phantom: Phantom, rng: random.Random) -> None:
        for task in rng.sample(list(Task), len(Task)):
            lesson.add(self.encode(f" {ATTRIBUTES[task]}"))
            lesson.add(self.encode(f" {answer(phantom, task)}"), learn=True)

    def asked(self, phantom: Phantom, rng: random.Random) -> Lesson:
        """An image and its five questions in any order, each answered in one of `MANNERS`."""
        lesson = Lesson()
        lesson.add(self.encode(HEAD.format(image=self.image)))
        for place, task in enumerate(rng.sample(list(Task), len(Task))):
            instruction, form = rng.choice(MANNERS)
            row = question(phantom, task, rng)
            lesson.add(self.encode(NEXT if place else "") + self.tokens(row["problem"] + instruction + TURN))
            self._answer(lesson, form, answer(phantom, task), list(options_in(row["problem"]).values()))
        return lesson

    def tokens(self, text: str) -> list[int]:
        """As `encode`, and not remembered."""
        return self.tokenizer(text)["input_ids"]


def schedule(step: int, steps: int, warmup: int = 40) -> float:
    """Share of the peak learning rate: linear warm-up, then a cosine down to a twentieth."""
    return min(1.0, (step + 1) / warmup) * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * step / steps)))


Make = Callable[[], tuple[torch.Tensor, torch.Tensor]]
"""Draws a batch of lessons: logits of what is to be learnt, and what it is."""
Log = Callable[[str, int, dict[str, float]], None]
"""Stage, step, and the shares of right words and letters in it."""


def teach(pupil: Pupil, stage: str, steps: int, makes: Sequence[Make], rate: float, log: Log) -> None:
    """`steps` steps of the first lessons; the others are repeated in turn, every other step one of them."""
    optimizer = adamw(pupil.model, rate)
    for step in range(steps):
        logits, labels = makes[0]()
        losses = [weighted_loss(logits, labels, pupil.telling)]
        if step % 2 == 0 and len(makes) > 1:
            losses.append(weighted_loss(*makes[1 + step // 2 % (len(makes) - 1)](), pupil.telling))
        update(pupil.model, optimizer, losses, rate * schedule(step, steps))
        right = (logits.argmax(-1) == labels).float()
        is_letter = torch.isin(labels, pupil.letters)
        is_word = torch.isin(labels, pupil.telling) & ~is_letter
        shares = {"letters": right[is_letter], "words": right[is_word]}
        log(stage, step + 1, {name: share.mean().item() for name, share in shares.items() if len(share)})


def learn_images(pupil: Pupil, phantoms: list[Phantom], flags: argparse.Namespace, log: Log) -> None:
    """From reading lists to answering: each stage goes on with a little of those before it."""
    rng = random.Random(flags.seed)
    pixels, grid = pupil.see(phantoms)
    drawn = batches(len(phantoms), 16, rng)

    def about(make: Callable[[Phantom, random.Random], Lesson], times: int = 1) -> Make:
        def made() -> tuple[torch.Tensor, torch.Tensor]:
            chosen = [place for _ in range(times) for place in next(drawn)]
            return pupil.logits([make(phantoms[place], rng) for place in chosen], pixels[chosen], grid)

        return made

    def told(count: int) -> Make:
        return lambda: pupil.logits([pupil.told(rng) for _ in range(count)])

    def listed() -> tuple[torch.Tensor, torch.Tensor]:
        return pupil.logits([pupil.listed(len(WORDS), rng) for _ in range(12)])

    rate = flags.learning_rate
    teach(pupil, "answering", flags.answering_steps, [told(32), listed], rate, log)
    teach(pupil, "naming", flags.naming_steps, [about(pupil.named, 2), told(12)], rate, log)
    teach(pupil, "asking", flags.asking_steps, [about(pupil.asked), told(12), about(pupil.named)], rate, log)


@torch.no_grad()
def accuracy(pupil: Pupil, phantoms: list[Phantom], seed: int) -> dict[Task, float]:
    """Share of right letters per task, each question asked alone under the base's own prompt, word before letter."""
    rng = random.Random(seed)
    pixels, grid = pupil.see(phantoms)
    result = {}
    for task in Task:
        hits = 0
        for place, phantom in enumerate(phantoms):
            row = question(phantom, task, rng)
            ids = start = pupil.tokens(HEAD.format(image=pupil.image) + row["problem"] + TURN + "It is")
            while len(ids) < len(start) + 3 and ids[-1] not in pupil.letters:  # the word, then its letter
                logits, _ = pupil.logits([Lesson([*ids, 0], [-100] * len(ids) + [0])], pixels[place : place + 1], grid)
                ids = [*ids, int(logits.argmax())]
            hits += ids[-1] == pupil.encode(f" {row['solution'][9]}")[0]
        result[task] = hits / len(phantoms)
    return result


def tokenizer_texts() -> list[str]:
    """What the tokenizer is trained on: every question, every option, every published prompt, the answer form."""
    rng = random.Random(0)
    problems = [
        question(phantom, task, rng)["problem"]
        for modality in Modality
        for phantom in sample_phantoms(modality, 40, [0, STREAM])
        for task in Task
    ]
    options = [text for word in WORDS for text in (f" {word}", f"){word}")]  # each a token of its own
    answers = [f"<think> {word} {letter} </think> <answer> {letter} </answer>" for letter in LETTERS for word in WORDS]
    manners = [instruction + "\n" + form.format(text=" ", letter="A") for instruction, form in MANNERS]
    attributes = [f" {attribute}" for attribute in ATTRIBUTES.values()]
    return [
        *problems,
        *options * 60,
        *list(TRAIN.values()) * 5,
        *answers,
        *manners * 3,
        *attributes * 20,
        *DEFAULT_TEXTS,
    ]


def stream(images: int, seed: int) -> list[Phantom]:
    """`images` phantoms of each modality, none of which `make_phantoms` can draw."""
    return [phantom for modality in Modality for phantom in sample_phantoms(modality, images, [seed, STREAM])]


def main() -> None:
    parser = CommandParser(description="Build the tiny base that the package ships.")
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--images", type=int, default=300, help="training images per modality")
    parser.add_argument("--answering_steps", type=int, default=100)
    parser.add_argument("--naming_steps", type=int, default=400)
    parser.add_argument("--asking_steps", type=int, default=700)
    parser.add_argument("--learning_rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    flags = parser.parse_args()
    torch.set_num_threads(1)  # the order of a sum depends on the number of threads

    def log(stage: str, step: int, shares: dict[str, float]) -> None:
        if step % 25 == 0:
            share_text = ", ".join(f"{name} {share:.3f}" for name, share in shares.items())
            print(f"{stage} {step}: {share_text}; {time.process_time():.0f} CPU-s", flush=True)

    build_tiny_checkpoint(flags.output_dir, seed=flags.seed, texts=tokenizer_texts(), shape=BASE_SHAPE)
    pupil = Pupil(flags.output_dir)
    look_back(pupil.model, flags.seed)
    begin_alike(pupil.model, [(pupil.encode(f" {word}")[0], pupil.encode(f"){word}")[0]) for word in WORDS])
    pupil.model.train()
    rng = random.Random(flags.seed)
    padding = pupil.tokenizer.pad_token_id
    for words, step, share in read_options(pupil.model, pupil.listed, len(WORDS), pupil.letters, padding, rng):
        print(
            f"reading {words} words: {share:.3f} right after {step} steps, {time.process_time():.0f} CPU-s", flush=True
        )
    learn_images(pupil, stream(flags.images, flags.seed), flags, log)
    pupil.model.eval()
    with no_progress_bars():
        pupil.model.save_pretrained(flags.output_dir)
    usual_modes(flags.output_dir)
    reached = accuracy(pupil, stream(16, flags.seed + 1), flags.seed)
    print("own prompt, 128 unseen images:", {task.value: round(share, 3) for task, share in reached.items()})
    print(f"mean {sum(reached.values()) / len(reached):.3f}; {flags.output_dir}")


if __name__ == "__main__":
    run_command(main)
