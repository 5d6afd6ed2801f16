"""Tables as files: nothing from data is run by a spreadsheet or read as markup, and what is written is read back."""

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from open_r1.checkpoints.model_card import card
from open_r1.common.markdown_text import markdown_code, markdown_image, markdown_table, markdown_text
from open_r1.drawing.rendering import rendered
from open_r1.drawing.training_curves import curves_figure
from open_r1.evaluation.reporting.heatmaps import accuracy_heatmap
from open_r1.evaluation.reporting.report import write_overview, write_report
from open_r1.evaluation.reporting.table_formats import csv_text, csv_with, read_csv
from open_r1.evaluation.scoring.result_writer import ResultWriter
from open_r1.evaluation.scoring.results import Result, graded_result
from open_r1.evaluation.scoring.tallies import tabulate

LIVE = [
    "=1+1",
    "+cmd|' /C calc'!A0",
    "-2+3",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "\n=1",
    " =1",
    "\uff1d1",
    "-",
    "=",
    "'=1",
    "''+x",
]
NUMBERS = ["-1.5", "+3.2", "12", "-1e-05", "0.0", ".5"]


def evaluated(cell: str) -> bool:
    """Whether a spreadsheet takes a cell for a formula: by its first sign, as OWASP lists them; numbers are none."""
    return cell.lstrip(" ")[:1] in tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20") and cell not in NUMBERS and cell != ""


@pytest.mark.parametrize("cell", LIVE)
def test_no_cell_of_a_csv_is_a_formula_and_all_are_read_back(cell):
    text = csv_text([cell, "n"], [[cell, "-1.5"], ["plain", cell]])
    raw = list(csv.reader(io.StringIO(text, newline="")))
    assert not any(evaluated(value) for row in raw for value in row)
    assert raw[1][1] == "-1.5"
    assert read_csv(text) == [[cell, "n"], [cell, "-1.5"], ["plain", cell]]
    assert read_csv(csv_with(text, "grader", cell))[1] == [cell, "-1.5", cell]


@pytest.mark.parametrize("number", NUMBERS)
def test_numbers_stay_numbers(number):
    assert csv_text(["x", "y"], [[number, "a"]]).splitlines()[1] == f"{number},a"


SIGNS = some.text(alphabet="=+-@\t\r\n'\"1.e, a\uff1d", max_size=6) | some.text(max_size=8)


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(some.lists(some.lists(SIGNS, min_size=2, max_size=2), min_size=1, max_size=3))
def test_whatever_is_written_is_read_back(rows):
    assert read_csv(csv_text(rows[0], rows[1:])) == rows


# -------------------------------------------------------------------------------------------------------- Markdown

MARKUP = [
    "*a*",
    "**b**",
    "_c_",
    "`d`",
    "<b>",
    "<!-- x",
    "[a](http://e)",
    "![a](b)",
    "[a]: b",
    "a|b",
    "~~x~~",
    "&lt;",
    "\\*",
    "# h",
]
MARKUP += ["x #", "> q", "- l", "+ l", "* l", "1. l", "12) l", "---", "===", "a\nb", "<http://e>"]
ODD = some.text(alphabet="ab1 _*`~[](){}<>#+-=.!|\\&;:/\"'\n", max_size=10)


def parsed(text: str) -> list[Any]:
    markdown_it = pytest.importorskip("markdown_it", reason="reads Markdown as GitHub does; pip install markdown-it-py")
    return markdown_it.MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text)


def plain(token: Any) -> str:
    """The text of a line, which must hold nothing else."""
    assert {child.type for child in token.children} <= {"text", "text_special"}, token.content
    return "".join(child.content for child in token.children)


def lines_of(text: str) -> list[str]:
    return [plain(token) for token in parsed(text) if token.type == "inline"]


@pytest.mark.parametrize("text", MARKUP)
def test_markup_in_a_text_is_text(text):
    flat = " ".join(text.split())
    assert [token.type for token in parsed(markdown_text(text))] == ["paragraph_open", "inline", "paragraph_close"]
    assert lines_of(markdown_text(text)) == lines_of(f"## {markdown_text(text)}") == [flat]
    assert lines_of(markdown_table([text, "n"], [["x", text]])) == [flat, "n", "x", flat]


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(ODD.filter(lambda text: text.strip() != ""), ODD)
def test_any_text_is_shown_as_it_stands(first, second):
    flat, other = " ".join(first.split()), " ".join(second.split())
    assert lines_of(markdown_text(first)) == [flat]
    assert lines_of(markdown_table([first, second], [[second, first]])) == [flat, other, other, flat]
    code = next(child for child in parsed(f"x {markdown_code(first)} y")[1].children if child.type == "code_inline")
    assert code.content == flat


def test_plain_names_are_not_touched():
    for name in (
        "grpo_nothink minus zero-shot",
        "CT_384",
        "+3.1 ± 0.9 [1.2, 3.4] *",
        "p < 0.05",
        "output/x (a, b)",
        "A & B",
    ):
        assert markdown_text(name) == name


def test_an_image_of_any_name_is_one_image():
    token = parsed(markdown_image("a](b) *c*", "x <y>\n%/heatmap.png"))[1]
    (image,) = token.children
    assert (image.type, image.content, image.attrs["src"]) == (
        "image",
        "a](b) *c*".replace("*", "\\*").replace("]", "\\]"),
        "x%20%3Cy%3E%0A%25/heatmap.png",
    )


@pytest.mark.slow
def test_a_name_with_dollar_signs_is_no_formula_of_an_image():
    labels = {"modality": "$a_$", "task": "$b^$"}
    row = {"id": "1", "problem": "What? A)x, B)y", "solution": "A", **labels}
    figure = accuracy_heatmap(tabulate([graded_result(row, "p", "<answer>A</answer>", 3)]), "run $\\frac$", "note $x_$")
    labels = re.findall(r"<text[^>]*>([^<]*)</text>", rendered(figure, "svg").decode())
    assert {"$a_$", "$b^$", "run $\\frac$", "note $x_$"} <= set(labels)
    curves = curves_figure({"$c_$": [{"step": 1, "reward": 0.5}]}, "$d^$")
    assert curves is not None
    assert rendered(curves, "png")


# ---------------------------------------------------------------------------------------------------- whole reports

HOSTILE = '=HYPERLINK("http://e")|<img src=x> [a](http://e) *b* $x_$'


def answers(source: str, number: int, text: bool) -> list[Result]:
    labels = {} if text else {"modality": f"@{source}", "task": f"-{source}"}
    rows = [
        {"id": f"{source} {k}", "source": source, "problem": "What? A)x, B)y", "solution": "A", **labels}
        for k in range(8)
    ]
    return [
        graded_result(row, row["id"] if text else f"p{k}", "<answer>A</answer>" if k < number else "?", 3)
        for k, row in enumerate(rows)
    ]


@pytest.fixture(params=["pictures", "text"])
def hostile(request, tmp_path: Path) -> list[Path]:
    """Result files whose names, sets, runs, labels and sources are formulas and markup."""
    paths = []
    for number, name in ((2, "=1+1 <b>"), (8, "@x [a](b)")):
        about = {
            "checkpoint": f"{HOSTILE} {name}",
            "method": f"+{name}",
            "data": HOSTILE.replace("/", ""),
            "data_sha256": "d",
        }
        path = tmp_path / f"{name}.jsonl"
        with ResultWriter(path, about) as writer:
            for result in answers(HOSTILE, number, request.param == "text"):
                writer.write(result)
        paths.append(path)
    return paths


@pytest.mark.slow
def test_a_report_of_hostile_names_holds_no_formula_and_no_markup_of_theirs(hostile, tmp_path):
    out = tmp_path / "out"
    write_report(hostile, out)
    tables = list(out.rglob("*.csv"))
    assert len(tables) > 3
    for path in tables:
        raw = list(csv.reader(io.StringIO(path.read_text(), newline="")))
        assert not [
            cell for row in raw for cell in row if evaluated(cell) and not re.fullmatch(r"[+-]?[\d.]+", cell)
        ], path
    named = {cell for path in tables for row in read_csv(path.read_text()) for cell in row}
    assert {"=1+1 <b>", "@x [a](b)"} <= named
    kinds = {child.type for token in parsed((out / "summary.md").read_text()) for child in token.children or []}
    assert kinds <= {"text", "text_special", "softbreak", "strong_open", "strong_close", "image"}
    assert "html_block" not in {token.type for token in parsed((out / "summary.md").read_text())}
    assert "=1+1" in (out / "report.html").read_text()
    assert json.loads((out / "manifest.json").read_text())["report"]


@pytest.mark.slow
def test_an_overview_and_a_model_card_of_hostile_names_hold_no_markup_of_theirs(hostile, tmp_path):
    write_overview(hostile, tmp_path / "out")
    story = {"base_model": f"`{HOSTILE}", "method": "grpo", "data": {"sets": [{"path": HOSTILE, "prompts": 1}]}}
    for text in (
        (tmp_path / "out" / "summary.md").read_text(),
        card(story).partition("---\n")[2].partition("---\n")[2],
    ):
        children = [child for token in parsed(text) for child in token.children or []]
        assert not [child for child in children if child.type in ("link_open", "html_inline", "em_open")]
        assert all(child.attrs["src"].endswith(".png") for child in children if child.type == "image")
