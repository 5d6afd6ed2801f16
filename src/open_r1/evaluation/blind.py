"""The blind floor: the accuracy that the option texts alone give away, with no picture and no question.

In OmniMedVQA the right options are often written in words that wrong ones rarely use. An accuracy below or near this
floor shows no understanding of pictures.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from open_r1.answers import options_in, solution_letter
from open_r1.errors import UserError


class BlindGuesser:
    """Chooses the option whose text was right most often, of all times it was offered in training.

    A text that training does not hold has share 0, and options that tie share the point equally.

    Args:
        train_rows: rows with `problem` and `solution`.
        fold_case: compare option texts without regard to case.

    Raises:
        UserError: a row without options or solution.
    """

    def __init__(self, train_rows: Iterable[Mapping[str, Any]], fold_case: bool = False):
        self._fold_case = fold_case
        self._offered: Counter[str] = Counter()
        self._gold: Counter[str] = Counter()
        for row in train_rows:
            options = self._options(row)
            self._offered.update(options.values())
            self._gold[options[solution_letter(row["solution"])]] += 1

    def points(self, row: Mapping[str, Any]) -> float:
        """The share of a point (0 to 1) that the guess earns on one question."""
        shares = {letter: self._share(text) for letter, text in self._options(row).items()}
        best = [letter for letter, share in shares.items() if share == max(shares.values())]
        return (solution_letter(row["solution"]) in best) / len(best)

    def _share(self, text: str) -> float:
        return self._gold[text] / self._offered[text] if self._offered[text] else 0.0

    def _options(self, row: Mapping[str, Any]) -> dict[str, str]:
        options = options_in(row["problem"])
        return {letter: text.casefold() for letter, text in options.items()} if self._fold_case else options


def blind_floor(
    train_rows: Iterable[Mapping[str, Any]], test_rows: Iterable[Mapping[str, Any]], fold_case: bool = False
) -> float:
    """Accuracy (0 to 1) of a `BlindGuesser` of the training rows on the test rows.

    Raises:
        UserError: no test row, or a row without options or solution.
    """
    guesser = BlindGuesser(train_rows, fold_case)
    points = [guesser.points(row) for row in test_rows]
    if not points:
        raise UserError("the blind floor of no test questions does not exist")
    return sum(points) / len(points)


def chance(problems: Iterable[str]) -> float:
    """Accuracy (0 to 1) of uniform guessing: the mean of 1 / number of options."""
    shares = [1 / len(options_in(problem)) for problem in problems]
    return sum(shares) / len(shares)
