"""Images of a batch: opened and processed once each, and encoded once per run if the vision tower is frozen.

The completions of a group share their images, and questions of a batch may share some. A frozen vision tower gives an
image the same features in every step, so these are cached.
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
ImageKeys = Callable[[Row], Sequence[Hashable]]
THREADS = 4
GIB = 2**30


class ImageFeed:
    """Opens and processes the images of rows; in each call every distinct image once.

    Args:
        open_images: returns the RGB images of a row, none for a text-only row. Called in threads.
        keys: returns a key for each image of a row, equal for equal images; None treats all images as different.
        image_processor: of the checkpoint; None for a text model.
        device: where to process; images are resized on a GPU if it is one.
    """

    def __init__(
        self, open_images: OpenImages, keys: ImageKeys | None, image_processor: Any, device: torch.device
    ) -> None:
        self._open, self._keys, self._processor = open_images, keys, image_processor
        self._on_gpu = {"device": device} if device.type == "cuda" else {}
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="images")
        self._encode: Callable[[ProcessedImage], torch.Tensor] | None = None
        self._cached: dict[Hashable, ProcessedImage] = {}
        self._free_bytes = 0
        self._opened_images: dict[Hashable, Image.Image] = {}
        self.processed = 0
        """Number of images that were processed."""

    def cache_features(self, encode: Callable[[ProcessedImage], torch.Tensor], gib: float) -> None:
        """From now on return, and cache, features of a frozen vision tower, (tokens, hidden), instead of patches.

        Args:
            encode: runs the tower on one image.
            gib: host memory for the cache; when it is full, further images are encoded in every step.
        """
        assert self._keys is not None, "a cache of features needs keys"
        self._encode, self._free_bytes = encode, int(gib * GIB)

    @property
    def caches_features(self) -> bool:
        """Whether images are returned as features of a frozen vision tower."""
        return self._encode is not None

    def problems(self, rows: Sequence[Row]) -> dict[int, str]:
        """Rows whose images cannot be opened, as index -> reason. The next calls reuse the images opened here.

        Without keys opened images could not be reused, so nothing is checked.
        """
        if self._keys is None:
            return {}
        self._opened_images = {}
        keys = [tuple(self._keys(row)) for row in rows]
        fresh = {
            row_keys: row for row_keys, row in zip(keys, rows, strict=True) if not self._cached.keys() >= {*row_keys}
        }
        results = dict(zip(fresh, self._pool.map(self._try_to_open, fresh.values()), strict=True))
        for row_keys, result in results.items():
            if not isinstance(result, str):
                self._opened_images.update(zip(row_keys, result, strict=True))
        return {index: reason for index, key in enumerate(keys) if isinstance(reason := results.get(key), str)}

    def _try_to_open(self, row: Row) -> list[Image.Image] | str:
        try:
            return self._open_row(row)
        except UserError as error:
            return str(error)

    def _open_row(self, row: Row) -> list[Image.Image]:
        keys = () if self._keys is None else self._keys(row)
        if keys and all(key in self._opened_images for key in keys):
            return [self._opened_images[key] for key in keys]
        return self._open(row)

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
        if self._keys is None:
            images = list(self._pool.map(self._process, rows))
            self.processed += sum(map(len, images))
            return images
        keys = [tuple(self._keys(row)) for row in rows]
        ready = {key: self._cached[key] for row_keys in keys for key in row_keys if key in self._cached}
        fresh: dict[Hashable, tuple[Row, int]] = {}
        for row, row_keys in zip(rows, keys, strict=True):
            for place, key in enumerate(row_keys):
                if key not in ready:
                    fresh.setdefault(key, (row, place))
        for key, image in zip(fresh, self._fresh(list(fresh.values())), strict=True):
            ready[key] = image if self._encode is None else self._encode_and_cache(key, image)
        self.processed += len(fresh)
        return [[ready[key] for key in row_keys] for row_keys in keys]

    def _fresh(self, places: list[tuple[Row, int]]) -> list[ProcessedImage]:
        """The processed images at places of rows, the images of a row opened at once."""
        by_row: dict[int, tuple[Row, list[int]]] = {}
        for row, place in places:
            by_row.setdefault(id(row), (row, []))[1].append(place)
        images = self._pool.map(self._process, *zip(*by_row.values(), strict=True)) if by_row else ()
        processed = {
            (name, place): image
            for (name, (_, row_places)), row_images in zip(by_row.items(), images, strict=True)
            for place, image in zip(row_places, row_images, strict=True)
        }
        return [processed[id(row), place] for row, place in places]

    def _process(self, row: Row, places: list[int] | None = None) -> list[ProcessedImage]:
        """The processed images of a row, all or those at some places."""
        opened = self._open_row(row)
        opened = opened if places is None else [opened[place] for place in places]
        if not opened:
            return []
        processed = self._processor(images=opened, return_tensors="pt", **self._on_gpu)
        grids = processed["image_grid_thw"].cpu()
        values = processed["pixel_values"].split(grids.prod(dim=-1).tolist())
        return [ProcessedImage(value, grid) for value, grid in zip(values, grids, strict=True)]

    def _encode_and_cache(self, key: Hashable, image: ProcessedImage) -> ProcessedImage:
        assert self._encode is not None
        encoded = ProcessedImage(self._encode(image).cpu(), image.grid)
        size = encoded.values.nbytes
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
