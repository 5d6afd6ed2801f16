"""The report of a preparation: counts, dropped rows with reasons, and the overlap of train and test images."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from open_r1.data.omnimedvqa.catalogue import SIDES, Label, Members, Questions
from open_r1.data.rows import Dropped, Leak, leak
from open_r1.vocabulary.labels import Family, Modality

REPORT = "report.json"
_SHOWN = 10  # dropped rows on the screen; report.json has them all


@dataclass(frozen=True)
class Prepared:
    """A complete set: its folder, whether this command built it, and its report."""

    folder: Path
    built: bool
    report: dict[str, Any]


@dataclass(frozen=True)
class Outcome:
    """The result of `prepare`."""

    sets: list[Prepared]
    dropped: list[dict[str, Any]]  # every dropped row once
    unlabelled: dict[Family, int]  # questions that are in no modality set, or in no task set


def set_report(
    label: Label,
    questions: Questions,
    used: Members,
    content: Callable[[int], int | None],
    dropped: Sequence[Dropped],
) -> dict[str, Any]:
    """The report of one set.

    Args:
        used: the questions that are in it.
        content: an image's index -> the hash of its file.
        dropped: the questions that are not.
    """
    cells: Counter[tuple[str, str]] = Counter()
    for side in SIDES:
        for index in used[side]:
            other_label = questions.task(index) if isinstance(label, Modality) else questions.modality(index)
            cells[other_label or "unlabelled", side] += 1
    train, test = ([questions.image_index[index] for index in used[side]] for side in SIDES)
    return {
        "label": label,
        "questions": {side: len(used[side]) for side in SIDES},
        "pictures": len({*train, *test}),
        "cells": {
            other_label: {side: cells[other_label, side] for side in SIDES}
            for other_label in sorted({cell[0] for cell in cells})
        },
        "leak": {
            "by path": _leak_entry(leak(train, test), len(train)),
            "by content": _leak_entry(leak(map(content, train), map(content, test)), len(train)),
        },
        "dropped": [asdict(row) for row in dropped],
    }


def _leak_entry(counts: Leak, train_count: int) -> dict[str, Any]:
    """The counts, and the share in per cent to its last digit: whoever shows it rounds it, once."""
    return {**asdict(counts), "percent": counts.percent if train_count and counts.questions else None}


def report_lines(outcome: Outcome) -> Iterator[str]:
    """Lines for the user: sets, dropped questions with reasons, and the overlap of train and test images."""
    for prepared in outcome.sets:
        yield from _set_lines(prepared)
    for family, count in outcome.unlabelled.items():
        if count:
            yield f"{count:,} questions have no {family}: they are in no {family} set"
    dropped = outcome.dropped
    if dropped:
        reasons = Counter(row["reason"] for row in dropped).most_common()
        yield f"{len(dropped):,} questions dropped: " + ", ".join(f"{count:,} {reason}" for reason, count in reasons)
        yield from (f"  {row['where']:.120} - {row['detail']}" for row in dropped[:_SHOWN])
        if len(dropped) > _SHOWN:
            yield f"  and {len(dropped) - _SHOWN:,} more, all in the {REPORT} of their sets"


def _set_lines(prepared: Prepared) -> Iterator[str]:
    report = prepared.report
    state = "" if prepared.built else " (complete already, nothing was done)"
    questions = ", ".join(f"{report['questions'][side]:,} {side}" for side in SIDES)
    yield (
        f"{prepared.folder}: {questions} questions on {report['pictures']:,} images, "
        f"{len(report['dropped']):,} dropped{state}"
    )
    yield "  " + ", ".join(f"{name} {sum(cell.values()):,}" for name, cell in report["cells"].items())
    by_path, by_content = report["leak"]["by path"], report["leak"]["by content"]
    empty = [side for side in SIDES if not report["questions"][side]]
    if empty:
        yield f"  leak: not known, as there is no {empty[0]} question here"
        return
    yield (
        f"  leak: {_percent(by_path)} % of the test questions ({by_path['shared']:,}) show an image of "
        f"train by its path, {_percent(by_content)} % by its content"
        + ("; --split image_disjoint avoids that" if by_content["shared"] else "")
    )


def _percent(entry: Mapping[str, Any]) -> str:
    """The share of a leak entry, computed from its counts, because old reports hold it rounded."""
    return f"{Leak(entry['questions'], entry['shared']).percent:.1f}"
