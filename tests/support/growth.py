"""Linear time shown by growth: four times the text takes about four times the work, measured in one run.

No second says whether code is linear: machines differ, and busy ones are slow. What counts is the ratio of two
measurements that were made in turn, each the least processor time of the rounds so far, because other work can only
add to it.
"""

import time
from collections.abc import Callable

TIMES = 4
LIMIT = 9.0  # of the ratio; linear is 4, quadratic 16
ROUNDS = 6  # measured again where other work may have made the ratio large


def growth(call: Callable[[str], object], small: str, large: str) -> float:
    """How much more processor time the larger text takes; the first ratio below LIMIT, or the last one."""
    least: dict[str, float] = {}
    for _ in range(ROUNDS):
        for text in (small, large):
            start = time.process_time()
            call(text)
            least[text] = min(least.get(text, float("inf")), time.process_time() - start)
        if least[large] < LIMIT * least[small]:
            break
    return least[large] / max(least[small], 1e-9)


def assert_linear(call: Callable[[str], object], make: Callable[[int], str], size: int) -> float:
    """Assert that the call's time grows with the length of its text and no faster.

    Args:
        call: what is judged.
        make: a text of about so many characters.
        size: characters of the larger of two texts; the smaller has a quarter.

    Returns:
        The ratio seen.
    """
    ratio = growth(call, make(size // TIMES), make(size))
    assert ratio < LIMIT, f"{TIMES} times the text took {ratio:.1f} times the processor time: {make(60)!r}"
    return ratio
