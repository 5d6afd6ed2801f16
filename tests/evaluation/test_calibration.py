"""Calibration: measures against plain recomputations and on results whose calibration is known, and their section."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from report_files import rows_of, write

from open_r1.evaluation.reporting.report import write_report
from open_r1.evaluation.reporting.review.calibration import with_probabilities
from open_r1.evaluation.reporting.review.confidence import Confidences
from open_r1.evaluation.scoring.results import Result, graded_result

PROBLEM = "What? A)w, B)x, C)y, D)z"


def results(
    count: int, right: "np.ndarray | float | str" = "calibrated", shared: int = 1, seed: int = 0, mass: float = 0.9
) -> list[Result]:
    """Questions answered with a confidence between 0.3 and 1; the chance to be right is `right`, or the confidence."""
    rng = np.random.default_rng(seed)
    confidence = rng.uniform(0.3, 1, count)
    chance = confidence if isinstance(right, str) else right
    correct = np.repeat(rng.random(-(-count // shared)), shared)[:count] < chance
    made = []
    for number, (sure, good) in enumerate(zip(confidence, np.broadcast_to(correct, count), strict=True)):
        row = {"id": str(number), "problem": PROBLEM, "solution": "A", "modality": "CT", "task": None}
        chosen, other = "AB" if good else "BA"
        result = graded_result(row, f"image {number // shared}", f"<answer>{chosen}</answer>", tokens=3)
        shares = {chosen: sure, other: 0.5 * (1 - sure), "C": 0.3 * (1 - sure), "D": 0.2 * (1 - sure)}
        made.append(replace(result, letter_probs={letter: float(mass * share) for letter, share in shares.items()}))
    return made


def shares_of(result: Result) -> dict[str, float]:
    assert result.letter_probs is not None
    return result.letter_probs


def test_the_measures_are_those_of_a_plain_recomputation():
    made = results(230, right=0.6, shared=3)
    answers = Confidences(made)
    pairs = sorted((shares_of(r)[r.letter or ""] / sum(shares_of(r).values()), r.correct) for r in made)
    # 230 // 20 = 11, so ten bins of 23
    bins = [pairs[start : start + 23] for start in range(0, 230, 23)]
    expected = sum(abs(sum(right for _, right in b) - sum(sure for sure, _ in b)) for b in bins) / 230
    assert answers.calibration_error()[0].value == pytest.approx(expected, abs=1e-12)
    assert [part.accuracy.n for part in answers.bins] == [23] * 10
    assert answers.bins[3].confidence == pytest.approx(sum(sure for sure, _ in bins[3]) / 23)
    assert answers.bins[3].accuracy.mean == pytest.approx(sum(right for _, right in bins[3]) / 23)
    wrong = [not right for _, right in reversed(pairs)]
    risks = [sum(wrong[:count]) / count for count in range(1, 231)]
    assert answers.risk_area().value == pytest.approx(sum(risks) / 230, abs=1e-12)
    squares = []
    for result in made:
        for letter, share in shares_of(result).items():
            squares.append((share / 0.9 - (result.solution == letter)) ** 2)
    assert answers.brier()[0] == pytest.approx(sum(squares) / 230, abs=1e-12)
    half = next(part for part in answers.answered if part.share == 0.5)
    assert half.accuracy.mean == pytest.approx(1 - sum(wrong[:115]) / 115)
    assert half.least == pytest.approx(pairs[115][0])


def test_equal_confidences_are_never_told_apart():
    """Of four answers of confidence 0.5 one is right, the order in the file must not matter."""
    made = [replace(r, letter_probs={"A": 0.5, "B": 0.5}) for r in [*results(3, right=0.0), *results(4, right=1.1)[3:]]]
    for order in (made, made[::-1]):
        answers = Confidences(order)
        assert len(answers.bins) == 1
        assert answers.risk_area().value == pytest.approx(0.75)
        assert [part.share for part in answers.answered] == [1.0]
        assert answers.calibration_error()[0].value == pytest.approx(0.25)


@pytest.mark.slow
def test_a_calibrated_model_has_an_error_of_noise_alone_and_an_interval_that_reaches_zero():
    reached = 0
    for seed in range(20):
        answers = Confidences(results(800, seed=seed))
        error, noise = answers.calibration_error()
        assert error.value < 0.08
        # In a bin of 80 the mean gap has the error sqrt(E[c (1 - c)] / 80) = sqrt(0.187 / 80), its size 0.8 of that.
        assert noise == pytest.approx(0.038, abs=0.005)
        reached += error.low == 0
    assert reached >= 17


@pytest.mark.slow
def test_a_model_that_is_too_sure_has_the_error_it_was_made_with():
    """Confidence is 0.65 on average and accuracy 0.3 everywhere: every bin is 0 to 0.7 too sure, 0.35 on average."""
    covered = 0
    for seed in range(20):
        error, _ = Confidences(results(800, right=0.3, seed=seed, shared=4)).calibration_error()
        covered += error.low <= 0.35 <= error.high
        assert 0.25 < error.value < 0.45
    assert covered >= 17


def test_questions_that_share_images_have_wider_intervals():
    alone, noise_alone = Confidences(results(600, right=0.4)).calibration_error()
    together, noise = Confidences(results(600, right=0.4, shared=10)).calibration_error()
    assert together.high - together.low > 1.5 * (alone.high - alone.low)
    assert noise > 1.3 * noise_alone


def test_answers_without_a_letter_are_counted():
    made = results(30)
    made[0] = replace(made[0], letter_probs=None)
    made[1] = replace(made[1], letter_probs=None, outcome=None, error="unreadable")
    members, without = with_probabilities(made)
    assert (len(members), without) == (28, 1)


@pytest.mark.slow
def test_the_section_and_its_files(tmp_path: Path):
    about = {"data_sha256": "set", "split": "test", "mode": "nothink", "letter_probs": True}
    files = [
        write(tmp_path / f"{name}.jsonl", results(400, right, shared=2), checkpoint_sha256=name, **about)
        for name, right in (("calibrated", "calibrated"), ("sure", 0.3))
    ]
    summary = write_report(files, tmp_path / "report")
    assert "## Calibration" in summary
    rows = {row["run"]: row for row in rows_of(tmp_path / "report" / "calibration.csv")}
    assert float(rows["sure"]["ece"]) == pytest.approx(35, abs=5)
    assert float(rows["calibrated"]["ece"]) < 8
    assert float(rows["sure"]["ece_low"]) < float(rows["sure"]["ece"]) < float(rows["sure"]["ece_high"]) + 1
    assert rows["sure"]["n"] == "400"
    assert rows["sure"]["pictures"] == "200"
    assert float(rows["sure"]["mass_on_letters"]) == pytest.approx(90)
    assert len(rows_of(tmp_path / "report" / "reliability.csv")) == 20
    curve = [row for row in rows_of(tmp_path / "report" / "risk_coverage.csv") if row["run"] == "calibrated"]
    assert [float(row["answered"]) for row in curve] == [5 * share for share in range(1, 21)]
    assert float(curve[3]["accuracy"]) > float(curve[-1]["accuracy"]) + 10
    assert (tmp_path / "report" / "calibration_2.png").is_file()
    without = [write(tmp_path / "plain.jsonl", [replace(r, letter_probs=None) for r in results(40)], **about)]
    assert "## Calibration" not in write_report(without, tmp_path / "other")
