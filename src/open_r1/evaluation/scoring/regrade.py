"""Result files graded again by HuatuoGPT-o1's lenient matching. The files themselves are not changed."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

from open_r1.common.errors import UserError
from open_r1.evaluation.scoring.results import Result, ResultFile
from open_r1.grading.grader import Outcome
from open_r1.grading.huatuo import Judged, Match, Score, match_choice, tallied
from open_r1.grading.problems import options_in, solution_letter


@dataclass(frozen=True)
class Regraded:
    """The scores of one source of a result file under both graders."""

    source: str
    score: Score
    """By the published matching."""
    stored: int
    """Right answers by the grader of eval/infer.py."""


def regraded(file: ResultFile) -> tuple[ResultFile, list[Regraded]]:
    """The file with outcomes and letters of the published matching: per source those of the better of its two rules.

    Questions that could not be asked stay so. An answer is right or wrong; none is unparsed.

    Raises:
        UserError: the file has several samples per question, which the published evaluation does not know.
    """
    answered = [result for result in file.results if result.outcome is not None]
    if any(result.samples for result in answered):
        raise UserError(
            f"{file.path} has several samples per question, and the published matching grades one answer a question: "
            "answer with --samples 1 for it, or leave --grader huatuo out"
        )
    judged = {result.id: _judged(result) for result in answered}
    matches = {name: match_choice(answer.output, answer.options) for name, answer in judged.items()}
    scores = tallied((judged[name], matches[name]) for name in judged)
    stored = Counter(result.source for result in answered if result.correct)
    results = [
        result if result.outcome is None else _with(result, judged[result.id], matches[result.id], scores)
        for result in file.results
    ]
    return replace(file, results=results), [Regraded(name, score, stored[name]) for name, score in scores.items()]


def _judged(result: Result) -> Judged:
    """The answer with options and right letter as the model was shown them."""
    letter = solution_letter(result.solution)
    options = options_in(result.problem)
    if result.asked is not None:
        text, options = options[letter], options_in(result.asked)
        letter = next(name for name, option in options.items() if option == text)
    return Judged(result.source, result.output, letter, options)


def _with(result: Result, judged: Judged, match: Match, scores: Mapping[str, Score]) -> Result:
    letter = match.first if scores[result.source].counted == "first" else match.last
    outcome = Outcome.CORRECT if letter.upper() == judged.letter.upper() else Outcome.WRONG
    return replace(result, outcome=outcome, letter=_in_problem(result, judged, letter.upper()))


def _in_problem(result: Result, judged: Judged, letter: str) -> str:
    """The letter of the same option in the problem as it is stored; a letter that is not offered stays."""
    if result.asked is None or letter not in judged.options:
        return letter
    return next(name for name, text in options_in(result.problem).items() if text == judged.options[letter])
