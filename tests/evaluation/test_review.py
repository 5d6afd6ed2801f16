"""What a reviewer asks of accuracies, recomputed from lines of result files with numpy, scipy and statsmodels."""

import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_files import rows_of, write
from report_tables import table_of
from scipy import stats

from open_r1.evaluation.answering.perturbations import shuffle_options
from open_r1.evaluation.reporting.report import write_report
from open_r1.evaluation.reporting.review.letters import shown_letters
from open_r1.evaluation.scoring.results import Result, graded_result
from open_r1.evaluation.scoring.statistics import detectable, difference, kappa
from open_r1.grading.grader import Outcome

LETTERS = "ABCD"
TEXTS = ("lung", "liver", "heart", "spleen")


def questions(count: int = 120) -> list[dict[str, Any]]:
    """Two questions about each image, three or four options, from two sources, in three cells."""
    rng, rows = np.random.default_rng(5), []
    for number in range(count):
        options = TEXTS[: 3 + number % 2]
        listed = ", ".join(f"{letter}){text}" for letter, text in zip(LETTERS, options, strict=False))
        row = {"id": f"q{number}", "problem": f"Which organ is number {number}? {listed}", "image": f"p{number // 2}"}
        row |= {"solution": LETTERS[rng.integers(len(options))], "source": "one" if number % 3 else "two"}
        rows.append(row | {"modality": "CT" if number % 3 else "MRI", "task": "Anatomy Identification"})
    return rows


def answered(seed: int, skill: float, shuffled: bool = False) -> list[Result]:
    """Right with probability `skill`, otherwise mostly the first option; some answers cannot be read."""
    rng, results = np.random.default_rng(seed), []
    for row in questions():
        shown = shuffle_options(row["problem"], row["id"], 3)
        right, draw = row["solution"], rng.random()
        letter = right if draw < skill else ("A" if draw < 0.9 else "B")
        output = f"<answer> {letter} </answer>" if draw < 0.95 else "I cannot say " * 3
        result = graded_result(row, row["image"], output, tokens=int(rng.integers(5, 60)))
        result = replace(result, cut_off=int(draw > 0.97))
        if shuffled and shown.problem != row["problem"]:
            result = replace(result, asked=shown.problem)
        results.append(result)
    return results


def clustered(values: Any, images: Any) -> float:
    """Standard error of a mean from a regression on a constant with clustered errors."""
    linear_model = pytest.importorskip("statsmodels.api", reason="statsmodels is not here; pip install -e '.[dev]'")
    values, groups = np.asarray(values, dtype=float), np.unique(images, return_inverse=True)[1]
    fitted = linear_model.OLS(values, np.ones(len(values))).fit(cov_type="cluster", cov_kwds={"groups": groups})
    return float(fitted.bse[0])


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> tuple[Path, dict[str, list[dict[str, Any]]], str]:
    """The folder of a report on three runs, the lines of their files by run, and the summary."""
    folder = tmp_path_factory.mktemp("review")
    about = {"data": "data/set", "data_sha256": "d", "max_new_tokens": 64}
    runs = {
        "base": (answered(1, 0.4), {"mode": "nothink", "checkpoint_sha256": "b", "method": "zero-shot"}),
        "grpo": (answered(2, 0.7), {"mode": "think", "checkpoint_sha256": "g", "method": "grpo"}),
        "moved": (
            answered(3, 0.7, shuffled=True),
            {"mode": "think", "checkpoint_sha256": "g", "method": "grpo", "options": "shuffled"},
        ),
    }
    paths = [write(folder / f"{name}.jsonl", results, **about, **more) for name, (results, more) in runs.items()]
    summary = write_report(paths, folder / "out")
    lines = {path.stem: [json.loads(line) for line in path.read_text().splitlines()[1:]] for path in paths}
    return folder / "out", lines, summary


@pytest.mark.slow
def test_letters_chosen_and_right_are_those_that_stood_before_the_model(report):
    folder, lines, _ = report
    rows = {(row["run"], row["letter"]): row for row in rows_of(folder / "letters.csv")}
    assert set(rows) == {(run, letter) for run in lines for letter in LETTERS}
    for run, results in lines.items():
        shown = []
        for line in results:
            texts = line["asked"] or line["problem"]
            places = {text: texts.split(f"){text}")[0][-1] for text in TEXTS if f"){text}" in texts}
            original = dict(zip(LETTERS, TEXTS, strict=True))
            right = places[original[line["solution"]]]
            chosen = places[original[line["letter"]]] if line["letter"] else None
            shown.append((places.values(), right, chosen, line["image"], line["outcome"] == "correct"))
        for letter in LETTERS:
            here = [entry for entry in shown if letter in entry[0]]
            bias = [(chosen == letter) - (right == letter) for _, right, chosen, _, _ in here]
            row = rows[run, letter]
            assert int(row["n"]) == len(here)
            assert int(row["right"]) == sum(right == letter for _, right, *_ in here)
            assert int(row["chosen"]) == sum(entry[2] == letter for entry in here)
            assert float(row["difference"]) == pytest.approx(100 * np.mean(bias), abs=0.006)
            assert float(row["stderr"]) == pytest.approx(100 * clustered(bias, [e[3] for e in here]), abs=0.006)
            rights = [correct for _, right, _, _, correct in here if right == letter]
            assert int(row["n_right"]) == len(rights)
            assert float(row["accuracy_where_right"]) == pytest.approx(100 * np.mean(rights), abs=0.006)


def test_options_that_cannot_be_told_apart_by_their_text_are_left_out():
    row = {"id": "q", "problem": "Which? A)x, B)x, C)y", "solution": "C"}
    result = graded_result(row, "p", "<answer>C</answer>", 3)
    assert shown_letters(result) == (["A", "B", "C"], "C", "C")
    assert shown_letters(replace(result, asked="Which? A)x, B)y, C)x")) is None


def test_consistency_counts_the_same_option_of_the_questions_that_were_reordered(report):
    folder, lines, summary = report
    by_id = {line["id"]: line for line in lines["grpo"]}
    pairs = [(by_id[line["id"]], line) for line in lines["moved"] if line["asked"]]
    assert 60 < len(pairs) < 120  # some questions keep their order by chance
    same = [a["letter"] is not None and a["letter"] == b["letter"] for a, b in pairs]
    both = [a["outcome"] == b["outcome"] == "correct" for a, b in pairs]
    images = [b["image"] for _, b in pairs]
    row = rows_of(folder / "consistency.csv")[-1]
    assert (row["run"], row["reordered_run"], row["group"], int(row["n"])) == ("grpo", "moved", "all", len(pairs))
    assert float(row["same_option"]) == pytest.approx(100 * np.mean(same), abs=0.006)
    assert float(row["stderr"]) == pytest.approx(100 * clustered(same, images), abs=0.006)
    assert float(row["right_in_both"]) == pytest.approx(100 * np.mean(both), abs=0.006)
    assert float(row["right_in_both_stderr"]) == pytest.approx(100 * clustered(both, images), abs=0.006)
    assert int(row["unparsed_in_either"]) == sum(None in (a["letter"], b["letter"]) for a, b in pairs)
    _, *rows = table_of(summary, "Consistency")
    assert rows[0][:3] == ["grpo", "120", str(len(pairs))]


@pytest.mark.slow
def test_each_question_is_in_one_of_four_quadrants_and_right_without_looking_is_right_in_every_run(report, tmp_path):
    folder, lines, _ = report
    about = {"data": "data/set", "data_sha256": "d", "max_new_tokens": 64, "mode": "think", "checkpoint_sha256": "g"}
    hidden = {
        "dark": write(tmp_path / "dark.jsonl", answered(6, 0.3), **about, method="grpo", image="none"),
        "noise": write(tmp_path / "noise.jsonl", answered(7, 0.3)[:100], **about, method="grpo", image="noise"),
    }
    paths = [*(folder.parent / f"{name}.jsonl" for name in ("base", "grpo", "moved")), *hidden.values()]
    summary = write_report(paths, tmp_path / "out")
    for name, path in hidden.items():
        lines = lines | {name: [json.loads(line) for line in path.read_text().splitlines()[1:]]}
    by_id = {name: {line["id"]: line for line in results} for name, results in lines.items()}
    rows = rows_of(tmp_path / "out" / "does_it_look.csv")
    assert {row["run"] for row in rows} == {"grpo"}  # of base no run without the image is there
    assert {(row["modality"], row["n"]) for row in rows} == {("all", "100"), ("CT", "66"), ("MRI", "34")}
    for row in rows:
        members = [line for line in lines["grpo"] if line["id"] in by_id["noise"]]
        members = [line for line in members if row["modality"] in ("all", line["modality"])]
        right, relies, consistent = [], [], []
        for line in members:
            others = {name: by_id[name][line["id"]] for name in ("dark", "noise", "moved")}
            same = {name: line["letter"] is not None and line["letter"] == o["letter"] for name, o in others.items()}
            right.append([line, others["dark"], others["noise"]])
            relies.append(not (same["dark"] and same["noise"]))
            consistent.append(same["moved"])
        images = [line["image"] for line in members]
        without = [all(line["outcome"] == "correct" for line in group) for group in right]
        assert float(row["right_without_looking"]) == pytest.approx(100 * np.mean(without), abs=0.006)
        assert float(row["stderr"]) == pytest.approx(100 * clustered(without, images), abs=0.006)
        assert float(row["relies"]) == pytest.approx(100 * np.mean(relies), abs=0.006)
        quadrants = {}
        for (c, r), name in zip([(1, 1), (1, 0), (0, 1), (0, 0)], QUADRANT_NAMES, strict=True):
            values = (np.array(consistent) == bool(c)) & (np.array(relies) == bool(r))
            quadrants[name] = float(row[name])
            assert quadrants[name] == pytest.approx(100 * values.mean(), abs=0.006)
            assert float(row[f"{name}_stderr"]) == pytest.approx(100 * clustered(values, images), abs=0.006)
        assert sum(quadrants.values()) == pytest.approx(100, abs=0.03)
    assert "right as usual and with no image and noise in place of the image" in " ".join(
        re.findall(r">([^<]+)</text>", (tmp_path / "out" / "right_without_looking_1.svg").read_text())
    )
    assert table_of(summary, "Looking and consistency")[1][:2] == ["grpo", "100"]

    by_cell = {(row["modality"], row["task"]): row for row in rows}
    for leaf, name, key in (("runs.csv", "grpo", ("all", "all")), ("grpo/by_modality.csv", "CT", ("CT", "all"))):
        row = next(row for row in rows_of(tmp_path / "out" / leaf) if name in row.values())
        assert row["right_without_looking"] == by_cell[key]["right_without_looking"]
        assert row["right_without_looking_stderr"] == by_cell[key]["stderr"]
    head = next(line for line in summary.splitlines() if line.startswith("| run | accuracy |"))
    assert "| not looking |" in head


QUADRANT_NAMES = ("consistent_relies", "consistent_not", "inconsistent_relies", "inconsistent_not")


@pytest.mark.slow
def test_without_shuffled_options_nothing_is_said_about_consistency(tmp_path):
    about = {"data_sha256": "d", "checkpoint_sha256": "g"}
    paths = [write(tmp_path / "a.jsonl", answered(1, 0.7), **about)]
    paths.append(write(tmp_path / "b.jsonl", answered(2, 0.3), **about, image="shuffled"))
    write_report(paths, tmp_path / "out")
    row = rows_of(tmp_path / "out" / "does_it_look.csv")[0]
    assert row["right_without_looking"]
    assert {row[name] for name in QUADRANT_NAMES} == {""}
    assert not (tmp_path / "out" / "consistency.csv").exists()


@pytest.mark.slow
def test_kappa_and_its_error_are_those_of_statsmodels(report):
    raters = pytest.importorskip("statsmodels.stats.inter_rater", reason="statsmodels is not here")
    rng = np.random.default_rng(1)
    for count in (40, 300):
        first = rng.random(count) < 0.6
        second = np.where(rng.random(count) < 0.7, first, rng.random(count) < 0.3)
        table = [[(~first & ~second).sum(), (~first & second).sum()], [(first & ~second).sum(), (first & second).sum()]]
        oracle = raters.cohens_kappa(np.array(table))
        value, stderr = kappa(first.tolist(), second.tolist(), range(count)) or (0, 0)
        assert value == pytest.approx(oracle.kappa)
        assert stderr == pytest.approx(oracle.std_kappa * math.sqrt(count / (count - 1)))
    assert kappa([True] * 4, [True] * 4, range(4)) is None
    assert kappa([True, False], [True, False], range(2)) == pytest.approx((1.0, 0.0))
    with pytest.raises(ValueError, match="same questions"):
        kappa([True], [True, False], [1])
    folder, lines, _ = report
    (row,) = rows_of(folder / "agreement.csv")  # the run with shuffled options is no second opinion
    first, second = ([line["outcome"] == "correct" for line in lines[row[name]]] for name in ("first", "second"))
    counts = [
        sum(pair == kind for pair in zip(first, second, strict=True)) for kind in [(1, 1), (1, 0), (0, 1), (0, 0)]
    ]
    assert [int(row[name]) for name in ("both_right", "only_first", "only_second", "none_right")] == counts
    table = np.array([[counts[3], counts[2]], [counts[1], counts[0]]])
    assert float(row["kappa"]) == pytest.approx(raters.cohens_kappa(table).kappa, abs=1e-4)
    same = [a["letter"] is not None and a["letter"] == b["letter"] for a, b in zip(*lines_of(lines, row), strict=True)]
    assert float(row["same_option"]) == pytest.approx(100 * np.mean(same), abs=0.006)
    images = [line["image"] for line in lines["base"]]
    assert float(row["same_option_stderr"]) == pytest.approx(100 * clustered(same, images), abs=0.006)


def lines_of(lines: dict[str, list[dict[str, Any]]], row: dict[str, str]) -> list[list[dict[str, Any]]]:
    """The lines of the two runs that a row names."""
    return [lines[row["first"]], lines[row["second"]]]


def test_kappa_of_questions_that_share_images_varies_as_its_error_says():
    rng, values, errors = np.random.default_rng(2), [], []
    for _ in range(400):
        image = rng.random(150) < 0.5  # both questions of an image stand or fall together
        first = np.repeat(np.where(rng.random(150) < 0.8, image, rng.random(150) < 0.5), 2)
        second = np.repeat(np.where(rng.random(150) < 0.8, image, rng.random(150) < 0.5), 2)
        value, error = kappa(first.tolist(), second.tolist(), np.repeat(np.arange(150), 2).tolist()) or (0, 0)
        values.append(value)
        errors.append(error)
    assert np.mean(errors) == pytest.approx(np.std(values), rel=0.1)


def test_lengths_are_means_by_outcome_and_cell(report):
    folder, lines, _ = report
    rows = rows_of(folder / "lengths.csv")
    assert {row["outcome"] for row in rows} == {"all", *(outcome.value for outcome in Outcome)}
    for row in rows:
        members = [
            line
            for line in lines[row["run"]]
            if row["modality"] in ("all", line["modality"]) and row["outcome"] in ("all", line["outcome"])
        ]
        lengths = [line["tokens"] for line in members]
        assert int(row["n"]) == len(members)
        assert float(row["mean_tokens"]) == pytest.approx(np.mean(lengths), abs=6e-4)
        assert float(row["median_tokens"]) == np.median(lengths)
        assert float(row["cut_off_share"]) == pytest.approx(100 * np.mean([m["cut_off"] for m in members]), abs=0.006)
        if row["stderr"]:
            images = [line["image"] for line in members]
            assert float(row["stderr"]) == pytest.approx(clustered(lengths, images), abs=6e-4)


def test_accuracy_by_source_has_its_n_and_error(report):
    folder, lines, summary = report
    rows = {(row["run"], row["source"]): row for row in rows_of(folder / "source_data_sets.csv")}
    assert set(rows) == {(run, source) for run in ("base", "grpo") for source in ("one", "two")}
    for (run, source), row in rows.items():
        members = [line for line in lines[run] if line["source"] == source]
        right = [line["outcome"] == "correct" for line in members]
        assert int(row["n"]) == len(members)
        assert float(row["accuracy"]) == pytest.approx(100 * np.mean(right), abs=0.006)
        assert float(row["stderr"]) == pytest.approx(100 * clustered(right, [m["image"] for m in members]), abs=0.006)
    assert table_of(summary, "Accuracy by source data set")[0] == ["source", "base", "grpo"]


def test_the_smallest_detectable_difference_is_two_quantiles_of_the_error(report):
    folder, lines, _ = report
    by_id = {line["id"]: line for line in lines["base"]}
    pairs = [(by_id[line["id"]], line) for line in lines["grpo"]]
    for row in rows_of(folder / "detectable.csv"):
        members = [pair for pair in pairs if row["modality"] in ("all", pair[1]["modality"])]
        changes = [(b["outcome"] == "correct") - (a["outcome"] == "correct") for a, b in members]
        images = [b["image"] for _, b in members]
        freedom, error = len(set(images)) - 1, clustered(changes, images)
        for name, level in (("detectable", 0.05), ("detectable_holm", 0.05 / int(row["tests"]))):
            quantiles = stats.t.ppf(1 - level / 2, freedom) + stats.t.ppf(0.8, freedom)
            assert float(row[name]) == pytest.approx(100 * quantiles * error, abs=0.006)
    assert {row["tests"] for row in rows_of(folder / "detectable.csv")} == {"1", "2"}


@pytest.mark.slow
def test_a_difference_of_the_smallest_size_is_detected_in_four_of_five_repetitions():
    rng, detected, smallest = np.random.default_rng(4), [], []

    def drawn(gain: float):
        first = rng.random(400) < 0.5
        draws = rng.random(400)  # right answers are lost with 10 %, wrong ones won with 10 % and twice the gain
        second = np.where(first, draws > 0.1, draws < 0.1 + 2 * gain)
        return difference(first.tolist(), second.tolist(), range(400))

    gain = 0.0
    for _ in range(5):  # the error depends on the gain itself
        gain = float(np.mean([detectable(drawn(gain)) or 1 for _ in range(40)]))
    for _ in range(600):
        measured = drawn(gain)
        detected.append(measured.p < 0.05)
        smallest.append(detectable(measured))
    assert np.mean(detected) == pytest.approx(0.8, abs=0.06)


def test_where_too_few_images_can_change_nothing_is_detectable():
    assert detectable(difference([False] * 5, [True] * 5, range(5))) is None  # 2 / 2^5 is above 0.05
    assert detectable(difference([False] * 6, [True] * 6, range(6))) == 1.0
    assert detectable(difference([True] * 60, [True] * 60, range(60))) == pytest.approx(0.1)  # six must change
    assert detectable(difference([True] * 60, [True] * 60, range(60)), tests=10) == pytest.approx(9 / 60)  # 2 / 2^9
    assert detectable(difference([True] * 4, [True] * 4, [1] * 4)) is None


@pytest.mark.slow
def test_unparsed_answers_are_counted_by_mode_and_shown_with_items_alone(report, tmp_path):
    folder, lines, summary = report
    rows = {row["run"]: row for row in rows_of(folder / "unparsed.csv")}
    for run, results in lines.items():
        failed = [line["outcome"] == "unparsed" for line in results]
        assert (int(rows[run]["n"]), int(rows[run]["unparsed"])) == (len(failed), sum(failed))
        assert float(rows[run]["stderr"]) == pytest.approx(
            100 * clustered(failed, [r["image"] for r in results]), abs=0.006
        )
        ended = sum(line["cut_off"] for line in results if line["outcome"] == "unparsed")
        assert int(rows[run]["unparsed_cut_off"]) == ended
    assert {row["mode"] for row in rows.values()} == {"think", "nothink"}
    text = "I cannot say"
    assert text not in summary + (folder / "report.html").read_text()
    paths = [folder.parent / f"{name}.jsonl" for name in ("base", "grpo")]
    with_items = write_report(paths, tmp_path / "out", with_items=True)
    assert text not in with_items + (tmp_path / "out" / "summary.md").read_text()  # the command prints the summary
    page = (tmp_path / "out" / "report.html").read_text()
    assert text in page.partition("Some of them")[2].partition("</table>")[0]


@pytest.mark.slow
def test_sections_stand_only_where_their_runs_are(tmp_path):
    results = [replace(result, source="") for result in answered(1, 1.0) if result.correct]
    summary = write_report([write(tmp_path / "a.jsonl", results, data_sha256="d")], tmp_path / "out")
    headings = [line.removeprefix("## ") for line in summary.splitlines() if line.startswith("## ")]
    assert headings == ["Runs", "Position of the answers", "Length of the answers", "a", "How to read this"]
