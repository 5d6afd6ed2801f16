"""Accuracy by the data set that a question is from: a mixture may hide that one of its sources does all the work."""

from collections import defaultdict
from collections.abc import Sequence

from open_r1.evaluation.comparing.scored_runs import Scored, all_marks
from open_r1.evaluation.reporting.sections.csv_columns import COLUMNS, tally_values
from open_r1.evaluation.reporting.sections.section import Section, marked
from open_r1.evaluation.reporting.table_formats import BLANK, Sheet, csv_text, with_error
from open_r1.evaluation.scoring.results import Result
from open_r1.evaluation.scoring.tallies import Tally, is_text

MOST_SOURCES = 50  # rows of the table; the CSV file has all


def by_source(results: Sequence[Result]) -> dict[str, Tally]:
    """The questions with images by their source, those with the most questions first."""
    groups: dict[str, list[Result]] = defaultdict(list)
    for result in results:
        if result.source and not is_text(result) and result.outcome is not None:
            groups[result.source].append(result)
    return {name: Tally(groups[name]) for name in sorted(groups, key=lambda name: (-len(groups[name]), name))}


def origins_section(scored: Sequence[Scored]) -> Section | None:
    """A row per source and a column per run; None unless a run has questions of at least two sources."""
    of_runs = {run.name: tallies for run in scored if (tallies := by_source(run.file.results))}
    if all(len(tallies) < 2 for tallies in of_runs.values()):
        return None
    names = sorted(
        {name for tallies in of_runs.values() for name in tallies},
        key=lambda name: (-max(tallies[name].n for tallies in of_runs.values() if name in tallies), name),
    )
    marks = all_marks(scored)
    section = Section(marked("By source data set", marks))
    rows = [[name, *(_cell(tallies.get(name)) for tallies in of_runs.values())] for name in names[:MOST_SOURCES]]
    notes = ["Accuracy ± standard error clustered by image, in per cent (number of questions)."]
    if len(names) > MOST_SOURCES:
        notes.append(f"The {MOST_SOURCES} largest of {len(names)} sources; source_data_sets.csv has all.")
    section.sheets = [Sheet(marked("Accuracy by source data set", marks), ["source", *of_runs], rows, notes)]
    section.files["source_data_sets.csv"] = csv_text(
        ["run", "source", *COLUMNS],
        [[run, name, *tally_values(tally)] for run, tallies in of_runs.items() for name, tally in tallies.items()],
    )
    return section


def _cell(tally: Tally | None) -> str:
    estimate = tally.estimate if tally else None
    return BLANK if estimate is None else f"{with_error(estimate.mean, estimate.stderr)} ({estimate.n:,})"
