"""The report's page."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from open_r1.evaluation.reporting.html.rendering import render
from open_r1.evaluation.reporting.items.browser import Browser
from open_r1.evaluation.reporting.sections.section import DIFFERENCES, WARNINGS, Section

OPEN_RUNS = 3  # with more result files, the sections about single ones are folded
BROWSER_SCRIPTS = ("list.js", "packed.js", "data.js", "filters.js", "cards.js", "browser.js")


def page(
    title: str,
    sections: Sequence[Section],
    images: Mapping[str, bytes],
    browser: Browser | None,
    measured: Mapping[str, Mapping[str, Any]],
) -> bytes:
    """The HTML page as UTF-8.

    Args:
        title: its heading.
        sections: in the order of the page, before the item browser.
        images: the sections' figures as SVG, by their names there.
        browser: the questions and answers; None leaves them out.
        measured: the manifest of each result file, by its name.
    """
    folded = sum(section.single for section in sections) > OPEN_RUNS
    return render(
        "report.html",
        styles=["browser.css"] if browser else [],
        scripts=BROWSER_SCRIPTS if browser else [],
        title=title,
        sections=sections,
        folded=folded,
        images={name: Markup(inline_svg(svg)) for name, svg in images.items()},
        links=[*_links(sections, folded), ("questions", "questions and answers"), ("measured", "how it was measured")],
        banners=[text for text in WARNINGS.values() if any(text in section.warnings for section in sections)],
        browser=browser,
        measured=measured,
    )


def _links(sections: Sequence[Section], folded: bool) -> list[tuple[str, str]]:
    """Target and text of the links to the sections; folded ones of a kind share a link to the first."""
    targets: dict[str, str] = {}
    for number, section in enumerate(sections, 1):
        text = "each result file" if folded and section.single else _unmarked(section.title)
        is_difference = any(leaf.startswith(DIFFERENCES) for leaf in section.files)
        text = "further differences" if section.folded and is_difference else text
        targets.setdefault(text, f"part-{number}")
    return [(target, text) for text, target in targets.items()]


def _unmarked(title: str) -> str:
    """A title without the marks before it, which the banner explains."""
    for mark in WARNINGS:
        title = title.removeprefix(f"{mark}: ")
    return title


def inline_svg(svg: bytes) -> str:
    """An SVG of matplotlib without what only a file of its own needs; group names would occur twice in one page."""
    text = svg.decode("utf-8")
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    return re.sub(r'<g id="[^"]*"', "<g", text)
