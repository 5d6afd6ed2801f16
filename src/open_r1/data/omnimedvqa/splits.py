"""Draw train and test: per question, or per image so that all questions of one image are on one side.

A draw depends only on the seed and the questions, not on the order of reading or on the other sets that are built, so
a subset of the data sets can be built later and fits the others. It is the same for modality sets and task sets: no
test question of one is a training question of another.
"""

import hashlib
from collections import defaultdict
from collections.abc import Hashable, Sequence

TEST_SHARE = 0.2
_FEW = 5  # groups; fewer of one kind are drawn together with the modality's other rare kinds


def draw_per_question(cells: Sequence[Hashable], ids: Sequence[int], seed: int) -> bytearray:
    """80/20 within every cell; returns 1 for a test question, 0 for a training question.

    Args:
        cells: each question's modality and task; a cell of two or more has a test question.
        ids: each question's id as a number.
        seed: another seed gives another draw.
    """
    members: dict[Hashable, list[int]] = defaultdict(list)
    for index, cell in enumerate(cells):
        members[cell].append(index)
    sides = bytearray(len(cells))
    for indices in members.values():
        indices.sort(key=lambda index: _lot(seed, ids[index]))
        for index in indices[: _test_count(len(indices))]:
            sides[index] = 1
    return sides


def draw_per_image(cells: Sequence[tuple[int, int]], images: Sequence[int], seed: int) -> bytearray:
    """About 80/20 of the questions, all questions of one image on one side; 1 is test.

    Images are drawn within groups that have the same modality and are asked the same kinds of questions, so
    that every cell of modality and task keeps its share.

    Args:
        cells: each question's (modality, task) as numbers.
        images: a number for each question's image; equal numbers are one image.
    """
    questions: dict[int, list[int]] = defaultdict(list)
    for index, image in enumerate(images):
        questions[image].append(index)
    strata: dict[Hashable, list[int]] = defaultdict(list)
    for image, indices in questions.items():
        tasks = tuple(sorted({cells[index][1] for index in indices}))
        strata[min(cells[index][0] for index in indices), tasks].append(image)
    sides = bytearray(len(cells))
    for group in _with_rare_ones_together(strata):
        group.sort(key=lambda image: _lot(seed, image))
        for image in _take_share(group, questions):
            for index in questions[image]:
                sides[index] = 1
    return sides


def _lot(seed: int, number: int) -> bytes:
    """A question's or image's place in the draw."""
    return hashlib.sha256(f"{seed}:{number:x}".encode()).digest()


def _test_count(count: int) -> int:
    return max(1, round(count * TEST_SHARE)) if count > 1 else 0


def _with_rare_ones_together(strata: dict[Hashable, list[int]]) -> list[list[int]]:
    groups = []
    rare: dict[Hashable, list[int]] = defaultdict(list)
    for stratum, images in strata.items():
        assert isinstance(stratum, tuple)
        if len(images) < _FEW:
            rare[stratum[0]].extend(images)
        else:
            groups.append(images)
    return [*groups, *rare.values()]


def _take_share(images: list[int], questions: dict[int, list[int]]) -> list[int]:
    """The first images whose questions make up the test share; some on both sides if there are two."""
    if len(images) < 2:
        return []
    target = TEST_SHARE * sum(len(questions[image]) for image in images)
    chosen: list[int] = []
    count = 0
    for image in images[:-1]:
        size = len(questions[image])
        if chosen and count + size / 2 > target:
            break
        chosen.append(image)
        count += size
    return chosen
