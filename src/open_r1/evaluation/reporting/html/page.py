"""The report as one HTML file that needs nothing else: no network, no other file, no library.

Everything that comes from models and data sets is escaped, or stands in a block of JSON that the script of the page
reads as text. The page's policy allows nothing to be fetched and no script but its own, which it names by its hash.
"""

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from open_r1.evaluation.reporting.item_browser import Browser
from open_r1.evaluation.reporting.sections.section import WARNINGS, Section

OPEN_RUNS = 3  # with more result files, the sections about single ones are folded


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
        browser: the questions and answers; None leaves them and every script out.
        measured: the manifest of each result file, by its name.
    """
    loader = PackageLoader("open_r1.evaluation.reporting", "html")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
    environment.filters["short_value"] = short_value
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "separators": (",", ":")}
    css, js = (Markup(loader.get_source(environment, name)[0]) for name in ("page.css", "page.js"))
    digest = base64.b64encode(hashlib.sha256(js.encode()).digest()).decode()
    folded = sum(section.single for section in sections) > OPEN_RUNS
    text = environment.get_template("page.html").render(
        title=title,
        sections=sections,
        folded=folded,
        images={name: Markup(inline_svg(svg)) for name, svg in images.items()},
        links=_links(sections, folded),
        banners=[text for text in WARNINGS.values() if any(text in section.warnings for section in sections)],
        browser=browser,
        measured=measured,
        css=css,
        js=js,
        allowed_script=Markup(f"'sha256-{digest}'" if browser else "'none'"),
    )
    return text.encode("utf-8", "backslashreplace")


def _links(sections: Sequence[Section], folded: bool) -> list[tuple[str, str]]:
    """Target and text of the links to the sections; folded ones of a kind share a link to the first."""
    targets: dict[str, str] = {}
    for number, section in enumerate(sections, 1):
        text = "each result file" if folded and section.single else _unmarked(section.title)
        text = "further differences" if section.folded else text
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


def short_value(value: Any) -> str:
    """An entry of a manifest as text of bearable length."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 300 else text[:297] + "..."
