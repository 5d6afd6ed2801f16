"""The page of one or several trainings as one HTML file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from open_r1.common.errors import UserError
from open_r1.evaluation.reporting.html.rendering import render
from open_r1.evaluation.reporting.items.packing import pack
from open_r1.evaluation.reporting.trainings import curve_panels
from open_r1.evaluation.reporting.trainings.group_browser import build_browser
from open_r1.evaluation.reporting.trainings.group_sections import group_sections
from open_r1.evaluation.reporting.trainings.reading import Training, read_trainings
from open_r1.evaluation.reporting.trainings.summary import page_title, summary_section

LEGEND = {
    "raw": "thin: as logged, thick: running mean",
    "band": "from the least to the largest",
    "evaluated": "on evaluation questions",
    "continued": "continued here",
    "alarm": "alarm",
}
MOST_RUNS = 10
"""Runs of one page: as many as there are colours."""


def training_page(run_dirs: Sequence[Path]) -> bytes:
    """The page of these output folders of trainings as UTF-8; they may still be written to.

    Raises:
        UserError: a folder holds no training with a logged step.
    """
    return page_of(read_trainings(run_dirs))


def page_of(trainings: Sequence[Training]) -> bytes:
    """As `training_page`, of runs that are read already."""
    if len(trainings) > MOST_RUNS:
        raise UserError(f"{len(trainings)} runs are more than one page can tell apart; name at most {MOST_RUNS}")
    sections = [summary_section(trainings), *group_sections(trainings)]
    themes, marks = curve_panels.themes(trainings), curve_panels.marks(trainings)
    kinds = {line.kind for theme in themes for drawing in (*theme.main, *theme.more) for line in drawing.lines}
    kinds |= {mark.kind for mark in marks}
    browser = build_browser(trainings)
    return render(
        "training.html",
        styles=["browser.css", "training.css"],
        scripts=["packed.js", "diagrams.js", *(["list.js", "groups.js"] if browser else [])],
        title=page_title(trainings),
        links=[
            *[("part-1", "what happened"), ("curves", "curves")],
            *[(f"part-{number}", section.title) for number, section in enumerate(sections, 1)][1:],
            *[("groups", "groups of completions")] * (browser is not None),
            ("trained", "how it was trained"),
        ],
        banners=[],
        sections=sections,
        trainings=trainings,
        themes=themes,
        marks=marks,
        legend={kind: text for kind, text in LEGEND.items() if kind in kinds},
        area=curve_panels,
        curve_values=pack(_curve_values(trainings, themes)),
        browser=browser,
        records={training.name: _entries(training) for training in trainings},
    )


def _entries(training: Training) -> dict[str, Any]:
    return {key: value for key, value in training.record.items() if value not in (None, [], {})}


def _curve_values(trainings: Sequence[Training], themes: Sequence[curve_panels.Theme]) -> dict[str, Any]:
    """What diagrams.js says where the pointer is: steps and values of each run, by diagram in the order of the page."""
    drawings = [drawing for theme in themes for drawing in (*theme.main, *theme.more)]
    values = [
        [[steps, [float(f"{value:.4g}") for value in numbers]] for steps, numbers in drawing.values]
        for drawing in drawings
    ]
    edges = {name.lower(): getattr(curve_panels, name) for name in ("LEFT", "RIGHT", "TOP", "BOTTOM")}
    runs = [training.name for training in trainings]
    return {"values": values, "runs": runs, "last": curve_panels.last_step(trainings)} | edges
