"""The lines that an evaluation prints at its end: choice, closed and open questions each by their own metric."""

from collections.abc import Sequence

from open_r1.evaluation.scoring.free_answers import FreeTally, MetricEstimate
from open_r1.evaluation.scoring.results import Result
from open_r1.evaluation.scoring.statistics import clustered_stderr, pass_at_k
from open_r1.grading.grader import Outcome
from open_r1.vocabulary.answer_types import AnswerType

METRICS = {AnswerType.CHOICE: "accuracy", AnswerType.CLOSED: "closed accuracy", AnswerType.OPEN: "open exact match"}
"""What is measured of each answer type."""


def summary_lines(graded: Sequence[Result], failed: int) -> list[str]:
    """A line for each answer type that occurs, the first with the number of errors.

    Args:
        graded: results with an outcome, at least one.
        failed: how many questions could not be asked.
    """
    lines = []
    for answer_type, metric in METRICS.items():
        results = [result for result in graded if (result.answer_type or AnswerType.CHOICE) is answer_type]
        if not results:
            continue
        unparsed = sum(result.outcome is Outcome.UNPARSED for result in results) / len(results)
        line = f"{metric} {_with_error(results, [float(result.correct) for result in results])} (n = {len(results)})"
        line += f", unparsed {unparsed:.1%}" + ("" if lines else f", errors {failed}")
        if answer_type is AnswerType.OPEN:
            scores = FreeTally(results).scores
            line += "".join(f", {name} {_text(scores[name])}" for name in scores)
        lines.append(line)
        if results[0].samples is not None:
            lines.append(_pass_rates(results))
    return lines


def _pass_rates(results: Sequence[Result]) -> str:
    """A line that names the accuracy a majority vote, and adds the chance that one of k samples is right."""
    count = min(len(result.samples or ()) for result in results)
    texts = []
    for k in sorted({1, count}):
        rates = [pass_at_k(count, sum(s.outcome is Outcome.CORRECT for s in r.samples or ()), k) for r in results]
        texts.append(f"pass@{k} {_with_error(results, rates)}")
    return f"majority vote of {count} samples; {', '.join(texts)}"


def _with_error(results: Sequence[Result], values: Sequence[float]) -> str:
    stderr = clustered_stderr(values, [result.image for result in results])
    return _text(MetricEstimate(sum(values) / len(values), stderr))


def _text(estimate: MetricEstimate) -> str:
    unknown = "unknown (one image)" if estimate.stderr is None else f"{estimate.stderr:.3f}"
    return f"{estimate.mean:.3f} ± {unknown}"
