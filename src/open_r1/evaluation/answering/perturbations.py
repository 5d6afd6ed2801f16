"""Changes to a question before the model sees it: no image, noise, another image, or shuffled options.

A model that reads images loses accuracy without them; a model that has learnt which texts or letters tend to be right
does not. Every change depends on the seed and the question's id alone.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from open_r1.common.errors import UserError
from open_r1.data.loading import content_digest
from open_r1.data.row_images import image_key, row_image
from open_r1.evaluation.answering.sampling import keyed_generator
from open_r1.evaluation.answering.settings import ImageChange, OptionsChange
from open_r1.grading.option_references import fixed_options
from open_r1.grading.problems import LETTERS, options_in, render_lines, render_problem

Row = Mapping[str, Any]

_TRIES = 20
"""How many shuffled orders of a question's options are tried before it is shown unchanged."""


@dataclass(frozen=True)
class ShownProblem:
    """A problem as the model sees it."""

    problem: str
    letters: dict[str, str]
    """Letter in this problem -> letter of the same option in the row."""
    fixed: frozenset[str] = frozenset()
    """Letters that were not shuffled, because their options refer to other options."""

    def shown_letter(self, original: str) -> str:
        """The letter in this problem of the row's option `original`."""
        return next(letter for letter, row_letter in self.letters.items() if row_letter == original)

    def original_letter(self, letter: str | None) -> str | None:
        """The letter in the row of this problem's option `letter`."""
        return None if letter is None else self.letters[letter]


@dataclass(frozen=True)
class View:
    """How questions are changed; the default changes nothing."""

    image: ImageChange = "shown"
    options: OptionsChange = "as_given"
    seed: int = 0
    donors: Mapping[str, Row] = field(default_factory=dict)
    """With shuffled images: id -> the row whose image is shown instead."""

    def problem(self, row: Row) -> ShownProblem:
        """The problem with its options in the order that the model sees."""
        if self.options == "shuffled":
            return shuffle_options(row["problem"], row["id"], self.seed)
        return ShownProblem(row["problem"], {letter: letter for letter in options_in(row["problem"])})

    def shown_image_key(self, row: Row) -> str | None:
        """An identifier of the image that is shown; None without an image."""
        if row["image"] is None or self.image == "none":
            return None
        if self.image == "noise":
            return f"noise {row['id']}"
        return image_key(self._donor(row))

    def content(self, row: Row) -> str:
        """A hash of the image and texts that the model sees, 16 hexadecimal digits; see `content_digest`."""
        hidden = row["image"] is None or self.image == "none"
        return content_digest(row, None if hidden else self._donor(row)["image"])

    def open(self, row: Row) -> Image.Image:
        """The image that is shown. Raises `ImageError` if it is not usable."""
        if self.image == "noise":
            return noise(row_image(row).size, row["id"], self.seed)
        return row_image(self._donor(row))

    def _donor(self, row: Row) -> Row:
        return self.donors[row["id"]] if self.image == "shuffled" else row


def shuffle_options(problem: str, name: str, seed: int) -> ShownProblem:
    """The problem with its options in an order drawn from (seed, name).

    Options that refer to others, such as "none of these", keep their place; if options refer to others by letter, the
    whole order stays (`fixed_options`). Problems whose options could not be parsed after shuffling stay unchanged.
    """
    options = options_in(problem)
    letters = list(options)
    stem = problem[: _first_option(problem, options)]
    write = render_lines if stem.endswith("\n") else render_problem
    fixed = fixed_options(stem, options)
    movable = [letter for letter in letters if letter not in fixed]
    draw = keyed_generator(seed, name, "options")
    for _ in range(_TRIES if movable else 0):
        drawn = dict(zip(movable, (movable[index] for index in draw.permutation(len(movable))), strict=True))
        order = [drawn.get(letter, letter) for letter in letters]
        try:
            shuffled = write(stem, [options[letter] for letter in order])
        except UserError:
            continue
        return ShownProblem(shuffled, dict(zip(LETTERS, order, strict=False)), fixed)
    return ShownProblem(problem, {letter: letter for letter in letters}, frozenset(letters))


def count_fixed(view: View, rows: Iterable[Any]) -> dict[str, int]:
    """How many questions keep some options, or all, in place; {} if options are not shuffled."""
    if view.options != "shuffled":
        return {}
    problems = [view.problem(row) for row in rows]
    return {
        "options_some_fixed": sum(0 < len(problem.fixed) < len(problem.letters) for problem in problems),
        "options_all_fixed": sum(len(problem.fixed) == len(problem.letters) for problem in problems),
    }


def _first_option(problem: str, options: Mapping[str, str]) -> int:
    """The index where the options begin: the last `A)` from which the same options are parsed."""
    start = problem.rfind("A)")
    while start > 0:
        try:
            line = "?\n" if problem[start - 1] == "\n" else ""  # options on separate lines follow a question's line
            if options_in(line + problem[start:]) == options:
                return start
        except UserError:
            pass
        start = problem.rfind("A)", 0, start)
    return 0


def noise(size: tuple[int, int], name: str, seed: int) -> Image.Image:
    """An image of `size` (width, height) in which every value of every pixel is drawn evenly from 0 to 255."""
    width, height = size
    return Image.fromarray(keyed_generator(seed, name, "noise").integers(0, 256, (height, width, 3), dtype="uint8"))


def choose_donors(keys: Mapping[str, str], seed: int) -> dict[str, str]:
    """For every question the id of a question with another image, which is shown instead.

    Args:
        keys: id of each question with an image -> identifier of the image.
        seed: of the draw.

    Raises:
        UserError: there are fewer than two different images.
    """
    first_ids: dict[str, str] = {}
    for name in sorted(keys):
        first_ids.setdefault(keys[name], name)
    images = sorted(first_ids, key=lambda key: hashlib.sha256(f"{seed}\0{key}".encode()).digest())
    if len(images) < 2:
        raise UserError("--image shuffled needs at least two different images to exchange")
    indices = {key: index for index, key in enumerate(images)}
    donors = {}
    for name, key in keys.items():
        index = int(keyed_generator(seed, name, "picture").integers(len(images) - 1))
        donors[name] = first_ids[images[index + (index >= indices[key])]]
    return donors


def image_keys(rows: Iterable[Row]) -> dict[str, str]:
    """id -> identifier of the image, for the rows that have one."""
    return {row["id"]: image_key(row) for row in rows if row["image"] is not None}


class Donors(Mapping[str, Row]):
    """id -> the row whose image is shown instead, read from the data set on access.

    Args:
        rows: the whole data set, so that a limit does not change the draw.
        seed: of the draw.
    """

    def __init__(self, rows: Any, seed: int) -> None:
        self._rows = rows
        self._index = {name: index for index, name in enumerate(rows["id"])}
        self._donor = choose_donors(image_keys(rows), seed)

    def __getitem__(self, name: str) -> Row:
        return self._rows[self._index[self._donor[name]]]

    def __iter__(self):
        return iter(self._donor)

    def __len__(self) -> int:
        return len(self._donor)
