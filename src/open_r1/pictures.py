"""Pictures on their way to the model: opened and processed once per question, encoded once per run if nothing trains.

A group of completions shares its pictures, several questions of a batch may, and a vision tower that is frozen gives
a picture the same features in every step: each is worked out once and kept where it will be asked for again.
"""

import types
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from transformers.modeling_outputs import BaseModelOutputWithPooling

from open_r1.errors import UserError
from open_r1.rollout import PromptBatch, inner_model

Row = dict[str, Any]
OpenPictures = Callable[[Row], list[Image.Image]]
PictureKey = Callable[[Row], Hashable]
THREADS = 4
GIB = 2**30


@dataclass(frozen=True)
class Picture:
    """One picture as the model takes it."""

    values: torch.Tensor
    """(patches, patch features), or (tokens, hidden) as a frozen vision tower has encoded it."""
    grid: torch.Tensor
    """(3,) patches in time, height and width."""


class PictureFeed:
    """The pictures of rows, processed; each distinct one of a call once.

    Args:
        open_pictures: the RGB pictures of a row, none for a text-only row. Called in threads.
        key: what tells the pictures of rows apart; None takes every row's as its own.
        image_processor: the checkpoint's; None for a text model.
        device: where to process; resizing runs on a GPU where this names one.
    """

    def __init__(
        self, open_pictures: OpenPictures, key: PictureKey | None, image_processor: Any, device: torch.device
    ) -> None:
        self._open, self._key, self._processor = open_pictures, key, image_processor
        self._on_gpu = {"device": device} if device.type == "cuda" else {}
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="pictures")
        self._encode: Callable[[Picture], torch.Tensor] | None = None
        self._kept: dict[Hashable, list[Picture]] = {}
        self._room = 0
        self._at_hand: dict[Hashable, list[Image.Image]] = {}
        self.opened = 0
        """Rows whose pictures were opened so far."""

    def keep_features(self, encode: Callable[[Picture], torch.Tensor], gib: float) -> None:
        """From now on hand out what a frozen vision tower makes of a picture, (tokens, hidden), and keep it.

        Args:
            encode: the tower, for one picture.
            gib: memory of the host that features may fill; when it is full, further pictures are encoded every time.
        """
        assert self._key is not None, "features cannot be kept without a key to find them by"
        self._encode, self._room = encode, int(gib * GIB)

    @property
    def keeps_features(self) -> bool:
        """Whether pictures come as the features of a frozen tower."""
        return self._encode is not None

    def problems(self, rows: Sequence[Row]) -> dict[int, str]:
        """Why the pictures of rows do not open: place -> reason. Those that do are at hand for the calls that follow.

        Without a key rows cannot be told apart again, and nothing is looked at.
        """
        if self._key is None:
            return {}
        self._at_hand = {}
        keys = [self._key(row) for row in rows]
        fresh = {key: row for key, row in zip(keys, rows, strict=True) if key not in self._kept}
        found = dict(zip(fresh, self._pool.map(self._attempt, fresh.values()), strict=True))
        self._at_hand = {key: opened for key, opened in found.items() if not isinstance(opened, str)}
        return {place: why for place, key in enumerate(keys) if isinstance(why := found.get(key), str)}

    def _attempt(self, row: Row) -> list[Image.Image] | str:
        try:
            return self._opened(row)
        except UserError as error:
            return str(error)

    def _opened(self, row: Row) -> list[Image.Image]:
        at_hand = None if self._key is None else self._at_hand.get(self._key(row))
        return self._open(row) if at_hand is None else at_hand

    def images(self, rows: Sequence[Row]) -> list[list[Image.Image]]:
        """The opened pictures of each row, as they are."""
        return list(self._pool.map(self._opened, rows))

    def __call__(self, rows: Sequence[Row]) -> list[list[Picture]]:
        """The processed pictures of each row."""
        keys = [index if self._key is None else self._key(row) for index, row in enumerate(rows)]
        found: dict[Hashable, list[Picture]] = {key: self._kept[key] for key in keys if key in self._kept}
        fresh = {key: row for key, row in zip(keys, rows, strict=True) if key not in found}
        for key, pictures in zip(fresh, self._pool.map(self._process, fresh.values()), strict=True):
            found[key] = pictures if self._encode is None else self._encoded(key, pictures)
        self.opened += len(fresh)
        return [found[key] for key in keys]

    def _process(self, row: Row) -> list[Picture]:
        pictures = self._opened(row)
        if not pictures:
            return []
        made = self._processor(images=pictures, return_tensors="pt", **self._on_gpu)
        grids = made["image_grid_thw"].cpu()
        values = made["pixel_values"].split(grids.prod(dim=-1).tolist())
        return [Picture(value, grid) for value, grid in zip(values, grids, strict=True)]

    def _encoded(self, key: Hashable, pictures: list[Picture]) -> list[Picture]:
        assert self._encode is not None
        encoded = [Picture(self._encode(picture).cpu(), picture.grid) for picture in pictures]
        size = sum(picture.values.nbytes for picture in encoded)
        if size <= self._room:
            self._room -= size
            self._kept[key] = encoded
        elif self._room > 0:
            print(f"kept features fill their memory at {len(self._kept)} pictures; --vision_cache_gib sets how much")
            self._room = 0
        return encoded


@torch.no_grad()
def encode_picture(accelerator: Any, model: Any, picture: Picture) -> torch.Tensor:
    """What a model's frozen vision tower makes of one picture, (tokens, hidden)."""
    inner = inner_model(accelerator.unwrap_model(model))
    with accelerator.autocast():
        outputs = inner.get_image_features(
            picture.values.to(accelerator.device), picture.grid[None].to(accelerator.device)
        )
    return outputs.pooler_output[0]


def encode_prompts(
    texts: Sequence[str], pictures: Sequence[Sequence[Picture]], processor: Any, device: torch.device
) -> PromptBatch:
    """Tokenize prompts around pictures that are already processed; the same tokens as the processor's own call.

    Args:
        texts: prompts as the chat template writes them, with one placeholder per picture.
        pictures: those of each prompt, in the order of the placeholders.
        processor: the checkpoint's processor, or the tokenizer of a text model.
        device: where the tensors go.
    """
    tokenizer = getattr(processor, "tokenizer", processor)
    shown = [picture for each in pictures for picture in each]
    if shown:
        merged = processor.image_processor.merge_size**2
        placeholder = processor.image_token
        texts = [
            spell_out(text, placeholder, [int(picture.grid.prod()) // merged for picture in each])
            for text, each in zip(texts, pictures, strict=True)
        ]
    encoded = tokenizer(list(texts), padding=True, padding_side="left", return_tensors="pt").to(device)
    vision = {}
    if shown:
        vision = {
            "pixel_values": torch.cat([picture.values.to(device) for picture in shown]),
            "image_grid_thw": torch.stack([picture.grid for picture in shown]).to(device),
            "mm_token_type_ids": (encoded["input_ids"] == processor.image_token_id).to(encoded["input_ids"].dtype),
        }
    return PromptBatch(encoded["input_ids"], encoded["attention_mask"], [len(each) for each in pictures], vision)


def spell_out(text: str, placeholder: str, counts: list[int]) -> str:
    """`text` with its placeholders repeated, the n-th `counts[n]` times: once per token that a picture takes."""
    pieces = text.split(placeholder)
    assert len(pieces) == len(counts) + 1, f"{len(pieces) - 1} placeholders for {len(counts)} pictures"
    return pieces[0] + "".join(placeholder * count + piece for count, piece in zip(counts, pieces[1:], strict=True))


def take_features(tower: Any) -> None:
    """Let a vision tower pass on what it has made itself: given features (tokens, hidden), it returns them."""
    forward = tower.forward
    hidden = tower.config.out_hidden_size if hasattr(tower.config, "out_hidden_size") else tower.config.hidden_size
    patch = tower.config.in_channels * tower.config.temporal_patch_size * tower.config.patch_size**2
    assert hidden != patch, "features and patches of one width cannot be told apart"

    def features_or_forward(_self: Any, values: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        if values.size(-1) == hidden:
            return BaseModelOutputWithPooling(pooler_output=values)  # type: ignore[arg-type]
        return forward(values, *args, **kwargs)

    tower.forward = types.MethodType(features_or_forward, tower)
