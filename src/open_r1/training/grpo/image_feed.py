"""Images on their way to the model: opened and processed once per question, encoded once per run if nothing trains.

A group of completions shares its images, several questions of a batch may, and a vision tower that is frozen gives
an image the same features in every step: each is worked out once and kept where it will be asked for again.
"""

from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from PIL import Image

from open_r1.common.errors import UserError
from open_r1.modeling.image_tokens import OpenedImage
from open_r1.modeling.prompt_batch import inner_model

Row = dict[str, Any]
OpenImages = Callable[[Row], list[Image.Image]]
ImageKey = Callable[[Row], Hashable]
THREADS = 4
GIB = 2**30


class ImageFeed:
    """The images of rows, processed; each distinct one of a call once.

    Args:
        open_images: the RGB images of a row, none for a text-only row. Called in threads.
        key: what tells the images of rows apart; None takes every row's as its own.
        image_processor: the checkpoint's; None for a text model.
        device: where to process; resizing runs on a GPU where this names one.
    """

    def __init__(
        self, open_images: OpenImages, key: ImageKey | None, image_processor: Any, device: torch.device
    ) -> None:
        self._open, self._key, self._processor = open_images, key, image_processor
        self._on_gpu = {"device": device} if device.type == "cuda" else {}
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="pictures")
        self._encode: Callable[[OpenedImage], torch.Tensor] | None = None
        self._kept: dict[Hashable, list[OpenedImage]] = {}
        self._room = 0
        self._at_hand: dict[Hashable, list[Image.Image]] = {}
        self.opened = 0
        """Rows whose images were opened so far."""

    def keep_features(self, encode: Callable[[OpenedImage], torch.Tensor], gib: float) -> None:
        """From now on hand out what a frozen vision tower makes of an image, (tokens, hidden), and keep it.

        Args:
            encode: the tower, for one image.
            gib: memory of the host that features may fill; when it is full, further images are encoded every time.
        """
        assert self._key is not None, "features cannot be kept without a key to find them by"
        self._encode, self._room = encode, int(gib * GIB)

    @property
    def keeps_features(self) -> bool:
        """Whether images come as the features of a frozen tower."""
        return self._encode is not None

    def problems(self, rows: Sequence[Row]) -> dict[int, str]:
        """Why the images of rows do not open: place -> reason. Those that do are at hand for the calls that follow.

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
        """The opened images of each row, as they are."""
        return list(self._pool.map(self._opened, rows))

    def __call__(self, rows: Sequence[Row]) -> list[list[OpenedImage]]:
        """The processed images of each row."""
        keys = [index if self._key is None else self._key(row) for index, row in enumerate(rows)]
        found: dict[Hashable, list[OpenedImage]] = {key: self._kept[key] for key in keys if key in self._kept}
        fresh = {key: row for key, row in zip(keys, rows, strict=True) if key not in found}
        for key, images in zip(fresh, self._pool.map(self._process, fresh.values()), strict=True):
            found[key] = images if self._encode is None else self._encoded(key, images)
        self.opened += len(fresh)
        return [found[key] for key in keys]

    def _process(self, row: Row) -> list[OpenedImage]:
        opened = self._opened(row)
        if not opened:
            return []
        made = self._processor(images=opened, return_tensors="pt", **self._on_gpu)
        grids = made["image_grid_thw"].cpu()
        values = made["pixel_values"].split(grids.prod(dim=-1).tolist())
        return [OpenedImage(value, grid) for value, grid in zip(values, grids, strict=True)]

    def _encoded(self, key: Hashable, images: list[OpenedImage]) -> list[OpenedImage]:
        assert self._encode is not None
        encoded = [OpenedImage(self._encode(image).cpu(), image.grid) for image in images]
        size = sum(image.values.nbytes for image in encoded)
        if size <= self._room:
            self._room -= size
            self._kept[key] = encoded
        elif self._room > 0:
            print(f"kept features fill their memory at {len(self._kept)} images; --vision_cache_gib sets how much")
            self._room = 0
        return encoded


@torch.no_grad()
def encode_image(accelerator: Any, model: Any, image: OpenedImage) -> torch.Tensor:
    """What a model's frozen vision tower makes of one image, (tokens, hidden)."""
    inner = inner_model(accelerator.unwrap_model(model))
    with accelerator.autocast():
        outputs = inner.get_image_features(image.values.to(accelerator.device), image.grid[None].to(accelerator.device))
    return outputs.pooler_output[0]


def without_images(rows: list[Row]) -> list[Row]:
    """The rows without their images, as TRL takes text."""
    return [{key: value for key, value in row.items() if key not in ("image", "images")} for row in rows]
