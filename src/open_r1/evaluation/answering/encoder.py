"""Rows of a data set become batches of prompts; a completion does not depend on the other rows of its batch.

Positions are counted from each prompt's first token, by the function that training uses too, and padding is masked,
so a question gets the same completion in a batch of 1 and of 64. Questions about the same images go into one batch,
where an image is opened, cut into patches and encoded once. While the model computes a batch, a background thread
prepares the next one.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import torch
from PIL import Image
from torch.nn.functional import pad

from open_r1.checkpoints.processors import counts_patches, image_refusal
from open_r1.checkpoints.qwen_resizing import qwen_size, resized_by_qwen
from open_r1.data.images import ImageError
from open_r1.data.loading import content_digest
from open_r1.evaluation.answering.backends.decoder import Prompts
from open_r1.evaluation.answering.perturbations import ShownProblem, View
from open_r1.modeling.image_tokens import repeat_placeholders
from open_r1.vocabulary.answer_types import AnswerType
from open_r1.vocabulary.modes import Mode
from open_r1.vocabulary.prompts import build_messages

Row = Mapping[str, Any]

DECODING_THREADS = 4
"""Threads that open images; decoding releases Python's lock."""


@dataclass(frozen=True)
class Encoded:
    """A batch that is ready for the model, and the rows that could not be encoded."""

    rows: list[Row]
    problems: list[ShownProblem]
    prompts: Any
    """The backend's input: `Prompts` for transformers; None without rows."""
    failed: list[tuple[Row, str]]
    places: list[int] = field(default_factory=list)
    """The index of each of `rows` among the rows that were to be encoded."""


@dataclass(frozen=True)
class Encoder:
    """How rows of `load_rows` become prompts; `processor` is a tokenizer where `has_vision` is false."""

    processor: Any
    mode: Mode
    prompt: str | None = None
    """A name in `prompts.NAMED`; None for the prompt of the mode."""
    has_vision: bool = True
    view: View = field(default_factory=View)
    """How rows are shown where the caller does not say it of each."""
    device: str | None = None
    """Where images are scaled and cut into patches: a GPU, or None for the CPU."""
    by_qwen: bool = False
    """Whether qwen-vl-utils resizes images before the processor does."""

    def __call__(self, rows: Sequence[Row], views: Sequence[View] | None = None) -> Encoded:
        """Open each image once and tokenize; rows with an image that does not open go to `failed` with the reason.

        Args:
            rows: of `load_rows`.
            views: how each row is shown.
        """
        views = [self.view] * len(rows) if views is None else views
        keys = [view.shown_image_keys(row) if self.has_vision else () for row, view in zip(rows, views, strict=True)]
        opened = self._open(rows, views, keys)
        usable, failed, index, places = [], [], {}, []
        for place, (row, view, row_keys) in enumerate(zip(rows, views, keys, strict=True)):
            error = next((opened[key] for key in row_keys if isinstance(opened[key], ImageError)), None)
            if error is not None:
                failed.append((row, f"{error.reason}: {error}"))
            elif self.has_vision and self.processor.image_token in row["problem"]:
                failed.append(
                    (row, f"image-token: the question contains {self.processor.image_token}, which stands for an image")
                )
            else:
                images_of_row = tuple(index.setdefault(key, len(index)) for key in row_keys)
                usable.append((row, view.problem(row), images_of_row))
                places.append(place)
        images = [opened[key] for key in index]
        texts = [self.render(row, problem.problem, len(row_images)) for row, problem, row_images in usable]
        prompts = self._encode(texts, [row_images for _, _, row_images in usable], images) if usable else None
        return Encoded([row for row, _, _ in usable], [problem for _, problem, _ in usable], prompts, failed, places)

    def _open(self, rows: Sequence[Row], views: Sequence[View], keys: Sequence[Sequence[str]]) -> dict[str, Any]:
        """The opened image or the error of every key."""
        place_of: dict[str, tuple[View, Row, int]] = {}
        for row, view, row_keys in zip(rows, views, keys, strict=True):
            for place, key in enumerate(row_keys):
                place_of.setdefault(key, (view, row, place))

        def attempt(shown: tuple[View, Row, int]) -> Image.Image | ImageError:
            view, row, place = shown
            try:
                image = view.open(row, place)
            except ImageError as error:
                return error
            refusal = image_refusal(image.size, self.processor)
            if refusal is not None:
                return ImageError("not-taken", refusal)
            return self._resized(image) if self.by_qwen else image

        with ThreadPoolExecutor(DECODING_THREADS, thread_name_prefix="decode") as pool:
            return dict(zip(place_of, pool.map(attempt, place_of.values()), strict=True))

    def _resized(self, image: Image.Image) -> Image.Image | ImageError:
        if qwen_size(image.size, self.processor.image_processor) is None:
            return ImageError("not-taken", f"qwen-vl-utils leaves nothing of an image of {image.size} pixels")
        return resized_by_qwen(image, self.processor.image_processor)

    def _encode(self, texts: list[str], images_of: list[tuple[int, ...]], images: list[Image.Image]) -> Any:
        """The model's input, unpadded: padding would change the tokenizer, with which the main thread decodes."""
        if not images:
            return Prompts(self.tokenizer(texts, padding=False, add_special_tokens=False)["input_ids"], images_of)
        if not counts_patches(self.processor):
            return self._encode_whole(texts, images_of, images)
        options = {} if self.device is None else {"device": self.device}
        patches = self.processor.image_processor(images=images, return_tensors="pt", **options)
        grids = torch.as_tensor(patches["image_grid_thw"]).cpu()
        counts = (grids.prod(-1) // self.processor.image_processor.merge_size**2).tolist()
        token = self.processor.image_token
        texts = [
            repeat_placeholders(text, token, [counts[image] for image in row_images])
            for text, row_images in zip(texts, images_of, strict=True)
        ]
        tokens = self.tokenizer(texts, padding=False, add_special_tokens=False)["input_ids"]
        pixels = torch.as_tensor(patches["pixel_values"])
        return Prompts(tokens, images_of, self.tokenizer.convert_tokens_to_ids(token), pixels, grids)

    def _encode_whole(self, texts: list[str], images_of: list[tuple[int, ...]], images: list[Image.Image]) -> Prompts:
        """Inputs as the checkpoint's processor makes them of each prompt, where images have no grids."""
        encoded = []
        for text, row_images in zip(texts, images_of, strict=True):
            shown = {"images": [[images[image] for image in row_images]]} if row_images else {}
            encoded.append(self.processor(text=[text], return_tensors="pt", add_special_tokens=False, **shown))
        tokens = [inputs["input_ids"][0].tolist() for inputs in encoded]
        width = max(map(len, tokens))
        processed = {}
        for name in sorted({name for inputs in encoded for name in inputs} - {"input_ids", "attention_mask"}):
            by_prompt = [inputs.get(name) for inputs in encoded]
            if any(v is not None and v.shape == i["input_ids"].shape for v, i in zip(by_prompt, encoded, strict=True)):
                by_prompt = [
                    pad(i["input_ids"] * 0 if v is None else v, (width - i["input_ids"].size(1), 0))
                    for v, i in zip(by_prompt, encoded, strict=True)
                ]
            processed[name] = torch.cat([values for values in by_prompt if values is not None])
        return Prompts(tokens, images_of, processed=processed)

    def content(self, row: Row, view: View | None = None) -> str:
        """A hash of the images and texts that the model sees, 16 hexadecimal digits; see `loading.content_digest`."""
        return (view or self.view).content(row) if self.has_vision else content_digest(row, [])

    def render(self, row: Row, problem: str, images: int) -> str:
        """The prompt of a row in the chat template, with one placeholder for each image.

        Args:
            row: the question; its answer type decides the wording.
            problem: as it is shown.
            images: how many images are shown.
        """
        answer_type = AnswerType(row.get("answer_type", AnswerType.CHOICE))
        messages = build_messages(problem, self.mode, images, self.prompt, answer_type)
        return self.processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)

    @property
    def tokenizer(self) -> Any:
        """The tokenizer within the processor."""
        return self.processor.tokenizer if self.has_vision else self.processor
