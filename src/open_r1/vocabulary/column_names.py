"""Columns of a set that have other names than ours: `--columns problem=question,solution=answer`."""

from collections.abc import Collection, Mapping
from typing import Any

from open_r1.common.errors import UserError

COLUMNS = (
    *("images", "image", "problem", "solution", "answer_type", "aliases"),
    *("id", "source", "modality", "task", "subject"),
)
"""Our names of columns; `image` is the older form of `images`, with one image."""

ColumnNames = Mapping[str, str]
"""Our name of a column -> its name in the data."""


def parse_columns(text: str | None) -> dict[str, str]:
    """The value of `--columns`, our name -> name in the data; {} for None.

    Raises:
        UserError: it is not a list of `our name=name in the data`.
    """
    names: dict[str, str] = {}
    for pair in (text or "").split(",") if text else ():
        ours, equals, theirs = (part.strip() for part in pair.partition("="))
        if not equals or not theirs:
            raise UserError(
                f"--columns {text}: {pair.strip()!r} names no column; write our name, = and the name in the data, as "
                "in problem=question,solution=answer"
            )
        if ours not in COLUMNS:
            raise UserError(f"--columns {text}: there is no column {ours!r}; ours are {', '.join(COLUMNS)}")
        if ours in names:
            raise UserError(f"--columns {text}: {ours} is named twice, and a column is read from one place")
        names[ours] = theirs
    return names


def renamed_entry(entry: Any, names: ColumnNames) -> Any:
    """A row with our names of its keys; a key that the row lacks stays as it is."""
    if not names or not isinstance(entry, dict):
        return entry
    replaced = {ours: theirs for ours, theirs in names.items() if theirs in entry}
    unnamed = {key: value for key, value in entry.items() if key not in {*replaced, *replaced.values()}}
    return unnamed | {ours: entry[theirs] for ours, theirs in replaced.items()}


def columns_to_read(available: Collection[str], names: ColumnNames, where: str) -> dict[str, str]:
    """Our name -> name in the data, of the columns of a table that are read; `names` comes first.

    Raises:
        UserError: a column that `names` asks for is not there, neither under its name nor under ours.
    """
    missing = sorted(theirs for ours, theirs in names.items() if not {ours, theirs} & {*available})
    if missing:
        raise UserError(
            f"{where} has no column {', '.join(missing)}, which --columns names; its columns are "
            f"{', '.join(available) or 'none'}"
        )
    theirs_by_name = {ours: names[ours] for ours in names if names[ours] in available}
    spoken_for = {*theirs_by_name.values()}
    return theirs_by_name | {
        name: name for name in COLUMNS if name in available and name not in theirs_by_name and name not in spoken_for
    }
