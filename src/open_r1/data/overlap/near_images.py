"""Pairs of nearly equal images, found in three passes of which each leaves few candidates to the next.

The score of a pair is the share of the agreeing frequencies minus that of the others, weighed by their magnitude in the
image that is there: 1 for equal images, about 0 for unrelated ones.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from open_r1.data.overlap.image_hashes import (
    COARSE_BITS,
    COARSE_BYTES,
    DETAIL_BITS,
    DETAIL_BYTES,
    FINE_STEP,
    MIDDLE,
    Boxes,
    Floats,
    Grey,
    cuts_every,
    flips,
    signs_of,
)

NEAR = 0.95
"""The score from which two images count as nearly the same; `benchmarks/overlap.py` measures what it finds."""

_COARSE, _ROUGH = 0.3, 0.5  # what the first two passes let through
_BLOCK = 1024  # rows that are compared at once
SIGNS_ALONE = 0.12  # by which scores are lower where magnitudes are not known
_GAIN = 0.12  # what the boxes around the best one may add
_FINER_STEPS = (1.0, 0.5)  # hundredths of the side


@dataclass(frozen=True)
class HashTable:
    """The codes of many images, ready to be searched; 2.3 KB an image."""

    coarse: Floats
    middle: Floats
    whole: Floats

    @classmethod
    def of(cls, hashes: NDArray[np.uint8]) -> "HashTable":
        """Packed hashes, (n, HASH_BYTES)."""
        coarse, middle, whole = np.split(hashes, [COARSE_BYTES, COARSE_BYTES + DETAIL_BYTES], axis=1)
        return cls(signs_of(coarse, COARSE_BITS), signs_of(middle, DETAIL_BITS), signs_of(whole, DETAIL_BITS))

    def near(self, grey: Grey, least: float = NEAR) -> list[tuple[int, float]]:
        """The images that are nearly the same as one that is there, in order, with their scores.

        Args:
            grey: of the image, not blank.
            least: the least score that counts.
        """
        boxes, best = Boxes(grey), {}
        for end, codes in ((MIDDLE[1], self.middle), (1.0, self.whole)):
            places, turns = np.nonzero(self.coarse @ (flips(COARSE_BITS) * boxes.coarse(end)).T >= _COARSE)
            if len(places):
                places, turns = _roughly_near(boxes.rough(end), codes, places, turns)
            if len(places):
                for place, score in _last_pass(boxes, codes, end, places, turns, least):
                    best[place] = max(score, best.get(place, -1.0))
        return sorted(best.items())

    def alike(self, other: "HashTable", least: float = NEAR) -> Iterator[tuple[int, int, float]]:
        """Pairs (place in `other`, place here, score) where neither image is there: flips are tried, crops are not."""
        for start in range(0, len(other.whole), _BLOCK):
            best = np.full((len(other.whole[start : start + _BLOCK]), len(self.whole)), -1.0, np.float32)
            for signs in flips(DETAIL_BITS):
                for mine, theirs in ((self.middle, other.middle), (self.whole, other.whole)):
                    scores = (theirs[start : start + _BLOCK] * signs) @ mine.T / DETAIL_BITS
                    np.maximum(best, scores, out=best)
            for row, column in np.argwhere(best >= least - SIGNS_ALONE):
                yield start + int(row), int(column), float(best[row, column])


Places = NDArray[np.intp]


def _roughly_near(rough: Floats, codes: Floats, places: Places, turns: Places) -> tuple[Places, Places]:
    """Those of the candidates, images and how they are turned, that pass by boxes wide apart."""
    passed = np.zeros(len(places), bool)
    for turn, signs in enumerate(flips(DETAIL_BITS)):
        chosen = np.flatnonzero(turns == turn)
        scores = codes[places[chosen]] @ (rough * signs).T
        passed[chosen] = scores.max(axis=1, initial=-1) >= _ROUGH
    return places[passed], turns[passed]


def _last_pass(
    boxes: Boxes, codes: Floats, end: float, places: Places, turns: Places, least: float
) -> Iterator[tuple[int, float]]:
    """The scores of candidates by all boxes, and by those close around the best one where it may decide."""
    fine = boxes.fine(end)
    for turn in np.unique(turns):
        chosen, signs = places[turns == turn], flips(DETAIL_BITS)[turn]
        scores = codes[chosen] @ (fine * signs).T
        for place, box, score in zip(chosen, scores.argmax(axis=1), scores.max(axis=1), strict=True):
            if score >= least - _GAIN:
                finest = _refined(boxes, codes[place] * signs, end, int(box))
                if finest >= least:
                    yield int(place), finest


def _refined(boxes: Boxes, code: Floats, end: float, box: int) -> float:
    """The score of the best box close around one of `Boxes.fine`."""
    cuts, score = cuts_every(FINE_STEP), -1.0
    down, across = (cuts[place] for place in divmod(box, len(cuts)))
    for step in _FINER_STEPS:
        values, places = boxes.around(end, down, across, step)
        scores = values @ code
        score = float(scores.max())
        down, across = places[int(scores.argmax())]
    return score
