"""Verdicts of a judge model on stored answers to closed and open questions, beside the outcomes of the rules."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from open_r1.evaluation.scoring.results import Result
from open_r1.evaluation.scoring.statistics import Estimate, accuracy
from open_r1.grading.judge.judgements import Judge, Question, Verdict


@dataclass(frozen=True)
class JudgedResults:
    """Results with the verdict on each; an answer that could not be read is not shown to the judge and has None."""

    results: Sequence[Result]
    verdicts: Sequence[Verdict | None]

    @cached_property
    def judged(self) -> list[tuple[Result, Verdict]]:
        """The results on which there is a judgement."""
        pairs = zip(self.results, self.verdicts, strict=True)
        return [(result, verdict) for result, verdict in pairs if verdict is not None and verdict.is_judgement]

    @property
    def counts(self) -> Counter[Verdict]:
        """How often each verdict was given."""
        return Counter(verdict for verdict in self.verdicts if verdict is not None)

    @property
    def unread(self) -> int:
        """Answers that could not be read."""
        return sum(verdict is None for verdict in self.verdicts)

    @cached_property
    def right(self) -> Estimate | None:
        """Share of answers that the judge takes for the expected one; those that could not be read are wrong."""
        scored = [(result, verdict is Verdict.SAME) for result, verdict in self.judged]
        pairs = zip(self.results, self.verdicts, strict=True)
        scored += [(result, False) for result, verdict in pairs if verdict is None]
        return _share(scored)

    @cached_property
    def by_rule(self) -> Estimate | None:
        """Share of right answers by the rules, on the same questions as `right`."""
        counted = {id(result) for result, _ in self.judged}
        pairs = zip(self.results, self.verdicts, strict=True)
        return _share([(r, r.correct) for r, verdict in pairs if verdict is None or id(r) in counted])

    @cached_property
    def agreement(self) -> Estimate | None:
        """Share of judged answers on which judge and rules agree."""
        return _share([(result, (verdict is Verdict.SAME) == result.correct) for result, verdict in self.judged])

    @property
    def only_judge(self) -> int:
        """Answers that are right to the judge alone."""
        return sum(verdict is Verdict.SAME and not result.correct for result, verdict in self.judged)

    @property
    def only_rule(self) -> int:
        """Answers that are right by rule alone."""
        return sum(verdict is Verdict.DIFFERENT and result.correct for result, verdict in self.judged)


def judged_results(results: Sequence[Result], judge: Judge) -> JudgedResults:
    """Ask the judge about the answers to closed and open questions that were asked; other results are left out."""
    answered = [result for result in results if result.answer_type is not None and result.outcome is not None]
    readable = [result for result in answered if result.letter is not None]
    questions = [Question(r.problem, r.letter or "", " or ".join(r.expected.references)) for r in readable]
    verdict_of = dict(zip(map(id, readable), judge.verdicts(questions), strict=True))
    return JudgedResults(answered, [verdict_of.get(id(result)) for result in answered])


def _share(scored: Sequence[tuple[Result, bool]]) -> Estimate | None:
    if not scored:
        return None
    return accuracy([right for _, right in scored], [result.image for result, _ in scored])
