"""Phantoms: drawn images with known answers, in OmniMedVQA's form, for the demo and the tests.

Eight modalities, five tasks, one question per task and image. Four attributes are drawn into each image as
coarse codes that survive scaling to 112 x 112: the silhouette (anatomy), the lesion's colour and shape (disease)
and its size (grade), and the tint of the rim (another attribute); the palette and texture are the modality. They
look like medicine about as much as a stick figure looks like a person, and say nothing about medicine.

One thing makes the questions easier than real ones, and every figure made from them must say so: each modality and
task has one list of four options. Three things keep them honest: each question offers them in an order of its own,
training and test images are drawn independently, and answers are balanced, so that without the image the best
guess is a quarter.
"""

import json
import os
import random
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from open_r1.common.atomic_files import disk_errors, write_atomically
from open_r1.common.errors import UserError, run_command
from open_r1.grading.problems import options_in, solution_letter
from open_r1.vocabulary.labels import Modality, Task
from open_r1_testbed.demo_steps import read_set_flags
from open_r1_testbed.phantom_images import draw
from open_r1_testbed.phantom_questions import PUBLISHED_NAMES, Phantom, question, sample_phantoms

MANIFEST = "manifest.json"
_PARTS = {"Images", "QA_information", "splits", "train.json", "test.json"}


# --- questions ---------------------------------------------------------------------------------------------


# --- images ----------------------------------------------------------------------------------------------


# --- the data set on disk ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Entry:
    """One image of the set: what it shows and where it lies, relative to the set's folder."""

    phantom: Phantom
    split: str
    path: str


def make_phantoms(
    folder: Path | str,
    train: int = 150,
    test: int = 16,
    seed: int = 0,
    modalities: Iterable[Modality] = tuple(Modality),
    workers: int | None = None,
) -> Path:
    """Draw `train` + `test` images per modality into `folder`, with five questions each; return `folder`.

    The folder then holds the same questions in three forms, all with image paths relative to `folder`:

    - OmniMedVQA's release: `Images/...`, `QA_information/Open-access/<dataset>.json`;
    - the published split files: `splits/modality/train/<Modality>_train.json`, `splits/question_type/...`;
    - `train.json` and `test.json`: everything in two lists, with modality and task in each row.

    The same arguments give the same bytes; a finished folder is left as it is. Raises `UserError` for counts
    below 1 and for a folder that holds something else.
    """
    folder, chosen = Path(folder), [modality for modality in Modality if modality in set(modalities)]
    for name, count in (("train", train), ("test", test)):
        if count < 1:
            raise UserError(f"{name} images per modality: {count}; a split without rows is no use, ask for 1 or more")
    wanted = {"train": train, "test": test, "seed": seed, "modalities": [modality.value for modality in chosen]}
    if _is_finished(folder, wanted):
        return folder
    entries = [entry for modality in chosen for entry in _plan(modality, train, test, seed)]
    with disk_errors(folder, "what is there is drawn anew"):
        _write_images(folder, entries, workers or os.cpu_count() or 1)
    _write_questions(folder, entries, seed)
    _write_json(folder / MANIFEST, wanted)
    return folder


def save_prepared(folder: Path | str, output: Path | str) -> Path:
    """Save all cells of the phantoms in `folder` as one prepared set, train and test, in `output`; return that.

    `scripts/prepare_omnimedvqa.py` makes a set per modality or per task, as the published runs want it. The demo
    trains on everything at once: same seven columns, with modality and task in every row.
    """
    from datasets import Dataset, DatasetDict

    from open_r1.data.arrow_sets import FEATURES
    from open_r1.data.rows import row_id

    folder, output = Path(folder), Path(output)
    splits = {}
    for split in ("train", "test"):
        rows = []
        for row in json.loads((folder / f"{split}.json").read_text(encoding="utf-8")):
            image = {"bytes": (folder / row["image"]).read_bytes(), "path": row["image"]}
            key = row_id(row["image"], row["problem"], row["solution"])
            rows.append({**row, "image": image, "id": key, "source": Path(row["image"]).parts[1]})
        splits[split] = Dataset.from_list(rows, features=FEATURES)
    DatasetDict(splits).save_to_disk(output)
    return output


def _is_finished(folder: Path, wanted: dict[str, Any]) -> bool:
    if (folder / MANIFEST).is_file():
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if manifest == wanted:
            return True
        raise UserError(f"{folder} holds other phantoms ({manifest}); name another folder or delete this one")
    foreign = sorted({item.name for item in folder.iterdir()} - _PARTS) if folder.is_dir() else []
    if foreign:
        raise UserError(f"{folder} holds something else ({foreign[0]}); name a new or an empty folder")
    return False


def _plan(modality: Modality, train: int, test: int, seed: int) -> Iterator[_Entry]:
    for number, (split, count) in enumerate((("train", train), ("test", test))):
        for place, phantom in enumerate(sample_phantoms(modality, count, [seed, number])):
            yield _Entry(phantom, split, f"Images/{_dataset(modality)}/{split}/{place:04d}.png")


def _dataset(modality: Modality) -> str:
    return f"Phantom {modality}"  # with a space, as many of OmniMedVQA's have


def _write_images(folder: Path, entries: Sequence[_Entry], workers: int) -> None:
    for parent in {Path(entry.path).parent for entry in entries}:
        (folder / parent).mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(workers) as pool:  # numpy and Pillow let go of the interpreter lock
        list(pool.map(lambda entry: (folder / entry.path).write_bytes(encode(draw(entry.phantom))), entries))


def encode(image: Image.Image) -> bytes:
    """The image as PNG."""
    buffer = BytesIO()
    image.save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()


def _write_questions(folder: Path, entries: Sequence[_Entry], seed: int) -> None:
    rng = random.Random(seed)
    rows = [
        {"image": entry.path, **question(entry.phantom, task, rng), "split": entry.split}
        for entry in entries
        for task in Task
    ]
    for modality in {entry.phantom.modality for entry in entries}:
        of_modality = [row for row in rows if row["modality"] == modality]
        release = [_release_row(row, f"{_dataset(modality)}_{place:04d}") for place, row in enumerate(of_modality)]
        _write_json(folder / "QA_information" / "Open-access" / f"{_dataset(modality)}.json", release)
    for split in ("train", "test"):
        split_rows = [row for row in rows if row["split"] == split]
        for family, key in (("modality", "modality"), ("question_type", "task")):
            for label in {row[key] for row in split_rows}:
                name = PUBLISHED_NAMES[Modality(label)] if family == "modality" else label
                labelled = [_split_row(row) for row in split_rows if row[key] == label]
                _write_json(folder / "splits" / family / split / f"{name}_{split}.json", labelled)
        rng.shuffle(split_rows)
        _write_json(folder / f"{split}.json", [{k: v for k, v in row.items() if k != "split"} for row in split_rows])


def _split_row(row: dict[str, str]) -> dict[str, str]:
    return {key: row[key] for key in ("image", "problem", "solution")}


def _release_row(row: dict[str, str], identity: str) -> dict[str, str]:
    modality, task = Modality(row["modality"]), Task(row["task"])
    options = options_in(row["problem"])
    return {
        "dataset": _dataset(modality),
        "question_id": identity,
        "question_type": task.value,
        "question": row["problem"].split(" A)")[0],
        "gt_answer": options[solution_letter(row["solution"])],
        "image_path": row["image"],
        **{f"option_{letter}": text for letter, text in options.items()},
        "modality_type": PUBLISHED_NAMES[modality],
    }


def _write_json(path: Path, value: Any) -> None:
    write_atomically(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def main() -> None:
    """`python -m open_r1_testbed.phantoms --output_dir DIR`."""
    options = read_set_flags("Draw a phantom data set in OmniMedVQA's form.", "images per modality", 150, 16)
    folder = make_phantoms(options.output_dir, options.train, options.test, options.seed)
    print(f"{folder}: 8 modalities x ({options.train} + {options.test}) images x 5 questions")


if __name__ == "__main__":
    run_command(main)
