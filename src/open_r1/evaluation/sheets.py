"""A table as text, once, and its four forms: CSV, Markdown, LaTeX (booktabs) and HTML."""

import csv
import html
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

BLANK = "\u2013"  # shown where a value is not known


@dataclass(frozen=True)
class Sheet:
    """A table for readers: a title, what its columns are called, and its rows; the first column names the row."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()


def csv_text(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table for programs."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([head, *rows])
    return text.getvalue()


def csv_with(text: str, column: str, value: str) -> str:
    """A table of `csv_text` with one more column, the same value in every row."""
    head, *rows = csv.reader(io.StringIO(text))
    return csv_text([*head, column], [[*row, value] for row in rows])


def percent(share: float | None, digits: int = 2) -> str:
    """A share as per cent, without the sign; blank for None."""
    return "" if share is None else f"{100 * share:.{digits}f}"


def with_error(mean: float | None, stderr: float | None) -> str:
    """`61.2 ± 1.9` in per cent; blank for None.

    The error is left out where none can be measured: on a single picture, or where all answers are alike.
    """
    if mean is None:
        return ""
    return percent(mean, 1) + (f" ± {percent(stderr, 1)}" if stderr else "")


def points(difference: float, stderr: float | None = None) -> str:
    """`+3.1 ± 0.9`: a difference in points, with its sign."""
    return f"{100 * difference:+.1f}" + (f" ± {percent(stderr, 1)}" if stderr else "")


# --------------------------------------------------------------------------------------------------- Markdown


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; line ends and bars in cells cannot break it."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(_markdown_cell, line)) + " |" for line in lines) + "\n"


def _markdown_cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def markdown(sheet: Sheet) -> str:
    """A heading, the table, and its notes."""
    notes = "".join(f"\n{note}\n" for note in sheet.notes)
    return f"### {sheet.title}\n\n{markdown_table(sheet.head, sheet.rows)}{notes}"


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
}


def latex_text(text: str) -> str:
    """Text that LaTeX prints as it stands."""
    return "".join(_LATEX.get(sign, sign) for sign in " ".join(text.split()))


def latex(sheet: Sheet) -> str:
    """A `table` with booktabs rules; the document needs `\\usepackage{booktabs}`. Minus signs are set as such."""
    cells = [[_latex_cell(cell) for cell in row] for row in sheet.rows]
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


# ------------------------------------------------------------------------------------------------------- HTML


def html_table(sheet: Sheet) -> str:
    """A `figure` with caption, table and notes; every text is escaped."""
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in sheet.head)
    rows = "".join(
        f'<tr><th scope="row">{html.escape(row[0])}</th>'
        + "".join(f"<td>{html.escape(cell)}</td>" for cell in row[1:])
        + "</tr>\n"
        for row in sheet.rows
    )
    notes = "".join(f'<p class="note">{html.escape(note)}</p>' for note in sheet.notes)
    return (
        f'<figure class="sheet"><figcaption>{html.escape(sheet.title)}</figcaption><div class="scroll"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>\n{rows}</tbody></table></div>{notes}</figure>"
    )
