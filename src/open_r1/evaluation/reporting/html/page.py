"""The report as one HTML file that needs nothing else: no network, no other file, no library.

Everything that comes from models and data sets is escaped, or stands in a block of JSON that the script of the page
reads as text. The page's policy allows nothing to be fetched and no script but its own, which it names by its hash.
"""

import base64
import hashlib
import html
import json
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from open_r1.evaluation.reporting.item_browser import Browser
from open_r1.evaluation.reporting.sections.section import WARNINGS, Section
from open_r1.evaluation.reporting.table_formats import html_table

WITHOUT_QUESTIONS = (
    '<section id="questions"><h2>Questions and answers</h2><p>Not in this page, which may be passed on: no question, '
    "no answer and no image. <code>eval/report.py --with_items</code> puts them in.</p></section>\n"
)
OPEN_RUNS = 3  # with more, the parts of single runs are folded


def page(
    title: str,
    sections: Sequence[Section],
    drawn: Mapping[str, bytes],
    made: Browser | None,
    measured: Mapping[str, Mapping[str, Any]],
) -> bytes:
    """The whole page as UTF-8.

    Args:
        title: its heading.
        sections: what stands before the item browser.
        drawn: the images of the sections as SVG, by their names there.
        made: the questions and answers; None leaves them out, and with them every script.
        measured: the manifest of each result file, by its name.
    """
    parts = resources.files("open_r1.evaluation.reporting.html")
    template, questions, css, js = (
        (parts / leaf).read_text(encoding="utf-8") for leaf in ("page.html", "browser.html", "page.css", "page.js")
    )
    digest = base64.b64encode(hashlib.sha256(js.encode()).digest()).decode()
    allowed = "'none'" if made is None else f"'sha256-{digest}'"
    banners = [text for text in WARNINGS.values() if any(text in section.warnings for section in sections)]
    ids = [f"part-{number}" for number in range(1, len(sections) + 1)]
    folded = sum(section.single for section in sections) > OPEN_RUNS
    holes = {
        "policy": f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {allowed}",
        "title": html.escape(title),
        "css": css,
        "nav": "".join(f'<a href="#{name}">{html.escape(text)}</a>' for name, text in _links(ids, sections, folded)),
        "banner": "\n".join(f'<div class="banner">{html.escape(text)}</div>' for text in banners),
        "sections": "\n".join(_section(*pair, drawn, folded) for pair in zip(ids, sections, strict=True)),
        "questions": WITHOUT_QUESTIONS if made is None else _filled(questions, {"notes": _notes(made)}),
        "measured": "\n".join(_manifest(name, manifest) for name, manifest in measured.items()),
        "scripts": "" if made is None else _scripts(made, js),
    }
    return _filled(template, holes).encode("utf-8", "backslashreplace")


def _filled(template: str, holes: Mapping[str, str]) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda hole: holes[hole[1]], template)  # one pass: values are not searched again


def _notes(made: Browser) -> str:
    return "".join(f'<p class="note">{html.escape(note)}</p>' for note in made.notes)


def _scripts(made: Browser, js: str) -> str:
    data = f'<script type="application/json" id="data">{embedded(made.payload())}</script>'
    return f"{data}\n<script>{js}</script>\n"


def _links(ids: Sequence[str], sections: Sequence[Section], folded: bool) -> list[tuple[str, str]]:
    """Where the head of the page leads; many result files share a link to the first of them."""
    links = []
    for name, section in zip(ids, sections, strict=True):
        text = "each result file" if folded and section.single else _unmarked(section.title)
        if text not in (told for _, told in links):
            links.append((name, text))
    return [*links, ("questions", "questions and answers"), ("measured", "how it was measured")]


def _unmarked(title: str) -> str:
    """A title without the marks before it; the banner under the links says them."""
    for mark in WARNINGS:
        title = title.removeprefix(f"{mark}: ")
    return title


def embedded(value: Any) -> str:
    """JSON that can stand in a script element: no `<` that could end it or open a comment."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")


def _section(name: str, section: Section, drawn: Mapping[str, bytes], folded: bool) -> str:
    warnings = "".join(f'<p class="warning">{html.escape(text)}</p>' for text in section.warnings)
    texts = "".join(f"<p>{html.escape(text)}</p>" for text in section.texts)
    images = "".join(f"<figure>{inline_svg(drawn[name])}</figure>" for name in section.figures)
    body = warnings + texts + "".join(map(html_table, section.sheets)) + images
    heading = f"<h2>{html.escape(section.title)}</h2>"
    if folded and section.single:
        return f'<section id="{name}">{heading}<details><summary>tables and images</summary>{body}</details></section>'
    return f'<section id="{name}">{heading}{body}</section>'


def inline_svg(svg: bytes) -> str:
    """An SVG of matplotlib without what only a file of its own needs; group names would occur twice in one page."""
    text = svg.decode("utf-8")
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    return re.sub(r'<g id="[^"]*"', "<g", text)


def _manifest(name: str, manifest: Mapping[str, Any]) -> str:
    rows = "".join(
        f'<tr><th scope="row">{html.escape(str(key))}</th><td>{html.escape(short_value(value))}</td></tr>'
        for key, value in manifest.items()
    )
    return f'<details class="plain"><summary>{html.escape(name)}</summary><table>{rows}</table></details>'


def short_value(value: Any) -> str:
    """An entry of a manifest as text of bearable length."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 300 else text[:297] + "..."
