"""The sections about closed and open questions: own tables with their own metrics, never mixed with multiple choice."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from open_r1.evaluation.comparing.scored_runs import Scored
from open_r1.evaluation.reporting.sections.section import Section
from open_r1.evaluation.reporting.table_formats import BLANK, Sheet, csv_text, percent, points, with_error
from open_r1.evaluation.scoring.free_answers import SCORES, FreeTally
from open_r1.evaluation.scoring.results import Result
from open_r1.evaluation.scoring.statistics import Difference, difference
from open_r1.evaluation.scoring.tallies import ALL, UNNAMED
from open_r1.vocabulary.answer_types import AnswerType

FILES = tuple(f"{answer_type}.csv" for answer_type in (AnswerType.CLOSED, AnswerType.OPEN))
"""The files of these sections."""

_ABOUT = {
    AnswerType.CLOSED: (
        "Closed questions",
        "accuracy",
        "Closed questions: yes or no, or one of few words. Accuracy is the share of answers that are the expected one, "
        "or one of its aliases, after normalisation by rule. Published sets define 'closed' in two ways, so the "
        "questions whose answer is yes or no are counted once more by themselves.",
    ),
    AnswerType.OPEN: (
        "Open questions",
        "exact match",
        "Open questions, answered in free words. Exact match is after normalisation by rule, with aliases. Token "
        "recall and F1, BLEU-1 and ROUGE-L are means over questions of the words that answer and reference share; they "
        "pay for a wrong side or a lost 'no' nearly as much as for the right answer, so exact match stands first.",
    ),
}


@dataclass(frozen=True)
class _FreeRun:
    """One evaluation's answers to questions of one type."""

    name: str
    results: Sequence[Result]
    is_reference: bool

    @cached_property
    def by_id(self) -> dict[str, Result]:
        return {result.id: result for result in self.results if result.outcome is not None}

    @cached_property
    def by_source(self) -> dict[str, FreeTally]:
        """The tally of each source, by name."""
        sources = sorted({result.source or UNNAMED for result in self.results})
        return {
            name: FreeTally([result for result in self.results if (result.source or UNNAMED) == name])
            for name in sources
        }


def free_sections(scored: Sequence[Scored]) -> Iterator[Section]:
    """A section about closed and one about open questions, where there are any."""
    for answer_type in _ABOUT:
        runs = [
            _FreeRun(run.name, [r for r in run.file.free if r.answer_type is answer_type], run.is_reference)
            for run in scored
        ]
        runs = [run for run in runs if run.results]
        if runs:
            yield _section(answer_type, runs)


def _section(answer_type: AnswerType, runs: Sequence[_FreeRun]) -> Section:
    title, metric, about = _ABOUT[answer_type]
    compared = _compared(runs)
    section = Section(title, texts=[about])
    section.sheets.append(_sheet(answer_type, f"{title}: {metric}", runs, compared))
    sources = sorted({name for run in runs for name in run.by_source})
    if len(sources) > 1:
        section.sheets += [_source_sheet(answer_type, f"{title} by source: {metric}", runs, sources)]
    section.files[f"{answer_type}.csv"] = _csv(answer_type, runs, compared)
    return section


def _compared(runs: Sequence[_FreeRun]) -> dict[str, tuple[str, Difference]]:
    """By run: the name of the run it is compared with, and the difference on the questions that both answered.

    It is the reference with most questions in common; of two runs without references, the first.
    """
    references = [run for run in runs if run.is_reference]
    if not references and len(runs) == 2:
        references = [runs[0]]
    pairs = {}
    for run in runs:
        candidates = [reference for reference in references if reference is not run]
        if run.is_reference or not candidates:
            continue
        reference = max(candidates, key=lambda candidate: len(candidate.by_id.keys() & run.by_id.keys()))
        names = [name for name in run.by_id if name in reference.by_id]
        if names:
            before, after = ([side.by_id[name].correct for name in names] for side in (reference, run))
            pairs[run.name] = reference.name, difference(before, after, [run.by_id[name].image for name in names])
    return pairs


def _sheet(
    answer_type: AnswerType, title: str, runs: Sequence[_FreeRun], compared: Mapping[str, tuple[str, Difference]]
) -> Sheet:
    head = ["run", "questions", _ABOUT[answer_type][1], "95 % interval"]
    head += ["minus", "95 % interval", "p"] if compared else []
    head += ["yes or no: questions", "accuracy"] if answer_type is AnswerType.CLOSED else list(SCORES.values())
    rows = []
    for run in runs:
        tally = FreeTally(run.results)
        row = [run.name, *_measured(tally)]
        row += _difference(compared.get(run.name)) if compared else []
        row += _extras(answer_type, tally)
        rows.append([value or BLANK for value in [*row, percent(tally.unparsed, 1)]])
    notes = ["In per cent, ± the standard error clustered by image. Unparsed answers count as wrong and score 0."]
    return Sheet(title, [*head, "unparsed"], rows, notes)


def _source_sheet(answer_type: AnswerType, title: str, runs: Sequence[_FreeRun], sources: Sequence[str]) -> Sheet:
    def cell(run: _FreeRun, source: str) -> str:
        tally = run.by_source.get(source)
        if tally is None or tally.estimate is None:
            return BLANK
        text = f"{with_error(tally.estimate.mean, tally.estimate.stderr)} ({tally.n:,})"
        if answer_type is AnswerType.OPEN:
            text += f"; F1 {with_error(*tally.scores[SCORES['f1']])}"
        return text

    rows = [[run.name, *(cell(run, source) for source in sources)] for run in runs]
    return Sheet(title, ["run", *sources], rows, ["In per cent ± standard error (number of questions)."])


def _measured(tally: FreeTally) -> list[str]:
    estimate = tally.estimate
    if estimate is None:
        return [f"{tally.n:,}", "", ""]
    interval = f"{percent(estimate.low, 1)} to {percent(estimate.high, 1)}"
    return [f"{tally.n:,}", with_error(estimate.mean, estimate.stderr), interval]


def _extras(answer_type: AnswerType, tally: FreeTally) -> list[str]:
    """Closed: the questions of yes or no by themselves. Open: the word scores."""
    if answer_type is AnswerType.CLOSED:
        return _measured(tally.yes_no)[:2]
    scores = tally.scores
    return [with_error(*scores[name]) if name in scores else "" for name in SCORES.values()]


def _difference(compared: tuple[str, Difference] | None) -> list[str]:
    if compared is None:
        return ["", "", ""]
    name, change = compared
    limits = "" if change.low is None or change.high is None else f"{points(change.low)} to {points(change.high)}"
    p = "too few" if change.too_few else f"{change.p:.2g}"
    return [f"{name}: {points(change.mean, change.stderr)}", limits, p]


def _csv(answer_type: AnswerType, runs: Sequence[_FreeRun], compared: Mapping[str, tuple[str, Difference]]) -> str:
    """A row per run and source, and one for all sources of a run."""
    head = ["run", "source", "questions", "percent_right", "stderr", "low", "high", "percent_unparsed"]
    head += [f"{name}{suffix}" for name in SCORES for suffix in ("", "_stderr")]
    head += ["minus", "difference", "difference_stderr", "p"]
    rows = []
    for run in runs:
        for source, tally in {ALL: FreeTally(run.results), **run.by_source}.items():
            estimate, change = tally.estimate, compared.get(run.name) if source == ALL else None
            values = (estimate.mean, estimate.stderr, estimate.low, estimate.high) if estimate else (None,) * 4
            scores = [value for name in SCORES.values() for value in tally.scores.get(name, (None, None))]
            if answer_type is AnswerType.CLOSED:
                scores = [None] * len(scores)
            row = [
                run.name,
                source,
                str(tally.n),
                *map(percent, values),
                percent(tally.unparsed),
                *map(percent, scores),
            ]
            named = ["", "", "", ""]
            if change is not None:
                named = [change[0], percent(change[1].mean), percent(change[1].stderr), f"{change[1].p:.6g}"]
            rows.append([*row, *named])
    return csv_text(head, rows)
