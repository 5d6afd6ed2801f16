"""The section of `--judge`: what a judge model makes of closed and open answers, marked, beside the rules."""

from collections.abc import Sequence

from open_r1.evaluation.comparing.scored_runs import Scored
from open_r1.evaluation.reporting.sections.section import Section
from open_r1.evaluation.reporting.table_formats import BLANK, Sheet, csv_text, percent, with_error
from open_r1.evaluation.scoring.judged import JudgedResults, judged_results
from open_r1.evaluation.scoring.statistics import Estimate
from open_r1.grading.judge.judgements import JUDGED, Judge, Verdict
from open_r1.vocabulary.answer_types import AnswerType

_ABOUT = (
    "A second opinion, not the grade: the model was asked whether the answer and the expected one say the same, once "
    "in each order. Same in both orders is right; different in both is wrong. An answer that is the same in one order "
    "and not in the other is inconsistent; it counts nowhere, nor does one without a usable reply. Agreement is the "
    "share of judged answers on which judge and rules agree, with its 95 % interval, clustered by image."
)
_HEAD = (
    *("run", "questions of", "questions", f"right, {JUDGED}", "right by rule, same questions", "agreement"),
    *("95 % interval", "right to the judge alone", "by rule alone", "inconsistent", "no usable reply"),
)
FILES = ("judged.csv", "judged_by_question.csv")
"""The files of this section."""


def judged_section(scored: Sequence[Scored], judge: Judge) -> Section | None:
    """What the judge says of all runs; None if none has closed or open questions."""
    runs = [
        (run.name, answer_type, judged_results([r for r in run.file.free if r.answer_type is answer_type], judge))
        for run in scored
        for answer_type in (AnswerType.CLOSED, AnswerType.OPEN)
    ]
    runs = [(name, answer_type, judged) for name, answer_type, judged in runs if judged.results]
    if not runs:
        return None
    title = f"{JUDGED}: closed and open questions"
    section = Section(title, texts=[f"Judge: {judge.endpoint.model} at {judge.endpoint.host}. {_ABOUT}"])
    lost = sum(judged.counts[verdict] for _, _, judged in runs for verdict in (Verdict.FAILED, Verdict.NONSENSE))
    if lost:
        reason = f"; the last error: {judge.last_error}" if judge.last_error else ""
        section.warnings.append(
            f"{lost:,} answers have no judgement, because the judge failed or answered neither SAME nor DIFFERENT"
            f"{reason}. Run the command again to ask about the failed ones."
        )
    section.sheets.append(Sheet(title, _HEAD, [_row(name, kind, judged) for name, kind, judged in runs]))
    section.files["judged.csv"] = csv_text(_CSV_HEAD, [_csv_row(name, kind, judged) for name, kind, judged in runs])
    section.files["judged_by_question.csv"] = csv_text(
        ["run", "id", "questions_of", "rule", "JUDGED"],
        [
            [name, result.id, kind, str(result.outcome), str(verdict or "not asked")]
            for name, kind, judged in runs
            for result, verdict in zip(judged.results, judged.verdicts, strict=True)
        ],
    )
    return section


def _row(name: str, kind: AnswerType, judged: JudgedResults) -> list[str]:
    agreement, counts = judged.agreement, judged.counts
    interval = f"{percent(agreement.low, 1)} to {percent(agreement.high, 1)}" if agreement else ""
    row = [name, kind, f"{len(judged.results):,}", _shown(judged.right), _shown(judged.by_rule), _shown(agreement)]
    row += [interval, f"{judged.only_judge:,}", f"{judged.only_rule:,}", f"{counts[Verdict.INCONSISTENT]:,}"]
    row.append(f"{counts[Verdict.FAILED] + counts[Verdict.NONSENSE]:,}")
    return [value or BLANK for value in row]


def _shown(estimate: Estimate | None) -> str:
    return "" if estimate is None else with_error(estimate.mean, estimate.stderr)


_CSV_HEAD = (
    *("run", "questions_of", "questions", "judged", "JUDGED_right", "JUDGED_stderr", "rule_right", "rule_stderr"),
    *("agreement", "agreement_low", "agreement_high", "only_judge", "only_rule", "unread"),
    *(verdict.value for verdict in Verdict),
)


def _csv_row(name: str, kind: AnswerType, judged: JudgedResults) -> list[str]:
    right, rule, agreement = judged.right, judged.by_rule, judged.agreement
    values = [right and right.mean, right and right.stderr, rule and rule.mean, rule and rule.stderr]
    values += [agreement and agreement.mean, agreement and agreement.low, agreement and agreement.high]
    counts = [judged.only_judge, judged.only_rule, judged.unread, *(judged.counts[verdict] for verdict in Verdict)]
    numbers = [str(len(judged.results)), str(len(judged.judged)), *map(percent, values), *map(str, counts)]
    return [name, kind, *numbers]
