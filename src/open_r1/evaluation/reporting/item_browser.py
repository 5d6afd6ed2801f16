"""What the item browser of the report shows: every question with what each run answered, and small images."""

import base64
import hashlib
import io
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import Image

from open_r1.common.errors import UnusableInput, UserError
from open_r1.evaluation.comparing.pairs import Comparison
from open_r1.evaluation.comparing.scored_runs import Scored, by_run
from open_r1.evaluation.scoring.results import Result
from open_r1.evaluation.scoring.tallies import TEXT, columns, is_text, labels, modalities
from open_r1.grading.grader import Outcome
from open_r1.grading.problems import options_in, solution_letter

OUTCOMES = (Outcome.CORRECT, Outcome.WRONG, Outcome.UNPARSED, None)  # codes in the page; None: never asked
LONGEST_OUTPUT = 2000  # characters of an output in the page; the result file has it whole
SIDE = 160  # pixels of a small image
QUALITY = 72  # of its JPEG
NOT_HERE, NO_IMAGE = -1, -2  # instead of an image's place: it is not in the page; the question has none

Answer = list[Any]  # outcome code, letter, output, votes


@dataclass
class Browser:
    """The data of the item browser, as the page's script expects it, and what a reader should know about it."""

    runs: list[str]
    modalities: list[str]
    tasks: list[str]  # and the sources of text questions
    items: list[list[Any]]  # question, options, index of the right one, modality, task, image, answer per run
    images: list[str] = field(default_factory=list)  # data URIs
    notes: list[str] = field(default_factory=list)
    chosen: tuple[int, int] = (0, -1)  # the runs that are shown first: one, and what it is compared with (-1: nothing)

    def payload(self) -> dict[str, Any]:
        """What stands in the page as JSON."""
        names = ("runs", "modalities", "tasks", "items", "images", "chosen")
        return {name: getattr(self, name) for name in names}


def browser(
    scored: Sequence[Scored],
    compared: Comparison | None,
    image_root: Path | None,
    image_bytes: int,
    questions: int | None = None,
) -> Browser:
    """Every question of these result files with all answers to it.

    Args:
        scored: the files; those of one run on several sets become one column.
        compared: the two files that are shown first.
        image_root: folder of the images, for data that is a JSON list.
        image_bytes: how much of the page small images may take.
        questions: show so many at most, those first that runs disagree about.
    """
    runs = by_run(scored)
    answers: dict[str, list[Result | None]] = {}
    for place, members in enumerate(runs.values()):
        for one in members:
            for result in one.file.results:
                row = answers.setdefault(result.id, [None] * len(runs))
                row[place] = row[place] or result
    everything = len(answers)
    if questions is not None and questions < everything:
        answers = dict(sorted(answers.items(), key=_interest)[:questions])
    cells = [labels(_one(row)) for row in answers.values()]
    made = Browser(list(runs), modalities(cells), columns(cells), [])
    if compared is not None:
        column = {one.name: place for place, members in enumerate(runs.values()) for one in members}
        made.chosen = column[compared.second.name], column[compared.first.name]
    if len(answers) < everything:
        made.notes.append(
            f"{len(answers):,} of {everything:,} questions are in this page, those first that runs disagree about; "
            "the result files have them all."
        )
    places = _small_images(scored, answers, image_root, image_bytes, made)
    for row, (modality, task) in zip(answers.values(), cells, strict=True):
        question, options, right = _question(_one(row).problem, _one(row).solution)
        places_of_labels = made.modalities.index(modality), made.tasks.index(task)
        given = [None if result is None else _answer(result) for result in row]
        shown = NO_IMAGE if modality == TEXT else places.get(_one(row).image, NOT_HERE)
        made.items.append([question, options, right, *places_of_labels, shown, given])
    if any(len(result.output) > LONGEST_OUTPUT for row in answers.values() for result in row if result is not None):
        made.notes.append(
            f"Outputs are cut after {LONGEST_OUTPUT:,} characters here; the result files have them whole."
        )
    return made


def _one(row: Sequence[Result | None]) -> Result:
    return next(result for result in row if result is not None)


def _answer(result: Result) -> Answer:
    text = result.output if result.outcome is not None else (result.error or "")
    if len(text) > LONGEST_OUTPUT:
        text = f"{text[:LONGEST_OUTPUT]} … ({len(text):,} characters in all)"
    votes = Counter(sample.letter or "?" for sample in result.samples or ())
    counted = ", ".join(f"{letter} {count}" for letter, count in votes.most_common())
    return [OUTCOMES.index(result.outcome), result.letter, text, *([counted] if counted else [])]


@lru_cache(maxsize=1 << 16)
def _question(problem: str, solution: str) -> tuple[str, list[str], int]:
    """The question without its options, the options, and the place of the right one; -1 if it is not among them."""
    options, right = options_in(problem), solution_letter(solution)
    listed = list(options.values())
    ends = [at for at in _places(problem, "A)") if problem[at + 2 :].lstrip().startswith(listed[0])]
    question = problem[: ends[-1]].strip() if ends else problem
    return question, listed, list(options).index(right) if right in options else -1


def _places(text: str, sign: str) -> Iterator[int]:
    at = text.find(sign)
    while at >= 0:
        yield at
        at = text.find(sign, at + 1)


# --------------------------------------------------------------------------------------------------- images


def _small_images(
    scored: Sequence[Scored],
    answers: Mapping[str, Sequence[Result | None]],
    image_root: Path | None,
    limit: int,
    made: Browser,
) -> dict[str, int]:
    """Put small images into `made` until `limit` bytes are reached; returns the place of each image by its key.

    Those come first that runs disagree about, then those that are answered wrong; equals in an order of their own that
    favours no part of the data.
    """
    order: dict[str, str] = {}  # image -> the id of its most telling question
    for name, row in sorted(answers.items(), key=_interest):
        if not is_text(_one(row)):
            order.setdefault(_one(row).image, name)
    if not order:
        return {}
    places: dict[str, int] = {}
    rows = _Rows(scored, image_root)
    room, left_out = limit, Counter()
    for key, name in order.items() if rows.any else ():
        try:
            image = rows.image(name)
        except UnusableInput:
            left_out["cannot be opened"] += 1
            continue
        if image is None:
            left_out["not in the data set"] += 1
            continue
        uri = small_image(image)
        if len(uri) > room:
            rest = len(order) - len(places) - left_out.total()
            left_out[f"left out: more would take over {limit / 2**20:g} MiB"] = rest
            break
        room -= len(uri)
        places[key] = len(made.images)
        made.images.append(uri)
    made.notes += rows.problems
    if left_out:
        why = "; ".join(f"{count:,} {reason}" for reason, count in left_out.items())
        made.notes.append(
            f"{len(places):,} of {len(order):,} images are in this page, disagreements and errors first ({why})."
        )
    return places


def _interest(item: tuple[str, Sequence[Result | None]]) -> tuple[int, str]:
    """How early a question's image comes: 0 where runs disagree, 1 where one errs, 2 otherwise; then by hash."""
    name, row = item
    outcomes = {result.outcome for result in row if result is not None}
    rank = 0 if len(outcomes) > 1 else (2 if outcomes == {Outcome.CORRECT} else 1)
    return rank, hashlib.sha256(name.encode("utf-8", "backslashreplace")).hexdigest()


def small_image(image: Image.Image) -> str:
    """An image as a data URI of a JPEG that fits into SIDE x SIDE pixels."""
    image.thumbnail((SIDE, SIDE))
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


class _Rows:
    """Finds the row of a question in the data sets that the result files name; what is not there is said once."""

    def __init__(self, scored: Sequence[Scored], image_root: Path | None):
        self.problems: list[str] = []
        self._sets: list[tuple[Any, dict[str, int]]] = []
        manifests = [file.manifest for one in scored for file in one.files]
        for data, split, root in _once((m.get("data"), m.get("split"), m.get("image_root")) for m in manifests):
            self._open(data, split, image_root or root)

    @property
    def any(self) -> bool:
        """Whether a data set is there."""
        return bool(self._sets)

    def _open(self, data: Any, split: Any, root: Any) -> None:
        if not isinstance(data, str):
            self.problems.append("Images are not shown: the result file does not say which data set it is about.")
            return
        if not os.path.exists(data):  # which a name that no file can have does not raise for
            self.problems.append(f"Images are not shown: the data set {data} is not on this machine.")
            return
        from open_r1.data.loading import load_rows

        try:
            rows, _ = load_rows(data, split, root)
        except UserError as error:
            self.problems.append(f"The images of {data} are not shown: {error}")
            return
        self._sets.append((rows, {name: place for place, name in enumerate(rows["id"])}))

    def image(self, name: str) -> Image.Image | None:
        """The image of the question with this id; None where no set has it.

        Raises:
            ImageError: it cannot be opened.
        """
        from open_r1.data.row_images import row_image

        for rows, places in self._sets:
            if name in places:
                return row_image(rows[places[name]])
        return None


def _once(values: Iterable[Any]) -> list[Any]:
    return list(dict.fromkeys(values))
