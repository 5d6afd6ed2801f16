"""A table as text, and its forms as CSV, Markdown and LaTeX (booktabs); html/parts.html has its HTML.

Names of runs, sets and sources come from data. This module and common/markdown_text
keep them from being run as formulas or read as markup.
"""

import csv
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from open_r1.common.markdown_text import markdown_table, markdown_text

BLANK = "\u2013"  # shown where a value is not known


@dataclass(frozen=True)
class Sheet:
    """A table for readers: title, column names and rows; the first column names the row."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()
    best: frozenset[tuple[int, int]] = frozenset()
    """Cells in bold, by the numbers of their row and column from 0."""
    address: str = ""
    """In the page the first cell of a row is a link to this address with the cell's text at its end."""


# -------------------------------------------------------------------------------------------------------- CSV

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE | re.ASCII)
_FORMULA = re.compile(r"'*\s*[=+\-@\uff1d\uff0b\uff0d\uff20]|'*[\t\r\n]")
"""Cells that a spreadsheet evaluates, full-width signs included, and what `_inert` has made of such cells."""


def csv_text(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table for programs; `read_csv` restores it exactly.

    A cell that a spreadsheet would evaluate gets an apostrophe before it, which marks it as text. Numbers, also
    negative ones, stay numbers.
    """
    return "".join(map(_csv_line, [head, *rows]))


def _csv_line(row: Sequence[str]) -> str:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\r\n").writerow(
        map(_inert, row)
    )  # this line end makes csv quote cells with \r or \n
    return text.getvalue().removesuffix("\r\n") + "\n"


def _inert(cell: str) -> str:
    return f"'{cell}" if _FORMULA.match(cell) and not _NUMBER.fullmatch(cell) else cell


def read_csv(text: str) -> list[list[str]]:
    """Head and rows of a table of `csv_text`."""
    rows = csv.reader(io.StringIO(text, newline=""))
    return [[cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell for cell in row] for row in rows]


def csv_with(text: str, column: str, value: str) -> str:
    """A table of `csv_text` with one more column of the same value in every row."""
    head, *rows = read_csv(text)
    return csv_text([*head, column], [[*row, value] for row in rows])


# ------------------------------------------------------------------------------------------------------ numbers


def percent(share: float | None, digits: int = 2) -> str:
    """A share as per cent, without the sign; blank for None."""
    return "" if share is None else f"{100 * share:.{digits}f}"


def with_error(mean: float | None, stderr: float | None) -> str:
    """`61.2 ± 1.9` in per cent; blank for None.

    The error is left out where it is unknown or zero: on a single image, or if all answers are equally good.
    """
    if mean is None:
        return ""
    return percent(mean, 1) + (f" ± {percent(stderr, 1)}" if stderr else "")


def points(difference: float, stderr: float | None = None) -> str:
    """`+3.1 ± 0.9`: a difference in points, with its sign."""
    return f"{100 * difference:+.1f}" + (f" ± {percent(stderr, 1)}" if stderr else "")


# --------------------------------------------------------------------------------------------------- Markdown


def markdown(sheet: Sheet) -> str:
    """A heading, the table, and its notes."""
    notes = "".join(f"\n{markdown_text(note)}\n" for note in sheet.notes)
    return f"### {markdown_text(sheet.title)}\n\n{markdown_table(sheet.head, sheet.rows, sheet.best)}{notes}"


# ------------------------------------------------------------------------------------------------------ LaTeX

_LATEX = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "\\": "\\textbackslash{}",
    "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}",
    "<": "\\textless{}",
    ">": "\\textgreater{}",
    "\u00b1": "$\\pm$",
    "\u2013": "--",
    "\u00d7": "$\\times$",
    "\u2605": "$\\star$",
}


def latex_text(text: str) -> str:
    """Text that LaTeX prints literally."""
    return "".join(_LATEX.get(sign, sign) for sign in " ".join(text.split()))


def latex(sheet: Sheet) -> str:
    """A `table` with booktabs rules; the document needs `\\usepackage{booktabs}`. Minus signs are set as such."""
    cells = [
        [
            f"\\textbf{{{_latex_cell(cell)}}}" if (y, x) in sheet.best else _latex_cell(cell)
            for x, cell in enumerate(row)
        ]
        for y, row in enumerate(sheet.rows)
    ]
    lines = [
        "% needs \\usepackage{booktabs}",
        "\\begin{table}",
        "  \\centering",
        f"  \\caption{{{latex_text(' '.join([sheet.title + '.', *sheet.notes]))}}}",
        f"  \\begin{{tabular}}{{l{'r' * (len(sheet.head) - 1)}}}",
        "    \\toprule",
        f"    {' & '.join(map(latex_text, sheet.head))} \\\\",
        "    \\midrule",
        *(f"    {' & '.join(row)} \\\\" for row in cells),
        "    \\bottomrule",
        "  \\end{tabular}",
        "\\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _latex_cell(text: str) -> str:
    if text.startswith(("+", "-")) and text[1:2].isdigit():
        return f"${text[0]}${latex_text(text[1:])}"
    return latex_text(text)
