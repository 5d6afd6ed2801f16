"""How long answers are by their outcome, and how many the token limit ended."""

from collections.abc import Iterator, Sequence
from statistics import median

from open_r1.evaluation.comparing.scored_runs import Scored, all_marks
from open_r1.evaluation.reporting.sections.section import Section, marked
from open_r1.evaluation.reporting.table_formats import BLANK, Sheet, csv_text, percent
from open_r1.evaluation.scoring.results import Result
from open_r1.evaluation.scoring.statistics import clustered_stderr
from open_r1.evaluation.scoring.tallies import ALL, Tally, grid
from open_r1.grading.grader import Outcome

COLUMNS = ("run", "modality", "task", "outcome", "n", "mean_tokens", "stderr", "median_tokens", "cut_off_share")
_OUTCOMES = (Outcome.CORRECT, Outcome.WRONG, Outcome.UNPARSED)


def tokens(result: Result) -> float:
    """The tokens of the answer; with several samples their mean."""
    return result.tokens / (len(result.samples or ()) or 1)


def mean_length(results: Sequence[Result], lengths: Sequence[float]) -> tuple[float, float | None]:
    """The mean number of tokens of one or more answers of these lengths, with its standard error clustered by image."""
    return sum(lengths) / len(lengths), clustered_stderr(lengths, [result.image for result in results])


def lengths_section(scored: Sequence[Scored]) -> Section:
    """A row per run: mean tokens of right, wrong and unparsed answers, the median, and the share cut off."""
    marks = all_marks(scored)
    section = Section(marked("Length of the answers", marks))
    rows, lines = [], []
    for run in scored:
        answered = run.table[ALL, ALL].answered
        if not answered:
            continue
        values = [_length(answered)]
        values += [_length([result for result in answered if result.outcome is outcome]) for outcome in _OUTCOMES]
        middle = f"{median(map(tokens, answered)):g}"
        cut_off = percent(run.table[ALL, ALL].cut_off, 1) or BLANK
        rows.append([run.name, *values, middle, str(run.file.manifest.get("max_new_tokens") or BLANK), cut_off])
        for cell in [(ALL, ALL), *grid(run.table)]:
            lines += [[run.name, *cell, *values] for values in _csv_values(run.table[cell].answered)]
    head = ["run", "all", *(str(outcome) for outcome in _OUTCOMES), "median", "limit", "cut off (%)"]
    note = "Mean tokens ± standard error clustered by image (number of answers). lengths.csv has every cell."
    section.sheets = [Sheet(marked("Tokens by outcome", marks), head, rows, [note])]
    section.files["lengths.csv"] = csv_text(COLUMNS, lines)
    return section


def _length(results: Sequence[Result]) -> str:
    if not results:
        return BLANK
    mean, stderr = mean_length(results, [*map(tokens, results)])
    return f"{mean:.1f}" + (f" ± {stderr:.1f}" if stderr else "") + f" ({len(results):,})"


def _csv_values(results: Sequence[Result]) -> Iterator[list[str]]:
    for outcome in (None, *_OUTCOMES):
        members = [result for result in results if outcome in (None, result.outcome)]
        if members:
            lengths = [*map(tokens, members)]
            mean, stderr = mean_length(members, lengths)
            error = "" if stderr is None else f"{stderr:.3f}"
            share = percent(Tally(members).cut_off)
            name = ALL if outcome is None else str(outcome)
            yield [name, str(len(members)), f"{mean:.3f}", error, f"{median(lengths):g}", share]
