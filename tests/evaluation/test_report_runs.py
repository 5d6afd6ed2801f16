"""Several runs in one report: which belong together, maps by training and test set, the published figure."""

import io
import re
from dataclasses import replace

import matplotlib
import pytest
from PIL import Image
from report_files import answers, rows_of, run, write

from open_r1.common.errors import UserError
from open_r1.drawing.rendering import rendered
from open_r1.evaluation.comparing.matrices import accuracy_matrices
from open_r1.evaluation.comparing.pairs import pair_up
from open_r1.evaluation.comparing.run_names import run_names
from open_r1.evaluation.comparing.scored_runs import load
from open_r1.evaluation.reporting.heatmaps import improvement_figure
from open_r1.evaluation.reporting.report import write_report
from open_r1.evaluation.reporting.table_formats import BLANK, Sheet, latex, markdown
from open_r1.evaluation.scoring.results import Result, Sample
from open_r1.evaluation.scoring.tallies import ALL
from open_r1.grading.grader import Outcome
from open_r1.vocabulary.labels import Modality, Task

# --------------------------------------------------------------------------------------------- the published figure

# No-think minus think in points, rows trained on, columns tested on, as the paper's figure has them.
MODALITIES = """
CT 1.24 7.75 -0.61 -5.69 7.96 7.11 5.54 4.23
MRI 16.94 0.43 0.99 -10.32 4.90 8.93 9.08 2.79
X-Ray -1.30 1.65 1.24 -2.89 0.00 4.10 -0.47 2.88
US 3.94 2.57 2.84 0.14 5.82 5.01 4.71 7.75
Der 2.53 0.58 0.56 -3.76 2.90 -0.55 3.42 -0.36
FP 4.57 2.67 -1.86 2.51 1.07 1.55 7.31 3.96
OCT 15.99 2.70 0.06 -3.57 -7.81 -2.46 0.83 0.36
Micro 3.18 3.31 1.92 0.57 4.36 7.29 6.61 5.05
"""
TASKS = """
AI 0.27 0.22 8.71 0.42 1.70
DD 0.84 0.05 -10.09 0.21 1.14
LG 1.92 0.32 10.09 0.05 -1.99
MR 1.54 2.52 -1.83 0.33 2.27
OBA -0.31 -1.93 -4.59 -0.01 2.70
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "labels", "title"),
    [
        (MODALITIES, [label.short for label in Modality], "Improvement on each modality"),
        (TASKS, [label.short for label in Task], "Improvement on each task"),
    ],
)
def test_published_figure_is_rebuilt_from_its_numbers(text, labels, title):
    lines = [line.split() for line in text.strip().splitlines()]
    assert [line[0] for line in lines] == labels
    values = {(line[0], name): float(value) for line in lines for name, value in zip(labels, line[1:], strict=True)}
    figure = improvement_figure(values, title)
    svg = rendered(figure, "svg").decode()
    labels_of_figure = re.findall(r"<text[^>]*>([^<]*)</text>", svg)
    numbers = [text for text in labels_of_figure if re.fullmatch(r"-?\d+\.\d\d", text)]
    assert numbers == [number for line in lines for number in line[1:]]
    assert title in labels_of_figure
    assert {"trained on", "tested on", "points", *labels} <= set(labels_of_figure)
    # blue to red around a grey zero, on a scale that the largest value fills
    reach = max(map(abs, values.values()))
    for cell, patch in zip(values, figure.axes[0].patches, strict=True):
        colour = matplotlib.colormaps["coolwarm"](0.5 + values[cell] / (2 * reach))
        assert patch.get_facecolor() == pytest.approx(colour, abs=0.01), cell
    assert figure.axes[1].get_ylim() == (-reach, reach)
    with Image.open(io.BytesIO(rendered(figure, "png"))) as opened:
        assert min(opened.size) > 500


# ------------------------------------------------------------------------------------------ sets of runs, compared


@pytest.mark.slow
def test_think_against_no_think_by_what_was_trained_and_tested_on(tmp_path):
    labels = ["CT", "MRI"]
    think = [run(tmp_path, a, b, 20, "think") for a in labels for b in labels]
    nothink = [run(tmp_path, a, b, 20 + 8 * (a == b), "nothink") for a in labels for b in reversed(labels)]
    summary = write_report(nothink, tmp_path / "out", against=think)
    table = {
        (row["trained_on"], row["tested_on"]): row for row in rows_of(tmp_path / "out" / "improvement_modality.csv")
    }
    # 8 of 40 questions won where trained and tested on the same: 20 points; McNemar 2 / 2^8
    assert table["CT", "CT"]["difference"] == "20.00"
    assert (table["CT", "CT"]["p"], table["CT", "CT"]["test"]) == ("0.00781", "exact McNemar")
    assert table["CT", "CT"]["excludes_zero"] == "yes"
    assert (table["CT", "MRI"]["difference"], table["CT", "MRI"]["excludes_zero"]) == ("0.00", "no")
    assert len(table) == 4
    svg = (tmp_path / "out" / "improvement_modality.svg").read_text()
    # p = 2 / 2^8 in two of four cells; after Holm 4 * .0078 = .031
    assert sorted(re.findall(r">(-?\d+\.\d\d[*★]?)</text>", svg)) == ["0.00", "0.00", "20.00★", "20.00★"]
    assert "★ also" in svg
    assert "Improvement on each modality" in svg
    assert "the 95 % interval excludes zero" in svg
    assert "hatched" not in svg
    assert "exact McNemar" in svg
    # (20 + 0 + 0 + 20) / 4; trained and tested on the same: 20
    assert "all cells +10.0 ± " in summary
    assert "trained and tested on the same +20.0 ± " in summary
    assert "exact McNemar" in summary
    assert not (tmp_path / "out" / "difference_1.csv").exists()  # the map holds them all
    accuracy = rows_of(tmp_path / "out" / "trained_on_x_tested_on_modality.csv")
    assert {(row["trained_on"], row["tested_on"]): row["accuracy"] for row in accuracy} == {
        ("CT (nothink)", "CT"): "70.00",
        ("CT (nothink)", "MRI"): "50.00",
        ("MRI (nothink)", "CT"): "50.00",
        ("MRI (nothink)", "MRI"): "70.00",
    }


@pytest.mark.slow
def test_of_many_runs_the_single_ones_are_folded_away(tmp_path):
    labels = Modality.CT, Modality.MRI, Modality.OCT, Modality.FUNDUS
    paths = [run(tmp_path, label.value, label.value, 20) for label in labels]
    summary = write_report(paths, tmp_path / "out")
    assert "Trained on x tested on" in summary
    assert "## OCT-OCT-nothink" not in summary
    assert "## OCT-OCT-nothink" in (tmp_path / "out" / "summary.md").read_text()
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("each result file") == 1
    assert page.count("<summary>tables and images</summary>") == 4
    assert len(list((tmp_path / "out").glob("*/heatmap.png"))) == 4


@pytest.mark.slow
def test_a_base_before_training_stands_against_every_run_after_it(tmp_path):
    before = [run(tmp_path, None, task, 10) for task in ("Lesion Grading", "Disease Diagnosis")]
    after = [run(tmp_path, "Lesion Grading", task, 30) for task in ("Disease Diagnosis", "Lesion Grading")]
    write_report(after, tmp_path / "out", against=before)
    rows = rows_of(tmp_path / "out" / "improvement_task.csv")
    assert [(row["trained_on"], row["tested_on"], row["difference"]) for row in rows] == [
        ("Lesion Grading", "Disease Diagnosis", "50.00"),
        ("Lesion Grading", "Lesion Grading", "50.00"),
    ]


@pytest.mark.slow
def test_questions_that_share_an_image_are_tested_together(tmp_path):
    before = write(tmp_path / "before.jsonl", answers("CT", 10, shared=2))
    after = write(tmp_path / "after.jsonl", answers("CT", 30, shared=2))
    write_report([before, after], tmp_path / "out")
    row = rows_of(tmp_path / "out" / "difference.csv")[-1]
    assert (row["test"], row["pictures"], row["difference"]) == ("exact sign flip", "20", "50.00")
    assert row["p"] == "0.00195"  # ten images won by both questions, none lost: 2 / 2^10
    # 10 of 20 images changed, by both questions: SE = sqrt(20/19 * 20 * 1) / 40
    assert float(row["stderr"]) == pytest.approx(11.47, abs=0.01)
    # residuals 1 and -1 of 20 images of size 2, two more of sums 2: s = sqrt(20 + 2 * 4) / (40 + 4); t(19) = 2.093
    assert float(row["low"]) == pytest.approx(50 - 2.093 * 12.026, abs=0.01)
    assert float(row["high"]) == pytest.approx(50 + 2.093 * 12.026, abs=0.01)


@pytest.mark.slow
def test_files_without_a_counterpart_are_named_and_none_at_all_is_refused(tmp_path):
    think = [run(tmp_path, "CT", "CT", 20, "think"), run(tmp_path, "CT", "MRI", 20, "think")]
    nothink = [run(tmp_path, "CT", label, 30) for label in ("CT", "MRI", "OCT")]
    assert "Left out, without a counterpart on the same questions: CT-OCT-nothink." in write_report(
        nothink, tmp_path / "out", against=think
    )
    with pytest.raises(UserError, match="no file has a counterpart"):
        write_report(nothink[2:], tmp_path / "none", against=think)
    assert not (tmp_path / "none").exists()


def test_two_counterparts_are_refused_not_chosen_between(tmp_path):
    think = [run(tmp_path, "CT", "CT", 20, "think"), run(tmp_path, "CT", "CT", 25, "think_after")]
    with pytest.raises(UserError, match=r"could be compared with .* and with"):
        write_report([run(tmp_path, "CT", "CT", 30)], tmp_path / "out", against=think)


def test_runs_are_named_by_what_tells_them_apart():
    ct, mri = {"trained_on": "CT", "mode": "think"}, {"trained_on": "MRI", "mode": "think"}
    assert run_names([ct, mri, ct]) == ["CT", "MRI", "CT"]  # the third is the first on another data set
    assert run_names([ct, {**ct, "mode": "nothink"}]) == ["CT (think)", "CT (nothink)"]
    assert run_names([ct, {**ct, "image": "none"}]) == ["CT", "CT (image none)"]
    assert run_names([{**ct, "checkpoint": "a"}, {**ct, "checkpoint": "b"}]) == ["CT (a)", "CT (b)"]
    assert run_names([{"method": "zero-shot"}, {"checkpoint": "x"}, {}]) == ["zero-shot", "x", "run"]


def test_a_file_about_everything_is_spread_over_the_columns_of_its_family(tmp_path):
    mixture = [*answers("CT", 10), *answers("MRI", 30)]
    mixture = [replace(result, task="Lesion Grading") for result in mixture]
    path = write(tmp_path / "a.jsonl", mixture, trained_on="CT")
    (matrix,) = accuracy_matrices(load([path]))
    assert matrix.family == "modality"
    assert {cell: tally.n for cell, tally in matrix.cells.items()} == {("CT", "CT"): 40, ("CT", "MRI"): 40}


# --------------------------------------------------------------------------------------- what stands beside accuracy


@pytest.mark.slow
def test_floors_and_unseen_images_stand_beside_the_accuracy(tmp_path):
    results = answers("CT", 30)
    # blind earns 1, 1/2, 1/2, 1 and so on: 75 %; every fourth image was seen in training, 30 were not
    results = [
        replace(result, blind=1.0 if number % 2 else 0.5, seen=number % 4 == 0) for number, result in enumerate(results)
    ]
    with_image = write(tmp_path / "shown.jsonl", results, checkpoint_sha256="c", data_sha256="d", mode="think")
    about = {"checkpoint_sha256": "c", "data_sha256": "d", "mode": "think", "image": "none"}
    hidden = write(tmp_path / "hidden.jsonl", answers("CT", 12), **about)
    summary = write_report([with_image, hidden], tmp_path / "out")
    row = rows_of(tmp_path / "out" / "shown" / "by_modality.csv")[0]
    # right are 0 to 29; unseen are those not divisible by 4: 30, of which 22 are right (0, 4, ..., 28 are the 8 seen)
    expected = {"n": "40", "accuracy": "75.00", "chance": "50.00", "blind_floor": "75.00", "without_picture": "30.00"}
    expected |= {
        "unseen_n": "30",
        "unseen_accuracy": "73.33",
        "unparsed_share": "0.00",
        "samples": "1",
        "pass_at_1": "",
    }
    assert {name: row[name] for name in expected} == expected
    # SE = sqrt(22/30 * 8/30 / 29)
    assert float(row["unseen_stderr"]) == pytest.approx(8.21, abs=0.01)
    # Wilson's interval with t(39) = 2.0227
    assert "| CT | 40 | 75.0 ± 6.9 | 59.3 to 86.1 | 50.0 | 75.0 | 30.0 | 73.3 ± 8.2 (30) | 0.0 | unknown |" in summary
    averages = rows_of(tmp_path / "out" / "shown" / "averages.csv")
    assert [row["average"] for row in averages] == [
        "all questions, weighted by their number",
        "unweighted mean over 1 modality",
    ]
    assert averages[0]["without_picture"] == averages[1]["without_picture"] == "30.00"


def test_the_twin_without_images_is_that_of_the_same_checkpoint_data_and_mode(tmp_path):
    about = {"checkpoint_sha256": "c", "data_sha256": "d", "mode": "think"}
    files = [write(tmp_path / "0.jsonl", answers("CT", 30), **about)]
    for number, other in enumerate(({"checkpoint_sha256": "x"}, {"data_sha256": "x"}, {"mode": "nothink"}), 1):
        files.append(write(tmp_path / f"{number}.jsonl", answers("CT", 5), **about | other, image="none"))
    assert load(files)[0].without_image is None
    files.append(write(tmp_path / "4.jsonl", answers("CT", 5), **about, image="none"))
    without_image = load(files)[0].without_image
    assert without_image is not None
    assert without_image[ALL, ALL].count(Outcome.CORRECT) == 5


def test_a_run_without_images_is_compared_with_its_like(tmp_path):
    about = {"data_sha256": "d", "checkpoint_sha256": "c"}
    paths = {
        name: write(tmp_path / f"{name}.jsonl", answers("CT", 10), **about, mode=mode, image=image)
        for name, mode, image in (
            ("a", "think", "shown"),
            ("b", "think", "none"),
            ("c", "nothink", "shown"),
            ("d", "nothink", "none"),
        )
    }
    scored = load([paths["c"], paths["d"]], [paths["a"], paths["b"]])
    pairs, alone = pair_up(scored[2:], scored[:2])
    assert [(pair.second.name, pair.first.name) for pair in pairs] == [("c", "a"), ("d", "b")]
    assert alone == []


@pytest.mark.slow
def test_samples_give_majority_and_pass_at_k(tmp_path):
    def drawn(number: int, letters: str) -> Result:
        base = answers("CT", 40)[number]
        outcomes = {"A": Outcome.CORRECT, "B": Outcome.WRONG}
        samples = [Sample(f"<answer>{letter}</answer>", outcomes[letter], letter, 3) for letter in letters]
        vote = max("AB", key=letters.count)
        return replace(base, samples=samples, outcome=outcomes[vote], letter=vote)

    results = [drawn(0, "AAB"), drawn(1, "ABB"), drawn(2, "BBB"), drawn(3, "AAA")]
    summary = write_report([write(tmp_path / "a.jsonl", results, samples=3)], tmp_path / "out")
    row = rows_of(tmp_path / "out" / "by_modality.csv")[0]
    # majority 2 of 4; one sample (2 + 1 + 0 + 3) / 12; best of three 3 of 4
    assert (row["accuracy"], row["pass_at_1"], row["pass_at_k"], row["samples"]) == ("50.00", "50.00", "75.00", "3")
    assert "| one of 3 samples | best of 3 |" in summary
    assert "majority vote of 3 samples" in summary


# ------------------------------------------------------------------------------------------------------------ forms


def test_latex_table_has_booktabs_rules_and_no_live_sign():
    sheet = Sheet("50 % of A&B_1", ["", "x ± y"], [["US {a}", "+1.2 ± 0.3"], ["p~q^\\#$", BLANK]], ["n < 30"])
    text = latex(sheet)
    assert text.count("rule\n") == 3
    assert r"\caption{50 \% of A\&B\_1. n \textless{} 30}" in text
    assert r"US \{a\} & $+$1.2 $\pm$ 0.3 \\" in text
    assert r"p\textasciitilde{}q\textasciicircum{}\textbackslash{}\#\$ & -- \\" in text


def test_markdown_cells_cannot_break_the_table():
    text = markdown(Sheet("T", ["", "a|b"], [["x\ny", "1"]]))
    assert text.splitlines()[2:] == ["|  | a\\|b |", "| --- | --- |", "| x y | 1 |"]
