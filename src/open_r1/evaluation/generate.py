"""From rows of a data set to completions, in batches: what a model answers does not depend on its neighbours.

Every prompt's positions are counted from its own first token, by the function that training uses too, and padding is
seen by nobody, so a question gets the same completion in a batch of 1 and of 64. Questions about one picture go
into one batch, where that picture is opened, cut into patches and looked at once. While the model works on one batch,
a thread in the background makes the next one ready.
"""

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from PIL import Image
from transformers import GenerationConfig

from open_r1.checkpoints import forbidden_token_ids
from open_r1.evaluation.decoding import Decoder, Prompts
from open_r1.evaluation.perturb import Shown, View
from open_r1.evaluation.sampling import Sampling, draw, uniforms
from open_r1.images import ImageError
from open_r1.pictures import spell_out
from open_r1.processors import picture_refusal
from open_r1.prompts import build_messages
from open_r1.rollout import completion_lengths
from open_r1.runs import Mode
from open_r1.vqa_data import content_digest

Row = Mapping[str, Any]
T = TypeVar("T")

DECODERS = 4
"""Threads that open pictures; decoding releases Python's lock."""


@dataclass(frozen=True)
class Encoded:
    """A batch that is ready for the model, and the rows that will not be."""

    rows: list[Row]
    shown: list[Shown]
    prompts: Any
    """What the backend takes: `Prompts` for transformers; None where there are no rows."""
    failed: list[tuple[Row, str]]


@dataclass(frozen=True)
class Encoder:
    """How rows of `load_vqa` become prompts; `processor` is a tokenizer where `has_vision` is false."""

    processor: Any
    mode: Mode
    prompt: str | None = None
    """A name in `prompts.NAMED`; None is the mode's own."""
    has_vision: bool = True
    view: View = field(default_factory=View)
    device: str | None = None
    """Where pictures are scaled and cut into patches: a GPU, or None for the CPU."""

    def __call__(self, rows: Sequence[Row]) -> Encoded:
        """Open each picture once and tokenize; a row whose picture does not open is set aside with the reason."""
        keys = [self.view.picture(row) if self.has_vision else None for row in rows]
        opened = self._open(rows, keys)
        usable, failed, index = [], [], {}
        for row, key in zip(rows, keys, strict=True):
            picture = None if key is None else opened[key]
            if isinstance(picture, ImageError):
                failed.append((row, f"{picture.reason}: {picture}"))
            elif self.has_vision and self.processor.image_token in row["problem"]:
                failed.append((row, f"picture-token: the question holds {self.processor.image_token}, a picture's"))
            else:
                usable.append((row, self.view.problem(row), -1 if key is None else index.setdefault(key, len(index))))
        pictures = [opened[key] for key in index]
        texts = [self.render(shown.problem, picture >= 0) for _, shown, picture in usable]
        prompts = self._encode(texts, [picture for _, _, picture in usable], pictures) if usable else None
        return Encoded([row for row, _, _ in usable], [shown for _, shown, _ in usable], prompts, failed)

    def _open(self, rows: Sequence[Row], keys: Sequence[str | None]) -> dict[str, Any]:
        """Picture or error of every key."""
        first = {key: row for row, key in reversed(list(zip(rows, keys, strict=True))) if key is not None}

        def attempt(row: Row) -> Image.Image | ImageError:
            try:
                picture = self.view.open(row)
            except ImageError as error:
                return error
            refusal = picture_refusal(picture.size, self.processor)
            return picture if refusal is None else ImageError("not-taken", refusal)

        with ThreadPoolExecutor(DECODERS, thread_name_prefix="decode") as pool:
            return dict(zip(first, pool.map(attempt, first.values()), strict=True))

    def _encode(self, texts: list[str], picture_of: list[int], pictures: list[Image.Image]) -> Any:
        """What the model takes, without padding: the tokenizer's state is the main thread's, which decodes with it."""
        if not pictures:
            return Prompts(self.tokenizer(texts, padding=False, add_special_tokens=False)["input_ids"], picture_of)
        where = {} if self.device is None else {"device": self.device}
        patches = self.processor.image_processor(images=pictures, return_tensors="pt", **where)
        grids = torch.as_tensor(patches["image_grid_thw"]).cpu()
        counts = (grids.prod(-1) // self.processor.image_processor.merge_size**2).tolist()
        token = self.processor.image_token
        texts = [
            spell_out(text, token, [] if picture < 0 else [counts[picture]])
            for text, picture in zip(texts, picture_of, strict=True)
        ]
        tokens = self.tokenizer(texts, padding=False, add_special_tokens=False)["input_ids"]
        pixels = torch.as_tensor(patches["pixel_values"])
        return Prompts(tokens, picture_of, self.tokenizer.convert_tokens_to_ids(token), pixels, grids)

    def content(self, row: Row) -> str:
        """Everything that the model is shown of a row, as 16 hexadecimal digits; see `vqa_data.content_digest`."""
        return self.view.content(row) if self.has_vision else content_digest(row, None)

    def render(self, problem: str, has_image: bool = True) -> str:
        """The prompt as the chat template writes it, with one placeholder for the picture."""
        messages = build_messages(problem, self.mode, has_image, self.prompt)
        return self.processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)

    @property
    def tokenizer(self) -> Any:
        """The tokenizer within the processor."""
        return self.processor.tokenizer if self.has_vision else self.processor


@dataclass(frozen=True)
class Completion:
    """What the model wrote: the text without special tokens, and its length in tokens with the end token."""

    text: str
    tokens: int
    cut_off: bool = False  # whether the token limit ended it


class Generator:
    """A model that answers batches of prompts, greedily or by drawing samples.

    Greedy means the most likely token and nothing else: the repetition penalty (1.05 in the published Qwen2.5-VL) and
    the sampling settings of the checkpoint's generation_config.json are left aside. Tokens that stand for pictures
    cannot be generated.

    Args:
        model: in evaluation mode, on the device where it is to run.
        tokenizer: names the padding token and turns tokens into text.
        max_new_tokens: longest completion in tokens.
        sampling: how many completions of a question, and at which temperature.
    """

    def __init__(self, model: Any, tokenizer: Any, max_new_tokens: int, sampling: Sampling | None = None) -> None:
        self.model, self.tokenizer, self.max_new_tokens = model, tokenizer, max_new_tokens
        self.sampling = sampling or Sampling()
        self.forbidden = forbidden_token_ids(model.config)
        self.end_tokens = end_tokens(model.generation_config, tokenizer)
        self._decode = Decoder(model, self.end_tokens, tokenizer.pad_token_id, max_new_tokens)

    def __call__(self, encoded: Encoded) -> list[list[Completion]]:
        """The completions of each prompt, in order."""
        tokens = self.tokens(encoded.prompts, [row["id"] for row in encoded.rows])
        lengths = completion_lengths(tokens, self.end_tokens).tolist()
        rows = [row[:length] for row, length in zip(tokens.tolist(), lengths, strict=True)]
        assert not {token for row in rows for token in row}.intersection(self.forbidden)
        texts = self.tokenizer.batch_decode(rows, skip_special_tokens=True)
        ends = set(self.end_tokens)
        done = [Completion(text, len(row), row[-1] not in ends) for text, row in zip(texts, rows, strict=True)]
        count = self.sampling.count
        return [done[start : start + count] for start in range(0, len(done), count)]

    def tokens(self, prompts: Prompts, names: Sequence[str]) -> torch.Tensor:
        """(B * samples, C) generated token ids, padded after the end token; `names` are the questions' ids."""
        return self._decode(prompts, self._picker(names), self.sampling.count)

    def _picker(self, names: Sequence[str]) -> Callable[[torch.Tensor, torch.Tensor, int], torch.Tensor]:
        def greedy(logits: torch.Tensor, rows: torch.Tensor, step: int) -> torch.Tensor:
            logits[:, self.forbidden] = -torch.inf
            return logits.argmax(-1)

        if self.sampling.is_greedy:
            return greedy
        numbers = uniforms(self.sampling, names, self.max_new_tokens).to(self.model.device)

        def sample(logits: torch.Tensor, rows: torch.Tensor, step: int) -> torch.Tensor:
            logits[:, self.forbidden] = -torch.inf
            return draw(logits, self.sampling.temperature, numbers[rows, step])

        return sample


def end_tokens(config: GenerationConfig | None, tokenizer: Any) -> list[int]:
    """Ids that end a completion: the checkpoint's and the tokenizer's."""
    given = config.eos_token_id if config is not None else None
    listed = given if isinstance(given, list) else [given]
    return sorted({token for token in [*listed, tokenizer.eos_token_id] if token is not None})


def batches_by_length(lengths: Sequence[int], size: int, pictures: Sequence[Hashable] | None = None) -> list[list[int]]:
    """Indices in batches of `size`, the longest first: little padding, and a batch too large fails at once.

    Args:
        lengths: of each question.
        size: questions in a batch.
        pictures: what identifies each question's picture; questions that share one stay together.
    """
    groups = grouped(range(len(lengths)) if pictures is None else pictures)
    ranked = sorted(groups, key=lambda group: (-max(lengths[index] for index in group), group[0]))
    order = [index for group in ranked for index in group]
    return [order[start : start + size] for start in range(0, len(order), size)]


def grouped(keys: Iterable[Hashable]) -> list[list[int]]:
    """The places of each different key, in order of first appearance."""
    places: dict[Hashable, list[int]] = {}
    for index, key in enumerate(keys):
        places.setdefault(key, []).append(index)
    return list(places.values())


def ahead(make: Callable[[T], Encoded], items: Iterable[T], count: int = 2) -> Iterator[Encoded]:
    """`make` of every item in order, worked out up to `count` items before it is asked for, in one thread."""
    waiting: deque[Any] = deque()
    pool = ThreadPoolExecutor(1, thread_name_prefix="encode")
    try:
        for item in items:
            waiting.append(pool.submit(make, item))
            if len(waiting) > count:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
