"""Hashes of images that survive re-encoding, resizing, flips, small crops, contrast, brightness and gamma.

An image is seen as 64 x 64 grey values. Three codes are kept of it, signs of a discrete cosine transform (DCT):

- coarse: the 63 lowest frequencies of the grey values of its middle, the inner 0.8 of each side;
- middle and whole: 255 frequencies of its details, of the middle and of the whole. Details are the grey values with the
  local mean taken off, over the local spread. What all images of a modality share, bright organs on a dark ground, then
  counts no more than the texture within, which tells them apart.

Flips only change signs of a DCT, so no code is kept of them. If an image is another one with up to `MAX_CUT` of each
side cut off, its code belongs to a box within the other, and the other's middle to a box within it; the side whose
images are there tries all boxes (`Boxes`).
"""

from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

SIDE = 64  # grey values of each side
COARSE_FREQUENCIES, FREQUENCIES = 8, 16  # of each axis
MAX_CUT = 0.1  # share of a side that a crop may cut off, of both ends together
MIDDLE = (MAX_CUT, 1 - MAX_CUT)
VERSION = 1
"""Of everything in this module that decides a hash."""

FINE_STEP, ROUGH_STEP = 2, 4  # between the cuts that are tried, in hundredths of the side
_WINDOW, _FLOOR = 3.0, 2.0  # of the local mean and spread: grey values, grey levels
_BLANK = 2.0  # grey levels of spread below which an image shows nothing
_FLIPS = ((0, 0), (0, 1), (1, 0), (1, 1))  # upside down, left to right
_COARSE_CLIP, _CLIP = 1.5, 1.0  # of the mean magnitude: no single frequency decides

Grey = NDArray[np.uint8]  # (64, 64)
Floats = NDArray[np.float32]
Cut = tuple[float, float]  # what is cut off at both ends, in hundredths of the side
Cuts = tuple[Cut, ...]


@dataclass(frozen=True)
class ImageHash:
    """The codes of one image, bits packed into bytes."""

    coarse: bytes  # 8
    middle: bytes  # 32
    whole: bytes  # 32

    def packed(self) -> bytes:
        """All codes: `HASH_BYTES` bytes."""
        return self.coarse + self.middle + self.whole


COARSE_BITS, DETAIL_BITS = COARSE_FREQUENCIES**2 - 1, FREQUENCIES**2 - 1
COARSE_BYTES, DETAIL_BYTES = -(-COARSE_BITS // 8), -(-DETAIL_BITS // 8)
HASH_BYTES = COARSE_BYTES + 2 * DETAIL_BYTES


def grey_of(image: Image.Image) -> Grey:
    """An RGB image as SIDE x SIDE grey values."""
    plain = image.convert("L")
    return np.asarray(plain if plain.size == (SIDE, SIDE) else plain.resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def is_blank(grey: Grey) -> bool:
    """Whether there is nothing in the image that a hash could tell apart, as in one that is black."""
    return float(grey.std()) < _BLANK


def hash_of(grey: Grey) -> ImageHash:
    """The codes of an image."""
    details = _details(grey)
    coarse, middle, whole = (
        np.packbits(_transform(values, count, *box).reshape(-1)[1:] > 0).tobytes()
        for values, count, box in (
            (grey.astype(np.float32), COARSE_FREQUENCIES, MIDDLE),
            (details, FREQUENCIES, MIDDLE),
            (details, FREQUENCIES, (0.0, 1.0)),
        )
    )
    return ImageHash(coarse, middle, whole)


class Boxes:
    """What the codes of another image are held against: frequencies of boxes within one image, magnitudes of sum 1."""

    def __init__(self, grey: Grey):
        self._grey = grey
        self._details = _details(grey)

    def coarse(self, end: float) -> Floats:
        """Where the other's middle lies if half of what may be cut off is, the same at both ends: (1, COARSE_BITS).

        Args:
            end: here and below 1 if the other image is a part of this one; else `MIDDLE[1]`.
        """
        cut = MAX_CUT / 4
        edge = cut + MIDDLE[0] * (1 - 2 * cut) if end == 1 else (MIDDLE[0] - cut) / (1 - 2 * cut)
        values = _transform(self._grey.astype(np.float32), COARSE_FREQUENCIES, edge, 1 - edge).reshape(1, -1)[:, 1:]
        frequencies = np.hypot.outer(np.arange(COARSE_FREQUENCIES), np.arange(COARSE_FREQUENCIES)).reshape(-1)[1:]
        return _weights(values * frequencies.astype(np.float32), _COARSE_CLIP)

    def rough(self, end: float) -> Floats:
        """As `fine`, wide apart: (36, DETAIL_BITS)."""
        return self._of(end, cuts_every(ROUGH_STEP), cuts_every(ROUGH_STEP))

    def fine(self, end: float) -> Floats:
        """All boxes where the other's middle, or the whole of it, may lie: (441, DETAIL_BITS), cut by cut."""
        cuts = cuts_every(FINE_STEP)
        return self._of(end, cuts, cuts)

    def around(self, end: float, down: Cut, across: Cut, step: float) -> tuple[Floats, list[tuple[Cut, Cut]]]:
        """The 81 boxes around one, and their cuts."""
        near = [
            tuple((cut[0] + a * step, cut[1] + b * step) for a in (-1, 0, 1) for b in (-1, 0, 1))
            for cut in (down, across)
        ]
        return self._of(end, near[0], near[1]), [(row, column) for row in near[0] for column in near[1]]

    def _of(self, end: float, down: Cuts, across: Cuts) -> Floats:
        rows, columns = (np.concatenate([_interval(end, cut) for cut in cuts]) for cuts in (down, across))
        shape = len(down), FREQUENCIES, len(across), FREQUENCIES
        boxes = (rows @ self._details @ columns.T).reshape(shape).transpose(0, 2, 1, 3)
        return _weights(boxes.reshape(len(down) * len(across), -1)[:, 1:], _CLIP)


@cache
def flips(bits: int) -> Floats:
    """The signs by which a flip multiplies the frequencies of a code of so many bits: (4, bits), the first of ones."""
    count = round((bits + 1) ** 0.5)
    rows, columns = np.meshgrid(np.arange(count), np.arange(count), indexing="ij")
    signs = [(-1.0) ** (down * rows + across * columns) for down, across in _FLIPS]
    return np.stack(signs).reshape(len(_FLIPS), -1)[:, 1:].astype(np.float32)


def signs_of(codes: NDArray[np.uint8], bits: int) -> Floats:
    """Packed codes (n, bytes) -> -1 and 1, (n, bits)."""
    return np.unpackbits(codes, axis=1, count=bits).astype(np.float32) * 2 - 1


def _details(grey: Grey) -> Floats:
    values = grey.astype(np.float32)
    rest = values - gaussian_filter(values, _WINDOW)
    return (rest / (np.sqrt(gaussian_filter(rest * rest, _WINDOW)) + _FLOOR)).astype(np.float32)


def _transform(values: Floats, count: int, start: float, end: float) -> Floats:
    matrix = _cosines(count, start, end)
    return (matrix @ values @ matrix.T).astype(np.float32)


@lru_cache(4096)
def _cosines(count: int, start: float, end: float) -> Floats:
    """The DCT of the interval [start, end] of SIDE values: (count, SIDE); frequencies above 0 ignore a constant."""
    edges = np.arange(SIDE + 1) / SIDE
    shares = np.clip(np.minimum(edges[1:], end) - np.maximum(edges[:-1], start), 0, None) / (end - start)
    places = (np.clip((edges[1:] + edges[:-1]) / 2, start, end) - start) / (end - start)
    matrix = np.cos(np.pi * np.arange(count)[:, None] * places) * shares
    matrix[1:] -= matrix[1:].sum(axis=1, keepdims=True) * shares
    matrix[0] *= 2**-0.5
    return matrix.astype(np.float32)


@cache
def cuts_every(step: int) -> Cuts:
    """What may be cut off at either end, in hundredths of the side."""
    most = round(100 * MAX_CUT)
    return tuple((a, b) for a in range(0, most + 1, step) for b in range(0, most + 1 - a, step))


@lru_cache(4096)
def _interval(end: float, cut: Cut) -> Floats:
    """The cosines of the interval where the other image's [1 - end, end] may lie."""
    left, right = (share / 100 for share in cut)
    if end == 1:  # the other way round: what is there is cut, and all of the other one is left
        return _cosines(FREQUENCIES, left, 1 - right)
    return _cosines(FREQUENCIES, *((place - left) / (1 - left - right) for place in (1 - end, end)))


def _weights(values: NDArray[np.floating[Any]], clip: float) -> Floats:
    """Frequencies as weights: clipped at a multiple of their mean magnitude, magnitudes of sum 1."""
    limit = clip * np.abs(values).mean(axis=1, keepdims=True) + np.float32(1e-9)
    clipped = np.clip(values, -limit, limit)
    return (clipped / np.abs(clipped).sum(axis=1, keepdims=True).clip(1e-9)).astype(np.float32)
