"""A section of the report, and the notes and warnings that several sections share."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from matplotlib.figure import Figure

from open_r1.evaluation.comparing.scored_runs import FORCED, LENIENT, Marks
from open_r1.evaluation.reporting.heatmaps import HOLM_STAR, STAR
from open_r1.evaluation.reporting.table_formats import Sheet
from open_r1.evaluation.scoring.statistics import FEWEST_CHANGED, MCNEMAR, SIGN_FLIP

DIFFERENCES = ("difference", "improvement")  # what the files about differences begin with

WARNINGS = {
    FORCED: f"{FORCED}: a checkpoint was scored on questions of the split family that it was not trained on. About "
    "80 % of them were in its training set, so these accuracies mostly measure memory.",
    LENIENT: f"{LENIENT}, not our judge: it always finds an answer, by likeness of texts where nothing is said, and "
    "takes per source the better of its first and its last match. Compare these accuracies with such ones alone.",
}
"""What a mark before a title means."""


@dataclass
class Section:
    """One part of the report; texts are plain."""

    title: str
    warnings: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    sheets: list[Sheet] = field(default_factory=list)
    figures: dict[str, Figure] = field(default_factory=dict)  # path below the report, without ending -> image
    files: dict[str, str] = field(default_factory=dict)  # path below the report -> content
    single: bool = False  # about one result file; the page folds it where there are many


def marked(title: str, marks: Marks) -> str:
    """The title of an image or part, with what must not be overlooked before it."""
    return ": ".join([*marks, title])


def warned(marks: Marks) -> list[str]:
    """What these marks mean."""
    return [WARNINGS[mark] for mark in marks]


ACCURACY_NOTE = (
    "Accuracies are in per cent. ± is the standard error clustered by image, of text questions by question; the "
    "interval is Wilson's with the t quantile of images - 1, wider where questions share images. Guessing: uniform "
    "over the options. Blind floor: the option that was most often right in training, no image and no question "
    "looked at. Unparsed: answers that could not be read, which count as wrong. Cut off: completions that the token "
    "limit (max_new_tokens) ended; unknown where older result files do not say. Weighted: every question counts the "
    "same; unweighted: every modality, task, source or set does, as in the published averages."
)

DIFFERENCE_NOTE = (
    f"Differences are in points of accuracy on the same questions. {STAR} the 95 % interval leaves zero out, which it "
    f"does just when p < 0.05. The paired test is the {MCNEMAR} test where every image has one question, and the "
    f"{SIGN_FLIP} test over images where questions share images. Where fewer than {FEWEST_CHANGED} images "
    "changed, too few stands instead of a p-value: none could be below 0.05. Of many cells some bear a star by chance "
    "alone; p (Holm) is corrected for the number of cells of a kind (single cells, modalities, tasks; Holm 1979), and "
    f"{HOLM_STAR} marks where it is below 0.05."
)


def guide(sections: Sequence[Section]) -> Section:
    """How to read the tables that these sections hold."""
    compared = any(leaf.startswith(DIFFERENCES) for section in sections for leaf in section.files)
    return Section("How to read this", texts=[ACCURACY_NOTE] + [DIFFERENCE_NOTE] * compared)
