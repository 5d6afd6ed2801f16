"""The columns of the report's CSV files."""

from collections.abc import Iterable, Mapping, Sequence

from open_r1.evaluation.comparing.scored_runs import Scored
from open_r1.evaluation.reporting.table_formats import csv_text, percent
from open_r1.evaluation.scoring.statistics import Estimate
from open_r1.evaluation.scoring.tallies import Average, Cell, Tally, mean
from open_r1.grading.grader import Outcome


def accuracy_without_image(scored: Scored, cell: Cell) -> float | None:
    """Accuracy without the image, on the questions of this cell that both runs answered."""
    if scored.without_image is None or cell not in scored.without_image:
        return None
    ids = {result.id for result in scored.table[cell].answered}
    return mean([float(result.correct) for result in scored.without_image[cell].answered if result.id in ids])


COLUMNS = (
    *("n", "pictures", "accuracy", "stderr", "low", "high", "chance", "blind_floor", "without_picture"),
    *("unseen_n", "unseen_accuracy", "unseen_stderr", "correct", "wrong", "unparsed", "unparsed_share", "unreadable"),
    *("samples", "pass_at_1", "pass_at_k", "cut_off_share", "above_blind_floor", "above_blind_floor_stderr"),
    *("right_without_looking", "right_without_looking_stderr"),
)


def tally_values(
    tally: Tally, without_image: float | None = None, without_looking: Estimate | None = None
) -> list[str]:
    """The values of COLUMNS; accuracies in per cent, unknown ones blank."""
    estimate, unseen, k = tally.estimate, tally.unseen_estimate, tally.samples
    spread = [None] * 4 if estimate is None else [estimate.mean, estimate.stderr, estimate.low, estimate.high]
    return [
        str(tally.n),
        str(0 if estimate is None else estimate.clusters),
        *map(percent, (*spread, tally.chance, tally.blind, without_image)),
        "" if tally.unseen is None else str(len(tally.unseen)),
        *map(percent, (None, None) if unseen is None else (unseen.mean, unseen.stderr)),
        *(str(tally.count(outcome)) for outcome in (Outcome.CORRECT, Outcome.WRONG, Outcome.UNPARSED)),
        percent(tally.unparsed if tally.n else None),
        str(tally.unreadable),
        str(k),
        *map(percent, (tally.pass_at(1), tally.pass_at(k), tally.cut_off, *(tally.above_blind or (None, None)))),
        *map(percent, (without_looking.mean, without_looking.stderr) if without_looking else (None, None)),
    ]


def cells_csv(
    scored: Scored,
    head: list[str],
    named: Iterable[tuple[list[str], Cell]],
    without_looking: Mapping[Cell, Estimate] | None = None,
) -> str:
    """A CSV file with a line per cell: its names, under `head`, and COLUMNS.

    Args:
        scored: the run.
        head: of the names.
        named: the names and the cell of each line.
        without_looking: the share that is right without looking, by cell.
    """
    rows = [
        [
            *name,
            *tally_values(scored.table[cell], accuracy_without_image(scored, cell), (without_looking or {}).get(cell)),
        ]
        for name, cell in named
    ]
    return csv_text([*head, *COLUMNS], rows)


def averages_csv(scored: Scored, means: Sequence[Average]) -> str:
    """A CSV file with a line per average; the floors are averaged in the same way."""
    rows = []
    for average in means:
        tallies = [scored.table[cell] for cell in average.cells]
        columns = [
            [tally.chance for tally in tallies],
            [tally.blind for tally in tallies],
            [accuracy_without_image(scored, cell) for cell in average.cells],
            [tally.unparsed for tally in tallies],
            [tally.cut_off for tally in tallies],
        ]
        averaged = [
            None if None in shares else mean([share for share in shares if share is not None]) for shares in columns
        ]
        counts = [str(len(tallies)), str(sum(tally.n for tally in tallies))]
        rows.append([average.name, *counts, *map(percent, (average.mean, average.stderr, *averaged))])
    head = ["average", "groups", "n", "accuracy", "stderr", "chance", "blind_floor", "without_picture"]
    head += ["unparsed_share", "cut_off_share"]
    return csv_text(head, rows)
