"""How often the report's intervals cover the truth, and how often its tests see a difference that is not there.

python benchmarks/coverage.py                # every setting, 1,000 draws of each: about ten minutes on one core
python benchmarks/coverage.py --draws 200

Two runs answer 1 to 5 questions about each of 8 to 200 images. How alike the questions of an image are and how alike
the two runs are goes from not at all to wholly. tests/evaluation/test_statistics.py holds on part of the settings:
a star without a difference in at most 5 %; after Holm's correction one in at most 5 % of whole tables; intervals cover
in 93 to 97.5 % from 15 images on, and in 90 % with fewer. The upper bound cannot be kept where few images change:
there the exact test sees a difference that is not there less often than in 2.5 %, and the interval agrees with it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
from scipy.special import ndtri

from open_r1.common.command_line import CommandParser
from open_r1.common.errors import run_command
from open_r1.evaluation.scoring.statistics import accuracy, difference, holm, sign_flip

MOST = 5  # questions about one image


@dataclass(frozen=True)
class Setting:
    """What is drawn."""

    images: int
    questions: float | None  # about each image, 1.04: two about 4 % of them; None: 1 to 5
    first: float  # chance of a right answer of the first run
    second: float
    alike: float  # correlation of an image's questions, on the scale of a normal variable, 0 to 1
    coupled: float = 0.0  # correlation of the two runs, on the same scale


def answers(setting: Setting, draws: int, rng: np.random.Generator) -> Iterator[tuple[list[bool], list[bool], list]]:
    """Answers of both runs and the image of each, as many times as asked."""
    for _ in range(draws):
        if setting.questions is None:
            sizes = rng.integers(1, MOST + 1, setting.images)
        else:
            sizes = int(setting.questions) + (rng.random(setting.images) < setting.questions % 1)
        image = np.repeat(np.arange(setting.images), sizes)
        of_image = _two(setting.coupled, setting.images, rng)[:, image]
        of_question = _two(setting.coupled, len(image), rng)
        mixed = np.sqrt(setting.alike) * of_image + np.sqrt(1 - setting.alike) * of_question
        first, second = mixed[0] < ndtri(setting.first), mixed[1] < ndtri(setting.second)
        yield first.tolist(), second.tolist(), image.tolist()


def _two(correlation: float, count: int, rng: np.random.Generator) -> np.ndarray:
    """(2, count) standard normal numbers, the two of a column with that correlation."""
    numbers = rng.standard_normal((2, count))
    numbers[1] = correlation * numbers[0] + np.sqrt(1 - correlation**2) * numbers[1]
    return numbers


def coverage(setting: Setting, draws: int, seed: int = 0) -> tuple[float, float, float]:
    """Shares of the draws: the first run's accuracy is covered, the difference is covered, a star is set.

    Raises:
        AssertionError: an interval contradicts its test.
    """
    covered = differences = stars = 0
    truth = setting.second - setting.first
    for first, second, image in answers(setting, draws, np.random.default_rng(seed)):
        estimate, gain = accuracy(first, image), difference(first, second, image)
        covered += estimate.low <= setting.first <= estimate.high
        assert gain.low is not None
        assert gain.high is not None
        assert gain.excludes_zero == (gain.p < 0.05)
        assert gain.low <= gain.mean <= gain.high
        differences += gain.low - 1e-12 <= truth <= gain.high + 1e-12
        stars += gain.excludes_zero
    return covered / draws, differences / draws, stars / draws


def wrong_tables(cells: list[Setting], draws: int, seed: int = 0) -> tuple[float, float]:
    """Shares of tables without any difference in which some p is below 0.05: as it is, and after Holm's correction."""
    rng = np.random.default_rng(seed)
    plain = corrected = 0
    for _ in range(draws):
        p_values = []
        for cell in cells:
            ((first, second, image),) = answers(cell, 1, rng)
            changes = np.array(second, dtype=int) - np.array(first, dtype=int)
            p_values.append(sign_flip(np.bincount(image, weights=changes).astype(int)))
        plain += min(p_values) < 0.05
        corrected += min(holm(p_values)) < 0.05
    return plain / draws, corrected / draws


def cells_of_16() -> list[Setting]:
    """64 cells of 16 images with 5 questions each."""
    return [Setting(16, 5, chance, chance, 0.3) for chance in (0.3, 0.5, 0.7, 0.9) for _ in range(16)]


def cells_like_omnimedvqa() -> list[Setting]:
    """28 cells of very different sizes, a second question about 4 % of the images."""
    sizes = [30, 45, 60, 90, 120, 180, 240, 300, 400, 500, 650, 800, 1000, 1300]
    return [Setting(size, 1.04, chance, chance, 0.3) for size in sizes for chance in (0.6, 0.9)]


SETTINGS = [
    Setting(images, questions, first, second, alike, coupled)
    for images, questions, (first, second), alike, coupled in product(
        (8, 10, 15, 20, 30, 60, 200),
        (1, 2, 5, None),
        ((0.05, 0.05), (0.5, 0.5), (0.95, 0.95), (0.05, 0.2), (0.5, 0.7), (0.95, 0.8)),
        (0.0, 0.5, 1.0),
        (0.0, 0.8),
    )
    if questions != 1 or alike == 0
]


def main() -> None:
    parser = CommandParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=1000, help="of each setting (1000)")
    draws = parser.parse_args().draws
    measured = [(setting, *coverage(setting, draws, seed)) for seed, setting in enumerate(SETTINGS)]
    for name, is_small in (("fewer than 15 images", True), ("15 images or more", False)):
        here = [entry for entry in measured if (entry[0].images < 15) == is_small]
        print(f"{name}, {len(here)} settings of {draws} draws")
        _line("accuracy", [(setting, share) for setting, share, _, _ in here])
        equal = [entry for entry in here if entry[0].first == entry[0].second]
        _line("difference of runs that differ", [(s, share) for s, _, share, _ in here if s.first != s.second])
        _line("difference of runs that do not", [(setting, share) for setting, _, share, _ in equal])
        print(f"  a star where there is no difference: at most {100 * max(star for *_, star in equal):.1f} %")
    for name, cells in (("64 cells of 16 images x 5", cells_of_16()), ("28 cells", cells_like_omnimedvqa())):
        plain, corrected = wrong_tables(cells, draws)
        print(f"{name}: some star in {100 * plain:.1f} % of the tables, after Holm in {100 * corrected:.1f} %")


def _line(name: str, shares: list[tuple[Setting, float]]) -> None:
    below = [entry for entry in shares if entry[1] < (0.90 if entry[0].images < 15 else 0.93)]
    above = [entry for entry in shares if entry[1] > 0.975]
    low, high = (end(share for _, share in shares) for end in (min, max))
    print(
        f"  {name}: covered in {100 * low:.1f} to {100 * high:.1f} %; "
        f"too rarely in {len(below)} of {len(shares)} settings, in more than 97.5 % in {len(above)}"
    )
    for setting, share in below:
        print(f"    too rarely, {100 * share:.1f} %: {setting}")
    for name in ("pictures", "first"):
        values = dict.fromkeys(getattr(setting, name) for setting, _ in shares)
        counts = [
            f"{value}: {sum(getattr(setting, name) == value for setting, _ in above)} of "
            f"{sum(getattr(setting, name) == value for setting, _ in shares)}"
            for value in values
        ]
        print(
            f"    more than 97.5 % by {'accuracy of the first run' if name == 'first' else name}: {', '.join(counts)}"
        )


if __name__ == "__main__":
    run_command(main)
