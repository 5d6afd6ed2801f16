"""Heatmaps: every value with its n, one scale, legible, nothing clipped."""

import matplotlib
import numpy as np
import pytest
from example_results import RIGHT, WRONG, example, result
from matplotlib.backends.backend_agg import FigureCanvasAgg

from open_r1.evaluation.comparing.pairs import adjusted, compare
from open_r1.evaluation.reporting.heatmaps import accuracy_heatmap, difference_heatmap, ink_on, span_of
from open_r1.evaluation.scoring.results import Result
from open_r1.evaluation.scoring.tallies import ALL, tabulate


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


@pytest.mark.slow
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
