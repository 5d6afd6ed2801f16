"""Build the tiny base that the package ships (`src/open_r1/tiny_base`) from nothing, on one core, without a network.

    python scripts/build_tiny_base.py --output_dir src/open_r1/tiny_base

A Qwen2.5-VL of 0.98 M parameters with a tokenizer of its own learns to see phantoms: first it only names what is
in a picture, then it also answers the questions, under a prompt of its own (the bare question) and not under any
published one. So it knows the pictures, as a real base model does, and GRPO under the published prompt has
something to bring out. The phantoms are drawn from a stream of their own: `make_phantoms` never draws them.

The same machine and libraries give the same bytes. Another machine may round differently, so the weights are
shipped and their hash is recorded in the tests.
"""

import math
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForImageTextToText, AutoProcessor

from open_r1.command_line import CommandParser
from open_r1.errors import run_command
from open_r1.files import usual_modes
from open_r1.format_start import MANNERS
from open_r1.phantoms import (
    LETTERS,
    Phantom,
    answer_index,
    draw,
    options_for,
    question,
    sample_phantoms,
)
from open_r1.prompts import TRAIN
from open_r1.runs import Modality, Task
from open_r1.tiny_models import DEFAULT_TEXTS, Shape, build_tiny_checkpoint

BASE_SHAPE = Shape(
    hidden=128, layers=3, heads=4, mlp=384, vision_hidden=64, vision_depth=2, vision_heads=4, vocabulary=850
)
STREAM = 2  # make_phantoms draws from streams 0 and 1 of its seed
HEAD = (
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "<|im_start|>user\n<|vision_start|>{image}<|vision_end|>"
)
TURN = "<|im_end|>\n<|im_start|>assistant\n"
NEXT = "<|im_end|>\n<|im_start|>user\n"
NAME = None  # the turn that names the attributes; the others are tasks
NAMED_FIRST = 0.25
IGNORED = -100  # the label of a token that is read and not learnt


Log = Callable[[int, float], None]  # step, loss


@dataclass(frozen=True)
class Lesson:
    """Token ids of one picture's conversation, and the same ids where they are to be learnt, else `IGNORED`."""

    ids: list[int]
    labels: list[int]


class Pupil:
    """The model with its processor, and every picture kept as the processor made it."""

    def __init__(self, folder: Path) -> None:
        self.model: Any = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
        self.processor: Any = AutoProcessor.from_pretrained(folder)
        self.tokenizer = self.processor.tokenizer
        self._encoded: dict[str, list[int]] = {}

    def encode(self, text: str) -> list[int]:
        if text not in self._encoded:
            self._encoded[text] = self.tokenizer(text)["input_ids"]
        return self._encoded[text]

    def see(self, phantoms: list[Phantom]) -> tuple[torch.Tensor, torch.Tensor]:
        """Pixels, float16 (pictures, patches, values), and the grid that all of them share, (3,)."""
        pixels, grid = [], torch.empty(0)
        for start in range(0, len(phantoms), 64):
            pictures = [draw(phantom) for phantom in phantoms[start : start + 64]]
            seen = self.processor.image_processor(pictures, return_tensors="pt")
            grid = seen["image_grid_thw"][0]
            pixels.append(seen["pixel_values"].half().view(len(pictures), int(grid.prod()), -1))
        return torch.cat(pixels), grid

    def logits(self, lessons: list[Lesson], pixels: torch.Tensor, grid: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Logits of the learnt tokens, (n, vocabulary), and these tokens, (n,)."""
        longest = max(len(lesson.ids) for lesson in lessons)
        ids = torch.full((len(lessons), longest), self.tokenizer.pad_token_id)
        labels = torch.full_like(ids, IGNORED)
        for row, lesson in enumerate(lessons):
            ids[row, : len(lesson.ids)] = torch.tensor(lesson.ids)
            labels[row, : len(lesson.labels)] = torch.tensor(lesson.labels)
        # right padding without a mask: causal attention keeps the padding out of all that is learnt
        hidden = self.model.model(
            input_ids=ids,
            pixel_values=pixels.float().flatten(0, 1),
            image_grid_thw=grid.expand(len(lessons), 3),
            mm_token_type_ids=(ids == self.model.config.image_token_id).int(),
        ).last_hidden_state
        learnt = labels[:, 1:] != IGNORED
        return self.model.lm_head(hidden[:, :-1][learnt]), labels[:, 1:][learnt]


def lesson(pupil: Pupil, phantom: Phantom, image: str, rng: random.Random, ask: bool) -> Lesson:
    """A picture, its five attributes named, and, if `ask`, its five questions in any order.

    Named first, the attributes teach which word goes with which letter; the picture can then be ignored. So three
    times in four the questions come first.
    """
    ids, labels = [], []

    def add(text: str, learn: bool = False) -> None:
        tokens = pupil.encode(text)
        ids.extend(tokens)
        labels.extend(tokens if learn else [IGNORED] * len(tokens))

    turns: list[Task | None] = [*rng.sample(list(Task), len(Task))] if ask else []
    turns.insert(0 if rng.random() < NAMED_FIRST else len(turns), NAME)
    add(HEAD.format(image=image))
    for place, turn in enumerate(turns):
        add(NEXT if place else "")
        if turn is None:  # NAME
            add("Describe" + TURN)
            for task in Task:
                add(" " + options_for(phantom.modality, task)[answer_index(phantom, task)], learn=True)
                add(",")
        else:
            instruction, form = rng.choice(MANNERS)
            add(question(phantom, turn, rng)["problem"] + instruction + TURN)
            add(form.format(LETTERS[answer_index(phantom, turn)]) + "<|im_end|>", learn=True)
    return Lesson(ids, labels)


def schedule(step: int, steps: int, warmup: int = 30) -> float:
    """Share of the peak learning rate: linear warm-up, then a cosine down to a twentieth."""
    return min(1.0, (step + 1) / warmup) * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * step / steps)))


def batches(count: int, size: int, rng: random.Random) -> Iterator[list[int]]:
    """Endless batches of picture numbers; every picture comes up once before any comes up again."""
    order: list[int] = []
    while True:
        if len(order) < size:
            order += rng.sample(range(count), count)
        yield [order.pop() for _ in range(size)]


def teach(pupil: Pupil, phantoms: list[Phantom], naming: int, asking: int, rate: float, seed: int, log: Log) -> None:
    """`naming` steps of naming alone, 48 pictures each, then `asking` steps with questions, 16 pictures each."""
    rng = random.Random(seed)
    pixels, grid = pupil.see(phantoms)
    image = "<|image_pad|>" * (int(grid.prod()) // 4)  # 2 x 2 patches become one token
    letters = torch.tensor([pupil.encode(f" {letter}")[0] for letter in LETTERS])
    matrices = [weight for weight in pupil.model.parameters() if weight.ndim > 1]
    vectors = [weight for weight in pupil.model.parameters() if weight.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": 0.05}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98))
    drawn = {size: batches(len(phantoms), size, rng) for size in (48, 16)}
    pupil.model.train()
    for step in range(naming + asking):
        ask = step >= naming
        chosen = next(drawn[16 if ask else 48])
        lessons = [lesson(pupil, phantoms[place], image, rng, ask=ask) for place in chosen]
        logits, labels = pupil.logits(lessons, pixels[chosen], grid)
        weight = torch.where(torch.isin(labels, letters), 1.0, 0.5)
        loss = (cross_entropy(logits, labels, reduction="none") * weight).sum() / weight.sum()
        for group in optimizer.param_groups:
            group["lr"] = rate * schedule(step, naming + asking)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(pupil.model.parameters(), 1.0)
        optimizer.step()
        log(step + 1, loss.item())
    pupil.model.eval()


@torch.no_grad()
def accuracy(pupil: Pupil, phantoms: list[Phantom], seed: int) -> dict[Task, float]:
    """Share of right letters per task, each question asked alone under the base's own prompt."""
    rng = random.Random(seed)
    pixels, grid = pupil.see(phantoms)
    image = "<|image_pad|>" * (int(grid.prod()) // 4)
    result = {}
    for task in Task:
        hits = []
        for place, phantom in enumerate(phantoms):
            row = question(phantom, task, rng)
            start = pupil.encode(HEAD.format(image=image) + row["problem"] + TURN + "Answer:")
            gold = pupil.encode(f" {LETTERS[answer_index(phantom, task)]}")
            alone = Lesson(start + gold, [IGNORED] * len(start) + gold)
            logits, labels = pupil.logits([alone], pixels[place : place + 1], grid)
            hits.append(float(logits.argmax(-1) == labels))
        result[task] = sum(hits) / len(hits)
    return result


def tokenizer_texts() -> list[str]:
    """What the tokenizer is trained on: every question, every option, every published prompt, the answer form."""
    rng = random.Random(0)
    asked = [
        question(phantom, task, rng)["problem"]
        for modality in Modality
        for phantom in sample_phantoms(modality, 40, [0, STREAM])
        for task in Task
    ]
    options = [f" {text}" for modality in Modality for task in Task for text in options_for(modality, task)]
    answers = [f"<think> </think> <answer> {letter} </answer>" for letter in LETTERS]
    manners = [instruction + "\n" + form.format("A") for instruction, form in MANNERS]
    return [*asked, *options * 3, *list(TRAIN.values()) * 5, *answers * 5, *manners * 3, *DEFAULT_TEXTS]


def stream(pictures: int, seed: int) -> list[Phantom]:
    """`pictures` phantoms of each modality, none of which `make_phantoms` can draw."""
    return [each for modality in Modality for each in sample_phantoms(modality, pictures, [seed, STREAM])]


def main() -> None:
    parser = CommandParser(description="Build the tiny base that the package ships.")
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--pictures", type=int, default=300, help="training pictures per modality")
    parser.add_argument("--naming_steps", type=int, default=300)
    parser.add_argument("--asking_steps", type=int, default=1200)
    parser.add_argument("--learning_rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    flags = parser.parse_args()
    torch.set_num_threads(1)  # the order of a sum depends on the number of threads
    started = time.process_time()

    def log(step: int, loss: float) -> None:
        if step % 50 == 0:
            print(f"step {step} loss {loss:.3f} after {time.process_time() - started:.0f} CPU-s", flush=True)

    build_tiny_checkpoint(flags.output_dir, seed=flags.seed, texts=tokenizer_texts(), shape=BASE_SHAPE)
    pupil = Pupil(flags.output_dir)
    phantoms = stream(flags.pictures, flags.seed)
    teach(pupil, phantoms, flags.naming_steps, flags.asking_steps, flags.learning_rate, flags.seed, log)
    pupil.model.save_pretrained(flags.output_dir)
    usual_modes(flags.output_dir)
    reached = accuracy(pupil, stream(16, flags.seed + 1), flags.seed)
    print("own prompt, 128 unseen pictures:", {task.value: round(share, 3) for task, share in reached.items()})
    print(f"mean {sum(reached.values()) / len(reached):.3f}; {flags.output_dir}")


if __name__ == "__main__":
    run_command(main)
