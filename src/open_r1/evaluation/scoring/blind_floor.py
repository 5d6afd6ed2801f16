"""The blind floor: the accuracy that the option texts alone give away, with no image and no question.

In OmniMedVQA the right options are often written in words that wrong ones rarely use. An accuracy below or near this
floor shows no understanding of images. It is reported with uniform guessing, and with how many test questions
show an image of the training split.
"""

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from open_r1.common.errors import UnusableInput, UserError
from open_r1.data.json_lists import json_entries
from open_r1.data.loading import load_rows
from open_r1.data.row_images import image_key
from open_r1.data.rows import check_row, leak
from open_r1.grading.problems import options_in, solution_letter


class BlindGuesser:
    """Chooses the option whose text was right most often, of all times it was offered in training.

    A text that does not occur in training has share 0, and options that tie share the point equally.

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
        raise UserError("there are no test questions, so there is no blind floor")
    return sum(points) / len(points)


def chance(problems: Iterable[str]) -> float:
    """Accuracy (0 to 1) of uniform guessing: the mean of 1 / number of options.

    Raises:
        UserError: there is no problem, or one has no options.
    """
    shares = [1 / len(options_in(problem)) for problem in problems]
    if not shares:
        raise UserError("there are no questions to guess")
    return sum(shares) / len(shares)


# ------------------------------------------------------------------------------------------------ the command


@dataclass(frozen=True)
class Side:
    """The questions of one split: their texts, and what identifies the image of each."""

    rows: Sequence[Mapping[str, str]]  # problem, solution
    images: Sequence[Hashable]
    dropped: int = 0


@dataclass(frozen=True)
class Floors:
    """What can be scored without understanding images; shares of 1."""

    train: int  # questions
    test: int
    exact: float
    folded: float
    chance: float
    image_in_training: int  # test questions whose image is in training

    def lines(self) -> list[str]:
        """What `eval/blind.py` prints."""
        share = 100 * self.image_in_training / self.test
        return [
            f"{self.test:,} test questions, guessed from {self.train:,} training questions",
            f"blind floor, texts compared exactly   {100 * self.exact:6.2f} %",
            f"blind floor, texts case-folded        {100 * self.folded:6.2f} %",
            f"uniform guessing                      {100 * self.chance:6.2f} %",
            f"image also in training              {share:6.2f} %  ({self.image_in_training:,} questions)",
        ]


def measure(train: Side, test: Side) -> Floors:
    """Both floors, uniform guessing, and how many test questions show an image of training.

    Raises:
        UserError: there is no test question.
    """
    floor = partial(blind_floor, train.rows, test.rows)
    return Floors(
        len(train.rows),
        len(test.rows),
        floor(),
        floor(fold_case=True),
        chance(row["problem"] for row in test.rows),
        leak(train.images, test.images).shared,
    )


def read_list(path: Path) -> Side:
    """A JSON list of {image, problem, solution}; an image is known by its path, and is not opened.

    Raises:
        UserError: the file cannot be read or is no such list, or holds no usable row.
    """
    rows, images, dropped = [], [], 0
    for entry in json_entries(path):
        try:
            image, problem, solution = check_row(entry)
        except UnusableInput:
            dropped += 1
            continue
        rows.append({"problem": problem, "solution": solution})
        images.append(image)
    if not rows:
        raise UserError(f"{path} has no row that can be used ({dropped} cannot); give a JSON list of questions")
    return Side(rows, images, dropped)


def read_prepared(folder: Path) -> tuple[Side, Side]:
    """Train and test of a prepared folder; an image is known by its content.

    Raises:
        UserError: the folder is no prepared set.
    """
    if not folder.is_dir():
        raise UserError(
            f"--data {folder} is not a folder; give a prepared one, or two JSON lists as --train and --test"
        )
    train, test = (load_rows(folder, split) for split in ("train", "test"))
    return _side(*train), _side(*test)


def _side(rows: Any, dropped: Sequence[Any]) -> Side:
    texts = [dict(row) for row in rows.select_columns(["problem", "solution"])]
    return Side(texts, [image_key(row) for row in rows.select_columns(["image"])], len(dropped))
