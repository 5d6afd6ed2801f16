"""The published forms of a set's files: which files they are, what their rows look like, and how a row is read.

A file that holds another form is refused by the name of that form: sets are published again under the file names of
others, and rows read with the wrong reader would train on wrong answers without any sign of it.
"""

import fnmatch
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from open_r1.common.errors import UserError
from open_r1.data.rows import RowError
from open_r1.data.text.files import Row, rows_of
from open_r1.data.vqa.questions import ReaderContext, VqaQuestion

SPLITS = ("train", "validation", "dev", "test")
"""Names of splits, in the order in which they are written and compared."""

_PROBED, _PROBED_WITH_IMAGES = 50, 5  # rows at the start of a file that show its form
_SPELLINGS = {"train": "train", "val": "validation", "valid": "validation", "validate": "validation"}
_SPELLINGS |= {name: name for name in SPLITS}

Reader = Callable[[Row, ReaderContext], VqaQuestion]
RowsOf = Callable[[Path], Iterator[tuple[str, Row | RowError]]]


@dataclass(frozen=True)
class Form:
    """One published form of a set."""

    name: str
    """For messages: `VQA-RAD as OSF publishes it`."""
    files: Mapping[str, Sequence[str]]
    """Split -> patterns of its file below the input folder, the best first; "" where the rows say their split."""
    keys: Collection[str]
    """Keys that rows of this form have."""
    read: Reader
    absent: Collection[str] = ()
    """Keys that rows of this form never have."""
    fits: Callable[[Sequence[Row]], bool] = field(default=lambda rows: True)
    """A closer look at rows whose keys fit."""
    rows: RowsOf = rows_of
    split_of: Callable[[Row], str] | None = None
    """The split of a row, where the file does not say it."""
    set_of: Callable[[Row], str] | None = None
    """The part of a row's set that gets a folder of its own, such as a language."""
    image_folders: Sequence[str] = ("",)
    """Folders in which image names are looked up, below the image root."""
    embeds_images: bool = False
    """Whether rows hold the bytes of their images."""
    in_parts: bool = False
    """Whether several files make up one split, beside the numbered parts of Parquet files."""
    most_rows: int | None = None
    """Rows of the largest published file; a longer file is another set."""

    def matches(self, rows: Sequence[Row]) -> bool:
        """Whether the first rows of a file are of this form."""
        typical = [row for row in rows if all(key in row for key in self.keys)]
        if len(typical) * 2 <= len(rows) or any(key in row for row in typical for key in self.absent):
            return False
        return self.fits(typical)


@dataclass(frozen=True)
class Source:
    """A set by its name on the command line."""

    title: str
    """As papers write it."""
    forms: Sequence[Form]
    """The fullest first: where a folder holds several, the first one is read."""
    parts: Sequence[str] = ()
    """Parts (`Form.set_of`) that are prepared unless others are asked for; () for all."""


@dataclass(frozen=True)
class InputFile:
    """One file that is read, with its form and split ("" where rows say their split)."""

    path: Path
    form: Form
    split: str


@dataclass(frozen=True)
class Inputs:
    """What `--input` means."""

    files: Sequence[InputFile]
    """Of one form, in the order of their splits."""
    folder: Path
    """Where images are looked up, unless another root is given."""
    unread: Sequence[Path] = ()
    """Files of the set that lie in the folder and are not read: other forms of it, other tests."""


def input_files(name: str, inputs: Sequence[str], sources: Mapping[str, Source]) -> Inputs:
    """The files that `--input` means.

    Args:
        name: of the source.
        inputs: one folder, or files, each of which may be written `split=path`.
        sources: all sets, to name the form of a file that is of another one.

    Raises:
        UserError: nothing is there, a file is of another form, or the files do not belong together.
    """
    source = sources[name]
    named = [_split_and_path(text) for text in inputs]
    for _, path in named:
        if not path.exists():
            raise UserError(f"--input {path} is not there; give the folder or the files of {source.title}")
    folders = [path for _, path in named if path.is_dir()]
    if folders and len(named) > 1:
        raise UserError(f"--input takes one folder or several files, not {folders[0]} with others")
    if folders:
        return _in_folder(folders[0], name, sources)
    files = []
    for split, path in named:
        form = _form_of(path, name, sources)
        files.append(InputFile(path, form, split or _split_of_name(path, form)))
    return Inputs(_checked(files, source), _common_folder([path for _, path in named]))


def _split_and_path(text: str) -> tuple[str, Path]:
    split, equals, path = text.partition("=")
    return (_SPELLINGS[split], Path(path)) if equals and split in _SPELLINGS else ("", Path(text))


def _common_folder(paths: Sequence[Path]) -> Path:
    parents = [path.resolve().parent for path in paths]
    return next(
        folder for folder in [parents[0], *parents[0].parents] if all(p.is_relative_to(folder) for p in parents)
    )


def _in_folder(folder: Path, name: str, sources: Mapping[str, Source]) -> Inputs:
    source = sources[name]
    for form in source.forms:
        paths = {path: split for split in form.files for path in _first_match(folder, form.files[split])}
        if paths:
            files = [InputFile(path, _form_of(path, name, sources), paths[path]) for path in paths]
            patterns = [pattern for form in source.forms for listed in form.files.values() for pattern in listed]
            others = {path for pattern in patterns for path in folder.glob(pattern) if path.is_file()} - paths.keys()
            return Inputs(_checked(files, source), folder, sorted(others))
    expected = "; ".join(f"{form.name}: {_listed(form)}" for form in source.forms)
    raise UserError(f"{folder} holds no file of {source.title}. Expected are {expected}")


def _first_match(folder: Path, patterns: Sequence[str]) -> list[Path]:
    """The files of the first pattern that has any."""
    for pattern in patterns:
        if paths := sorted(path for path in folder.glob(pattern) if path.is_file()):
            return paths
    return []


def _listed(form: Form) -> str:
    return ", ".join(patterns[0] for patterns in form.files.values())


def _checked(files: list[InputFile], source: Source) -> list[InputFile]:
    """The files in the order of their splits; all of one form, and one published file for a split."""
    other = next((file for file in files if file.form is not files[0].form), None)
    if other is not None:
        raise UserError(
            f"{files[0].path} is {files[0].form.name}, {other.path} is {other.form.name}: these are the same questions "
            "in two forms; name the files of one of them with --input"
        )
    for split in {file.split for file in files}:
        names = [file.path for file in files if file.split == split]
        is_one = files[0].form.in_parts or all("-of-" in path.name for path in names)  # test-00000-of-00002.parquet
        if len(names) > 1 and not is_one:
            raise UserError(
                f"{names[0]} and {names[1]} are both the {split or 'whole'} of {source.title}; name the one you mean "
                "with --input, or say what they are: --input train=FILE test=FILE"
            )
    order = {split: place for place, split in enumerate(("", *SPLITS))}
    return sorted(files, key=lambda file: (order[file.split], str(file.path)))


def _split_of_name(path: Path, form: Form) -> str:
    """The split that a file's name says; "" where rows say it."""
    if "" in form.files:
        return ""
    for split, patterns in form.files.items():
        if any(fnmatch.fnmatch(path.name, pattern.rpartition("/")[2]) for pattern in patterns):
            return split
    words = path.stem.replace("-", "_").casefold().split("_")
    named = next((_SPELLINGS[word] for word in words if word in _SPELLINGS), None)
    if named is None:
        raise UserError(f"{path}: its name does not say which split it is; write --input test={path} or train={path}")
    return named


def _form_of(path: Path, name: str, sources: Mapping[str, Source]) -> Form:
    """The form of a file.

    Raises:
        UserError: it is of another set, or of none; the message says which.
    """
    source, errors = sources[name], []
    for form in source.forms:
        probe = _probe(path, form, errors)
        if probe and form.matches(probe):
            return form
    others = {other: form for other in sources if other != name for form in sources[other].forms if _is(path, form)}
    if others:
        forms = " or ".join(form.name for form in others.values())
        raise UserError(
            f"{path} is not {source.title}: its rows are {forms}, and read as "
            f"{source.title} they would be counted as another set; prepare it as {' or '.join(others)}"
        )
    keys = next((", ".join(map(str, row)) for form in source.forms for row in _probe(path, form, [])), "")
    needed = "; ".join(f"{form.name} has {', '.join(sorted(form.keys))}" for form in source.forms)
    detail = f"its rows have {keys:.200}; {needed}" if keys else "; ".join(dict.fromkeys(errors)) or "it has no rows"
    raise UserError(f"{path} is no file of {source.title}: {detail}")


def _is(path: Path, form: Form) -> bool:
    probe = _probe(path, form, [])
    return bool(probe) and form.matches(probe)


def _probe(path: Path, form: Form, errors: list[str]) -> list[Row]:
    """The first rows of a file as a form reads them; [] if it cannot be read so, with the reason in `errors`."""
    try:
        count = _PROBED_WITH_IMAGES if form.embeds_images else _PROBED
        return [row for _, row in islice(form.rows(path), count) if isinstance(row, dict)]
    except UserError as error:
        errors.append(str(error))
        return []


def values_of(rows: Sequence[Row], key: str) -> set[Any]:
    """The different values of a key in rows, texts in lower case."""
    values = (row.get(key) for row in rows)
    return {value.casefold() if isinstance(value, str) else str(value) for value in values}


def holds_images(rows: Sequence[Row]) -> bool:
    """Whether the column `image` holds images, as in Parquet, and not their names."""
    return all(isinstance(row.get("image"), dict | bytes) for row in rows)
