"""The data of the report's item browser: every question with the answer of each run and a small image."""

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
from open_r1.vocabulary.column_names import parse_columns

OUTCOMES = (
    Outcome.CORRECT,
    Outcome.WRONG,
    Outcome.UNPARSED,
    None,
)  # by their codes in the page; None: an error
LONGEST_OUTPUT = 2000  # characters of an output in the page; the result file has it whole
SIDE = 160  # pixels of a small image
QUALITY = 72  # of its JPEG
NOT_HERE, NO_IMAGE = -1, -2  # in place of an image's index: the page lacks it; the question has none

Answer = list[Any]  # outcome code, letter, output, votes


@dataclass
class Browser:
    """The data of the item browser, as page.js expects it, and notes for the reader."""

    runs: list[str]
    modalities: list[str]
    tasks: list[str]  # and the sources of text questions
    items: list[list[Any]]  # question, options, index of the right one, modality, task, image, answer per run
    images: list[str] = field(default_factory=list)  # data URIs
    notes: list[str] = field(default_factory=list)
    chosen: tuple[int, int] = (0, -1)  # the runs selected at first: one and the one to compare it with (-1: none)

    def payload(self) -> dict[str, Any]:
        """The JSON in the page."""
        names = ("runs", "modalities", "tasks", "items", "images", "chosen")
        return {name: getattr(self, name) for name in names}


def build_browser(
    scored: Sequence[Scored],
    compared: Comparison | None,
    image_root: Path | None,
    image_bytes: int,
    questions: int | None = None,
) -> Browser:
    """Collect every question of these result files with all answers to it.

    Args:
        scored: the files; those of one run on several sets become one column.
        compared: the two runs that are selected at first.
        image_root: folder of the images, for data that is a JSON list.
        image_bytes: limit for all small images together.
        questions: limit for the number of questions; those that runs disagree about come first.
    """
    runs = by_run(scored)
    answers: dict[str, list[Result | None]] = {}
    for place, members in enumerate(runs.values()):
        for scored_run in members:
            for result in (*scored_run.file.results, *scored_run.file.free):
                results = answers.setdefault(result.id, [None] * len(runs))
                results[place] = results[place] or result
    total = len(answers)
    if questions is not None and questions < total:
        answers = dict(sorted(answers.items(), key=_interest)[:questions])
    cells = [labels(_some_result(results)) for results in answers.values()]
    browser = Browser(list(runs), modalities(cells), columns(cells), [])
    if compared is not None:
        column = {scored_run.name: place for place, members in enumerate(runs.values()) for scored_run in members}
        browser.chosen = column[compared.second.name], column[compared.first.name]
    if len(answers) < total:
        browser.notes.append(
            f"{len(answers):,} of {total:,} questions are in this page, those that runs disagree about first; "
            "the result files have them all."
        )
    places = _small_images(scored, answers, image_root, image_bytes, browser)
    for results, (modality, task) in zip(answers.values(), cells, strict=True):
        question, options, right = _shown_question(_some_result(results))
        places_of_labels = browser.modalities.index(modality), browser.tasks.index(task)
        answers_of_runs = [None if result is None else _answer(result) for result in results]
        image_place = NO_IMAGE if modality == TEXT else places.get(_image(results), NOT_HERE)
        browser.items.append([question, options, right, *places_of_labels, image_place, answers_of_runs])
    if any(
        len(result.output) > LONGEST_OUTPUT for results in answers.values() for result in results if result is not None
    ):
        browser.notes.append(
            f"Outputs are cut after {LONGEST_OUTPUT:,} characters here; the result files have them whole."
        )
    return browser


def _image(results: Sequence[Result | None]) -> str:
    """What identifies the image of a question, whatever cluster it is in."""
    result = _some_result(results)
    return result.own_image or result.image


def _some_result(results: Sequence[Result | None]) -> Result:
    return next(result for result in results if result is not None)


def _answer(result: Result) -> Answer:
    text = result.output if result.outcome is not None else (result.error or "")
    if len(text) > LONGEST_OUTPUT:
        text = f"{text[:LONGEST_OUTPUT]} … ({len(text):,} characters in all)"
    votes = Counter(sample.letter or "?" for sample in result.samples or ())
    counted = ", ".join(f"{letter} {count}" for letter, count in votes.most_common())
    return [OUTCOMES.index(result.outcome), result.letter, text, *([counted] if counted else [])]


def _shown_question(result: Result) -> tuple[str, list[str], int]:
    """As `_question`; a closed or open question with what is expected in place of options."""
    if result.answer_type is None:
        return _question(result.problem, result.solution)
    return f"{result.problem} (expected: {' or '.join(result.expected.references)})", [], -1


@lru_cache(maxsize=1 << 16)
def _question(problem: str, solution: str) -> tuple[str, list[str], int]:
    """The question without its options, the options, and the index of the right one (-1 if none is right)."""
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
    browser: Browser,
) -> dict[str, int]:
    """Put small images into `browser` until `limit` bytes are reached; returns the index of each image by its key.

    Images of questions that runs disagree about come first, then those of wrong answers; ties are ordered by hash, so
    that no part of the data is preferred.
    """
    order: dict[str, str] = {}  # image -> the id of its first question in this order
    for name, results in sorted(answers.items(), key=_interest):
        if not is_text(_some_result(results)):
            order.setdefault(_image(results), name)
    if not order:
        return {}
    places: dict[str, int] = {}
    rows = _Rows(scored, image_root)
    bytes_left, left_out = limit, Counter()
    for key, name in order.items() if rows.has_sets else ():
        try:
            images = rows.images(name)
        except UnusableInput:
            left_out["cannot be opened"] += 1
            continue
        if not images:
            left_out["not in the data set"] += 1
            continue
        uri = small_image(*images)
        if len(uri) > bytes_left:
            unvisited = len(order) - len(places) - left_out.total()
            left_out[f"left out: more would take over {limit / 2**20:g} MiB"] = unvisited
            break
        bytes_left -= len(uri)
        places[key] = len(browser.images)
        browser.images.append(uri)
    browser.notes += rows.problems
    if left_out:
        why = "; ".join(f"{count:,} {reason}" for reason, count in left_out.items())
        browser.notes.append(
            f"{len(places):,} of {len(order):,} images are in this page, disagreements and errors first ({why})."
        )
    return places


def _interest(item: tuple[str, Sequence[Result | None]]) -> tuple[int, str]:
    """Sort key of a question: 0 if runs disagree, 1 if all fail, 2 if all are right; then by hash."""
    name, results = item
    outcomes = {result.outcome for result in results if result is not None}
    rank = 0 if len(outcomes) > 1 else (2 if outcomes == {Outcome.CORRECT} else 1)
    return rank, hashlib.sha256(name.encode("utf-8", "backslashreplace")).hexdigest()


def small_image(*images: Image.Image) -> str:
    """Images side by side as a data URI of a JPEG; each fits into SIDE x SIDE pixels."""
    for image in images:
        image.thumbnail((SIDE, SIDE))
    strip = Image.new("RGB", (sum(image.width for image in images), max(image.height for image in images)), "white")
    left = 0
    for image in images:
        strip.paste(image, (left, 0))
        left += image.width
    stream = io.BytesIO()
    strip.save(stream, "JPEG", quality=QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


_DATA_KEYS = ("data", "split", "image_root", "columns")


class _Rows:
    """Finds the row of a question in the data sets that the result files name; missing sets are in `problems`."""

    def __init__(self, scored: Sequence[Scored], image_root: Path | None):
        self.problems: list[str] = []
        self._sets: list[tuple[Any, dict[str, int]]] = []
        manifests = [file.manifest for scored_run in scored for file in scored_run.files]
        for data, split, root, names in _unique([tuple(map(manifest.get, _DATA_KEYS)) for manifest in manifests]):
            self._open(data, split, image_root or root, names)

    @property
    def has_sets(self) -> bool:
        """Whether any data set could be opened."""
        return bool(self._sets)

    def _open(self, data: Any, split: Any, root: Any, names: Any) -> None:
        if not isinstance(data, str):
            self.problems.append("Images are not shown: the result file does not say which data set it is about.")
            return
        if not os.path.exists(data):  # unlike Path.exists it does not raise for an impossible name
            self.problems.append(f"Images are not shown: the data set {data} is not on this machine.")
            return
        from open_r1.data.loading import load_rows

        try:
            rows, _ = load_rows(data, split, root, parse_columns(names))
        except UserError as error:
            self.problems.append(f"The images of {data} are not shown: {error}")
            return
        self._sets.append((rows, {name: place for place, name in enumerate(rows["id"])}))

    def images(self, question_id: str) -> list[Image.Image] | None:
        """The images of the question with this id; None if no set has it.

        Raises:
            ImageError: an image cannot be opened.
        """
        from open_r1.data.row_images import row_images

        for rows, places in self._sets:
            if question_id in places:
                return row_images(rows[places[question_id]])
        return None


def _unique(values: Iterable[Any]) -> list[Any]:
    return list(dict.fromkeys(values))
