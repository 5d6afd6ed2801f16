"""Greedy generation for a list of questions, in batches: what a model answers does not depend on its neighbours.

Every prompt is padded on the left and its positions are counted from its own first token, by the function that
training uses too, so a question gets the same completion in a batch of 1 and of 64. While the model works on one
batch, a thread in the background opens the pictures of the next and turns them into patches.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from PIL import Image
from transformers import GenerationConfig

from open_r1.checkpoints import forbidden_token_ids
from open_r1.images import ImageError
from open_r1.prompts import build_messages
from open_r1.rollout import PromptBatch, completion_lengths, prompt_positions
from open_r1.runs import Mode
from open_r1.vqa_data import row_image

Row = Mapping[str, Any]
T = TypeVar("T")

DECODERS = 4
"""Threads that open pictures; decoding releases Python's lock."""


@dataclass(frozen=True)
class Encoder:
    """How rows of `load_vqa` become prompts; `processor` is a tokenizer where `has_vision` is false."""

    processor: Any
    mode: Mode
    prompt: str | None = None
    """A name in `prompts.NAMED`; None is the mode's training prompt."""
    has_vision: bool = True

    def __call__(self, rows: Sequence[Row]) -> "Encoded":
        """Open the pictures and tokenize; a row whose picture does not open is set aside with the reason."""
        usable, pictures, failed = [], [], []
        for row, picture in zip(rows, _open_pictures(rows, self.has_vision), strict=True):
            if isinstance(picture, ImageError):
                failed.append((row, f"{picture.reason}: {picture}"))
            else:
                usable.append(row)
                pictures.append(picture)
        return Encoded(usable, self._prompts(usable, pictures) if usable else None, failed)

    def _prompts(self, rows: Sequence[Row], pictures: Sequence[Image.Image | None]) -> PromptBatch:
        texts = [self.render(row["problem"], picture is not None) for row, picture in zip(rows, pictures, strict=True)]
        shown = [picture for picture in pictures if picture is not None]
        # Not padded by the tokenizer: that would change its state while the main thread decodes with it.
        encoded = self.processor(text=texts, padding=False, **({"images": shown} if shown else {}))
        ids, mask = pad_left(encoded["input_ids"], self.tokenizer.pad_token_id)
        vision = {}
        if shown:
            vision = {name: torch.as_tensor(encoded[name]) for name in ("pixel_values", "image_grid_thw")}
            vision["mm_token_type_ids"] = pad_left(encoded["mm_token_type_ids"], 0)[0]
        return PromptBatch(ids, mask, [int(picture is not None) for picture in pictures], vision)

    def render(self, problem: str, has_image: bool = True) -> str:
        """The prompt as the chat template writes it, with one placeholder for the picture."""
        messages = build_messages(problem, self.mode, has_image, self.prompt)
        return self.processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)

    @property
    def tokenizer(self) -> Any:
        """The tokenizer within the processor."""
        return self.processor.tokenizer if self.has_vision else self.processor


@dataclass(frozen=True)
class Encoded:
    """A batch that is ready for the model, and the rows that will not be."""

    rows: list[Row]
    prompts: PromptBatch | None
    failed: list[tuple[Row, str]]


@dataclass(frozen=True)
class Completion:
    """What the model wrote: the text without special tokens, and its length in tokens with the end token."""

    text: str
    tokens: int


def open_picture(row: Row) -> Image.Image | None:
    """The picture of a row as training sees it, or None."""
    return None if row["image"] is None else row_image(row)


def _open_pictures(rows: Sequence[Row], has_vision: bool) -> list[Image.Image | ImageError | None]:
    def attempt(row: Row) -> Image.Image | ImageError | None:
        try:
            return open_picture(row) if has_vision else None
        except ImageError as error:
            return error

    with ThreadPoolExecutor(DECODERS, thread_name_prefix="decode") as pool:
        return list(pool.map(attempt, rows))


def pad_left(rows: Sequence[Sequence[int]], filler: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, P) token ids with `filler` before the shorter rows, and (B, P) 1 where a token is real."""
    width = max(map(len, rows))
    ids = torch.tensor([[filler] * (width - len(row)) + list(row) for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    return ids, mask


class Generator:
    """A model that answers batches of prompts greedily.

    Nothing but the most likely token is ever taken: the repetition penalty (1.05 in the published Qwen2.5-VL) and the
    sampling settings of the checkpoint's generation_config.json are left aside. Tokens that stand for pictures cannot
    be generated.

    Args:
        model: in evaluation mode, on the device where it is to run.
        tokenizer: names the padding token and turns tokens into text.
        max_new_tokens: longest completion in tokens.
    """

    def __init__(self, model: Any, tokenizer: Any, max_new_tokens: int) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.forbidden = forbidden_token_ids(model.config)
        self.end_tokens = _end_tokens(model.generation_config, tokenizer)
        # transformers fills what a given config leaves open from the model's own, so the model's own is replaced.
        model.generation_config = GenerationConfig(
            max_new_tokens=max_new_tokens,
            do_sample=False,
            num_beams=1,
            repetition_penalty=1.0,
            eos_token_id=self.end_tokens,
            pad_token_id=tokenizer.pad_token_id,
            suppress_tokens=self.forbidden or None,
        )

    def __call__(self, prompts: PromptBatch) -> list[Completion]:
        """One completion for each prompt, in order."""
        tokens = self.tokens(prompts)
        lengths = completion_lengths(tokens, self.end_tokens).tolist()
        rows = [row[:length] for row, length in zip(tokens.tolist(), lengths, strict=True)]
        assert not {token for row in rows for token in row}.intersection(self.forbidden)
        texts = self.tokenizer.batch_decode(rows, skip_special_tokens=True)
        return [Completion(text, length) for text, length in zip(texts, lengths, strict=True)]

    @torch.inference_mode()
    def tokens(self, prompts: PromptBatch) -> torch.Tensor:
        """(B, C) generated token ids, padded after the end token."""
        prompts = _to(prompts, self.model.device)
        positions, _ = prompt_positions(self.model, prompts)
        tokens = self.model.generate(
            input_ids=prompts.ids, attention_mask=prompts.mask, position_ids=positions, **prompts.model_inputs()
        )
        return tokens[:, prompts.ids.size(1) :]


def _end_tokens(config: GenerationConfig, tokenizer: Any) -> list[int]:
    given = config.eos_token_id
    listed = given if isinstance(given, list) else [given]
    return sorted({token for token in [*listed, tokenizer.eos_token_id] if token is not None})


def _to(prompts: PromptBatch, device: torch.device) -> PromptBatch:
    return replace(
        prompts,
        ids=prompts.ids.to(device),
        mask=prompts.mask.to(device),
        vision={name: tensor.to(device) for name, tensor in prompts.vision.items()},
    )


def batches_by_length(lengths: Sequence[int], size: int) -> list[list[int]]:
    """Indices in batches of `size`, the longest first: little padding, and a batch too large fails at once."""
    order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    return [order[start : start + size] for start in range(0, len(order), size)]


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
