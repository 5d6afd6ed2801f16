"""Answers that could not be read, by mode."""

import hashlib
from collections.abc import Sequence

from open_r1.evaluation.comparing.scored_runs import Scored, all_marks
from open_r1.evaluation.reporting.sections.section import Section, marked
from open_r1.evaluation.reporting.table_formats import BLANK, Sheet, csv_text, percent, with_error
from open_r1.evaluation.scoring.results import Result
from open_r1.evaluation.scoring.statistics import accuracy
from open_r1.evaluation.scoring.tallies import ALL
from open_r1.grading.grader import Outcome

COLUMNS = ("run", "mode", "n", "pictures", "unparsed", "unparsed_share", "stderr", "low", "high", "unparsed_cut_off")
SAMPLES, LONGEST = 5, 600  # answers that the page shows of each mode, and how much of each


def unparsed_section(scored: Sequence[Scored], with_items: bool) -> Section | None:
    """A row per run with its mode, and with `with_items` some of the answers; None if every answer could be read."""
    runs = [run for run in scored if run.table[ALL, ALL].answered]
    if not any(unparsed(run) for run in runs):
        return None
    marks = all_marks(runs)
    section = Section(marked("Answers that could not be read", marks))
    rows, lines = [], []
    for run in runs:
        answered, failed = run.table[ALL, ALL].answered, unparsed(run)
        share = accuracy(
            [result.outcome is Outcome.UNPARSED for result in answered], [result.image for result in answered]
        )
        ended = [result.cut_off for result in failed]
        cut = BLANK if None in ended else f"{sum(bool(count) for count in ended):,}"
        texts = [run.name, _mode(run), f"{share.n:,}", f"{len(failed):,}", with_error(share.mean, share.stderr)]
        rows.append([*texts, f"{percent(share.low, 1)} to {percent(share.high, 1)}", cut])
        values = [run.name, _mode(run), str(share.n), str(share.clusters), str(len(failed))]
        values += map(percent, (share.mean, share.stderr, share.low, share.high))
        lines.append([*values, "" if cut == BLANK else cut.replace(",", "")])
    head = ["run", "mode", "questions", "unparsed", "in per cent", "95 % interval", "of these cut off"]
    section.sheets = [Sheet(marked("Unparsed answers by mode", marks), head, rows)]
    section.files["unparsed.csv"] = csv_text(COLUMNS, lines)
    if with_items:
        section.page_sheets = [_samples(runs)]
    return section


def unparsed(run: Scored) -> list[Result]:
    """The results of a run whose answer could not be read."""
    return [result for result in run.table[ALL, ALL].answered if result.outcome is Outcome.UNPARSED]


def _mode(run: Scored) -> str:
    return str(run.file.manifest.get("mode") or "unknown")


def _samples(runs: Sequence[Scored]) -> Sheet:
    """Some unparsed answers of each mode, drawn by a hash of their questions' ids."""
    rows = []
    for mode in dict.fromkeys(map(_mode, runs)):
        failed = [(run.name, result) for run in runs if _mode(run) == mode for result in unparsed(run)]
        failed.sort(key=lambda pair: hashlib.sha256(pair[1].id.encode("utf-8", "backslashreplace")).digest())
        rows += [[mode, name, _shortened(result.output)] for name, result in failed[:SAMPLES]]
    return Sheet("Some of them", ["mode", "run", "answer"], rows)


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} …"
