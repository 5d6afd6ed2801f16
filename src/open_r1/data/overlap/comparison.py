"""Which images and questions splits share, byte by byte and nearly: counts, pairs, and questions to leave out."""

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

from open_r1.data.overlap.hashed_sets import HashedSplit
from open_r1.data.overlap.near_images import NEAR, HashTable

_TOGETHER = 256  # images that are searched for side by side
EXACT = 1.0


@dataclass(frozen=True)
class SharedImages:
    """What two splits share."""

    first: HashedSplit
    second: HashedSplit
    pairs: dict[tuple[int, int], float]
    """(place of an image in the first, in the second) -> EXACT for equal bytes, else the score of near ones."""
    same_bytes: int  # images of the second that are in the first byte by byte
    near: int  # further images of the second that are nearly the same as one of the first

    def touched(self, in_second: bool) -> int:
        """How many questions of a split show a shared image."""
        split = self.second if in_second else self.first
        places = {pair[in_second] for pair in self.pairs}
        return sum(not places.isdisjoint(shown) for _, shown in split.questions)

    def question_pairs(self) -> Iterator[tuple[str, str, float]]:
        """(id in the first, id in the second, score) of questions that share an image."""
        first, second = _questions_by_image(self.first), _questions_by_image(self.second)
        for (place, other), score in sorted(self.pairs.items()):
            for name in first[place]:
                for other_name in second[other]:
                    yield name, other_name, score


def _questions_by_image(split: HashedSplit) -> dict[int, list[str]]:
    names: dict[int, list[str]] = defaultdict(list)
    for name, shown in split.questions:
        for place in set(shown):
            names[place].append(name)
    return names


def shared_images(first: HashedSplit, second: HashedSplit, least: float = NEAR) -> SharedImages:
    """Compare two splits; images are opened of neither, but crops are found only if one is no hash file.

    Args:
        first: one split, such as that of training.
        second: the other.
        least: the least score of near images.
    """
    places = {key: place for place, key in enumerate(first.keys)}
    pairs = {(places[key], other): EXACT for other, key in enumerate(second.keys) if key in places}
    exact = {other for _, other in pairs}
    for other, place, score in near_pairs(second, first, least):
        pairs.setdefault((place, other), min(score, 1 - 1e-6))
    near = {other for _, other in pairs} - exact
    return SharedImages(first, second, pairs, len(exact), len(near))


def near_pairs(first: HashedSplit, second: HashedSplit, least: float = NEAR) -> Iterator[tuple[int, int, float]]:
    """(place in the first, place in the second, score) of nearly equal images.

    If both have their images, each searches among the other's codes only from the first's side, which finds crops of
    either.
    """
    if first.greys is None and second.greys is not None:
        yield from ((other, place, score) for place, other, score in near_pairs(second, first, least))
        return
    table, places = second.table()
    if first.greys is None:
        mine, my_places = first.table()
        for place, other, score in table.alike(mine, least):
            yield int(my_places[place]), int(places[other]), score
        return
    for place, partners in _searched(table, first, least):
        for other, score in partners:
            yield place, int(places[other]), score


def _searched(table: HashTable, split: HashedSplit, least: float) -> Iterator[tuple[int, list[tuple[int, float]]]]:
    todo = ((place, grey) for place, grey in enumerate(split.greys or ()) if grey is not None)
    with ThreadPoolExecutor(max(1, len(os.sched_getaffinity(0)))) as pool:
        while batch := list(islice(todo, _TOGETHER)):
            partners = pool.map(lambda item: table.near(item[1], least), batch)
            yield from zip((place for place, _ in batch), partners, strict=True)


@dataclass(frozen=True)
class NearQuestions:
    """What a split shares with others."""

    questions: set[int]
    """Places of the questions that show an image which one of the others shows, exactly or nearly."""
    same_bytes: set[str]
    """Keys of the images that are equal byte by byte."""
    near: set[str]
    """Keys of the further images that are nearly the same."""


def questions_near(split: HashedSplit, others: Sequence[HashedSplit], least: float = NEAR) -> NearQuestions:
    """The questions of a split that show an image which one of the others shows, exactly or nearly."""
    exact: set[int] = set()
    near: set[int] = set()
    for other in others:
        shared = shared_images(other, split, least)
        for (_, place), score in shared.pairs.items():
            (exact if score == EXACT else near).add(place)
    places = exact | near
    touched = {number for number, (_, shown) in enumerate(split.questions) if not places.isdisjoint(shown)}
    keys = split.keys
    return NearQuestions(touched, {keys[place] for place in exact}, {keys[place] for place in near - exact})
