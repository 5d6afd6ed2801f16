"""Calibration: whether a model that is confident is right, from the probabilities that `--letter_probs` keeps."""

from collections.abc import Sequence

from open_r1.evaluation.comparing.scored_runs import Scored, all_marks
from open_r1.evaluation.reporting.charts import Point, confidence_chart
from open_r1.evaluation.reporting.review.confidence import BINS, PER_BIN, RESAMPLES, Confidences, Interval
from open_r1.evaluation.reporting.sections.headline import described
from open_r1.evaluation.reporting.sections.section import Section, marked
from open_r1.evaluation.reporting.table_formats import BLANK, Sheet, csv_text, percent, with_error
from open_r1.evaluation.scoring.results import Result
from open_r1.evaluation.scoring.statistics import Estimate

MOST_FIGURES = 8  # runs whose curves are drawn
ABSTAINING = (0.5, 0.8)  # shares of the questions answered that the table shows
COLUMNS = (
    *("run", "n", "without_letter", "pictures", "accuracy", "stderr", "confidence", "mass_on_letters", "bins"),
    *("ece", "ece_low", "ece_high", "ece_if_calibrated", "brier", "brier_stderr", "aurc", "aurc_low", "aurc_high"),
)
_OF_ACCURACY = ("n", "accuracy", "stderr", "low", "high")


def with_probabilities(results: Sequence[Result]) -> tuple[list[Result], int]:
    """The answers whose letter has a probability, and how many others of the answered questions have none."""
    answered = [result for result in results if result.outcome is not None]
    members = [
        result
        for result in answered
        if result.letter_probs and result.letter in result.letter_probs and sum(result.letter_probs.values()) > 0
    ]
    return members, len(answered) - len(members)


def calibration_section(scored: Sequence[Scored]) -> Section | None:
    """A row per run with probabilities, and the curves of the first ones; None where no run has any."""
    measured = []
    for run in scored:
        members, without = with_probabilities(run.file.results)
        if members:
            measured.append((run, Confidences(members), without))
    if not measured:
        return None
    runs = [run for run, _, _ in measured]
    marks = all_marks(runs)
    section = Section(marked("Calibration", marks))
    head = ["run", "n", "no letter", "accuracy", "confidence", "ECE", "95 % interval", "if calibrated"]
    head += ["Brier", "AURC", *(f"if {100 * share:.0f} % answered" for share in ABSTAINING)]
    rows, lines, bins, curve = [], [], [], []
    for number, (run, answers, without) in enumerate(measured, 1):
        row, line = _row(run.name, answers, without)
        rows.append(row)
        lines.append(line)
        bins += [
            [run.name, str(place), *map(percent, (part.least, part.most, part.confidence)), *_values(part.accuracy)]
            for place, part in enumerate(answers.bins, 1)
        ]
        points = answers.answered[::-1]
        curve += [[run.name, *map(percent, (p.share, p.least)), *_values(p.accuracy)] for p in points]
        if number <= MOST_FIGURES:
            section.figures[f"calibration_{number}"] = confidence_chart(
                [Point(part.confidence, part.accuracy) for part in answers.bins],
                [Point(point.share, point.accuracy) for point in points],
                marked(f"Calibration: {described(run)}", run.marks),
            )
    section.sheets = [Sheet(marked("Confidence and accuracy", marks), head, rows, [_NOTE])]
    section.files["calibration.csv"] = csv_text(COLUMNS, lines)
    section.files["reliability.csv"] = csv_text(("run", "bin", "least", "most", "confidence", *_OF_ACCURACY), bins)
    section.files["risk_coverage.csv"] = csv_text(("run", "answered", "least_confidence", *_OF_ACCURACY), curve)
    return section


_NOTE = (
    "In per cent, but for the Brier score. Confidence: the probability of the chosen letter where the completion "
    "writes it, as a share of all offered letters; answers that write no letter have none and are left out. ECE: the "
    f"mean distance of accuracy from confidence over {BINS} bins of equal size (at least {PER_BIN} answers each); its "
    f"interval from {RESAMPLES} resamples of the images. If calibrated: the ECE that noise alone gives a calibrated "
    "model. Brier: 0 to 2, 0.75 for guessing among four. AURC: the mean share of wrong answers as ever more questions "
    "are answered, the most confident first."
)


def _row(name: str, answers: Confidences, without: int) -> tuple[list[str], list[str]]:
    """The row of a run in the table and in the CSV file."""
    estimate = answers.answered[0].accuracy  # the least confident is answered too: all of them
    (error, expected), area = answers.calibration_error(), answers.risk_area()
    brier, brier_error = answers.brier()
    confidence, mass = float(answers.confidence.mean()), float(answers.mass.mean())
    accuracies = [_at(answers, share) for share in ABSTAINING]
    row = [name, f"{estimate.n:,}", f"{without:,}", with_error(estimate.mean, estimate.stderr), percent(confidence, 1)]
    row += [percent(error.value, 1), _range(error), percent(expected, 1)]
    row += [f"{brier:.3f}" + (f" ± {brier_error:.3f}" if brier_error is not None else ""), percent(area.value, 1)]
    row += [with_error(part.mean, part.stderr) for part in accuracies]
    line = [name, str(estimate.n), str(without), str(estimate.clusters)]
    line += [*map(percent, (estimate.mean, estimate.stderr, confidence, mass)), str(len(answers.bins))]
    line += map(percent, (error.value, error.low, error.high, expected))
    line += [f"{brier:.6f}", "" if brier_error is None else f"{brier_error:.6f}"]
    line += map(percent, (area.value, area.low, area.high))
    return [value or BLANK for value in row], line


def _at(answers: Confidences, share: float) -> Estimate:
    """Accuracy where this share of the questions is answered, or a little more."""
    return min((part for part in answers.answered if part.share >= share - 1e-9), key=lambda part: part.share).accuracy


def _range(interval: Interval) -> str:
    return f"{percent(interval.low, 1)} to {percent(interval.high, 1)}"


def _values(estimate: Estimate) -> list[str]:
    return [str(estimate.n), *map(percent, (estimate.mean, estimate.stderr, estimate.low, estimate.high))]
