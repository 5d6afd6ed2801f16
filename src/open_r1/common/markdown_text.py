"""Text in Markdown: names that come from data are escaped, so that none of them is markup."""

import re
from collections.abc import Iterable, Sequence

_LIVE = re.compile(
    r"[`|~]|<(?=[a-zA-Z/!?])"  # code, cells, struck out, HTML and links
    r"|\*(?=\S)|(?<=\S)\*|(?<![^\W_])_|_(?![^\W_])"  # emphasis; not a lone star, nor a line within a word
    r"|\](?=[(\[:])"  # links, images and their definitions
    r"|&(?=#?\w+;)|\\(?=[!-/:-@\[-`{-~])"  # entities, escapes
    r"|^[#>*]|#(?=#*$)|^[-+=](?=[-+=\s]|$)|^\d+[.)](?=\s|$)"  # headings, quotations, lists, lines
)

_LIVE_IN_BRACKETS = re.compile(rf"{_LIVE.pattern}|[\[\]]")


def markdown_text(text: str, live: re.Pattern[str] = _LIVE) -> str:
    """Text on one line that Markdown shows as it stands; what means nothing there is not touched."""
    return live.sub(lambda sign: f"{sign[0][:-1]}\\{sign[0][-1]}", " ".join(text.split()))


def markdown_code(text: str) -> str:
    """Text as code within a line, whatever quotes it holds."""
    text = " ".join(text.split())
    fence = "`" * (max(map(len, re.findall("`+", text)), default=0) + 1)
    return f"{fence}{text}{fence}" if len(fence) == 1 else f"{fence} {text} {fence}"


def markdown_image(name: str, path: str) -> str:
    """An image beside the file, with a name for those who do not see it."""
    place = re.sub(r"[<>\\%\s]", lambda sign: "".join(f"%{byte:02X}" for byte in sign[0].encode()), path)
    return f"![{markdown_text(name, _LIVE_IN_BRACKETS)}](<{place}>)"


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; nothing in a cell is markup or ends the cell."""
    lines = [list(map(markdown_text, head)), ["---"] * len(head), *(map(markdown_text, row) for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"
