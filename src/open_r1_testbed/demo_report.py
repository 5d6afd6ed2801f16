"""What both demos say at their end: each question before and after, the gain with its error, floors and checks."""

from collections.abc import Sequence
from pathlib import Path

from open_r1.evaluation.scoring.blind_floor import chance
from open_r1.evaluation.scoring.results import Result, read_results
from open_r1.evaluation.scoring.statistics import Z95, accuracy, difference

Pairs = Sequence[tuple[Result, Result]]
"""Each test question before and after GRPO."""


def read_pairs(before: Path, after: Path) -> Pairs:
    """The questions of two result files, in the order of the second."""
    earlier = {result.id: result for result in read_results(before).results}
    return [(earlier[result.id], result) for result in read_results(after).results]


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


def check_lines(pairs: Pairs, shuffled: Path, blind: Path | None = None) -> str:
    """What the trained model does with the options in another order and without the image.

    Args:
        pairs: the ordinary evaluation.
        shuffled: result file of the same questions under `--options shuffled`.
        blind: the same under `--image none`.
    """
    plain = {after.id: after for _, after in pairs}
    lines = []
    for path, change_name in ((shuffled, "options in another order"), (blind, "without the image")):
        if path is None:
            continue
        results = read_results(path).results
        change = difference(
            [plain[result.id].correct for result in results],
            [result.correct for result in results],
            [result.image for result in results],
        )
        share = accuracy([result.correct for result in results], [result.image for result in results])
        lines.append(
            f"{change_name}: {100 * share.mean:.1f} +- {100 * (share.stderr or 0):.1f} % "
            f"({100 * change.mean:+.1f} points, n = {len(results)})"
        )
    return "\n".join(lines)
