"""The blind floor: the accuracy that the option texts alone give away, with no image and no question.

In OmniMedVQA the right options are often written in words that wrong ones rarely use. An accuracy below or near this
floor shows no understanding of images. It is reported with uniform guessing, and with how many test questions
show an image of the training split.
"""

from collections import Counter
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from open_r1.common.errors import UnusableInput, UserError
from open_r1.data.loading import load_rows
from open_r1.data.question_checks import answer_in
from open_r1.data.readers.json_rows import entries_of, read_entry
from open_r1.data.row_images import image_keys
from open_r1.grading.problems import options_in, solution_letter
from open_r1.vocabulary.answer_types import AnswerType
from open_r1.vocabulary.column_names import ColumnNames


class BlindGuesser:
    """Chooses the option whose text was right most often, of all times it was offered in training.

    A text that does not occur in training has share 0, and options that tie share the point equally. A question without
    options is answered with the most frequent answer of its answer type in training.

    Args:
        train_rows: rows with `problem` and `solution`; without `answer_type` they are questions of choice.
        fold_case: compare option texts without regard to case.

    Raises:
        UserError: a row of choice without options or solution.
    """

    def __init__(self, train_rows: Iterable[Mapping[str, Any]], fold_case: bool = False):
        self._fold_case = fold_case
        self._offered: Counter[str] = Counter()
        self._gold: Counter[str] = Counter()
        self._answers: dict[str, Counter[str]] = {}
        for row in train_rows:
            if answer_type_of(row) is not AnswerType.CHOICE:
                self._answers.setdefault(row["answer_type"], Counter())[_plain(row["solution"])] += 1
                continue
            options = self._options(row)
            self._offered.update(options.values())
            self._gold[options[solution_letter(row["solution"])]] += 1

    def points(self, row: Mapping[str, Any]) -> float:
        """The share of a point (0 to 1) that the guess earns on one question."""
        if answer_type_of(row) is not AnswerType.CHOICE:
            answers = self._answers.get(row["answer_type"])
            right = {_plain(answer) for answer in (row["solution"], *row.get("aliases", ()))}
            return float(bool(answers) and max(answers, key=lambda text: (answers[text], text)) in right)
        shares = {letter: self._share(text) for letter, text in self._options(row).items()}
        best = [letter for letter, share in shares.items() if share == max(shares.values())]
        return (solution_letter(row["solution"]) in best) / len(best)

    def _share(self, text: str) -> float:
        return self._gold[text] / self._offered[text] if self._offered[text] else 0.0

    def _options(self, row: Mapping[str, Any]) -> dict[str, str]:
        options = options_in(row["problem"])
        return {letter: text.casefold() for letter, text in options.items()} if self._fold_case else options


def answer_type_of(row: Mapping[str, Any]) -> AnswerType:
    """The answer type of a row; choice where it does not say."""
    return AnswerType(row.get("answer_type") or AnswerType.CHOICE)


def _plain(solution: str) -> str:
    """An answer as it is compared: its text without tags, case, spaces at its ends and a final period."""
    return answer_in(solution).casefold().rstrip(".").rstrip()


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

    rows: Sequence[Mapping[str, Any]]  # problem, solution, answer_type, aliases
    images: Sequence[Collection[Hashable]]
    dropped: int = 0


@dataclass(frozen=True)
class Floors:
    """What can be scored without understanding images; shares of 1."""

    train: int  # questions
    test: int
    choice: int  # test questions with options, which the next three are about
    exact: float
    folded: float
    chance: float
    image_in_training: int  # test questions with an image that is in training
    without_options: Mapping[AnswerType, tuple[int, float]]
    """Test questions of the other answer types, and the accuracy of their most frequent answer in training."""

    def lines(self) -> list[str]:
        """What `eval/blind.py` prints."""
        share = 100 * self.image_in_training / self.test
        lines = [f"{self.test:,} test questions, guessed from {self.train:,} training questions"]
        if self.choice:
            lines += [
                f"blind floor, texts compared exactly   {100 * self.exact:6.2f} %",
                f"blind floor, texts case-folded        {100 * self.folded:6.2f} %",
                f"uniform guessing                      {100 * self.chance:6.2f} %",
            ]
        lines += [
            f"{answer_type} questions, most frequent answer {100 * accuracy:6.2f} %  ({count:,} questions)"
            for answer_type, (count, accuracy) in self.without_options.items()
        ]
        return [*lines, f"image also in training              {share:6.2f} %  ({self.image_in_training:,} questions)"]


def measure(train: Side, test: Side) -> Floors:
    """Both floors, uniform guessing, and how many test questions show an image of training.

    Raises:
        UserError: there is no test question.
    """
    if not test.rows:
        raise UserError("there are no test questions, so there is no blind floor")
    by_type = {kind: [row for row in test.rows if answer_type_of(row) is kind] for kind in AnswerType}
    choice, train_images = by_type.pop(AnswerType.CHOICE), {image for images in train.images for image in images}
    return Floors(
        train=len(train.rows),
        test=len(test.rows),
        choice=len(choice),
        exact=blind_floor(train.rows, choice) if choice else 0.0,
        folded=blind_floor(train.rows, choice, fold_case=True) if choice else 0.0,
        chance=chance(row["problem"] for row in choice) if choice else 0.0,
        image_in_training=sum(not train_images.isdisjoint(images) for images in test.images),
        without_options={kind: (len(rows), blind_floor(train.rows, rows)) for kind, rows in by_type.items() if rows},
    )


def read_file(path: Path, columns: ColumnNames | None = None) -> Side:
    """A JSON list or JSON Lines of questions; an image is known by its path, and is not opened.

    Raises:
        UserError: the file cannot be read or is no such list, or holds no usable row.
    """
    rows, images, dropped = [], [], 0
    for _, value in entries_of(path):
        try:
            entry = read_entry(value, columns)
        except UnusableInput:
            dropped += 1
            continue
        rows.append(asdict(entry.texts))
        images.append(entry.images)
    if not rows:
        raise UserError(f"{path} has no row that can be used ({dropped} cannot); give a JSON list of questions")
    return Side(rows, images, dropped)


def read_set(path: Path, split: str, image_root: Path | None = None, columns: ColumnNames | None = None) -> Side:
    """One split of any set that `load_rows` reads; an image is known by its content, or where it is a file by its path.

    Raises:
        UserError: as `load_rows`.
    """
    rows, dropped = load_rows(path, split, image_root, columns)
    texts = [dict(row) for row in rows.select_columns(["problem", "solution", "answer_type", "aliases"])]
    images = [image_keys(dict(row)) for row in rows.select_columns(["images"])]
    return Side(texts, images, len(dropped))
