"""The blind floor: the accuracy that the option texts alone give away, with no picture and no question.

In OmniMedVQA the right options are often written in words that wrong ones rarely use. An accuracy below or near this
floor shows no understanding of pictures.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from open_r1.answers import options_in, solution_letter
from open_r1.errors import UserError


def blind_floor(
    train_rows: Iterable[Mapping[str, Any]], test_rows: Iterable[Mapping[str, Any]], fold_case: bool = False
) -> float:
    """Accuracy (0 to 1) of choosing the option whose text was right most often, of all times it was offered.

    The share gold / offered is counted on the training rows; a text that is not seen there has share 0, and options
    that tie share the point equally.

    Args:
        train_rows: rows with `problem` and `solution`.
        test_rows: the same, to be guessed.
        fold_case: compare option texts without regard to case.

    Raises:
        UserError: no test row, or a row without options or solution.
    """
    offered: Counter[str] = Counter()
    gold: Counter[str] = Counter()
    for row in train_rows:
        options = _options(row, fold_case)
        offered.update(options.values())
        gold[options[solution_letter(row["solution"])]] += 1
    points, count = 0.0, 0
    for row in test_rows:
        shares = {
            letter: gold[text] / offered[text] if offered[text] else 0.0
            for letter, text in _options(row, fold_case).items()
        }
        best = [letter for letter, share in shares.items() if share == max(shares.values())]
        points += (solution_letter(row["solution"]) in best) / len(best)
        count += 1
    if not count:
        raise UserError("the blind floor of no test questions does not exist")
    return points / count


def chance(problems: Iterable[str]) -> float:
    """Accuracy (0 to 1) of uniform guessing: the mean of 1 / number of options."""
    shares = [1 / len(options_in(problem)) for problem in problems]
    return sum(shares) / len(shares)


def _options(row: Mapping[str, Any], fold_case: bool) -> dict[str, str]:
    options = options_in(row["problem"])
    return {letter: text.casefold() for letter, text in options.items()} if fold_case else options
