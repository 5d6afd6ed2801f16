"""Check before training which prompts fit the length limit and which images can be opened."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from datasets import Dataset

from open_r1.checkpoints.processors import image_refusal
from open_r1.common.errors import UserError
from open_r1.data.loading import data_fingerprint, image_digest
from open_r1.data.row_images import image_key, opened_row_images
from open_r1.data.rows import row_id
from open_r1.vocabulary.modes import Mode
from open_r1.vocabulary.prompts import build_messages

BATCH = 256
Size = tuple[int, int] | str | None  # (width, height) in pixels, the reason why the image cannot be used, or no image


@dataclass(frozen=True)
class PromptCheck:
    """Result of checking every row."""

    usable: list[int]
    """Indices of the rows to train on."""
    too_long: list[tuple[str, int]]
    """(id, tokens) of the prompts over the limit."""
    unreadable: list[tuple[str, str]]
    """(id, reason) of the rows whose image cannot be opened or is refused by the image processor."""
    lengths: list[int]
    """Tokens of each usable prompt, including the image's."""
    content: str = ""
    """SHA-256 over ids, texts and images of the usable rows."""

    @property
    def longest(self) -> int:
        """Tokens of the longest usable prompt."""
        return max(self.lengths, default=0)


def check_prompts(dataset: Dataset, processor: Any, mode: Mode, limit: int) -> PromptCheck:
    """Open every image and count the tokens of every prompt.

    Args:
        dataset: rows with `id`, `problem` and an undecoded `image`.
        processor: the checkpoint's processor; its chat template and image size rules decide the count.
        limit: longest prompt in tokens.
    """
    usable: list[int] = []
    too_long: list[tuple[str, int]] = []
    unreadable: list[tuple[str, str]] = []
    opened: dict[str, tuple[Size, str]] = {}  # an image has up to five questions
    usable_lengths: list[int] = []
    contents: list[str] = []
    with ThreadPoolExecutor(8) as pool:
        for start, rows in _batches(dataset):
            keys = [image_key(row) for row in rows]
            fresh = {key: row for key, row in zip(keys, rows, strict=True) if key not in opened}
            checks = pool.map(lambda row: _size_and_digest(row, processor), fresh.values())
            opened.update(zip(fresh, checks, strict=True))
            sizes = [opened[key][0] for key in keys]
            lengths = _prompt_lengths(rows, sizes, processor, mode)
            for offset, (row, key, size, length) in enumerate(zip(rows, keys, sizes, lengths, strict=True)):
                if isinstance(size, str):
                    unreadable.append((row["id"], size))
                elif length > limit:
                    too_long.append((row["id"], length))
                else:
                    usable.append(start + offset)
                    usable_lengths.append(length)
                    contents.append(f"{row['id']} {row_id(opened[key][1], row['problem'], row['solution'])}")
    return PromptCheck(usable, too_long, unreadable, usable_lengths, data_fingerprint(contents))


def _batches(dataset: Dataset) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    for start in range(0, len(dataset), BATCH):
        yield start, list(dataset.select(range(start, min(start + BATCH, len(dataset)))))  # type: ignore[arg-type]


def _size_and_digest(row: dict[str, Any], processor: Any) -> tuple[Size, str]:
    """Size of a row's image, or why it cannot be used; and the hash of its bytes."""
    try:
        images = opened_row_images(row)
    except UserError as error:
        return str(error), ""
    if not images:
        return None, ""
    return image_refusal(images[0].size, processor) or images[0].size, image_digest(row["image"])


def _prompt_lengths(rows: list[dict[str, Any]], sizes: list[Size], processor: Any, mode: Mode) -> list[int]:
    tokenizer = getattr(processor, "tokenizer", processor)
    texts = [
        processor.apply_chat_template(
            build_messages(row["problem"], mode, has_image=isinstance(size, tuple)),
            tokenize=False,
            add_generation_prompt=True,
        )
        for row, size in zip(rows, sizes, strict=True)
    ]
    lengths = [len(ids) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]
    # The template has one placeholder per image, which the processor replaces by the tokens of the image.
    return [
        length + (image_tokens(size, processor) - 1 if isinstance(size, tuple) else 0)
        for length, size in zip(lengths, sizes, strict=True)
    ]


def image_tokens(size: tuple[int, int], processor: Any) -> int:
    """Tokens of an image of (width, height) pixels: patches after resizing, divided by merge_size squared.

    Raises:
        UserError: if the model takes no images.
    """
    image_processor = getattr(processor, "image_processor", None)
    if image_processor is None:
        raise UserError("the data set has images and this model takes none; use a Qwen-VL checkpoint")
    width, height = size
    return image_processor.get_number_of_image_patches(height, width, images_kwargs={}) // image_processor.merge_size**2
