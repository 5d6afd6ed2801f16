"""Changes to a question before the model sees it: no image, noise, another image, or shuffled options.

A model that reads images loses accuracy without them; a model that has learnt which texts or letters tend to be right
does not. Every change depends on the seed and the question's id alone.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from open_r1.common.errors import UserError
from open_r1.data.loading import content_digest
from open_r1.data.row_images import Undecoded, image_keys, key_of, open_undecoded
from open_r1.evaluation.answering.backends.sampling import keyed_generator
from open_r1.evaluation.answering.settings import ImageChange, OptionsChange
from open_r1.grading.option_references import fixed_options
from open_r1.grading.problems import LETTERS, options_in, render_lines, render_problem
from open_r1.vocabulary.answer_types import AnswerType
from open_r1.vocabulary.prompts import mark_order, number_marks, plain_marks

Row = Mapping[str, Any]

_TRIES = 20
"""How many shuffled orders of a question's options are tried before it is shown unchanged."""


@dataclass(frozen=True)
class ShownProblem:
    """A problem as the model sees it."""

    problem: str
    letters: dict[str, str]
    """Letter in this problem -> letter of the same option in the row; none for a question without options."""
    fixed: frozenset[str] = frozenset()
    """Letters that were not shuffled, because their options refer to other options."""
    image_order: tuple[int, ...] = ()
    """Numbers of the row's images in the order of their marks, if options that are images were shuffled."""

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
    donors: Mapping[str, Sequence[Undecoded]] = field(default_factory=dict)
    """With shuffled images: id -> the images that are shown instead."""

    def problem(self, row: Row) -> ShownProblem:
        """The problem with its options in the order that the model sees."""
        if row.get("answer_type", AnswerType.CHOICE) != AnswerType.CHOICE:
            return ShownProblem(row["problem"], {})
        if self.options == "shuffled":
            return shuffle_options(row["problem"], row["id"], self.seed)
        return ShownProblem(row["problem"], {letter: letter for letter in options_in(row["problem"])})

    def shown_image_keys(self, row: Row) -> tuple[str, ...]:
        """Identifiers of the images that are shown, in order; none without images."""
        if self.image == "none":
            return ()
        if self.image == "noise":
            return tuple(f"noise {_image_name(row, place)}" for place in range(len(row["images"])))
        return tuple(key_of(image) for image in self._shown_images(row))

    def content(self, row: Row) -> str:
        """A hash of the images and texts that the model sees, 16 hexadecimal digits; see `content_digest`."""
        return content_digest(row, [] if self.image == "none" else self._shown_images(row))

    def open(self, row: Row, place: int) -> Image.Image:
        """The image that is shown as number `place` of a row, from 0. Raises `ImageError` if it is not usable."""
        if self.image == "noise":
            own_size = open_undecoded(row["images"][place], row["id"]).size
            return noise(own_size, _image_name(row, place), self.seed)
        return open_undecoded(self._shown_images(row)[place], row["id"])

    def _shown_images(self, row: Row) -> Sequence[Undecoded]:
        images = self.donors[row["id"]] if self.image == "shuffled" and row["images"] else row["images"]
        order = self.problem(row).image_order if self.options == "shuffled" else ()
        return [images[number] for number in order] if order else images


def _image_name(row: Row, place: int) -> str:
    """A name for an image of a row, which is the row's id for the first."""
    return row["id"] if place == 0 else f"{row['id']} {place}"


def shuffle_options(problem: str, name: str, seed: int) -> ShownProblem:
    """The problem with its options in an order drawn from (seed, name).

    Options that refer to others, such as "none of these", keep their place; if options refer to others by letter, the
    whole order stays (`fixed_options`). Problems whose options could not be parsed after shuffling stay unchanged.
    """
    options = options_in(numbered := number_marks(problem))
    letters = list(options)
    stem = numbered[: _first_option(numbered, options)]
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
        letter_map = dict(zip(LETTERS, order, strict=False))
        return ShownProblem(plain_marks(shuffled), letter_map, fixed, tuple(mark_order(shuffled)))
    return ShownProblem(problem, {letter: letter for letter in letters}, frozenset(letters))


def count_fixed(view: View, rows: Iterable[Any]) -> dict[str, int]:
    """How many questions keep some options, or all, in place; {} if options are not shuffled."""
    if view.options != "shuffled":
        return {}
    problems = [view.problem(row) for row in rows]
    problems = [problem for problem in problems if problem.letters]
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


Place = tuple[str, int]
"""An image of a data set: the id of a question that shows it, and its number there."""


def choose_donors(keys: Mapping[str, Sequence[str]], seed: int) -> dict[str, list[Place]]:
    """For every question as many images of other questions as it has, none of which it shows itself.

    Args:
        keys: id of each question with images -> identifiers of the images.
        seed: of the draw.

    Raises:
        UserError: there are fewer than two different images, or a question shows all that there are.
    """
    places: dict[str, Place] = {}
    for name in sorted(keys):
        for number, key in enumerate(keys[name]):
            places.setdefault(key, (name, number))
    images = sorted(places, key=lambda key: hashlib.sha256(f"{seed}\0{key}".encode()).digest())
    indices = {key: index for index, key in enumerate(images)}
    donors = {}
    for name, own_keys in keys.items():
        own_indices = sorted({indices[key] for key in own_keys})
        count = len(images) - len(own_indices)
        if count < 1:
            raise UserError("--image shuffled needs at least two different images to exchange")
        draw = keyed_generator(seed, name, "picture")
        drawn = [int(draw.integers(count)) for _ in own_keys]
        donors[name] = [places[images[_past(index, own_indices)]] for index in drawn]
    return donors


def _past(index: int, left_out: Sequence[int]) -> int:
    """The index in a list, of which some places are left out, of the element that is number `index` without them."""
    for place in left_out:
        index += index >= place
    return index


class Donors(Mapping[str, Sequence[Undecoded]]):
    """id -> the images that are shown instead, read from the data set on access.

    Args:
        rows: the whole data set, so that a limit does not change the draw.
        seed: of the draw.
    """

    def __init__(self, rows: Any, seed: int) -> None:
        self._rows = rows
        self._index = {name: index for index, name in enumerate(rows["id"])}
        keys = {row["id"]: image_keys(row) for row in rows.select_columns(["id", "images"]) if row["images"]}
        self._donor = choose_donors(keys, seed)

    def __getitem__(self, name: str) -> Sequence[Undecoded]:
        return [self._rows[self._index[donor]]["images"][number] for donor, number in self._donor[name]]

    def __iter__(self):
        return iter(self._donor)

    def __len__(self) -> int:
        return len(self._donor)
