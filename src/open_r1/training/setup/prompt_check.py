"""Check before training which prompts fit the length limit and which images can be opened."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
from datasets import Dataset
from PIL import Image

from open_r1.checkpoints.processors import counts_patches, image_refusal
from open_r1.common.errors import UserError
from open_r1.data.loading import data_fingerprint, digest_of, image_digest
from open_r1.data.row_images import Undecoded, image_keys, open_undecoded
from open_r1.modeling.agreement import in_all_processes, share_of_this_process
from open_r1.vocabulary.modes import Mode
from open_r1.vocabulary.prompts import row_messages

BATCH = 256
Size = tuple[int, int] | str  # (width, height) in pixels, or the reason why the image cannot be used


@dataclass(frozen=True)
class PromptCheck:
    """Result of checking every row."""

    usable: list[int]
    """Indices of the rows to train on."""
    too_long: list[tuple[str, int]]
    """(id, tokens) of the prompts over the limit."""
    unreadable: list[tuple[str, str]]
    """(id, reason) of the rows with an image that cannot be opened or is refused by the image processor."""
    lengths: list[int]
    """Tokens of each usable prompt, including those of its images."""
    most_images: int = 0
    """Images of the usable row with the most."""
    content: str = ""
    """SHA-256 over ids, texts and images of the usable rows."""

    @property
    def longest(self) -> int:
        """Tokens of the longest usable prompt."""
        return max(self.lengths, default=0)


def check_prompts(
    dataset: Dataset, processor: Any, mode: Mode, limit: int, device: torch.device | str = "cpu"
) -> PromptCheck:
    """Open every image and count the tokens of every prompt; each process of a run checks its share for all.

    Args:
        dataset: rows of `load_rows`, the same in every process.
        processor: the checkpoint's processor; its chat template and image size rules decide the count.
        limit: longest prompt in tokens.
        device: of the numbers that processes exchange.

    Returns:
        The result for all rows, in every process.

    Raises:
        UserError: rows have images and the model takes none.
    """
    share = share_of_this_process(len(dataset))
    shares = in_all_processes(lambda: _check_share(dataset, share, processor, mode, limit), device)
    return PromptCheck(
        usable=[index for part in shares for index in part.usable],
        too_long=[prompt for part in shares for prompt in part.too_long],
        unreadable=[row for part in shares for row in part.unreadable],
        lengths=[length for part in shares for length in part.lengths],
        most_images=max(part.most_images for part in shares),
        content=data_fingerprint(line for part in shares for line in part.contents),
    )


@dataclass
class _Share:
    """What is known of the rows that one process checks; the fields are those of `PromptCheck`."""

    usable: list[int] = field(default_factory=list)
    too_long: list[tuple[str, int]] = field(default_factory=list)
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    contents: list[str] = field(default_factory=list)
    """A line for each usable row: its id and a digest of its texts and images."""
    most_images: int = 0


def _check_share(dataset: Dataset, share: range, processor: Any, mode: Mode, limit: int) -> _Share:
    checked = _Share()
    opened: dict[str, tuple[Size, str]] = {}  # an image has up to five questions
    with ThreadPoolExecutor(8) as pool:
        for start, rows in _batches(dataset, share):
            keys = [image_keys(row) for row in rows]
            fresh = {
                key: (image, row["id"])
                for row, row_keys in zip(rows, keys, strict=True)
                for key, image in zip(row_keys, row["images"], strict=True)
                if key not in opened
            }
            checks = pool.map(lambda item: _size_and_digest(item[0], item[1], processor), fresh.values())
            opened.update(zip(fresh, checks, strict=True))
            sizes = [[opened[key][0] for key in row_keys] for row_keys in keys]
            lengths = _prompt_lengths(rows, sizes, processor, mode)
            for offset, (row, row_keys, row_sizes, length) in enumerate(zip(rows, keys, sizes, lengths, strict=True)):
                refusal = next((size for size in row_sizes if isinstance(size, str)), None)
                if refusal is not None:
                    checked.unreadable.append((row["id"], refusal))
                elif length > limit:
                    checked.too_long.append((row["id"], length))
                else:
                    checked.usable.append(start + offset)
                    checked.lengths.append(length)
                    checked.most_images = max(checked.most_images, len(row_keys))
                    checked.contents.append(f"{row['id']} {digest_of(row, [opened[key][1] for key in row_keys])}")
    return checked


def _batches(dataset: Dataset, share: range) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    for batch in (share[start : start + BATCH] for start in range(0, len(share), BATCH)):
        yield batch.start, list(dataset.select(batch))  # type: ignore[arg-type]


def _size_and_digest(image: Undecoded, name: str, processor: Any) -> tuple[Size, str]:
    """Size of an image of the row `name`, or why it cannot be used; and the hash of its bytes."""
    try:
        size = open_undecoded(image, name).size
    except UserError as error:
        return str(error), ""
    return image_refusal(size, processor) or size, image_digest(image)


def prompts_of(batch: Mapping[str, list[Any]], mode: Mode) -> list[list[dict[str, Any]]]:
    """The messages of the rows of a batch of columns."""
    rows = zip(batch["problem"], batch["images"], batch["answer_type"], strict=True)
    names = ("problem", "images", "answer_type")
    return [row_messages(dict(zip(names, row, strict=True)), mode) for row in rows]


def _prompt_lengths(
    rows: list[dict[str, Any]], sizes: Sequence[Sequence[Size]], processor: Any, mode: Mode
) -> list[int]:
    tokenizer = getattr(processor, "tokenizer", processor)
    texts = [
        processor.apply_chat_template(row_messages(row, mode), tokenize=False, add_generation_prompt=True)
        for row in rows
    ]
    lengths = [len(ids) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]
    # The template has one placeholder per image, which the processor replaces by the tokens of the image.
    return [
        length + sum(image_tokens(size, processor) - 1 for size in row_sizes if not isinstance(size, str))
        for length, row_sizes in zip(lengths, sizes, strict=True)
    ]


def image_tokens(size: tuple[int, int], processor: Any) -> int:
    """Tokens of an image of (width, height) pixels: patches after resizing, divided by merge_size squared.

    Raises:
        UserError: if the model takes no images.
    """
    image_processor = getattr(processor, "image_processor", None)
    if image_processor is None:
        raise UserError("the data set has images and this model takes none; use a vision-language checkpoint")
    width, height = size
    if not counts_patches(processor):
        return _written_tokens(processor, width, height)
    return image_processor.get_number_of_image_patches(height, width, images_kwargs={}) // image_processor.merge_size**2


@lru_cache(maxsize=1024)
def _written_tokens(processor: Any, width: int, height: int) -> int:
    """Tokens that a processor writes for an image, with those around it."""
    image = Image.new("RGB", (width, height))
    written = processor(text=[processor.image_token], images=[[image]], add_special_tokens=False)
    return len(written["input_ids"][0])
