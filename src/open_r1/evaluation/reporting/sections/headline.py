"""The beginning of a report: what was measured, in a title, one sentence and one chart."""

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from open_r1.evaluation.comparing.changed_runs import what_changed
from open_r1.evaluation.comparing.pairs import Comparison
from open_r1.evaluation.comparing.run_names import set_names
from open_r1.evaluation.comparing.scored_runs import Scored
from open_r1.evaluation.reporting.charts import AccuracyLine, accuracy_chart
from open_r1.evaluation.reporting.sections.csv_columns import accuracy_without_image
from open_r1.evaluation.reporting.table_formats import percent, points
from open_r1.evaluation.scoring.statistics import Estimate
from open_r1.evaluation.scoring.tallies import ALL

MOST_NAMED, MOST_IN_TITLE = 8, 3  # data sets that a table and a title name


def questions_key(run: Scored) -> Hashable:
    """A key that is equal for two runs on the same questions."""

    def data_key(file: Any) -> Hashable:
        manifest = file.manifest
        data = manifest.get("data_sha256") or manifest.get("data") or frozenset(result.id for result in file.results)
        return data, manifest.get("split"), manifest.get("limit")

    return frozenset(map(data_key, run.files))


def named_sets(run: Scored, most: int = MOST_NAMED) -> str:
    """The data sets of a run, the first `most` by name."""
    names = set_names(run.files)
    unnamed = len(names) - most
    return ", ".join(names[:most]) + (f" and {unnamed} more" if unnamed > 0 else "")


def described(run: Scored) -> str:
    """Model, data, number of questions and date: `after (trained, think) on test.json, 640 questions, 2026-11-27`."""
    manifest = run.file.manifest
    checkpoint = manifest.get("checkpoint")
    model = Path(str(checkpoint)).name if checkpoint else ""
    details = [model if model != run.name else "", manifest.get("mode") or "", what_changed(run)]
    bracket = f" ({', '.join(filter(None, details))})" if any(details) else ""
    return ", ".join([f"{run.name}{bracket} on {named_sets(run, MOST_IN_TITLE)}", _count([run]), *_date([run])])


def report_title(scored: Sequence[Scored]) -> str:
    """The heading of a report: accuracy of what, on what, of how many questions, when."""
    if not scored:
        return "Answers"
    if len(scored) == 1:
        return f"Accuracy of {described(scored[0])}"
    checkpoints = {str(run.file.manifest.get("checkpoint_sha256") or run.run) for run in scored}
    same = len({questions_key(run) for run in scored}) == 1
    data = named_sets(scored[0], MOST_IN_TITLE) if same else "several data sets"
    several = len(checkpoints) > 1
    models = f"{len(checkpoints)} checkpoints" if several else f"{len(scored)} runs of one checkpoint"
    models += f" in {len(scored)} runs" if several and len(checkpoints) < len(scored) else ""
    return ", ".join([f"Accuracy of {models} on {data}", _count(scored), *_date(scored)])


def _count(runs: Sequence[Scored]) -> str:
    counts = sorted({run.table[ALL, ALL].n if run.table else 0 for run in runs})
    count = f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}"
    if not any(run.file.missing for run in runs):
        return f"{count} questions"
    totals = sorted({_asked(run) for run in runs})
    return f"{count} of {totals[-1]:,} questions so far"


def _asked(run: Scored) -> int:
    """How many questions the run will have answered in the end."""
    return run.file.missing + len(run.file.results) + len(run.file.free)


def so_far(scored: Sequence[Scored]) -> list[str]:
    """A sentence about the runs that are not finished, with how much of each is there; none if all are."""
    parts = [f"{run.name} {_asked(run) - run.file.missing:,} of {_asked(run):,}" for run in scored if run.file.missing]
    if not parts:
        return []
    return [f"Not finished, all numbers are of the questions answered so far: {'; '.join(parts)} questions."]


def _date(runs: Sequence[Scored]) -> list[str]:
    """The day on which the last of these was begun, where the manifests say."""
    starts = [str(file.manifest.get("started") or "")[:10] for run in runs for file in run.files]
    return [max(starts)] if any(starts) else []


def by_questions(scored: Sequence[Scored]) -> list[list[Scored]]:
    """The runs on the same questions, the most accurate first; groups in order of first appearance."""
    groups: dict[Hashable, list[Scored]] = defaultdict(list)
    for run in scored:
        groups[questions_key(run)].append(run)
    return [ranked(runs) for runs in groups.values()]


def ranked(runs: Sequence[Scored]) -> list[Scored]:
    """The most accurate first; runs without an answer last."""
    return sorted(runs, key=lambda run: -_mean(run))


def _mean(run: Scored) -> float:
    estimate = run.table[ALL, ALL].estimate
    return -1.0 if estimate is None else estimate.mean


def headline(groups: Sequence[Sequence[Scored]], compared: Mapping[str, Comparison]) -> list[str]:
    """One sentence about the most accurate run of the largest group.

    Args:
        groups: of `by_questions`.
        compared: the comparison of each run by its name.
    """
    best = max(groups, key=len)[0]
    tally = best.table[ALL, ALL]
    estimate = tally.estimate
    if estimate is None:
        return []
    sentence = (
        f"{best.name} answers {percent(estimate.mean, 1)} % of {estimate.n:,} questions right ({_range(estimate)})"
    )
    comparison = compared.get(best.name)
    if comparison is not None:
        gain = comparison.differences[ALL, ALL]
        sentence += f", {points(gain.mean, gain.stderr)} points against {comparison.first.name}"
        sentence += "" if gain.n == estimate.n else f" on the {gain.n:,} questions that both answered"
    floors = [
        f"{name} {percent(value, 1)} %"
        for name, value in (
            ("without the image it answers", accuracy_without_image(best, (ALL, ALL))),
            ("the blind floor is", tally.blind),
            ("guessing would give", tally.chance),
        )
        if value is not None
    ]
    return [f"{sentence}. {'; '.join(floors).capitalize()}."]


def _range(estimate: Estimate) -> str:
    return f"95 % interval {percent(estimate.low, 1)} to {percent(estimate.high, 1)}"


def ranking_chart(runs: Sequence[Scored], title: str) -> Figure | None:
    """The chart of runs on the same questions; None where no question was answered."""
    lines = [
        AccuracyLine(run.name, tally.estimate, tally.chance, tally.blind, accuracy_without_image(run, (ALL, ALL)))
        for run in runs
        if (tally := run.table[ALL, ALL]).estimate is not None
    ]
    return accuracy_chart(lines, title) if lines else None
