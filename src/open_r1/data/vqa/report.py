"""The report of a prepared VQA set, in `report.json` and on the screen."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from open_r1.data.preparation.overlaps import SplitKeys, holds_keys, overlaps_within, total
from open_r1.data.rows import Dropped
from open_r1.data.vqa.questions import VqaQuestion
from open_r1.vocabulary.answer_types import AnswerType

REPORT = "report.json"
AGAINST = "against.json"
"""Overlaps with other prepared sets, as last compared."""

_NAMED = 10  # dropped rows on the screen; report.json has them all


@dataclass(frozen=True)
class Prepared:
    """A complete set."""

    folder: Path
    is_new: bool
    """Whether this command built it."""
    report: dict[str, Any]
    against: dict[str, dict[str, dict[str, int]]] = field(default_factory=dict)
    """Folder of another set -> `train -> test` and so on -> overlap."""


@dataclass
class SplitCounts:
    """What one split holds, counted row by row."""

    beyond_limit: int = 0
    rows: int = 0
    repeated: int = 0
    """Rows whose images, question and answer were there before; they are counted in `rows` unless they are dropped."""
    leaking: int = 0
    """Rows that were left out because they show an image that something is tested on."""
    answer_types: Counter[str] = field(default_factory=Counter)
    marked: int = 0
    """Rows that the set itself marks as closed or open."""
    marked_closed: int = 0
    yes_no: int = 0
    images: Counter[int] = field(default_factory=Counter)
    """Images of a row -> rows."""

    def add(self, question: VqaQuestion, answer_type: AnswerType) -> None:
        """Count one row."""
        self.rows += 1
        self.answer_types[answer_type.value] += 1
        self.marked += question.marked_closed is not None
        self.marked_closed += bool(question.marked_closed)
        self.yes_no += question.is_yes_no
        self.images[len(question.images)] += 1

    def as_json(self) -> dict[str, Any]:
        """The counts of a split in the report."""
        closed = {"marked": self.marked_closed if self.marked else None, "yes or no": self.yes_no}
        return {
            "rows": self.rows,
            "repeated": self.repeated,
            "leaking": self.leaking,
            "beyond the limit": self.beyond_limit,
            "answer types": dict(sorted(self.answer_types.items())),
            "closed": closed,
            "images of a row": {str(count): rows for count, rows in sorted(self.images.items())},
        }


def set_report(
    settings: Mapping[str, Any],
    counts: Mapping[str, SplitCounts],
    keys: Mapping[str, SplitKeys],
    dropped: Sequence[Dropped],
) -> dict[str, Any]:
    """The report of one set.

    Args:
        settings: what the report begins with: the form that was read, what was folded and left out.
        counts: of each split.
        keys: of the images and questions of each split.
        dropped: rows that are not in the set.
    """
    return {
        **settings,
        "splits": {split: split_counts.as_json() for split, split_counts in counts.items()},
        "images": {"all": total(keys.values())} | {split: total([split_keys]) for split, split_keys in keys.items()},
        "overlaps": overlaps_within(keys),
        "dropped": [asdict(row) for row in dropped],
    }


def report_lines(prepared_sets: Iterable[Prepared]) -> Iterator[str]:
    """Lines for the user: what was written, both counts of closed questions, leaks, and what was dropped."""
    for prepared in prepared_sets:
        report = prepared.report
        state = "" if prepared.is_new else " (complete already, nothing was done)"
        questions = ", ".join(f"{counts['rows']:,} {split}" for split, counts in report["splits"].items())
        yield (
            f"{prepared.folder}: {questions} questions on {report['images']['all']:,} images, "
            f"{len(report['dropped']):,} dropped{state}"
        )
        unread = f"; not read: {', '.join(report['files not read'])}" if report["files not read"] else ""
        yield f"  form: {report['form']} ({', '.join(report['files'])}{unread})"
        yield from _type_lines(report)
        yield from _count_lines(report)
        for pair, overlap in report["overlaps"].items():
            yield f"  leak {pair}: {_overlap(overlap)}"
        for folder, overlaps in prepared.against.items():
            if not holds_keys(Path(folder)):
                yield f"  {folder} is compared by stored images alone: images that were resized otherwise are not found"
            for pair, overlap in overlaps.items():
                if overlap["images"]:
                    yield f"  {folder} {pair}: {_overlap(overlap)}"
            if not any(overlap["images"] for overlap in overlaps.values()):
                yield f"  {folder}: no image in common"
        yield from _dropped_lines(report["dropped"])


def _type_lines(report: Mapping[str, Any]) -> Iterator[str]:
    for split, counts in report["splits"].items():
        types = ", ".join(f"{count:,} {name}" for name, count in counts["answer types"].items())
        closed = counts["closed"]
        if closed["marked"] is None and not closed["yes or no"]:
            yield f"  {split}: {types}"
            continue
        marked = "the set marks none" if closed["marked"] is None else f"{closed['marked']:,} are marked as closed"
        rule = (
            "the marks of the set" if report["closed by"] == "marked" and closed["marked"] is not None else "yes and no"
        )
        yield f"  {split}: {types} by {rule} ({marked}, {closed['yes or no']:,} answers are yes or no)"


def _count_lines(report: Mapping[str, Any]) -> Iterator[str]:
    for split, counts in report["splits"].items():
        if counts["repeated"]:
            state = "left out" if report["repeats are dropped"] else "kept, as the set publishes them"
            yield f"  {split}: {counts['repeated']:,} questions repeat one with its images and answer ({state})"
        if counts["leaking"]:
            yield f"  {split}: {counts['leaking']:,} questions were left out for images that something is tested on"
        if counts["beyond the limit"]:
            yield f"  {split}: {counts['beyond the limit']:,} questions beyond --limit were left out"
    if report["folded"]:
        yield "  folded: " + ", ".join(f"{count:,} x {what}" for what, count in report["folded"].items())
    if report["left out"]:
        yield "  left out: " + ", ".join(f"{count:,} {what}" for what, count in report["left out"].items())


def _overlap(overlap: Mapping[str, int]) -> str:
    share = 100 * overlap["images"] / overlap["of_images"] if overlap["of_images"] else 0
    return (
        f"{overlap['images']:,} of {overlap['of_images']:,} images ({share:.1f} %), shown by {overlap['questions']:,} "
        f"of {overlap['of_questions']:,} questions; {overlap['same_question']:,} are the same with the same answer"
    )


def _dropped_lines(dropped: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if not dropped:
        return
    reasons = Counter(row["reason"] for row in dropped).most_common()
    yield f"  {len(dropped):,} questions dropped: " + ", ".join(f"{count:,} {reason}" for reason, count in reasons)
    yield from (f"    {row['where']:.120} - {row['detail']}" for row in dropped[:_NAMED])
    if len(dropped) > _NAMED:
        yield f"    and {len(dropped) - _NAMED:,} more, all in {REPORT}"
