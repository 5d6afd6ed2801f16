"""Result files and their report: nothing is lost, counted twice or drawn where there is nothing."""

import csv
import io
import json
import multiprocessing
import re
import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from open_r1.common.errors import UserError
from open_r1.evaluation.comparing.pairs import adjusted, compare
from open_r1.evaluation.comparing.run_names import named_apart
from open_r1.evaluation.reporting.heatmaps import accuracy_heatmap, difference_heatmap, ink_on, span_of
from open_r1.evaluation.reporting.report import write_report
from open_r1.evaluation.reporting.table_formats import BLANK
from open_r1.evaluation.scoring.result_writer import ResultWriter
from open_r1.evaluation.scoring.results import Result, failed_result, graded_result, published_form, read_results
from open_r1.evaluation.scoring.tallies import ALL, averages, tabulate
from open_r1.grading.grader import Outcome

PROBLEM = "What is it? A)CT, B)Chest X-ray, C)Pneumonia, D)Normal"
MANIFEST = {"checkpoint": "checkpoints/tiny", "prompt": "train-nothink", "rows": 8}


def result(name: str, modality: str | None, task: str | None, answer: str, image: str = "") -> Result:
    """A question whose right answer is C."""
    row = {"id": name, "source": "test", "modality": modality, "task": task}
    row |= {"problem": PROBLEM, "solution": "<answer> C </answer>"}
    return graded_result(row, image or f"image of {name}", answer, tokens=5)


RIGHT, WRONG, UNREAD = "<answer>C</answer>", "<answer>A</answer>", "Well, A or C"


def example() -> list[Result]:
    """CT: 3 of 4 diagnoses, 0 of 1 recognitions; MRI: 2 of 2 recognitions; and one image that cannot be read."""
    return [
        result("1", "CT", "Disease Diagnosis", RIGHT, "p1"),
        result("2", "CT", "Disease Diagnosis", RIGHT, "p1"),
        result("3", "CT", "Disease Diagnosis", RIGHT, "p2"),
        result("4", "CT", "Disease Diagnosis", UNREAD, "p2"),
        result("5", "CT", "Modality Recognition", WRONG, "p1"),
        result("6", "MRI", "Modality Recognition", RIGHT),
        result("7", "MRI", "Modality Recognition", RIGHT),
        failed_result(
            {"id": "8", "modality": "MRI", "task": "Disease Diagnosis", "problem": PROBLEM, "solution": "C"},
            "p9",
            "truncated image",
        ),
    ]


def write(path: Path, results: list[Result], manifest: dict | None = None) -> Path:
    with ResultWriter(path, MANIFEST if manifest is None else manifest) as writer:
        for result in results:
            writer.write(result)
    return path


# --------------------------------------------------------------------------------------------- result files


def test_what_is_written_is_read(tmp_path):
    odd = result("9", None, None, "Ünïcode \u2028 \x00 \ud800 \n\n 肺", "p")
    result_file = read_results(write(tmp_path / "deep" / "out.jsonl", [*example(), odd]))
    assert result_file.manifest == MANIFEST
    assert result_file.results == [*example(), odd]
    assert not result_file.torn


def test_a_line_holds_what_the_contract_names(tmp_path):
    lines = write(tmp_path / "out.jsonl", example()).read_text().splitlines()
    assert json.loads(lines[0]) == {"manifest": MANIFEST}
    assert json.loads(lines[4]) == {
        "id": "4",
        "source": "test",
        "image": "p2",
        "modality": "CT",
        "task": "Disease Diagnosis",
        "problem": PROBLEM,
        "solution": "<answer> C </answer>",
        "output": UNREAD,
        "outcome": "unparsed",
        "letter": None,
        "tokens": 5,
        "error": None,
        "blind": None,
        "seen": None,
        "samples": None,
        "asked": None,
        "cut_off": None,
        "content": None,
    }
    last = json.loads(lines[8])
    assert (last["outcome"], last["letter"], last["error"]) == (None, None, "truncated image")


def test_a_run_killed_at_any_byte_loses_one_line_at_most_and_continues(tmp_path):
    whole = write(tmp_path / "whole.jsonl", example()).read_bytes()
    ends = [at + 1 for at, byte in enumerate(whole) if byte == ord("\n")]
    path = tmp_path / "cut.jsonl"
    for cut in [*range(0, ends[0] + 1, 7), *range(ends[1] - 3, ends[2] + 4), *range(ends[-2] - 1, ends[-1] + 1, 5)]:
        path.write_bytes(whole[:cut])
        finished = sum(end <= cut for end in ends)
        if finished > 1:
            result_file = read_results(path)
            assert len(result_file.results) in (finished - 1, finished)  # a line may only lack its end
        with ResultWriter(path, MANIFEST) as writer:
            for result in example():
                if result.id not in writer.written_ids:
                    writer.write(result)
        assert path.read_bytes() == whole


def test_each_line_is_on_file_before_the_next_is_made(tmp_path):
    writer = ResultWriter(tmp_path / "out.jsonl", MANIFEST)
    for count, result in enumerate(example(), 1):
        writer.write(result)
        assert len(read_results(tmp_path / "out.jsonl").results) == count
    writer.close()


def append_some(path: Path, names: range) -> None:
    with ResultWriter(path, MANIFEST) as writer:
        for name in names:
            writer.write(result(str(name), "CT", "Disease Diagnosis", RIGHT * 50))


@pytest.mark.slow
def test_two_processes_may_append_to_one_file(tmp_path):
    path = write(tmp_path / "out.jsonl", [])
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=append_some, args=(path, range(k, 400, 2))) for k in (0, 1)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert sorted(int(stored.id) for stored in read_results(path).results) == list(range(400))


def test_another_run_is_not_mixed_in(tmp_path):
    path = write(tmp_path / "out.jsonl", example())
    before = path.read_bytes()
    with pytest.raises(UserError, match=r"prompt \('train-nothink' there, 'readme' now\)"):
        ResultWriter(path, {**MANIFEST, "prompt": "readme"})
    assert path.read_bytes() == before
    ResultWriter(path, {**MANIFEST, "batch_size": 3}).close()  # changes nothing in what is measured


def test_writing_an_id_twice_is_our_own_error(tmp_path):
    with ResultWriter(tmp_path / "out.jsonl", MANIFEST) as writer:
        writer.write(example()[0])
        with pytest.raises(AssertionError, match="twice"):
            writer.write(example()[0])


LINE = json.dumps({"id": "1", "source": ""})
GOOD = json.dumps(
    json.loads(LINE)
    | {"image": "p", "modality": None, "task": None, "problem": PROBLEM, "solution": "C", "output": "C"}
    | {"outcome": "correct", "letter": "C", "tokens": 1, "error": None}
)
HEAD = json.dumps({"manifest": {}})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("\n \n", "is empty"),
        ("no json\n", "first line is no JSON"),
        ("[1]\n", "should be {"),
        (GOOD + "\n", "should be {"),
        ('{"manifest": 3}\n', "should be {"),
        (f"{HEAD}\n{GOOD}\n{GOOD}\n", "id '1' twice"),
        (f"{HEAD}\n{GOOD[:-9]}\n{GOOD}\n", "line 2 is no result line"),
        (f"{HEAD}\n{GOOD[:-9]}\n", "line 2 is no result line"),  # ended, so not torn
        (f"{HEAD}\n{LINE}\n", "lacks image, letter"),
        (f"{HEAD}\n[]\n", "no JSON object"),
        (f"{HEAD}\n{GOOD.replace('correct', 'maybe')}\n", "maybe"),
        (f"{HEAD}\n{json.dumps({**json.loads(GOOD), 'id': 1})}\n", "id should be text"),
        (f"{HEAD}\n{json.dumps({**json.loads(GOOD), 'blind': '0.5'})}\n", "blind should be a number from 0 to 1"),
        (f"{HEAD}\n{json.dumps({**json.loads(GOOD), 'seen': 1})}\n", "seen should be true or false"),
        (f"{HEAD}\n{json.dumps({**json.loads(GOOD), 'tokens': '7'})}\n", "tokens should be a whole number"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_in_one_line(tmp_path, text, message):
    path = tmp_path / "out.jsonl"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        read_results(path)
    assert message in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_file_a_folder_and_a_binary_are_refused(tmp_path):
    with pytest.raises(UserError, match="No such file"):
        read_results(tmp_path / "none.jsonl")
    with pytest.raises(UserError, match="directory"):
        read_results(tmp_path)
    (tmp_path / "binary").write_bytes(b"\x89PNG\r\n\x1a\n\x00")
    with pytest.raises(UserError, match="first line is no JSON"):
        read_results(tmp_path / "binary")


def test_a_foreign_file_is_not_continued(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("my notes")
    with pytest.raises(UserError, match="no result file"):
        ResultWriter(path, MANIFEST)
    assert path.read_text() == "my notes"


def test_published_form_by_hand():
    form = published_form(example())
    assert form["accuracy"] == pytest.approx(100 * 5 / 7)
    assert len(form["results"]) == 7  # the unreadable image was not asked about
    assert form["results"][3] == {
        "question": PROBLEM,
        "ground_truth": "C",
        "model_output": UNREAD,
        "extracted_answer": None,
    }
    assert published_form([])["accuracy"] is None


# --------------------------------------------------------------------------------------------------- tables


def test_tallies_and_margins_by_hand():
    table = tabulate(example())
    counts = {cell: (tally.n, tally.count(Outcome.CORRECT), tally.unreadable) for cell, tally in table.items()}
    assert counts == {
        ("CT", "Disease Diagnosis"): (4, 3, 0),
        ("CT", "Modality Recognition"): (1, 0, 0),
        ("MRI", "Modality Recognition"): (2, 2, 0),
        ("MRI", "Disease Diagnosis"): (0, 0, 1),
        ("CT", ALL): (5, 3, 0),
        ("MRI", ALL): (2, 2, 1),
        (ALL, "Disease Diagnosis"): (4, 3, 1),
        (ALL, "Modality Recognition"): (3, 2, 0),
        (ALL, ALL): (7, 5, 1),
    }
    assert table[ALL, ALL].unparsed == pytest.approx(1 / 7)
    assert table[ALL, ALL].chance == pytest.approx(0.25)
    assert table["MRI", "Disease Diagnosis"].estimate is None
    diagnosis = table["CT", "Disease Diagnosis"].estimate
    assert diagnosis is not None
    assert (diagnosis.mean, diagnosis.clusters) == (0.75, 2)
    # e = .25 .25 | .25 -.75: sums .5, -.5; SE^2 = 2 * .5 / 16
    assert diagnosis.stderr == pytest.approx(0.25)


def test_weighted_and_unweighted_means_are_told_apart():
    means = {average.name: average.mean for average in averages(tabulate(example()))}
    assert means == {
        "all questions, weighted by their number": pytest.approx(5 / 7),
        "unweighted mean over 2 modalities": pytest.approx((3 / 5 + 1) / 2),
        "unweighted mean over 2 tasks": pytest.approx((3 / 4 + 2 / 3) / 2),
    }


def test_questions_without_labels_count_in_the_weighted_mean_alone():
    means = averages(tabulate([result("1", None, None, RIGHT), result("2", "CT", None, WRONG)]))
    assert [(average.name, average.mean) for average in means] == [
        ("all questions, weighted by their number", 0.5),
        ("unweighted mean over 1 modality", 0.0),
    ]


def test_differences_are_paired_by_id():
    before = [result("1", "CT", "Disease Diagnosis", RIGHT), result("2", "CT", "Disease Diagnosis", WRONG)]
    after = [result("2", "CT", "Disease Diagnosis", RIGHT), result("1", "CT", "Disease Diagnosis", RIGHT)]
    comparison = compare(before, [*after, result("3", "CT", "Disease Diagnosis", RIGHT)])[ALL, ALL]
    assert (comparison.n, comparison.won, comparison.lost, comparison.mean) == (2, 1, 0, 0.5)


def test_files_that_share_nothing_cannot_be_compared():
    with pytest.raises(UserError, match="no question in common"):
        compare([result("1", "CT", None, RIGHT)], [result("2", "CT", None, RIGHT)])
    other = Result(**{**vars(result("1", "CT", None, RIGHT)), "problem": PROBLEM.replace("CT", "PET")})
    with pytest.raises(UserError, match="another question"):
        compare([result("1", "CT", None, RIGHT)], [other])


def test_files_of_one_name_are_named_apart(tmp_path):
    assert named_apart([Path("a/x.jsonl"), Path("a/y.jsonl")]) == ["x", "y"]
    assert named_apart([Path("a/x.jsonl"), Path("b/x.jsonl")]) == ["a-x", "b-x"]
    assert named_apart([Path("a/x.jsonl"), Path("a/x.jsonl")]) == ["1-x", "2-x"]


# -------------------------------------------------------------------------------------------------- images


def texts(figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


def test_heatmap_shows_value_and_n_in_every_cell_and_leaves_empty_cells_blank():
    table = tabulate(example())
    figure = accuracy_heatmap(table, "Title")
    axes = figure.axes[0]
    # 4 cells with questions minus 1 that was never asked, 2 + 2 margins, 1 corner
    assert sum(patch.get_fill() for patch in axes.patches) == 8
    assert sum(patch.get_hatch() is not None for patch in axes.patches) == 8  # all have fewer than 30 questions
    labels = texts(figure)
    assert labels[::2].count("75.0") == 2  # CT diagnosis and the margin of diagnosis
    assert set(labels[1::2]) == {"n = 1", "n = 2", "n = 3", "n = 4", "n = 5", "n = 7"}
    assert [label.get_text() for label in axes.get_yticklabels()] == ["CT", "MRI", ALL]
    assert [label.get_text() for label in axes.get_xticklabels()] == [
        "Disease\nDiagnosis",
        "Modality\nRecognition",
        ALL,
    ]
    assert figure.axes[1].get_ylabel() == "accuracy (%)"


def test_of_very_many_rows_the_first_are_drawn_and_the_margin():
    results = [result(str(k), f"kind {k:04}", "Disease Diagnosis", RIGHT) for k in range(500)]
    figure = accuracy_heatmap(tabulate(results), "Title", "A note.")
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert (len(names), names[0], names[-1]) == (60, "kind 0000", ALL)
    assert len(texts(figure)) == 2 * 60 * 2
    note = " ".join(text.get_text().replace("\n", " ") for text in figure.texts)
    assert "A note. 60 of 501 rows and 2 of 2 columns are drawn; the table has all." in note
    assert max(figure.get_size_inches()) < 60


def test_difference_heatmap_is_centred_on_zero():
    before = [result(str(k), "CT", "Disease Diagnosis", RIGHT) for k in range(4)]
    after = [result(str(k), "CT", "Disease Diagnosis", RIGHT if k else WRONG) for k in range(4)]
    comparisons = compare(before, after)
    figure = difference_heatmap(comparisons, adjusted(comparisons), "Improvement")
    assert texts(figure)[:2] == ["-25.0", "± 25.0, n = 4"]
    low, high = figure.axes[1].get_ylim()
    assert (low, high) == (-25, 25)


def test_the_scale_of_differences_is_that_of_cells_with_enough_questions():
    def answered(right: set[int]) -> list[Result]:
        few = [result(f"few {k}", "MRI", "Lesion Grading", RIGHT if right else WRONG) for k in range(3)]
        many = [result(str(k), "CT", "Disease Diagnosis", RIGHT if k in right else WRONG) for k in range(40)]
        return [*few, *many]

    comparisons = compare(answered(set()), answered(set(range(10))))
    figure = difference_heatmap(comparisons, adjusted(comparisons), "Improvement")
    # +100 on three questions of MRI; +25 on forty of CT; all: 13 of 43
    assert figure.axes[1].get_ylim() == pytest.approx((-1300 / 43, 1300 / 43))
    labels = texts(figure)
    assert "+100.0" in [label.rstrip("*★") for label in labels]
    assert "clipped" in figure.texts[-1].get_text()
    shared = difference_heatmap(comparisons, adjusted(comparisons), "Improvement", span=span_of([comparisons]))
    assert shared.axes[1].get_ylim() == figure.axes[1].get_ylim()
    assert span_of([comparisons, compare(answered(set()), answered(set(range(40))))]) == (-100, 100)


def test_what_remains_after_correction_is_framed_and_plain_stars_are_not():
    before = [result(str(k), "CT", "Disease Diagnosis", WRONG) for k in range(40)]
    after = [result(str(k), "CT", "Disease Diagnosis", RIGHT if k < 10 else WRONG) for k in range(40)]
    (cell, *_), comparisons = compare(before, after), compare(before, after)
    frames = []
    for p_holm in (0.04, 0.06):
        figure = difference_heatmap({cell: comparisons[cell]}, {cell: p_holm}, "Improvement")
        frames.append(sum(not patch.get_fill() and patch.get_hatch() is None for patch in figure.axes[0].patches))
        assert texts(figure)[0] == "+25.0" + ("★" if p_holm < 0.05 else "*")
    assert frames == [1, 0]


@pytest.mark.parametrize("colours", ["YlGnBu", "coolwarm"])
def test_every_number_is_legible_on_the_colour_of_its_cell(colours):
    colour_map = matplotlib.colormaps[colours]
    for share in np.linspace(0, 1, 257):
        colour = colour_map(share)
        by_hand = []
        for ink in ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)):  # relative luminance by WCAG 2.1, with arrays
            srgb = np.array([colour[:3], ink])
            linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
            low, high = np.sort(linear @ [0.2126, 0.7152, 0.0722])
            by_hand.append((high + 0.05) / (low + 0.05))
        chosen = 0 if ink_on(colour) == "black" else 1
        assert by_hand[chosen] == max(by_hand)
        assert by_hand[chosen] >= 4.5


@pytest.mark.parametrize(
    "labels",
    [
        [("CT", "Disease Diagnosis")],
        [(None, None)],
        [("Ultrasound", "Lesion Grading"), (None, "Other Biological Attributes")],
        [("x" * 5000, "y " * 2500)],
    ],
    ids=["one", "none", "two", "names without an end"],
)
def test_nothing_in_the_image_is_clipped_or_overlaps_the_colour_bar(labels):
    results = [result(str(k), modality, task, RIGHT) for k, (modality, task) in enumerate(labels)]
    figure = accuracy_heatmap(
        tabulate(results), "Accuracy: a checkpoint with a rather long name, step 200", "a note " * 30
    )
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    frame = figure.bbox
    drawn = [*figure.texts, *figure.axes[0].texts, *figure.axes[0].get_xticklabels(), *figure.axes[0].get_yticklabels()]
    drawn += [*figure.axes[1].get_yticklabels(), figure.axes[1].yaxis.label]
    for text in drawn:
        box = text.get_window_extent(canvas.get_renderer())
        assert box.x0 >= frame.x0, text
        assert box.y0 >= frame.y0, text
        assert box.x1 <= frame.x1, text
        assert box.y1 <= frame.y1, text
    cells = figure.axes[0].get_window_extent()
    assert cells.x1 < figure.axes[1].get_window_extent().x0
    *above, below = figure.texts
    assert all(text.get_window_extent().y0 > cells.y1 for text in above)
    assert below.get_text() == "hatched: fewer than 30 questions"
    assert below.get_window_extent().y1 < min(
        label.get_window_extent().y0 for label in figure.axes[0].get_xticklabels()
    )


# -------------------------------------------------------------------------------------------------- reports

LEAVES = [
    *("averages.csv", "by_modality.csv", "by_modality_and_task.csv", "by_task.csv"),
    *("heatmap.png", "heatmap.svg", "results.json"),
]
WHOLE = ["runs.csv", "summary.md", "tables.tex", "report.html", "manifest.json"]  # beside those of the single files


def rows_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text())))


@pytest.mark.slow
def test_report_of_one_file(tmp_path, repository):
    write(tmp_path / "out.jsonl", example())
    command = [sys.executable, "eval/report.py", str(tmp_path / "out.jsonl"), "--output_dir", str(tmp_path / "report")]
    process = subprocess.run(command, cwd=repository, capture_output=True, text=True, timeout=1800)
    assert process.returncode == 0, process.stderr
    folder = tmp_path / "report"
    review = ["letters.csv", "lengths.csv", "unparsed.csv"]
    assert sorted(path.name for path in folder.iterdir()) == sorted([*LEAVES, *WHOLE, *review])
    summary = (folder / "summary.md").read_text()
    assert process.stdout.strip()
    assert summary.startswith(process.stdout.strip())
    assert "was measured" in summary.removeprefix(process.stdout.strip())
    assert json.loads((folder / "results.json").read_text()) == published_form(example())
    modality = rows_of(folder / "by_modality.csv")
    assert [(row["modality"], row["n"], row["accuracy"]) for row in modality] == [
        ("CT", "5", "60.00"),
        ("MRI", "2", "100.00"),
        ("all", "7", "71.43"),
    ]
    assert [(row["unparsed"], row["unreadable"]) for row in modality] == [("1", "0"), ("0", "1"), ("1", "1")]
    task = rows_of(folder / "by_task.csv")
    assert [(row["task"], row["n"], row["accuracy"]) for row in task] == [
        ("Disease Diagnosis", "4", "75.00"),
        ("Modality Recognition", "3", "66.67"),
        ("all", "7", "71.43"),
    ]
    both = rows_of(folder / "by_modality_and_task.csv")
    assert [tuple(row.values())[:6] for row in both] == [
        ("CT", "Disease Diagnosis", "4", "2", "75.00", "25.00"),
        ("CT", "Modality Recognition", "1", "1", "0.00", ""),
        ("MRI", "Disease Diagnosis", "0", "0", "", ""),
        ("MRI", "Modality Recognition", "2", "2", "100.00", "0.00"),
    ]
    with Image.open(folder / "heatmap.png") as image:
        pixels = image.convert("RGB").resize((64, 64))
        assert len(pixels.getcolors(64 * 64) or []) > 20
        assert pixels.getpixel((63, 63)) == (255, 255, 255)
    assert (folder / "heatmap.svg").read_text().count("n = 4") == 2


def test_summary_says_what_is_missing(tmp_path):
    path = write(tmp_path / "out.jsonl", example()[:5] + example()[7:])
    path.write_bytes(path.read_bytes() + b'{"id": "half')
    summary = write_report([path], tmp_path / "report")
    assert "1 questions were not asked" in summary
    assert "2 questions have no result yet" in summary
    assert "last line is unfinished" in summary
    assert "| checkpoint | checkpoints/tiny |" in (tmp_path / "report" / "summary.md").read_text()
    assert "| CT | 75.0 ± 25.0 (4) | 0.0 (1) | 60.0" in summary
    assert "No training split was known" in summary


def test_report_of_two_files_adds_their_difference(tmp_path):
    worse = [result(before.id, before.modality, before.task, WRONG, before.image) for before in example()[:7]]
    paths = [write(tmp_path / "base.jsonl", worse), write(tmp_path / "trained.jsonl", example())]
    summary = write_report(paths, tmp_path / "report")
    for name in ("base", "trained"):
        assert sorted(path.name for path in (tmp_path / "report" / name).iterdir()) == LEAVES
    last = rows_of(tmp_path / "report" / "difference.csv")[-1]
    # 5 of 7 won, on four images of which two have several questions; four that changed are too few for a p-value
    assert last | {"stderr": "", "low": "", "high": ""} == {
        **{"modality": "all", "task": "all", "n": "7", "pictures": "4", "changed_pictures": "4"},
        **{"difference": "71.43", "stderr": "", "low": "", "high": "", "won": "5", "lost": "0"},
        **{"p": "", "p_holm": "", "test": "exact sign flip", "excludes_zero": "no", "survives_holm": ""},
    }
    assert float(last["low"]) < 0 < float(last["high"])
    mri = next(row for row in rows_of(tmp_path / "report" / "difference.csv") if row["modality"] == "MRI")
    assert (mri["test"], mri["p"], mri["won"]) == ("exact McNemar", "", "2")
    assert "5 won, 0 lost, 4 images changed: too few for a p-value" in summary
    assert re.search(rf"\| all questions \| 7 \| .* \| too few \| {BLANK} \| exact sign flip \|", summary)
    assert "## trained minus base" in summary
    assert "Left out, in one file only or not asked: 0 and 1." in summary
    assert (tmp_path / "report" / "difference.png").stat().st_size > 10_000


def test_report_is_the_same_to_the_byte_and_may_be_made_again(tmp_path):
    path = write(tmp_path / "out.jsonl", example())
    write_report([path], tmp_path / "report")
    first = {leaf: (tmp_path / "report" / leaf).read_bytes() for leaf in LEAVES}
    write_report([path], tmp_path / "report")
    assert {leaf: (tmp_path / "report" / leaf).read_bytes() for leaf in LEAVES} == first


def test_report_never_writes_over_other_files(tmp_path):
    path = write(tmp_path / "out.jsonl", example())
    (tmp_path / "results.json").write_text("mine")
    with pytest.raises(UserError, match=r"results\.json exists, is not from an earlier report"):
        write_report([path], tmp_path)
    assert (tmp_path / "results.json").read_text() == "mine"
    (tmp_path / "results.json").unlink()
    write_report([path], tmp_path)  # a result file beside it does no harm
    assert len(read_results(path).results) == 8
    with pytest.raises(UserError, match="is a file"):
        write_report([path], path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["none.jsonl", "empty.jsonl"])
def test_bad_input_ends_the_command_with_one_line(tmp_path, repository, name):
    (tmp_path / "empty.jsonl").write_text("")
    command = [sys.executable, "eval/report.py", str(tmp_path / name), "--output_dir", str(tmp_path / "report")]
    process = subprocess.run(command, cwd=repository, capture_output=True, text=True, timeout=1800)
    assert process.returncode == 2
    assert process.stderr.startswith("error: ")
    assert process.stderr.count("\n") == 1
    assert not (tmp_path / "report").exists()


def test_a_file_with_a_manifest_alone_has_nothing_to_report(tmp_path):
    with pytest.raises(UserError, match="no result line"):
        write_report([write(tmp_path / "out.jsonl", [])], tmp_path / "report")


def test_a_run_in_which_no_image_could_be_read_is_reported_as_such(tmp_path):
    summary = write_report([write(tmp_path / "out.jsonl", example()[7:])], tmp_path / "report")
    assert "No question could be asked" in summary
    assert rows_of(tmp_path / "report" / "by_modality.csv")[0]["accuracy"] == ""


@pytest.mark.parametrize("name", ["data", "image_root", "run_dir", "split", "trained_on", "image", "checkpoint_sha256"])
@pytest.mark.parametrize("value", [1e308, "\0", "\ud800", ["x"]], ids=["number", "NUL", "surrogate", "list"])
def test_a_manifest_whose_names_are_no_text_is_refused(tmp_path, name, value):
    path = write(tmp_path / "out.jsonl", example(), {name: value})
    with pytest.raises(UserError, match=f"{name} of its manifest should be text"):
        write_report([path], tmp_path / "report")


@pytest.mark.parametrize("name", ["rows", "samples"])
@pytest.mark.parametrize("value", ["4", 4.5, True, [4]], ids=["text", "fraction", "true", "list"])
def test_a_manifest_whose_counts_are_no_numbers_is_refused(tmp_path, name, value):
    path = write(tmp_path / "out.jsonl", example(), {name: value})
    with pytest.raises(UserError, match=f"{name} of its manifest should be a whole number"):
        write_report([path], tmp_path / "report")


@pytest.mark.parametrize("name", ["data", "image_root", "run_dir"])
@pytest.mark.parametrize("value", ["x" * 5000, ""], ids=["long", "empty"])
def test_a_place_that_cannot_be_does_not_end_a_report(tmp_path, name, value):
    (tmp_path / "list.json").write_text("[]")  # is there, so the image root is looked at too
    path = write(tmp_path / "out.jsonl", example(), {"data": str(tmp_path / "list.json"), name: value})
    write_report([path], tmp_path / "report", with_items=True)
    assert (tmp_path / "report" / "report.html").is_file()


def test_a_question_without_options_is_told_with_its_file(tmp_path):
    line = json.loads(GOOD) | {"problem": "What is A) in this?"}
    path = write(tmp_path / "out.jsonl", [])
    path.write_text(path.read_text() + json.dumps(line) + "\n")
    with pytest.raises(UserError, match=r"out\.jsonl cannot be reported: no options"):
        write_report([path], tmp_path / "report")


def test_a_damaged_line_is_told_in_few_words(tmp_path):
    path = write(tmp_path / "out.jsonl", [])
    path.write_text(path.read_text() + json.dumps({**json.loads(GOOD), "outcome": "x" * 20_000}) + "\n{}\n")
    with pytest.raises(UserError, match="line 2 is no result line") as caught:
        read_results(path)
    assert len(str(caught.value)) < 600
