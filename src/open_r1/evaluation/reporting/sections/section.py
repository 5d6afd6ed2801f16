"""A section of the report, and the notes and warnings that sections share."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from matplotlib.figure import Figure

from open_r1.evaluation.comparing.scored_runs import FORCED, LENIENT, Marks
from open_r1.evaluation.reporting.heatmaps import HOLM_STAR, STAR
from open_r1.evaluation.reporting.table_formats import Sheet
from open_r1.evaluation.scoring.statistics import FEWEST_CHANGED, MCNEMAR, SIGN_FLIP

DIFFERENCES = ("difference", "improvement", "changed_")  # how the names of files about differences begin

ALL_DRAWN, FIRST_DRAWN = 16, 2
"""Up to so many runs, or comparisons, each has a map of its own; of more, so many of the first. Drawing a map takes
longer than all else about a run."""
NOT_DRAWN = (
    f"No map is drawn: of more than {ALL_DRAWN} runs or comparisons the first {FIRST_DRAWN} have one. The tables and "
    "CSV files are complete, and a report of these result files alone has the map."
)

WARNINGS = {
    FORCED: f"{FORCED}: a checkpoint was scored on questions of the split family that it was not trained on. About "
    "80 % of them were in its training set, so these accuracies mostly measure memory.",
    LENIENT: f"{LENIENT}, not our grader: it always finds an answer, by similarity of texts if nothing else matches, "
    "and takes per source the better of its first and its last match. Compare such accuracies only with each other.",
}
"""By mark before a title, its explanation."""


@dataclass
class Section:
    """One section of the report; all texts are plain."""

    title: str
    warnings: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    sheets: list[Sheet] = field(default_factory=list)
    figures: dict[str, Figure] = field(default_factory=dict)  # path below the report, without ending -> image
    files: dict[str, str] = field(default_factory=dict)  # path below the report -> content
    single: bool = False  # about one run; the page folds these if there are many
    folded: bool = False  # always folded in the page
    page_sheets: list[Sheet] = field(default_factory=list)  # with texts of models, in the page alone


def drawn_maps(count: int) -> int:
    """How many of so many runs, or comparisons, have a map of their own: the first ones."""
    return count if count <= ALL_DRAWN else FIRST_DRAWN


def marked(title: str, marks: Marks) -> str:
    """A title with its marks before it."""
    return ": ".join([*marks, title])


def warned(marks: Marks) -> list[str]:
    """The explanations of these marks."""
    return [WARNINGS[mark] for mark in marks]


ACCURACY_NOTE = (
    "Accuracies are in per cent. ± is the standard error clustered by image, of text questions by question; the "
    "interval is Wilson's with the t quantile of images - 1, wider where questions share images. Guessing: uniform "
    "over the options. Blind floor: choosing the option that was most often right in training, without image and "
    "question. Unparsed: answers that could not be read, which count as wrong. Cut off: completions that the token "
    "limit (max_new_tokens) ended; unknown where older result files do not say. Weighted: every question counts the "
    "same; unweighted: every modality, task, source or set does, as in the published averages."
)

DIFFERENCE_NOTE = (
    f"Differences are in points of accuracy on the same questions. {STAR} the 95 % interval excludes zero, "
    f"exactly when p < 0.05. The paired test is the {MCNEMAR} test where every image has one question, and the "
    f"{SIGN_FLIP} test over images where questions share images. Where fewer than {FEWEST_CHANGED} images "
    "changed, 'too few' replaces the p-value: none could be below 0.05. Of many cells some have a star by chance "
    "alone; p (Holm) is corrected for the number of cells of a kind (single cells, modalities, tasks; Holm 1979), and "
    f"{HOLM_STAR} marks where it is below 0.05."
)


def reading_guide(sections: Sequence[Section]) -> Section:
    """The section on how to read the tables of these sections."""
    compared = any(leaf.startswith(DIFFERENCES) for section in sections for leaf in section.files)
    return Section("How to read this", texts=[ACCURACY_NOTE] + [DIFFERENCE_NOTE] * compared)
