"""Result lines: what an evaluation appends, what a report reads.

A result file is JSON Lines. Its first line is `{"manifest": {...}}` and says how the outputs came about; each
further line is one graded question. Lines are only ever appended, each in one write, so that a killed run loses at
most the line it was writing and several processes may add to one file.
"""

import os
import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from open_r1.common.atomic_files import parse_json
from open_r1.common.errors import UserError
from open_r1.grading.expected import Expected, grade_answer
from open_r1.grading.free.same_answer import folded
from open_r1.grading.grader import Outcome
from open_r1.vocabulary.answer_types import AnswerType

# Before graders had versions, manifests held the hash of the grader's source.
_HASHED_GRADERS = {"442752582e0bd7e59a03ea383d81e3a48c3f150dea2e253767df977a63117cbb": 1}

# Entries that older files do not have, and that are then not compared.
UNKNOWN_BEFORE = frozenset({"train_content_sha256"})


@dataclass(frozen=True)
class Sample:
    """One of several completions of a question."""

    output: str
    outcome: Outcome
    letter: str | None
    tokens: int


@dataclass(frozen=True)
class Result:
    """One question, what the model wrote, and its grade.

    With several samples `output`, `outcome` and `letter` are those of the majority vote, and `tokens` is their sum.
    """

    id: str
    source: str
    image: str  # content hash or path of the image: questions that share it are not independent
    modality: str | None
    task: str | None
    problem: str
    solution: str
    output: str
    outcome: Outcome | None  # None: not asked, see `error`
    letter: str | None
    tokens: int
    error: str | None = None
    blind: float | None = None
    """Share of a point, 0 to 1, that guessing by option text earns; None without a training split."""
    seen: bool | None = None
    """Whether the image is in the training split too; None if unknown."""
    samples: list[Sample] | None = None
    asked: str | None = None
    """The problem as the model saw it, if its options were shuffled; `letter` refers to `problem`."""
    cut_off: int | None = None
    """How many of its completions the token limit ended; None if unknown."""
    content: str | None = None
    """What the model was shown of the question, as 16 hexadecimal digits; None if not recorded."""
    answer_type: AnswerType | None = None
    """Closed or open; None for a question of choice, whose line does not have the entry. With a type, `letter` holds
    the answer that was read as text."""
    aliases: list[str] | None = None
    """Further right answers of a closed or open question; a line without any does not have the entry."""
    letter_probs: dict[str, float] | None = None
    """Probability of each offered letter of `problem` where the completion writes its answer's letter, 0 to 1, with
    `--letter_probs`; they sum to less than 1 by what other tokens have. A line without any does not have the entry."""
    own_image: str | None = None
    """What identifies the image where `image` names its cluster of nearly equal images; result lines do not have it."""

    @property
    def expected(self) -> Expected:
        """What the question expects."""
        row = {"problem": self.problem, "solution": self.solution, "aliases": self.aliases}
        return Expected.of(row | {"answer_type": self.answer_type or AnswerType.CHOICE})

    @property
    def correct(self) -> bool:
        """Whether the answer is right; an unparsed answer is not."""
        return self.outcome is Outcome.CORRECT


def graded_result(row: Mapping[str, Any], image: str, output: str, tokens: int) -> Result:
    """Grade the completion of a row.

    Args:
        row: a row with `id`, `problem`, `solution`, and if known `answer_type`, `aliases`, `source`, `modality` and
            `task`.
        image: what identifies the row's image.
        output: the completion.
        tokens: its length in tokens.
    """
    outcome, letter = grade_answer(output, Expected.of(row))
    return _result(row, image=image, output=output, outcome=outcome, letter=letter, tokens=tokens)


def voted_result(row: Mapping[str, Any], image: str, samples: list[Sample], **extra_fields: Any) -> Result:
    """The result of a row from its graded completions: of several, the majority vote.

    Args:
        row: as above.
        image: as above.
        samples: at least one; `letter` refers to the row's own options.
        extra_fields: further fields of the result.
    """
    vote = majority(samples, Expected.of(row).answer_type is not AnswerType.CHOICE)
    return _result(
        row,
        image=image,
        output=vote.output,
        outcome=vote.outcome,
        letter=vote.letter,
        tokens=sum(sample.tokens for sample in samples),
        samples=samples if len(samples) > 1 else None,
        **extra_fields,
    )


def majority(samples: Sequence[Sample], of_texts: bool = False) -> Sample:
    """The first sample with the most frequent letter; of letters that tie, the one that occurs first.

    Unparsed samples have no vote, unless all are unparsed.

    Args:
        samples: at least one.
        of_texts: whether the answers are texts; then those that say the same by rule vote together.
    """
    ballots = [sample.letter and (folded(sample.letter) if of_texts else sample.letter) for sample in samples]
    votes = Counter(ballot for ballot in ballots if ballot is not None)
    if not votes:
        return samples[0]
    winner = max(votes, key=lambda ballot: votes[ballot])  # a Counter keeps the order of first appearance
    return samples[ballots.index(winner)]


def failed_result(row: Mapping[str, Any], image: str, error: str) -> Result:
    """The result of a row that could not be asked, for example because of its image. It has no outcome."""
    return _result(row, image=image, output="", outcome=None, letter=None, tokens=0, error=error)


def _result(row: Mapping[str, Any], **judgement: Any) -> Result:
    expected = Expected.of(row)
    if expected.answer_type is not AnswerType.CHOICE:
        judgement |= {"answer_type": expected.answer_type, "aliases": list(expected.aliases) or None}
    return Result(
        id=row["id"],
        source=row.get("source") or "",
        modality=row.get("modality") or None,
        task=row.get("task") or None,
        problem=row["problem"],
        solution=row["solution"],
        **judgement,
    )


# ---------------------------------------------------------------------------------------------------- writing


def with_grader_version(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest with a grader version, also if it was written with a hash of the grader's source."""
    if manifest.get("grader_sha256") not in _HASHED_GRADERS:
        return dict(manifest)
    entries = {key: value for key, value in manifest.items() if key != "grader_sha256"}
    return {**entries, "grader_version": _HASHED_GRADERS[manifest["grader_sha256"]]}


# ---------------------------------------------------------------------------------------------------- reading


@dataclass(frozen=True)
class ResultFile:
    """The content of a result file."""

    path: Path
    manifest: dict[str, Any]
    results: list[Result]
    torn: bool = False  # the last line was incomplete and is left out
    free: list[Result] = field(default_factory=list)  # closed and open questions, once they are `apart`

    @property
    def missing(self) -> int:
        """Questions that the manifest announces (`rows`) and that have no result yet."""
        rows = self.manifest.get("rows")
        return max(0, rows - len(self.results) - len(self.free)) if isinstance(rows, int) else 0

    def apart(self) -> "ResultFile":
        """The file with questions of choice in `results` and closed and open ones in `free`: no number mixes them."""
        results = [result for result in self.results if result.answer_type is None]
        free = [result for result in self.results if result.answer_type is not None]
        return replace(self, results=results, free=[*self.free, *free])


def read_results(path: str | os.PathLike) -> ResultFile:
    """Read a result file; a torn last line is left out.

    Raises:
        UserError: the file is missing, empty, no result file, damaged before its last line, or holds an id twice.
    """
    path = Path(path)
    lines, ended = _lines(path)
    manifest = _manifest(path, lines[0])
    limit = manifest.get("max_new_tokens")
    limit = limit if isinstance(limit, int) else None
    results: list[Result] = []
    torn = False
    for number, line in enumerate(lines[1:], 2):
        try:
            results.append(_parse_line(line, limit))
        except (ValueError, TypeError) as error:
            torn = number == len(lines) and not ended
            if not torn:
                raise UserError(
                    f"{path}, line {number} is no result line ({error!s:.200}): the file is damaged"
                ) from None
    _refuse_duplicates(path, results)
    return ResultFile(path, manifest, results, torn)


def _parse_line(line: bytes, limit: int | None) -> Result:
    """The result of a line; if a process was killed while writing it and another wrote on, that of the other."""
    start = line.rfind(b'{"id": ')
    try:
        return parse_result(line, limit)
    except (ValueError, TypeError):
        if start <= 0:
            raise
        return parse_result(line[start:], limit)


def _lines(path: Path) -> tuple[list[bytes], bool]:
    """The lines that are not blank, and whether the last one is complete."""
    try:
        data = path.read_bytes()
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"cannot read {path}: {reason}; name a result file that eval/infer.py wrote") from None
    lines = [line for line in data.split(b"\n") if line.strip()]
    if not lines:
        raise UserError(f"{path} is empty: there is nothing to report; run eval/infer.py again")
    return lines, data.endswith(b"\n")


def _manifest(path: Path, line: bytes) -> dict[str, Any]:
    try:
        head = parse_json(line)
    except ValueError:
        raise UserError(f"{path} is no result file: its first line is no JSON, but should be the manifest") from None
    if not isinstance(head, dict) or not isinstance(head.get("manifest"), dict):
        raise UserError(
            f'{path} is no result file: its first line should be {{"manifest": ...}}, without which nobody can say '
            "what was measured; name a file that eval/infer.py wrote"
        )
    manifest = head["manifest"]
    wrong = [name for name in _TEXT_ENTRIES if not _is_name(manifest.get(name))]
    if wrong:
        raise UserError(f"{path}: {', '.join(wrong)} of its manifest should be text: the file is damaged")
    wrong = [name for name in ("rows", "samples") if type(manifest.get(name)) not in (int, type(None))]
    if wrong:
        raise UserError(f"{path}: {', '.join(wrong)} of its manifest should be a whole number: the file is damaged")
    return manifest


def _is_name(value: Any) -> bool:
    """Whether a value is None or a text that a file could be called."""
    return value is None or (isinstance(value, str) and "\0" not in value and not _SURROGATE.search(value))


_SURROGATE = re.compile("[\ud800-\udfff]")  # half a pair: valid JSON, no text
_TEXT_ENTRIES = (
    *("data", "data_sha256", "image_root", "split", "run_dir", "checkpoint", "checkpoint_sha256", "method", "mode"),
    *("trained_on", "tested_on", "prompt_name", "image", "options", "columns"),
)
_TEXTS = ("id", "source", "image", "problem", "solution", "output")
_OPTIONAL_TEXTS = ("modality", "task", "letter", "error", "asked", "content")
_NAMES = frozenset(field.name for field in fields(Result)) - {"own_image"}
_TEXT_OR_NONE = (str, type(None))
_SHARED = ("id", "source", "image", "problem", "solution", "modality", "task", "letter")
_NEEDED = frozenset(field.name for field in fields(Result) if field.default is MISSING)


def parse_result(line: bytes, limit: int | None = None) -> Result:
    """The result of a line; what other lines say as well (the question, its image, its labels) is once in memory.

    Args:
        line: of a result file.
        limit: tokens that a completion may have. Older lines do not record `cut_off`; none is cut off below the limit.

    Raises:
        ValueError: it is no result.
    """
    value = parse_json(line)
    if not isinstance(value, dict):
        raise ValueError("it is no JSON object")
    if not value.keys() >= _NEEDED:
        raise ValueError(f"it lacks {', '.join(sorted(_NEEDED - value.keys()))}")
    wrong = [name for name in _TEXTS if not isinstance(value[name], str)]
    wrong += [name for name in _OPTIONAL_TEXTS if not isinstance(value.get(name), _TEXT_OR_NONE)]
    if wrong:
        raise ValueError(f"{', '.join(wrong)} should be text")
    blind, seen = value.get("blind"), value.get("seen")
    if blind is not None and not (type(blind) in (int, float) and 0 <= blind <= 1):
        raise ValueError("blind should be a number from 0 to 1")
    if type(seen) not in (bool, type(None)):
        raise ValueError("seen should be true or false")
    if type(value["tokens"]) is not int:
        raise ValueError("tokens should be a whole number")
    if type(value.get("cut_off")) not in (int, type(None)):
        raise ValueError("cut_off should be a whole number")
    if not _are_texts(value.get("aliases")):
        raise ValueError("aliases should be a list of texts")
    if not _are_probabilities(value.get("letter_probs")):
        raise ValueError("letter_probs should give every letter a number from 0 to 1")
    outcome = None if value["outcome"] is None else Outcome(value["outcome"])
    entries: dict[str, Any] = {name: entry for name, entry in value.items() if name in _NAMES}
    if entries.get("samples") is not None:
        entries["samples"] = [_parse_sample(sample) for sample in entries["samples"]]
    if entries.get("answer_type") is not None:
        entries["answer_type"] = AnswerType(entries["answer_type"])
    if entries.get("cut_off") is None and outcome is not None and limit is not None:
        longest = max((sample.tokens for sample in entries.get("samples") or ()), default=entries["tokens"])
        entries["cut_off"] = 0 if longest < limit else None
    for name in _SHARED:
        if text := entries.get(name):
            entries[name] = sys.intern(text)
    entries["outcome"] = outcome
    return Result(**entries)


def _are_texts(value: Any) -> bool:
    return value is None or (isinstance(value, list) and all(isinstance(text, str) for text in value))


def _are_probabilities(value: Any) -> bool:
    if value is None:
        return True
    return isinstance(value, dict) and all(type(share) in (int, float) and 0 <= share <= 1 for share in value.values())


def _parse_sample(value: Any) -> Sample:
    if not isinstance(value, dict) or value.keys() != {field.name for field in fields(Sample)}:
        raise ValueError("a sample needs output, outcome, letter and tokens")
    texts = isinstance(value["output"], str) and isinstance(value["letter"], str | None)
    if not texts or type(value["tokens"]) is not int:
        raise ValueError("output and letter of a sample should be text, its tokens a whole number")
    return Sample(**{**value, "outcome": Outcome(value["outcome"])})


def _refuse_duplicates(path: Path, results: Sequence[Result]) -> None:
    ids: set[str] = set()
    for result in results:
        if result.id in ids:
            raise UserError(
                f"{path} holds the id {result.id!r} twice: a question would count double; "
                "remove the second line or run eval/infer.py again"
            )
        ids.add(result.id)
