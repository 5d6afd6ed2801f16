"""What both demos say at their end: each question before and after, the gain with its error, the floors beside it."""

from collections.abc import Sequence
from pathlib import Path

from open_r1.evaluation.blind import chance
from open_r1.evaluation.score import Result, read_results
from open_r1.evaluation.statistics import Z95, difference

Pairs = Sequence[tuple[Result, Result]]
"""Each test question before and after GRPO."""


def read_pairs(before: Path, after: Path) -> Pairs:
    """The questions of two result files, in the order of the second."""
    first = {result.id: result for result in read_results(before).results}
    return [(first[result.id], result) for result in read_results(after).results]


def gain_lines(pairs: Pairs, floor: float, without: str) -> str:
    """The gain with its interval and test, and the floors beside it.

    Args:
        pairs: of one or more questions.
        floor: accuracy of the blind guess, 0 to 1.
        without: what the blind guess does not look at.
    """
    gain = difference([b.correct for b, _ in pairs], [a.correct for _, a in pairs], [a.image for _, a in pairs])
    error = gain.stderr or 0.0
    return (
        f"gain: {100 * gain.mean:+.1f} points, 95 % interval [{100 * (gain.mean - Z95 * error):.1f}, "
        f"{100 * (gain.mean + Z95 * error):.1f}], n = {gain.n}, {gain.test} p = {gain.p:.1e}\n"
        f"blind floor: {100 * floor:.1f} % (the option most often right in training, {without}); "
        f"chance: {100 * chance(a.problem for _, a in pairs):.1f} %"
    )
