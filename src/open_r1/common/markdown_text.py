"""Markdown text: names from data are escaped, so that they are never read as markup."""

import re
from collections.abc import Collection, Iterable, Sequence

_MARKUP = re.compile(
    r"[`|~]|<(?=[a-zA-Z/!?])"  # code, cells, struck out, HTML and links
    r"|\*(?=\S)|(?<=\S)\*|(?<![^\W_])_|_(?![^\W_])"  # emphasis; not a lone star, nor a line within a word
    r"|\](?=[(\[:])"  # links, images and their definitions
    r"|&(?=#?\w+;)|\\(?=[!-/:-@\[-`{-~])"  # entities, escapes
    r"|^[#>*]|#(?=#*$)|^[-+=](?=[-+=\s]|$)|^\d+[.)](?=\s|$)"  # headings, quotations, lists, lines
)

_MARKUP_IN_BRACKETS = re.compile(rf"{_MARKUP.pattern}|[\[\]]")


def markdown_text(text: str, markup: re.Pattern[str] = _MARKUP) -> str:
    """Text on one line, with every character escaped that Markdown would read as markup."""
    return markup.sub(lambda sign: f"{sign[0][:-1]}\\{sign[0][-1]}", " ".join(text.split()))


def markdown_code(text: str) -> str:
    """Text as inline code, whatever backticks it contains."""
    text = " ".join(text.split())
    fence = "`" * (max(map(len, re.findall("`+", text)), default=0) + 1)
    return f"{fence}{text}{fence}" if len(fence) == 1 else f"{fence} {text} {fence}"


def markdown_image(name: str, path: str) -> str:
    """An image beside the file, with a name as alternative text."""
    address = re.sub(r"[<>\\%\s]", lambda sign: "".join(f"%{byte:02X}" for byte in sign[0].encode()), path)
    return f"![{markdown_text(name, _MARKUP_IN_BRACKETS)}](<{address}>)"


def markdown_table(
    head: Sequence[str], rows: Iterable[Sequence[str]], bold: Collection[tuple[int, int]] = frozenset()
) -> str:
    """A Markdown table; the content of the cells is escaped.

    Args:
        head: names of the columns.
        rows: the cells.
        bold: cells in bold, by the numbers of their row and column from 0.
    """
    cells = [[markdown_text(cell) for cell in row] for row in rows]
    for row, column in bold:
        cells[row][column] = f"**{cells[row][column]}**"
    lines = [list(map(markdown_text, head)), ["---"] * len(head), *cells]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"
