"""The data of the report's item browser: every question with the answer of each run and a small image.

The page opens an index at once: a column per property of the questions and of each run's answers, in which equal texts
are stored once. What models wrote is in blocks of `PER_BLOCK` questions, which the page inflates when it shows one.
"""

import hashlib
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from open_r1.common.errors import UserError
from open_r1.evaluation.comparing.changed_runs import Change, what_changed
from open_r1.evaluation.comparing.pairs import Comparison
from open_r1.evaluation.comparing.scored_runs import Scored, by_run
from open_r1.evaluation.reporting.items.packing import pack
from open_r1.evaluation.reporting.items.small_images import small_images
from open_r1.evaluation.reporting.review.letters import shown_letters
from open_r1.evaluation.reporting.review.looking import QUADRANTS, looks
from open_r1.evaluation.scoring.results import Result
from open_r1.evaluation.scoring.tallies import TEXT, columns, is_text, labels, modalities
from open_r1.grading.grader import Outcome
from open_r1.grading.problems import options_in, solution_letter
from open_r1.vocabulary.answer_types import AnswerType
from open_r1.vocabulary.modes import Mode
from open_r1.vocabulary.prompts import wording

OUTCOMES = (Outcome.CORRECT, Outcome.WRONG, Outcome.UNPARSED, None)  # by their codes in the page; None: an error
NOTHING = -1  # in a column of codes: unknown, none, or the run has no answer to this question
NO_IMAGE = -2  # in place of an image's index: the question has none; NOTHING: the page lacks it
PER_BLOCK = 256
"""Questions whose outputs are one block."""
LONGEST_OUTPUT = (2000, 1200, 700, 400, 200)
"""Characters of an output in the page: the first at which all have room. The result file has them whole."""
OUTPUT_BYTES = 9 * 2**20
"""Limit for all blocks of outputs together."""
PLACEHOLDER = "{Question}"

Answers = Mapping[str, Sequence[Result | None]]  # by id of the question, the result of each run
Column = list[Any]


@dataclass
class Browser:
    """The data of the item browser, as data.js expects it, and notes for the reader."""

    index: dict[str, Any]
    outputs: list[str]  # packed blocks
    images: list[str]  # base64 of JPEGs
    notes: list[str] = field(default_factory=list)

    @property
    def packed_index(self) -> str:
        return pack(self.index)


def build_browser(
    scored: Sequence[Scored],
    compared: Comparison | None,
    image_root: Path | None,
    image_bytes: int,
    questions: int | None = None,
    changed: Sequence[Change] = (),
) -> Browser:
    """Collect every question of these result files with all answers to it.

    Args:
        scored: the files; those of one run on several sets become one column.
        compared: the two runs that are shown at first.
        image_root: folder of the images, for data that is a JSON list.
        image_bytes: limit for all small images together.
        questions: limit for the number of questions; those that runs disagree about come first.
        changed: runs to which something else was shown: which questions a run answers without looking.
    """
    runs, notes = by_run(scored), []
    answers = all_answers = _answers(runs)
    if questions is not None and questions < len(all_answers):
        answers = dict(sorted(all_answers.items(), key=_interest)[:questions])
        notes.append(
            f"{len(answers):,} of {len(all_answers):,} questions are in this page, those that runs disagree about "
            "first; the result files have them all."
        )
    question_ids: dict[str, str] = {}  # image -> its first question by interest
    for name, results in sorted(answers.items(), key=_interest):
        if not is_text(_some_result(results)):
            question_ids.setdefault(_image(results), name)
    places, images, more_notes = small_images(scored, question_ids, image_root, image_bytes)
    outputs, longest = _output_blocks(list(answers.values()))
    if longest is not None:
        more_notes.append(f"Outputs are cut to {longest:,} characters here; the result files have them whole.")
    index = _question_columns(answers, places) | _run_columns(runs, answers, changed) | {"perBlock": PER_BLOCK}
    index["selected"] = _selected(runs, compared)
    return Browser(index, outputs, images, notes + more_notes)


def _answers(runs: Mapping[str, Sequence[Scored]]) -> Answers:
    answers: dict[str, list[Result | None]] = {}
    for place, members in enumerate(runs.values()):
        for scored_run in members:
            for result in (*scored_run.file.results, *scored_run.file.free):
                results = answers.setdefault(result.id, [None] * len(runs))
                results[place] = results[place] or result
    return answers


def _interest(item: tuple[str, Sequence[Result | None]]) -> tuple[int, str]:
    """Sort key of a question: 0 if runs disagree, 1 if all fail, 2 if all are right; then by hash.

    The hash prefers no part of the data.
    """
    name, results = item
    outcomes = {result.outcome for result in results if result is not None}
    rank = 0 if len(outcomes) > 1 else (2 if outcomes == {Outcome.CORRECT} else 1)
    return rank, hashlib.sha256(name.encode("utf-8", "backslashreplace")).hexdigest()


def _image(results: Sequence[Result | None]) -> str:
    """What identifies the image of a question, whatever cluster it is in."""
    result = _some_result(results)
    return result.own_image or result.image


def _some_result(results: Sequence[Result | None]) -> Result:
    return next(result for result in results if result is not None)


def _selected(runs: Mapping[str, Sequence[Scored]], compared: Comparison | None) -> list[int]:
    """The runs that are shown at first: the later one of a comparison, but of a changed run the ordinary one."""
    if compared is None:
        return [0]
    column = {scored_run.name: place for place, members in enumerate(runs.values()) for scored_run in members}
    first, second = compared.first, compared.second
    names = (first, second) if second.perturbed and not first.perturbed else (second, first)
    return [column[run.name] for run in names]


# ------------------------------------------------------------------------------------------------- columns


class _Shared:
    """Values that columns name by their number, so that equal ones are stored once."""

    def __init__(self) -> None:
        self._numbers: dict[Hashable, int] = {}

    def number(self, value: Hashable | None) -> int:
        """The number of a value, NOTHING of None."""
        return NOTHING if value is None else self._numbers.setdefault(value, len(self._numbers))

    @property
    def values(self) -> list[Any]:
        return list(self._numbers)


def _question_columns(answers: Answers, places: Mapping[str, int]) -> dict[str, Any]:
    """What is the same for all runs: texts, labels and images."""
    some_results = [_some_result(results) for results in answers.values()]
    cells = [labels(result) for result in some_results]
    shared_modalities, shared_tasks = modalities(cells), columns(cells)
    problems = _Shared()
    return {
        "modalities": shared_modalities,
        "tasks": shared_tasks,
        "id": list(answers),
        "problem": [problems.number(_problem(result)) for result in some_results],
        "problems": problems.values,
        "modality": [shared_modalities.index(modality) for modality, _ in cells],
        "task": [shared_tasks.index(task) for _, task in cells],
        "image": [
            NO_IMAGE if modality == TEXT else places.get(_image(results), NOTHING)
            for results, (modality, _) in zip(answers.values(), cells, strict=True)
        ],
        "seen": [_seen(results) for results in answers.values()],
    }


def _seen(results: Sequence[Result | None]) -> int:
    """Whether the image is in the training split of any run: 1, 0, or NOTHING where no run knows."""
    values = {result.seen for result in results if result is not None} - {None}
    return int(any(values)) if values else NOTHING


def _problem(result: Result) -> tuple[str, int, tuple[str, ...], int, str]:
    """As `_parsed`, and what a closed or open question expects; it has no options."""
    if result.answer_type is None:
        return *_parsed(result.problem, result.solution), ""
    return result.problem, len(result.problem), (), NOTHING, " or ".join(result.expected.references)


@lru_cache(maxsize=1 << 16)
def _parsed(problem: str, solution: str) -> tuple[str, int, tuple[str, ...], int]:
    """The problem, where its options begin, the options, and the index of the right one (NOTHING if none is right)."""
    options, right = options_in(problem), solution_letter(solution)
    listed = list(options.values())
    starts = [at for at in _places(problem, "A)") if problem[at + 2 :].lstrip().startswith(listed[0])]
    end = starts[-1] if starts else len(problem)
    return problem, end, tuple(listed), list(options).index(right) if right in options else NOTHING


def _places(text: str, sign: str) -> Iterator[int]:
    at = text.find(sign)
    while at >= 0:
        yield at
        at = text.find(sign, at + 1)


def _run_columns(runs: Mapping[str, Sequence[Scored]], answers: Answers, changed: Sequence[Change]) -> dict[str, Any]:
    """The runs with what was read from their answers, and the texts that they share."""
    read, wordings = _Shared(), _Shared()
    column = {scored_run.name: place for place, members in enumerate(runs.values()) for scored_run in members}
    shown_runs = []
    for place, (name, members) in enumerate(runs.items()):
        names = {run.name for run in members}
        of_members = [change for change in changed if change.ordinary.name in names]
        without_image = [change for change in of_members if change.changed.shown_as == ("none", "as_given")]
        prompts = _prompts(members)
        results = [results[place] for results in answers.values()]
        quadrants = _quadrants(members, of_members)
        shown_runs.append(
            {
                "name": name,
                "shownAs": what_changed(members[0]),
                "blind": column[without_image[0].changed.name] if without_image else NOTHING,
                "outcome": [NOTHING if result is None else OUTCOMES.index(result.outcome) for result in results],
                "read": [read.number(result and result.letter) for result in results],
                "tokens": [NOTHING if result is None else result.tokens for result in results],
                "cutOff": [
                    NOTHING if result is None or result.cut_off is None else result.cut_off for result in results
                ],
                "look": [quadrants.get(name, NOTHING) for name in answers],
                "wording": [wordings.number(result and prompts.get(result.id)) for result in results],
            }
        )
    return {"runs": shown_runs, "read": read.values, "wordings": wordings.values}


def _quadrants(members: Sequence[Scored], changed: Sequence[Change]) -> dict[str, int]:
    """By id, the code of what the other runs of the checkpoint say about an answer.

    0 to 3: its place in QUADRANTS; 4: relies on the image, 5: does not, where no run had its options in another order.
    """
    codes: dict[str, int] = {}
    for run in members:
        for look in looks(run, [change for change in changed if change.ordinary.name == run.name]):
            is_reordered = look.consistent is not None
            place = QUADRANTS.index((look.consistent, look.relies)) if is_reordered else 4 + (not look.relies)
            codes[look.result.id] = place
    return codes


def _prompts(members: Sequence[Scored]) -> dict[str, str]:
    """By id, the wording of the prompt with PLACEHOLDER for the problem, where the manifest records it."""
    prompts: dict[str, str] = {}
    for scored_run in members:
        for file in scored_run.files:
            text = file.manifest.get("prompt")
            if not isinstance(text, str):
                continue
            of_types: dict[AnswerType | None, str]
            of_types = {None: text} if text.count(PLACEHOLDER) == 1 else _wordings(file.manifest)
            for result in (*file.results, *file.free):
                template = of_types.get(result.answer_type, of_types.get(None))
                if template is not None:
                    prompts[result.id] = template
    return prompts


def _wordings(manifest: Mapping[str, Any]) -> dict[AnswerType | None, str]:
    """The wording for each answer type of a file that has several; none that the manifest does not record."""
    name = str(manifest.get("prompt_name")).partition(",")[0]
    try:
        texts = {kind: wording(Mode(manifest["mode"]), name, kind) for kind in AnswerType}
    except (UserError, KeyError, ValueError):
        return {}
    recorded = {kind: text for kind, text in texts.items() if text in manifest["prompt"]}
    return {None if kind is AnswerType.CHOICE else kind: text for kind, text in recorded.items()}


# ------------------------------------------------------------------------------------------------- outputs


def _output_blocks(answers: Sequence[Sequence[Result | None]]) -> tuple[list[str], int | None]:
    """The packed blocks, and the characters to which outputs are cut; None if all are whole."""
    longest = max((len(_text(result)) for results in answers for result in results if result is not None), default=0)
    blocks: list[str] = []
    for limit in LONGEST_OUTPUT:
        blocks = [
            pack([_block_of(results, limit) for results in answers[start : start + PER_BLOCK]])
            for start in range(0, len(answers), PER_BLOCK)
        ]
        if sum(map(len, blocks)) <= OUTPUT_BYTES or limit == LONGEST_OUTPUT[-1]:
            return blocks, limit if longest > limit else None
    raise AssertionError("LONGEST_OUTPUT is empty")


def _block_of(results: Sequence[Result | None], limit: int) -> list[list[Any]]:
    """Of one question by run: output, and as far as there are any the problem and the letter as shown, and votes."""
    return [[] if result is None else _texts(result, limit) for result in results]


def _texts(result: Result, limit: int) -> list[Any]:
    votes = Counter(sample.letter or "?" for sample in result.samples or ())
    counted = ", ".join(f"{letter} {count}" for letter, count in votes.most_common())
    shown = shown_letters(result) if result.asked is not None and result.letter else None
    texts = [shortened(_text(result), limit), result.asked, shown and shown[2], counted]
    while len(texts) > 1 and not texts[-1]:
        texts.pop()
    return texts


def _text(result: Result) -> str:
    return result.output if result.outcome is not None else (result.error or "")


def shortened(text: str, limit: int) -> str:
    """A text of at most about `limit` characters: of a longer one the beginning, and the end, where the answer is."""
    if len(text) <= limit:
        return text
    tail = limit // 4
    return f"{text[: limit - tail]} […{len(text) - limit:,} of {len(text):,} characters left out…] {text[-tail:]}"
