"""Tables of a report read back."""


def table_of(summary: str, title: str) -> list[list[str]]:
    """Head and rows of the Markdown table under a heading."""
    lines = summary.partition(f"### {title}\n\n")[2].partition("\n\n")[0].strip().splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in [lines[0], *lines[2:]]]
