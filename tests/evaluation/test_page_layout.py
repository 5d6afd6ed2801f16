"""How pages look and how quick they are in a real Chromium: header, tables, phone, dark, print, 18,000 questions."""

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from browsed_runs import thought
from chromium import Page
from report_files import questions_in

from open_r1.evaluation.comparing.scored_runs import Scored
from open_r1.evaluation.reporting.html.page import page as report_page
from open_r1.evaluation.reporting.items import browser as item_browser
from open_r1.evaluation.reporting.items.browser import build_browser
from open_r1.evaluation.reporting.sections.section import Section
from open_r1.evaluation.reporting.table_formats import Sheet
from open_r1.evaluation.scoring.results import Result, ResultFile, graded_result

pytestmark = pytest.mark.slow

TOP = "return document.querySelector(arguments[0]).getBoundingClientRect().top"
BOTTOM = "return document.querySelector(arguments[0]).getBoundingClientRect().bottom"


@pytest.fixture
def chrome(browser: Any) -> Iterator[Any]:
    """The browser, which is as before afterwards."""
    yield browser
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})


def emulate(browser: Any, scheme: str = "light", media: str = "screen") -> None:
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": features})


def scored(name: str, outputs: list[str]) -> Scored:
    """A run with one answer a question, of which every third is right."""
    row = {"id": "", "problem": "What is it? A)CT, B)MRI", "solution": "A", "modality": "CT", "task": "Lesion Grading"}
    right, wrong = (graded_result(row, "p", f"<answer>{letter}</answer>", 70) for letter in "AB")
    results: list[Result] = [
        replace(
            right if number % 3 == 0 else wrong, id=f"q{number}", output=output, problem=f"{number}: {row['problem']}"
        )
        for number, output in enumerate(outputs)
    ]
    return Scored(name, name, (ResultFile(Path(name), {}, results),), {})


def written(path: Path, sections: list[Section], questions: int = 40, title: str = "Accuracy") -> Path:
    """A page with these sections and two runs."""
    runs = [scored(name, [f"<think>{name} {number}</think>" for number in range(questions)]) for name in ("a", "b")]
    path.write_bytes(report_page(title, sections, {}, build_browser(runs, None, None, 1), {"a": {"data": "x"}}))
    return path


def sections_with_tables(count: int) -> list[Section]:
    head = ["run", *(f"column {number}" for number in range(20))]
    sheet = Sheet("A wide table", head, [[f"run {number}", *(["12.3 ± 4.5"] * 20)] for number in range(30)], [])
    return [Section(f"Section {number} with a name", sheets=[sheet]) for number in range(count)]


@pytest.mark.parametrize(
    ("width", "sections", "title"), [(1400, 3, "Short"), (900, 30, "A long title " * 20), (390, 30, "T")]
)
def test_links_land_below_a_header_of_any_height(chrome, tmp_path, width, sections, title):
    page = Page(chrome, written(tmp_path / "page.html", sections_with_tables(sections), title=title))
    page.resize(width)
    assert page.script("return document.documentElement.scrollWidth") <= width
    for target in ("part-2", "questions"):
        page.script("document.querySelector(arguments[0]).click()", f"nav a[href='#{target}']")
        header = page.script(BOTTOM, "header")
        page.wait(f"return Math.abs(document.getElementById('{target}').getBoundingClientRect().top) < 400")
        top = page.script(TOP, f"#{target}")
        assert max(header, 0) - 1 <= top <= max(header, 0) + 12
    page.press("j")
    pager = page.script(BOTTOM, "#pager")
    assert pager - 2 <= page.script("return document.activeElement.getBoundingClientRect().top") <= pager + 12
    again = Page(chrome, tmp_path / "page.html", "#part-2")  # the address says it before the height is known
    assert -1 <= again.script(TOP, "#part-2") - max(again.script(BOTTOM, "header"), 0) <= 12
    again.press("n")
    assert again.script("return document.activeElement.id") == "part-3"
    again.press("p")
    assert again.script("return document.activeElement.id") == "part-2"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_first_column_stays_while_a_wide_table_moves(chrome, tmp_path, scheme):
    emulate(chrome, scheme)
    page = Page(chrome, written(tmp_path / "page.html", sections_with_tables(1)))
    page.resize(390)
    left = "return document.querySelector('.sheet tbody th').getBoundingClientRect().left"
    before = page.script(left)
    page.script("document.querySelector('.scroll').focus(); document.querySelector('.scroll').scrollLeft = 300")
    assert page.script(left) == pytest.approx(before, abs=1)
    cell = "return document.querySelector('.sheet tbody td').getBoundingClientRect().left"
    assert page.script(cell) < before  # it went below the first column
    page.press("\ue014")  # the arrow moves the table, not the questions
    assert page.shown.startswith("1 to 20")
    colours = "const s = (q) => getComputedStyle(document.querySelector(q)).backgroundColor;"
    assert page.script(f"{colours} return s('.sheet tbody th') === s('body')")  # opaque, in both schemes


def test_print_shows_questions_without_controls(chrome, tmp_path):
    emulate(chrome, media="print")
    page = Page(chrome, written(tmp_path / "page.html", sections_with_tables(1)))
    visible = (
        "return [...document.querySelectorAll(arguments[0])].filter((e) => e.offsetParent || e.offsetHeight).length"
    )
    assert page.script(visible, "#filters, #pager button, .copy, #show-help, .answer details") == 0
    assert page.script(visible, ".item") == 20
    assert page.script("return getComputedStyle(document.getElementById('pager')).position") == "static"
    assert page.script("return getComputedStyle(document.querySelector('header')).position") == "static"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1400, 390])
def test_the_browser_fits_and_its_texts_can_be_read(chrome, tmp_path, scheme, width):
    emulate(chrome, scheme)
    page = Page(chrome, written(tmp_path / "page.html", []))
    page.resize(width)
    page.script("document.getElementById('more').open = true")
    page.show("a", "b")
    assert page.script("return document.documentElement.scrollWidth") <= width
    ratios = page.script(
        """
        const light = (colour) => {
          const [r, g, b] = colour.match(/[\\d.]+/g).slice(0, 3).map((part) => {
            const share = part / 255;
            return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
          });
          return 0.2126 * r + 0.7152 * g + 0.0722 * b;
        };
        const ground = (node) => {
          for (; node; node = node.parentElement) {
            const colour = getComputedStyle(node).backgroundColor;
            if (!colour.includes("rgba(0, 0, 0, 0)")) return colour;
          }
          return "rgb(255, 255, 255)";
        };
        const texts = "#filters label, #shown, .labels, .question, li, .id, .copy, .outcome, pre, summary, .chip";
        return [...document.querySelectorAll(texts)].map((node) => {
          const both = [light(getComputedStyle(node).color), light(ground(node))].sort((one, two) => two - one);
          return [(both[0] + 0.05) / (both[1] + 0.05), node.className || node.tagName];
        });
        """
    )
    assert len(ratios) > 200
    assert [entry for entry in ratios if entry[0] < 4.5] == []  # WCAG 2.2, 1.4.3


def test_a_browser_that_cannot_unpack_says_so(chrome, tmp_path):
    without = {"source": "delete window.DecompressionStream"}
    added = chrome.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", without)
    try:
        chrome.get(written(tmp_path / "page.html", []).as_uri())
        assert chrome.execute_script("return document.getElementById('shown').textContent") == (
            "This browser cannot unpack the questions: open the page in one of 2023 or later."
        )
    finally:
        chrome.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", added)


def test_eighteen_thousand_questions_and_four_runs_are_small_and_quick(chrome, tmp_path):
    draw, options = random.Random(0), ("a cyst", "an abscess", "a fracture", "no finding")
    runs = [
        scored(name, [f"<think> {thought(draw, options, 5)} </think> <answer>A</answer>" for _ in range(18_000)])
        for name in ("base", "sft", "think", "nothink")
    ]
    data = build_browser(runs, None, None, 1)
    assert not [note for note in data.notes if "cut" in note]  # every output is whole
    (tmp_path / "page.html").write_bytes(report_page("Accuracy", [], {}, data, {}))
    assert sum(len(result.output) for run in runs for result in run.file.results) > 35e6
    assert (tmp_path / "page.html").stat().st_size < 12e6
    chrome.get("about:blank")
    chrome.execute_cdp_cmd("Performance.enable", {"timeDomain": "threadTicks"})
    page = Page(chrome, tmp_path / "page.html")
    metrics = {
        entry["name"]: entry["value"] for entry in chrome.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
    }
    chrome.execute_cdp_cmd("Performance.disable", {})
    assert page.shown == "1 to 20 of 18,000 questions"
    assert metrics["TaskDuration"] < 1.5  # CPU seconds of the page's thread, 0.4 to 0.5 on the machine it was made on
    assert metrics["JSHeapUsedSize"] < 60e6
    assert page.count("*") < 2000  # nothing of the rest is in the document
    page.choose("outcome base", "correct")
    assert page.shown == "1 to 20 of 6,000 questions"
    page.enter("text", "17999")
    assert page.shown == "no question fits"
    page.click("clear")
    page.enter("text", "17999: what")
    assert page.shown == "1 to 1 of 1 questions"
    assert page.count("*") < 2000


def test_outputs_that_would_make_the_page_too_large_are_cut_and_said(tmp_path, monkeypatch):
    monkeypatch.setattr(item_browser, "OUTPUT_BYTES", 60_000)
    draw = random.Random(0)
    outputs = ["".join(draw.choices("abcdefghijklmnop", k=1800)) + "<answer>A</answer>" for _ in range(100)]
    data = build_browser([scored("a", outputs)], None, None, 1)
    assert data.notes[-1] == "Outputs are cut to 700 characters here; the result files have them whole."
    assert sum(map(len, data.outputs)) <= 60_000
    (tmp_path / "page.html").write_bytes(report_page("Accuracy", [], {}, data, {}))
    texts = [question["answers"][0]["texts"][0] for question in questions_in(tmp_path / "page.html")]
    assert {text[-18:] for text in texts} == {"<answer>A</answer>"}
    assert [text[:525] for text in texts] == [output[:525] for output in outputs]
