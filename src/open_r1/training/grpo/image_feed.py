"""Images of a batch: opened and processed once each, and encoded once per run if the vision tower is frozen.

The completions of a group share their images, and questions of a batch may. A frozen vision tower gives an image the
same features in every step, so these are cached.
"""

from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from PIL import Image

from open_r1.common.errors import UserError
from open_r1.modeling.image_tokens import ProcessedImage
from open_r1.modeling.prompt_batch import inner_model

Row = dict[str, Any]
OpenImages = Callable[[Row], list[Image.Image]]
ImageKey = Callable[[Row], Hashable]
THREADS = 4
GIB = 2**30


class ImageFeed:
    """Opens and processes the images of rows; in each call every distinct image once.

    Args:
        open_images: returns the RGB images of a row, none for a text-only row. Called in threads.
        key: equal for rows with equal images; None treats the images of all rows as different.
        image_processor: of the checkpoint; None for a text model.
        device: where to process; images are resized on a GPU if it is one.
    """

    def __init__(
        self, open_images: OpenImages, key: ImageKey | None, image_processor: Any, device: torch.device
    ) -> None:
        self._open, self._key, self._processor = open_images, key, image_processor
        self._on_gpu = {"device": device} if device.type == "cuda" else {}
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="images")
        self._encode: Callable[[ProcessedImage], torch.Tensor] | None = None
        self._cached: dict[Hashable, list[ProcessedImage]] = {}
        self._free_bytes = 0
        self._opened_images: dict[Hashable, list[Image.Image]] = {}
        self.opened = 0
        """Number of rows whose images were opened."""

    def cache_features(self, encode: Callable[[ProcessedImage], torch.Tensor], gib: float) -> None:
        """From now on return, and cache, features of a frozen vision tower, (tokens, hidden), instead of patches.

        Args:
            encode: runs the tower on one image.
            gib: host memory for the cache; when it is full, further images are encoded in every step.
        """
        assert self._key is not None, "a cache of features needs a key"
        self._encode, self._free_bytes = encode, int(gib * GIB)

    @property
    def caches_features(self) -> bool:
        """Whether images are returned as features of a frozen vision tower."""
        return self._encode is not None

    def problems(self, rows: Sequence[Row]) -> dict[int, str]:
        """Rows whose images cannot be opened, as index -> reason. The next calls reuse the images opened here.

        Without a key opened images could not be reused, so nothing is checked.
        """
        if self._key is None:
            return {}
        self._opened_images = {}
        keys = [self._key(row) for row in rows]
        fresh = {key: row for key, row in zip(keys, rows, strict=True) if key not in self._cached}
        results = dict(zip(fresh, self._pool.map(self._try_to_open, fresh.values()), strict=True))
        self._opened_images = {key: result for key, result in results.items() if not isinstance(result, str)}
        return {index: reason for index, key in enumerate(keys) if isinstance(reason := results.get(key), str)}

    def _try_to_open(self, row: Row) -> list[Image.Image] | str:
        try:
            return self._open_row(row)
        except UserError as error:
            return str(error)

    def _open_row(self, row: Row) -> list[Image.Image]:
        opened = None if self._key is None else self._opened_images.get(self._key(row))
        return self._open(row) if opened is None else opened

    def images(self, rows: Sequence[Row]) -> list[list[Image.Image]]:
        """The images of each row, opened but not processed."""
        return list(self._pool.map(self._open_row, rows))

    def add_to(self, rows: list[Row], group: int) -> list[Row]:
        """Rows of whole groups, each with its prompt's decoded images, as stock TRL needs them."""
        images = self.images(rows[::group])
        text_rows = without_images(rows)
        if not any(images):
            return text_rows
        return [{**row, "images": images[i // group]} for i, row in enumerate(text_rows)]

    def __call__(self, rows: Sequence[Row]) -> list[list[ProcessedImage]]:
        """The processed images of each row."""
        keys = [index if self._key is None else self._key(row) for index, row in enumerate(rows)]
        processed: dict[Hashable, list[ProcessedImage]] = {
            key: self._cached[key] for key in keys if key in self._cached
        }
        fresh = {key: row for key, row in zip(keys, rows, strict=True) if key not in processed}
        for key, images in zip(fresh, self._pool.map(self._process, fresh.values()), strict=True):
            processed[key] = images if self._encode is None else self._encode_and_cache(key, images)
        self.opened += len(fresh)
        return [processed[key] for key in keys]

    def _process(self, row: Row) -> list[ProcessedImage]:
        opened = self._open_row(row)
        if not opened:
            return []
        processed = self._processor(images=opened, return_tensors="pt", **self._on_gpu)
        grids = processed["image_grid_thw"].cpu()
        values = processed["pixel_values"].split(grids.prod(dim=-1).tolist())
        return [ProcessedImage(value, grid) for value, grid in zip(values, grids, strict=True)]

    def _encode_and_cache(self, key: Hashable, images: list[ProcessedImage]) -> list[ProcessedImage]:
        assert self._encode is not None
        encoded = [ProcessedImage(self._encode(image).cpu(), image.grid) for image in images]
        size = sum(image.values.nbytes for image in encoded)
        if size <= self._free_bytes:
            self._free_bytes -= size
            self._cached[key] = encoded
        elif self._free_bytes > 0:
            count = len(self._cached)
            print(f"the cache of vision features is full with {count} images; --vision_cache_gib sets its size")
            self._free_bytes = 0
        return encoded


@torch.no_grad()
def encode_image(accelerator: Any, model: Any, image: ProcessedImage) -> torch.Tensor:
    """Features of one image, (tokens, hidden), from a model's frozen vision tower."""
    inner = inner_model(accelerator.unwrap_model(model))
    with accelerator.autocast():
        outputs = inner.get_image_features(image.values.to(accelerator.device), image.grid[None])
    return outputs.pooler_output[0]


def without_images(rows: list[Row]) -> list[Row]:
    """The rows without their images, as text rows of TRL."""
    return [{key: value for key, value in row.items() if key not in ("image", "images")} for row in rows]
