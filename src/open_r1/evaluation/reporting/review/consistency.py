"""Whether a model chooses the same option when the options stand in another order."""

from collections.abc import Sequence

from open_r1.evaluation.comparing.changed_runs import Change
from open_r1.evaluation.comparing.pairs import Pairs
from open_r1.evaluation.comparing.scored_runs import all_marks
from open_r1.evaluation.reporting.sections.section import Section, marked
from open_r1.evaluation.reporting.sections.single_run import question_groupings
from open_r1.evaluation.reporting.table_formats import BLANK, Sheet, csv_text, percent, with_error
from open_r1.evaluation.scoring.statistics import Estimate, accuracy
from open_r1.evaluation.scoring.tallies import ALL, Cell

COLUMNS = (
    *("run", "reordered_run", "group", "name", "n", "pictures", "same_option", "stderr", "low", "high"),
    *("right_in_both", "right_in_both_stderr", "unparsed_in_either"),
)


def reordered(pairs: Pairs) -> Pairs:
    """The pairs whose options really stood in another order in the second run."""
    return [pair for pair in pairs if pair[1].asked is not None]


def same_option(pairs: Pairs) -> Estimate | None:
    """The share of questions to which both answers are the same option, not the same letter; None without questions.

    Letters of results refer to the question as the data set has it, whatever order was shown. An answer that could not
    be read is the same as none.
    """
    return _share(pairs, [first.letter is not None and first.letter == second.letter for first, second in pairs])


def right_in_both(pairs: Pairs) -> Estimate | None:
    """The share of questions answered right in either order; None without questions."""
    return _share(pairs, [first.correct and second.correct for first, second in pairs])


def _share(pairs: Pairs, values: Sequence[bool]) -> Estimate | None:
    return accuracy(values, [second.image for _, second in pairs]) if pairs else None


def consistency_section(changes: Sequence[Change]) -> Section | None:
    """Of runs with shuffled options and their ordinary runs; None if there are none."""
    changes = [change for change in changes if change.changed.shown_as == ("shown", "shuffled")]
    if not changes:
        return None
    marks = all_marks([change.changed for change in changes])
    section = Section(marked("The same option in another order", marks))
    head = ["run", "questions", "reordered", "same option", "95 % interval", "right in both", "not read in either"]
    rows, lines = [], []
    for change in changes:
        cells = change.comparison.pairs
        pairs = reordered(cells[ALL, ALL])
        same, both = same_option(pairs), right_in_both(pairs)
        values = [change.ordinary.name, f"{len(cells[ALL, ALL]):,}", f"{len(pairs):,}"]
        if same and both:
            values += [with_error(same.mean, same.stderr), f"{percent(same.low, 1)} to {percent(same.high, 1)}"]
            values += [with_error(both.mean, both.stderr), f"{_unread(pairs):,}"]
        rows.append([*values, *[BLANK] * (len(head) - len(values))])
        named: list[tuple[str, str, Cell]] = [
            (grouping.name, name, cell) for grouping in question_groupings(cells) for name, cell in grouping.cells
        ]
        for group, name, cell in [*named, (ALL, ALL, (ALL, ALL))]:
            if members := reordered(cells.get(cell, [])):
                lines.append([change.ordinary.name, change.changed.name, group, name, *_values(members)])
    note = "Of the questions whose options were shown in another order. Same option: by its text, not by its letter."
    section.sheets = [Sheet(marked("Consistency", marks), head, rows, [note])]
    section.files["consistency.csv"] = csv_text(COLUMNS, lines)
    return section


def _unread(pairs: Pairs) -> int:
    return sum(first.letter is None or second.letter is None for first, second in pairs)


def _values(pairs: Pairs) -> list[str]:
    same, both = same_option(pairs), right_in_both(pairs)
    assert same is not None, "there are pairs"
    assert both is not None
    shares = (same.mean, same.stderr, same.low, same.high, both.mean, both.stderr)
    return [str(same.n), str(same.clusters), *map(percent, shares), str(_unread(pairs))]
