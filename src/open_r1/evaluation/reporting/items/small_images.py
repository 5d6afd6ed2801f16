"""The small images in the page: as large as the room for them allows."""

import base64
import io
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from PIL import Image

from open_r1.common.errors import UnusableInput, UserError
from open_r1.evaluation.comparing.scored_runs import Scored
from open_r1.vocabulary.column_names import parse_columns

SIDES = (384, 320, 256, 192, 160)
"""Sides in pixels that a small image may have at most, the best first: the largest at which all images have room."""
QUALITY = 75  # of the JPEG
_SAMPLES = 12  # images by which the size of all is estimated


def small_images(
    scored: Sequence[Scored], question_ids: Mapping[str, str], image_root: Path | None, limit: int
) -> tuple[dict[str, int], list[str], list[str]]:
    """Small images until `limit` bytes are reached.

    Args:
        scored: the runs, whose manifests name the data sets.
        question_ids: by key of an image, the id of a question that shows it; the first ones are the most important.
        image_root: folder of the images, for data that is a JSON list.
        limit: bytes for all images, as base64.

    Returns:
        The index of each image by its key, the images as base64 of JPEGs, and notes for the reader.
    """
    places: dict[str, int] = {}
    encoded: list[str] = []
    rows = _Rows(scored, image_root)
    if not rows.has_sets:
        return places, encoded, rows.problems
    side = _best_side(rows, question_ids, limit)
    bytes_left, left_out = limit, Counter()
    for key, name in question_ids.items():
        try:
            images = rows.images(name)
        except UnusableInput:
            left_out["cannot be opened"] += 1
            continue
        if not images:
            left_out["not in the data set"] += 1
            continue
        jpeg = small_image(images, side)
        if len(jpeg) > bytes_left:
            unvisited = len(question_ids) - len(places) - left_out.total()
            left_out[f"left out: more would take over {limit / 2**20:g} MiB"] = unvisited
            break
        bytes_left -= len(jpeg)
        places[key] = len(encoded)
        encoded.append(jpeg)
    notes = rows.problems
    if left_out:
        why = "; ".join(f"{count:,} {reason}" for reason, count in left_out.items())
        notes.append(
            f"{len(places):,} of {len(question_ids):,} images are in this page, disagreements and errors first ({why})."
        )
    return places, encoded, notes


def small_image(images: Sequence[Image.Image], side: int) -> str:
    """Images side by side as base64 of a JPEG; each fits into side x side pixels."""
    thumbnails = [image.copy() for image in images]
    for image in thumbnails:
        image.thumbnail((side, side))
    size = sum(image.width for image in thumbnails), max(image.height for image in thumbnails)
    strip = Image.new("RGB", size, "white")
    left = 0
    for image in thumbnails:
        strip.paste(image, (left, 0))
        left += image.width
    stream = io.BytesIO()
    strip.save(stream, "JPEG", quality=QUALITY)
    return base64.b64encode(stream.getvalue()).decode("ascii")


def _best_side(rows: "_Rows", question_ids: Mapping[str, str], limit: int) -> int:
    """The largest side at which all images are estimated to have room; else the smallest."""
    samples = list(islice(_opened(rows, question_ids.values()), _SAMPLES))
    for side in SIDES:
        sizes = [len(small_image(images, side)) for images in samples]
        if sum(sizes) * len(question_ids) <= limit * len(samples):
            return side
    return SIDES[-1]


def _opened(rows: "_Rows", names: Iterable[str]) -> Iterator[list[Image.Image]]:
    for name in names:
        try:
            images = rows.images(name)
        except UnusableInput:
            continue
        if images:
            yield images


_DATA_KEYS = ("data", "split", "image_root", "columns")


class _Rows:
    """Finds the row of a question in the data sets that the result files name; missing sets are in `problems`."""

    def __init__(self, scored: Sequence[Scored], image_root: Path | None):
        self.problems: list[str] = []
        self._sets: list[tuple[Any, dict[str, int]]] = []
        manifests = [file.manifest for scored_run in scored for file in scored_run.files]
        for data, split, root, names in _unique([tuple(map(manifest.get, _DATA_KEYS)) for manifest in manifests]):
            self._open(data, split, image_root or root, names)

    @property
    def has_sets(self) -> bool:
        """Whether any data set could be opened."""
        return bool(self._sets)

    def _open(self, data: Any, split: Any, root: Any, names: Any) -> None:
        if not isinstance(data, str):
            self.problems.append("Images are not shown: the result file does not say which data set it is about.")
            return
        if not os.path.exists(data):  # unlike Path.exists it does not raise for an impossible name
            self.problems.append(f"Images are not shown: the data set {data} is not on this machine.")
            return
        from open_r1.data.loading import load_rows

        try:
            rows, _ = load_rows(data, split, root, parse_columns(names))
        except UserError as error:
            self.problems.append(f"The images of {data} are not shown: {error}")
            return
        self._sets.append((rows, {name: place for place, name in enumerate(rows["id"])}))

    def images(self, question_id: str) -> list[Image.Image] | None:
        """The images of the question with this id; None if no set has it.

        Raises:
            ImageError: an image cannot be opened.
        """
        from open_r1.data.row_images import row_images

        for rows, places in self._sets:
            if question_id in places:
                return row_images(rows[places[question_id]])
        return None


def _unique(values: Iterable[Any]) -> list[Any]:
    return list(dict.fromkeys(values))
