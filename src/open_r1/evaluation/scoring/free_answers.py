"""What is measured of closed and open questions, always apart from multiple choice and from each other."""

from functools import cached_property
from typing import NamedTuple

from open_r1.evaluation.scoring.results import Result
from open_r1.evaluation.scoring.statistics import Estimate, accuracy, clustered_stderr
from open_r1.evaluation.scoring.tallies import AnsweredResults
from open_r1.grading.free.text_metrics import WordScores, word_scores
from open_r1.grading.grader import Outcome
from open_r1.vocabulary.answer_types import yes_or_no


class MetricEstimate(NamedTuple):
    """The mean of a metric, 0 to 1, and its standard error clustered by image; None for a single image."""

    mean: float
    stderr: float | None


SCORES = {"recall": "token recall", "f1": "token F1", "bleu_1": "BLEU-1", "rouge_l": "ROUGE-L"}
"""Names of the word scores by the fields of `WordScores`."""


class FreeTally(AnsweredResults):
    """Results of closed or of open questions, and what is computed from them."""

    @cached_property
    def estimate(self) -> Estimate | None:
        """Share of right answers with its uncertainty; None without results."""
        if not self.answered:
            return None
        return accuracy([result.correct for result in self.answered], [result.image for result in self.answered])

    @property
    def unparsed(self) -> float | None:
        """Share of completions without a readable answer; None without results."""
        return sum(result.outcome is Outcome.UNPARSED for result in self.answered) / self.n if self.n else None

    @cached_property
    def yes_no(self) -> "FreeTally":
        """The questions whose answer is yes or no."""
        return FreeTally([r for r in self.results if yes_or_no(r.expected.solution) is not None])

    @cached_property
    def scores(self) -> dict[str, MetricEstimate]:
        """The word scores of the answers by name; an answer that could not be read scores 0. Empty without results."""
        if not self.answered:
            return {}
        by_answer = [_scores(result) for result in self.answered]
        images = [result.image for result in self.answered]
        values = {SCORES[name]: [getattr(scores, name) for scores in by_answer] for name in SCORES}
        return {
            name: MetricEstimate(sum(column) / len(column), clustered_stderr(column, images))
            for name, column in values.items()
        }


def _scores(result: Result) -> WordScores:
    return word_scores(result.letter or "", result.expected.references)
