"""What a question is shown with: as it stands, without its image, with another one, or with permuted options.

A model that reads images loses accuracy without them; one that has learnt which texts or letters tend to be right
does not. Every change follows from the seed and the question's id alone.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from open_r1.common.errors import UserError
from open_r1.data.loading import content_digest
from open_r1.data.row_images import image_key, row_image
from open_r1.evaluation.answering.sampling import keyed
from open_r1.evaluation.answering.settings import ImageChange, OptionsChange
from open_r1.grading.option_references import fixed_options
from open_r1.grading.problems import LETTERS, options_in, render_lines, render_problem

Row = Mapping[str, Any]

_TRIES = 20
"""Permutations of one question's options before it is left as it stands."""


@dataclass(frozen=True)
class Shown:
    """A problem as the model is shown it."""

    problem: str
    letters: dict[str, str]
    """Letter in this problem -> letter of the same option in the row's own."""
    fixed: frozenset[str] = frozenset()
    """Letters that were not permuted with the others, because of what the options say."""

    def letter(self, original: str) -> str:
        """The letter that the row's own `original` has in this problem."""
        return next(shown for shown, own in self.letters.items() if own == original)

    def original(self, letter: str | None) -> str | None:
        """The row's own letter for one that was read from an answer."""
        return None if letter is None else self.letters[letter]


@dataclass(frozen=True)
class View:
    """How questions are shown; the default shows them as they are."""

    image: ImageChange = "shown"
    options: OptionsChange = "as_given"
    seed: int = 0
    donors: Mapping[str, Row] = field(default_factory=dict)
    """With shuffled images: for each id a row whose image it is shown."""

    def problem(self, row: Row) -> Shown:
        """The problem with its options in the order in which they are offered."""
        if self.options == "shuffled":
            return permuted(row["problem"], row["id"], self.seed)
        return Shown(row["problem"], {letter: letter for letter in options_in(row["problem"])})

    def image_shown(self, row: Row) -> str | None:
        """What tells the image that is shown from others; None where none is shown."""
        if row["image"] is None or self.image == "none":
            return None
        if self.image == "noise":
            return f"noise {row['id']}"
        return image_key(self._donor(row))

    def content(self, row: Row) -> str:
        """Everything that is shown of a question, as 16 hexadecimal digits; see `content_digest`."""
        hidden = row["image"] is None or self.image == "none"
        return content_digest(row, None if hidden else self._donor(row)["image"])

    def open(self, row: Row) -> Image.Image:
        """The image that is shown. Raises `ImageError` if it cannot be used."""
        if self.image == "noise":
            return noise(row_image(row).size, row["id"], self.seed)
        return row_image(self._donor(row))

    def _donor(self, row: Row) -> Row:
        return self.donors[row["id"]] if self.image == "shuffled" else row


def permuted(problem: str, name: str, seed: int) -> Shown:
    """The problem with its options in an order drawn from (seed, name).

    Options that speak of others keep their place, and with them the whole order where options are named by letter
    (`fixed_options`). A few problems cannot be written with permuted options so that they could be read again; those
    stay as they are too.
    """
    options = options_in(problem)
    letters = list(options)
    stem = problem[: _first_option(problem, options)]
    write = render_lines if stem.endswith("\n") else render_problem
    fixed = fixed_options(stem, options)
    movable = [letter for letter in letters if letter not in fixed]
    draw = keyed(seed, name, "options")
    for _ in range(_TRIES if movable else 0):
        moved = dict(zip(movable, (movable[index] for index in draw.permutation(len(movable))), strict=True))
        order = [moved.get(letter, letter) for letter in letters]
        try:
            written = write(stem, [options[letter] for letter in order])
        except UserError:
            continue
        return Shown(written, dict(zip(LETTERS, order, strict=False)), fixed)
    return Shown(problem, {letter: letter for letter in letters}, frozenset(letters))


def count_fixed(view: View, rows: Iterable[Any]) -> dict[str, int]:
    """How many questions keep some of their options in place, and how many all; {} where options are not permuted."""
    if view.options != "shuffled":
        return {}
    shown = [view.problem(row) for row in rows]
    return {
        "options_some_fixed": sum(0 < len(each.fixed) < len(each.letters) for each in shown),
        "options_all_fixed": sum(len(each.fixed) == len(each.letters) for each in shown),
    }


def _first_option(problem: str, options: Mapping[str, str]) -> int:
    """Where the options begin: the last `A)` from which they read as they do in the whole problem."""
    at = problem.rfind("A)")
    while at > 0:
        try:
            line = "?\n" if problem[at - 1] == "\n" else ""  # options on lines of their own follow a question's line
            if options_in(line + problem[at:]) == options:
                return at
        except UserError:
            pass
        at = problem.rfind("A)", 0, at)
    return 0


def noise(size: tuple[int, int], name: str, seed: int) -> Image.Image:
    """An image of `size` (width, height) in which every value of every pixel is drawn evenly from 0 to 255."""
    width, height = size
    return Image.fromarray(keyed(seed, name, "noise").integers(0, 256, (height, width, 3), dtype="uint8"))


def choose_donors(keys: Mapping[str, str], seed: int) -> dict[str, str]:
    """For every question the id of another one, whose image it is shown; never one with its own image.

    Args:
        keys: id of each question with an image -> what identifies the image.
        seed: the draw's.

    Raises:
        UserError: there are not two different images.
    """
    first: dict[str, str] = {}
    for name in sorted(keys):
        first.setdefault(keys[name], name)
    images = sorted(first, key=lambda key: hashlib.sha256(f"{seed}\0{key}".encode()).digest())
    if len(images) < 2:
        raise UserError("--image shuffled needs at least two different images to exchange")
    place = {key: number for number, key in enumerate(images)}
    found = {}
    for name, key in keys.items():
        other = int(keyed(seed, name, "picture").integers(len(images) - 1))
        found[name] = first[images[other + (other >= place[key])]]
    return found


def image_keys(rows: Iterable[Row]) -> dict[str, str]:
    """id -> what identifies the image, for the rows that have one."""
    return {row["id"]: image_key(row) for row in rows if row["image"] is not None}


class Donors(Mapping[str, Row]):
    """id -> the row whose image it is shown, read from the data set when asked for.

    Args:
        rows: the whole data set, so that a limit does not change the draw.
        seed: the draw's.
    """

    def __init__(self, rows: Any, seed: int) -> None:
        self._rows = rows
        self._place = {name: number for number, name in enumerate(rows["id"])}
        self._donor = choose_donors(image_keys(rows), seed)

    def __getitem__(self, name: str) -> Row:
        return self._rows[self._place[self._donor[name]]]

    def __iter__(self):
        return iter(self._donor)

    def __len__(self) -> int:
        return len(self._donor)
