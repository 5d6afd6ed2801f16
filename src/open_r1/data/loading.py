"""Load questions for training and evaluation: prepared sets, published sets, or a JSON list.

A loaded set always has seven columns: image (undecoded), problem, solution, id, source, modality, task.
Images stay encoded until `row_image` opens one. A text question, as `data.text.prepare` writes it, has a source but no
image, modality or task; any other row without an image is dropped.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
from pyarrow import ArrowNotImplementedError, compute, types

from open_r1.common.atomic_files import parse_json
from open_r1.common.errors import UnusableInput, UserError
from open_r1.data.arrow_sets import FEATURES
from open_r1.data.images import ImageError, read_file, resolve, shown
from open_r1.data.json_lists import json_entries
from open_r1.data.missing_sets import missing_data
from open_r1.data.omnimedvqa.source import labels_beside, question_key
from open_r1.data.rows import (
    MORE_IMAGES,
    TEXT_KEYS,
    Dropped,
    RowError,
    check_row,
    check_texts,
    refuse_more_images,
    row_id,
    source_of,
)
from open_r1.vocabulary.labels import Modality, Split, Task, parse_label, parse_modality, parse_task

_UNDECODED = datasets.Image(decode=False)
_TEXT_TYPES = ("string", "large_string", "null")
_NAMED_IN_LINE = 3  # dropped rows that the one-line summary names


def load_rows(
    path: str | os.PathLike,
    split: Split | None = None,
    image_root: str | os.PathLike | None = None,
) -> tuple[datasets.Dataset, list[Dropped]]:
    """Load one split of a data set with its images undecoded.

    Args:
        path: a saved DatasetDict or Dataset with our seven columns or the published three, or a JSON file that
            holds a list of {image, problem, solution}.
        split: which split of a DatasetDict; a single Dataset or a JSON file is one split already.
        image_root: folder that the image paths of a JSON list are relative to and may not leave.

    Returns:
        The usable rows, and the dropped ones with their reasons: a bad row never ends a run. Each `image` is
        {"bytes", "path"}; from a JSON list bytes is None and path is an absolute, checked path.
        An image that cannot be decoded is noticed only when `row_image` opens it.

    Raises:
        UserError: the path, the file, the split or the columns are not there, or no row can be used.
    """
    path = Path(path)
    if os.path.isdir(path):  # which raises for no name, however long
        rows, dropped = _from_disk(path, split)
    elif os.path.isfile(path):
        rows, dropped = _from_json(path, image_root)
    else:
        raise UserError(missing_data(path))
    if not len(rows):
        raise UserError(f"{path} has no row that can be used. {summary(dropped) or 'It is empty.'}")
    return rows, dropped


def image_digest(image: Mapping[str, Any] | None) -> str:
    """SHA-256 of every byte of an undecoded image; "" for none, the reason of one that cannot be read."""
    if image is None:
        return ""
    try:
        data = read_file(image["path"], resolved=True) if image["bytes"] is None else image["bytes"]
    except ImageError as error:
        return error.reason
    return hashlib.sha256(data).hexdigest()


def content_digest(row: Mapping[str, Any], image: Mapping[str, Any] | None) -> str:
    """A hash of the complete question, image included, as 16 hexadecimal digits; an id may leave out the image.

    Args:
        row: with `problem` and `solution`.
        image: the undecoded image; None if the question is asked without one.
    """
    return row_id(image_digest(image), row["problem"], row["solution"])


def data_fingerprint(lines: Iterable[str]) -> str:
    """SHA-256 over one line per question of a set, in any order; 64 hexadecimal digits."""
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


def summary(dropped: Sequence[Dropped]) -> str:
    """One line for the user: the number of dropped rows, the reasons and examples; '' if there are none."""
    if not dropped:
        return ""
    counts = ", ".join(f"{count} {reason}" for reason, count in Counter(d.reason for d in dropped).most_common())
    examples = "; ".join(f"{d.where}: {d.detail}" for d in dropped[:_NAMED_IN_LINE])
    remainder = f"; and {len(dropped) - _NAMED_IN_LINE} more" if len(dropped) > _NAMED_IN_LINE else ""
    return f"{len(dropped)} rows dropped ({counts}): {examples}{remainder}"


# ---------------------------------------------------------------------------------------------- JSON list


def _from_json(path: Path, image_root: str | os.PathLike | None) -> tuple[datasets.Dataset, list[Dropped]]:
    if image_root is None:
        raise UserError(f"{path} names images by path; give the folder that the paths are relative to as --image_root")
    if not os.path.isdir(image_root):
        raise UserError(f"--image_root {image_root} is not a folder")
    file_label = _label_of(path.name)
    labels_of_other_family = labels_beside(path)
    columns: dict[str, list[Any]] = {name: [] for name in FEATURES}
    dropped: list[Dropped] = []
    seen_ids: set[str] = set()
    for number, entry in enumerate(json_entries(path)):
        where = f"{path.name} entry {number}"
        try:
            image, problem, solution = check_row(entry)
            labels = [file_label, labels_of_other_family.get(question_key(image, problem)), *_labels_in(entry)]
            key = row_id(image, problem, solution)
            _refuse_repeated(key, seen_ids)
            image_cell = {"bytes": None, "path": str(resolve(image, image_root))}
        except UnusableInput as error:
            dropped.append(Dropped(where, error.reason, str(error)))
            continue
        modality = next((label for label in labels if isinstance(label, Modality)), None)
        task = next((label for label in labels if isinstance(label, Task)), None)
        values = (image_cell, problem, solution, key, source_of(image), modality, task)
        for name, value in zip(columns, values, strict=True):
            columns[name].append(value)
    features = datasets.Features({**FEATURES, "image": _UNDECODED})
    return datasets.Dataset.from_dict(columns, features=features), dropped


def _labels_in(entry: Mapping[str, Any]) -> list[Modality | Task | None]:
    """The labels in a row."""
    try:
        return [
            parse_modality(str(entry.get("modality") or ""), "modality"),
            parse_task(str(entry.get("task") or ""), "task"),
        ]
    except UserError as error:
        raise RowError("unknown-label", str(error)) from None


def _label_of(name: str) -> Modality | Task | None:
    """The label in the name of a file or folder; None if it holds none."""
    try:
        return parse_label(name)
    except UserError:
        return None


def _refuse_repeated(key: str, seen_ids: set[str]) -> None:
    if key in seen_ids:
        raise RowError("repeated-question", f"the question {key} is there already")
    seen_ids.add(key)


# ---------------------------------------------------------------------------------------------- saved sets


def _from_disk(path: Path, split: Split | None) -> tuple[datasets.Dataset, list[Dropped]]:
    folder = _pick(path, split)
    rows = _load_saved(folder)
    missing = [name for name in TEXT_KEYS if name not in rows.column_names]
    if missing:
        raise UserError(f"{path} lacks the column {', '.join(missing)}; columns are {', '.join(rows.column_names)}")
    refused_rows = _with_more_images(rows)
    rows = rows.select_columns([name for name in FEATURES if name in rows.column_names])
    _refuse_other_columns(rows, path)
    try:
        rows = rows.cast_column("image", _UNDECODED)
    except (ValueError, TypeError, ArrowNotImplementedError) as error:  # pyarrow's others derive from these two
        raise UserError(f"the column image of {path} holds no images: {error}") from None
    if "id" not in rows.column_names:
        rows = _with_ids(rows)
    rows = _with_labels(rows, _label_of(path.name))
    name = path.name if folder == path else f"{path.name} {folder.name}"
    keep, dropped, rewritten = _check_saved(rows, name, refused_rows)
    rows = _with_texts(rows, rewritten).select_columns(list(FEATURES))
    return (rows if len(keep) == len(rows) else rows.select(keep)), dropped


def _with_more_images(rows: datasets.Dataset) -> dict[int, RowError]:
    """The indices of rows with more images than the one in the column `image`, with their errors."""
    refused: dict[int, RowError] = {}
    for name in filter(MORE_IMAGES.fullmatch, rows.column_names):
        for number, count in enumerate(_images_in(rows, name)):
            try:
                refuse_more_images(name, ["..."] * count)
            except RowError as error:
                refused[number] = error
    return refused


def _images_in(rows: datasets.Dataset, name: str) -> Iterable[int]:
    """For every row the number of values in a column, 0 or 1 if it is not a list, without reading them."""
    for batch in rows.select_columns([name]).with_format("arrow").iter(batch_size=1000):
        column: Any = batch[name]  # pyright: ignore[reportArgumentType, reportCallIssue]
        count: Any = vars(compute)["list_value_length" if types.is_list(column.type) else "is_valid"]
        yield from (int(length or 0) for length in count(column).to_pylist())


def _refuse_other_columns(rows: datasets.Dataset, path: Path) -> None:
    """Refuse a text column that is declared with another type, before a row is read.

    From a column of images, sounds or documents, datasets would open any URL or file of this machine.
    """
    for name in FEATURES:
        kind = rows.features.get(name)
        if name == "image" or kind is None or (isinstance(kind, datasets.Value) and kind.dtype in _TEXT_TYPES):
            continue
        raise UserError(f"the column {name} of {path} is declared as {_kind(kind)}, but must hold text; refused")


def _kind(feature: Any) -> str:
    return feature.dtype if isinstance(feature, datasets.Value) else type(feature).__name__


def _pick(path: Path, split: Split | None) -> Path:
    """The folder of the requested split. Only that one is opened: datasets cannot load an empty split beside it."""
    try:
        names = [str(name) for name in _read_json(path / "dataset_dict.json")["splits"]]
    except FileNotFoundError:
        return path
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} holds no saved data set that can be read: {error}") from None
    if split is None and len(names) != 1:
        raise UserError(f"{path} holds {', '.join(names) or 'no split'}; choose one of them as the split")
    if split is not None and split not in names:
        raise UserError(f"{path} has no {split} split, only {', '.join(names) or 'nothing'}")
    return path / _plain_name(split or names[0], path / "dataset_dict.json")


def _plain_name(name: str, named_by: Path) -> str:
    if Path(name).name != name or name == "..":
        raise UserError(f"{named_by} names {shown(name)}, which is not a plain file name beside it; refused")
    return name


def _load_saved(folder: Path) -> datasets.Dataset:
    try:
        state = _read_json(folder / "state.json")
        files = [_plain_name(entry["filename"], folder / "state.json") for entry in state["_data_files"]]
        if not files:
            raise UserError(f"{folder} has no rows")
        return datasets.Dataset.load_from_disk(str(folder)).with_format(None)
    except UserError:
        raise
    except Exception as error:  # datasets and pyarrow raise many kinds of errors for damaged files
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{folder} holds no saved data set that can be read: {reason}") from None


def _read_json(path: Path) -> Any:
    return parse_json(path.read_text(encoding="utf-8"))


def _with_ids(rows: datasets.Dataset) -> datasets.Dataset:
    """Add ids to a published set. It does not name the image files, so the ids are hashes of their bytes."""
    ids = []
    for batch in rows.select_columns(list(TEXT_KEYS)).iter(batch_size=64):
        assert isinstance(batch, dict)
        for image, problem, solution in zip(*(batch[name] for name in TEXT_KEYS), strict=True):
            data = image and (image["bytes"] or image["path"])
            ids.append(row_id(data or "", str(problem), str(solution)))
    return rows.add_column("id", ids)  # pyright: ignore[reportCallIssue]


def _with_labels(rows: datasets.Dataset, label: Modality | Task | None) -> datasets.Dataset:
    """Add the columns that a published set lacks; its folder's name (`CT_384`) gives one label."""
    defaults = {
        "source": "",
        "modality": label if isinstance(label, Modality) else None,
        "task": label if isinstance(label, Task) else None,
    }
    for name, value in defaults.items():
        if name not in rows.column_names:
            rows = rows.add_column(  # pyright: ignore[reportCallIssue]
                name, [value] * len(rows), feature=datasets.Value("string")
            )
    return rows


def _with_texts(rows: datasets.Dataset, rewritten: Mapping[int, tuple[str, str]]) -> datasets.Dataset:
    """The rows with other problems and solutions at some places."""
    for text_index, name in enumerate(("problem", "solution") if rewritten else ()):
        column = rows[name][:]
        for number, texts in rewritten.items():
            column[number] = texts[text_index]
        rows = rows.remove_columns(name)
        rows = rows.add_column(name, column, feature=FEATURES[name])  # pyright: ignore[reportCallIssue]
    return rows


def _check_saved(
    rows: datasets.Dataset, name: str, refused: Mapping[int, RowError]
) -> tuple[list[int], list[Dropped], dict[int, tuple[str, str]]]:
    """The indices of usable rows, the dropped rows, and new texts for rows that were not in the published form."""
    keep: list[int] = []
    rewritten: dict[int, tuple[str, str]] = {}
    dropped: list[Dropped] = []
    seen_ids: set[str] = set()
    questions = rows.select_columns(["problem", "solution", "id"])
    usable = zip(_has_bytes(rows), _is_text(rows), strict=True)
    for number, (row, (has_image, is_text)) in enumerate(zip(questions, usable, strict=True)):
        assert isinstance(row, dict)
        try:
            if number in refused:
                raise refused[number]
            if not has_image and not is_text:
                raise RowError("no-image", "the row holds no image, at most the name of one")
            if not all(isinstance(row[key], str) for key in row):
                raise RowError("not-text", f"problem, solution and id must be texts, not {row}")
            texts = check_texts(row["problem"], row["solution"])
            _refuse_repeated(row["id"], seen_ids)
        except UnusableInput as error:
            dropped.append(Dropped(f"{name} row {number}", error.reason, str(error)))
        else:
            keep.append(number)
            if texts != (row["problem"], row["solution"]):
                rewritten[number] = texts
    return keep, dropped, rewritten


def _has_bytes(rows: datasets.Dataset) -> Iterable[bool]:
    """For every row whether it has the bytes of its image, without reading them."""
    for batch in rows.select_columns(["image"]).with_format("arrow").iter(batch_size=1000):
        for chunk in batch["image"].chunks:  # pyright: ignore[reportAttributeAccessIssue, reportArgumentType, reportCallIssue]
            yield from chunk.field("bytes").is_valid().to_pylist()  # combine_chunks would copy every image


def _is_text(rows: datasets.Dataset) -> Iterable[bool]:
    """For every row whether it is a text question by its labels: a source, and neither modality nor task."""
    for batch in rows.select_columns(["source", "modality", "task"]).iter(batch_size=1000):
        assert isinstance(batch, dict)
        for source, modality, task in zip(batch["source"], batch["modality"], batch["task"], strict=True):
            yield bool(source) and modality is None and task is None
