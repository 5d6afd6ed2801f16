"""Group prompts into batches of similar length, and prepare the next batch while one is computed."""

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")
Batch = TypeVar("Batch")


def batches_by_length(lengths: Sequence[int], size: int, images: Sequence[Hashable] | None = None) -> list[list[int]]:
    """Indices in batches of `size`, the longest first: little padding, and a lack of memory shows at once.

    Args:
        lengths: the length of each question.
        size: questions in a batch.
        images: what identifies each question's image; questions that share one stay together.
    """
    groups = group_indices(range(len(lengths)) if images is None else images)
    ranked = sorted(groups, key=lambda group: (-max(lengths[index] for index in group), group[0]))
    order = [index for group in ranked for index in group]
    return [order[start : start + size] for start in range(0, len(order), size)]


def group_indices(keys: Iterable[Hashable]) -> list[list[int]]:
    """The indices of each different key, in order of first appearance."""
    groups: dict[Hashable, list[int]] = {}
    for index, key in enumerate(keys):
        groups.setdefault(key, []).append(index)
    return list(groups.values())


def prefetch(make: Callable[[T], Batch], items: Iterable[T], count: int = 2) -> Iterator[Batch]:
    """Yield `make(item)` in order; one thread computes up to `count` items in advance."""
    waiting: deque[Any] = deque()
    pool = ThreadPoolExecutor(1, thread_name_prefix="encode")
    try:
        for item in items:
            waiting.append(pool.submit(make, item))
            if len(waiting) > count:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
