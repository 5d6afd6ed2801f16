"""Phantoms: drawn pictures with known answers, in OmniMedVQA's form, for the demo and the tests.

Eight modalities, five tasks, one question per task and picture. Four attributes are drawn into each picture as
coarse codes that survive scaling to 112 x 112: the silhouette (anatomy), the lesion's colour and shape (disease)
and its size (grade), and the tint of the rim (another attribute); the palette and texture are the modality. They
look like medicine about as much as a stick figure looks like a person, and say nothing about medicine.

One thing makes the questions easier than real ones, and every figure made from them must say so: each modality and
task has one list of four options. Three things keep them honest: each question offers them in an order of its own,
training and test pictures are drawn independently, and answers are balanced, so that without the picture the best
guess is a quarter.
"""

import json
import math
import os
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from open_r1.common.atomic_files import disk_errors, write_atomically
from open_r1.common.errors import UserError, run_command
from open_r1.grading.problems import options_in, render_problem, solution_letter
from open_r1.vocabulary.labels import Modality, Task
from open_r1_testbed.demo_steps import read_set_flags

SIZE = 384  # pixels of a picture's side
_DRAWN = 192  # pixels of the side that is computed: a quarter of the work, and smooth pictures compress
LETTERS = "ABCD"
MANIFEST = "manifest.json"
_PARTS = {"Images", "QA_information", "splits", "train.json", "test.json"}

# The spellings of the release and of the published split files, their slips included.
PUBLISHED_NAMES = {
    Modality.CT: "CT(Computed Tomography)",
    Modality.MRI: "MR (Mag-netic Resonance Imaging)",
    Modality.XRAY: "X-Ray",
    Modality.ULTRASOUND: "ultrasound",
    Modality.DERMOSCOPY: "Dermoscopy",
    Modality.FUNDUS: "Fundus Photography",
    Modality.OCT: "OCT (Optical Coherence Tomography",
    Modality.MICROSCOPY: "Microscopy Images",
}

ANATOMY = {
    Modality.CT: ("liver", "kidney", "pancreas", "spleen"),
    Modality.MRI: ("brain", "knee", "ankle", "spine"),
    Modality.XRAY: ("skull", "chest", "pelvis", "femur"),
    Modality.ULTRASOUND: ("breast", "thyroid", "gallbladder", "ovary"),
    Modality.DERMOSCOPY: ("scalp", "palm", "back", "face"),
    Modality.FUNDUS: ("macula", "disc", "arcade", "periphery"),
    Modality.OCT: ("cornea", "fovea", "choroid", "lens"),
    Modality.MICROSCOPY: ("blood", "colon", "muscle", "nerve"),
}
_RADIOLOGY = ("calcification", "cyst", "abscess", "fracture")
_RETINA = ("drusen", "hole", "hemorrhage", "edema")
DISEASE = {
    Modality.CT: _RADIOLOGY,
    Modality.MRI: _RADIOLOGY,
    Modality.XRAY: _RADIOLOGY,
    Modality.ULTRASOUND: _RADIOLOGY,
    Modality.DERMOSCOPY: ("vitiligo", "melanoma", "psoriasis", "nevus"),
    Modality.FUNDUS: _RETINA,
    Modality.OCT: _RETINA,
    Modality.MICROSCOPY: ("vacuole", "necrosis", "carcinoma", "lymphoma"),
}
GRADE = ("minimal", "mild", "moderate", "severe")
STAIN = ("amber", "teal", "violet", "olive")
# Two lists, so that each name is offered four times as often as it is right and the text betrays nothing.
_TECHNIQUES = (
    (Modality.CT, Modality.MRI, Modality.XRAY, Modality.ULTRASOUND),
    (Modality.DERMOSCOPY, Modality.FUNDUS, Modality.OCT, Modality.MICROSCOPY),
)

WORDINGS = {
    Task.ANATOMY: (
        "Which anatomical structure is shown in this image?",
        "What organ or region does this picture depict?",
        "Identify the anatomy visible in the scan.",
        "Which body part is displayed here?",
    ),
    Task.DIAGNOSIS: (
        "What is the most likely diagnosis?",
        "Which disease is present in this image?",
        "What abnormality can be seen here?",
        "Which condition does the lesion suggest?",
    ),
    Task.GRADING: (
        "How severe is the lesion?",
        "What is the grade of the finding?",
        "Which severity level fits the abnormality?",
        "Grade the lesion in this image.",
    ),
    Task.MODALITY: (
        "What imaging modality was used?",
        "Which technique produced this image?",
        "How was this picture acquired?",
        "What type of scan is this?",
    ),
    Task.ATTRIBUTES: (
        "Which stain surrounds the specimen?",
        "What tint has the border of the field?",
        "Which marker dye was used?",
        "What is the colour of the rim?",
    ),
}

Picture = NDArray[np.floating[Any]]  # (192, 192, 3), values 0 to 1
Plane = NDArray[np.floating[Any]]  # (192, 192)

_Y, _X = (np.mgrid[0:_DRAWN, 0:_DRAWN].astype(np.float32) + 0.5) / (_DRAWN / 2) - 1.0


@dataclass(frozen=True)
class Phantom:
    """What one picture shows: a modality, four codes from 0 to 3, and the seed of everything accidental."""

    modality: Modality
    anatomy: int
    disease: int
    grade: int
    stain: int
    seed: int


def sample_phantoms(modality: Modality, count: int, seed: Sequence[int]) -> list[Phantom]:
    """`count` phantoms in which each value of each code occurs equally often, give or take one."""
    rng = np.random.default_rng([*seed, list(Modality).index(modality)])
    codes = [rng.permutation(np.arange(count) % 4).tolist() for _ in range(4)]
    seeds = rng.integers(2**63, size=count).tolist()
    return [Phantom(modality, *row) for row in zip(*codes, seeds, strict=True)]


# --- questions ---------------------------------------------------------------------------------------------


def options_for(modality: Modality, task: Task) -> tuple[str, ...]:
    """The four option texts of one modality and task; questions offer them in any order."""
    if task is Task.ANATOMY:
        return ANATOMY[modality]
    if task is Task.DIAGNOSIS:
        return DISEASE[modality]
    if task is Task.MODALITY:
        return next(group for group in _TECHNIQUES if modality in group)
    return GRADE if task is Task.GRADING else STAIN


def answer(phantom: Phantom, task: Task) -> str:
    """The text of the right option."""
    if task is Task.MODALITY:
        return phantom.modality
    codes = {
        Task.ANATOMY: phantom.anatomy,
        Task.DIAGNOSIS: phantom.disease,
        Task.GRADING: phantom.grade,
        Task.ATTRIBUTES: phantom.stain,
    }
    return options_for(phantom.modality, task)[codes[task]]


def question(phantom: Phantom, task: Task, rng: random.Random) -> dict[str, str]:
    """One question in the split files' form, without its picture: problem, solution, modality, task.

    Wording and order of the options are drawn from `rng`.
    """
    wording = rng.choice(WORDINGS[task])
    options = rng.sample(options_for(phantom.modality, task), len(LETTERS))
    return {
        "problem": render_problem(wording, options),
        "solution": f"<answer> {LETTERS[options.index(answer(phantom, task))]} </answer>",
        "modality": phantom.modality.value,
        "task": task.value,
    }


# --- pictures ----------------------------------------------------------------------------------------------


def draw(phantom: Phantom) -> Image.Image:
    """The phantom's picture, 384 x 384 RGB; the same phantom gives the same pixels."""
    rng = np.random.default_rng(phantom.seed)
    left, up, scale, light = rng.uniform((-0.05, -0.05, 0.93, 0.9), (0.05, 0.05, 1.07, 1.1)).tolist()
    x, y = (_X - left) / scale, (_Y - up) / scale
    mask = _silhouette(phantom.anatomy, x, y)
    ground, tissue = _PALETTE[phantom.modality]
    picture = _blend(np.broadcast_to(_colour(ground), (_DRAWN, _DRAWN, 3)), mask, _colour(tissue))
    picture = _TEXTURE[phantom.modality](picture * light, mask, x, y, rng)
    picture = _lesion(picture, phantom, rng)
    picture = _blend(picture, _edge(np.maximum(abs(_X), abs(_Y)) - 0.86) * 0.95, _colour(_STAINS[phantom.stain]))
    picture = picture * (1 + _speckle(rng, 12, 0.05))[..., None]
    # 64 levels and doubled pixels: a PNG of 30 KB where a smooth enlargement takes 80
    pixels = (np.clip(picture, 0, 1) * 63).astype(np.uint8) * 4
    return Image.fromarray(pixels).resize((SIZE, SIZE), Image.Resampling.NEAREST)


def _edge(distance: Plane, sharpness: float = 40.0) -> Plane:
    """1 inside (distance > 0), 0 outside, smooth between."""
    return 0.5 + 0.5 * np.tanh(sharpness / 2 * distance)


def _colour(rgb: Sequence[float]) -> Picture:
    return np.asarray(rgb, np.float32)


def _blend(picture: Picture, weight: Plane, colour: Picture) -> Picture:
    return picture + weight[..., None] * (colour - picture)


def _speckle(rng: np.random.Generator, cells: int, strength: float) -> Plane:
    """Smooth noise of mean 0; smooth, so that a PNG of it stays small."""
    noise = Image.fromarray(rng.normal(0, strength, (cells, cells)).astype(np.float32))
    return np.asarray(noise.resize((_DRAWN, _DRAWN), Image.Resampling.BICUBIC))


def _silhouette(anatomy: int, x: Plane, y: Plane) -> Plane:
    """Disc, two lobes, a lying band or a standing band: they differ in which sixteenths of the picture they fill."""
    if anatomy == 0:
        return _edge(0.76 - np.hypot(x, y))
    if anatomy == 1:
        return _edge(0.37 - np.hypot(abs(x) - 0.43, y / 2.0))
    along, across = (x, y) if anatomy == 2 else (y, x)
    bend = 0.10 * np.cos(2.5 * along)
    return _edge(np.minimum(0.34 - abs(across - bend), 0.92 - abs(along)))


def _lesion(picture: Picture, phantom: Phantom, rng: np.random.Generator) -> Picture:
    stretch, angle, distance = rng.uniform((0.95, 0.0, 0.05), (1.05, 2 * math.pi, 0.22)).tolist()
    radius = _RADIUS[phantom.grade] * stretch
    dx, dy = _X - distance * math.cos(angle), _Y - distance * math.sin(angle)
    reach = np.hypot(dx, dy)
    if phantom.disease == 3:
        weight = _edge(radius * 1.2 - (abs(dx) + abs(dy)))  # a diamond of about the same area
    elif phantom.disease == 2:
        weight = _edge(radius - reach) * (1 - 0.8 * _edge(radius * 0.45 - reach))  # a ring
    else:
        weight = _edge(radius - reach)
    return _blend(picture, weight * 0.94, _colour(_LESIONS[phantom.disease]))


_RADIUS = (0.13, 0.26, 0.41, 0.60)  # of half the picture's side
_LESIONS = ((1.0, 1.0, 0.90), (0.06, 0.02, 0.05), (0.92, 0.20, 0.16), (0.22, 0.38, 0.95))
_STAINS = ((0.96, 0.69, 0.08), (0.05, 0.70, 0.66), (0.58, 0.18, 0.82), (0.38, 0.44, 0.08))
# Background and tissue.
_PALETTE = {
    Modality.CT: ((0.03, 0.03, 0.03), (0.52, 0.52, 0.52)),
    Modality.MRI: ((0.04, 0.04, 0.16), (0.42, 0.46, 0.62)),
    Modality.XRAY: ((0.25, 0.27, 0.30), (0.82, 0.84, 0.86)),
    Modality.ULTRASOUND: ((0.02, 0.02, 0.02), (0.36, 0.34, 0.26)),
    Modality.DERMOSCOPY: ((0.94, 0.80, 0.72), (0.66, 0.40, 0.32)),
    Modality.FUNDUS: ((0.10, 0.02, 0.0), (0.82, 0.38, 0.10)),
    Modality.OCT: ((0.02, 0.08, 0.04), (0.30, 0.62, 0.36)),
    Modality.MICROSCOPY: ((0.96, 0.91, 0.96), (0.74, 0.48, 0.76)),
}

Texture = Callable[[Picture, Plane, Plane, Plane, np.random.Generator], Picture]


def _bone(picture: Picture, mask: Plane, x: Plane, y: Plane, rng: np.random.Generator) -> Picture:
    """CT: a bright shell around the tissue."""
    return picture + (4 * mask * (1 - mask) * 0.8)[..., None]


def _folds(picture: Picture, mask: Plane, x: Plane, y: Plane, rng: np.random.Generator) -> Picture:
    """MRI: wavy grey matter."""
    wave = np.sin(11 * x + 2 * np.sin(5 * y + float(rng.uniform(0, 6))))
    return picture + (mask * 0.10 * wave)[..., None]


def _ribs(picture: Picture, mask: Plane, x: Plane, y: Plane, rng: np.random.Generator) -> Picture:
    """X-ray: bright arches across everything."""
    return picture + (0.10 * _edge(np.sin(15 * (y + 0.25 * x * x) + float(rng.uniform(0, 6))) - 0.2, 10))[..., None]


def _fan(picture: Picture, mask: Plane, x: Plane, y: Plane, rng: np.random.Generator) -> Picture:
    """Ultrasound: speckle inside a sector, black outside."""
    speckled = picture * (1 + _speckle(rng, 40, 0.35))[..., None] + 0.05
    return speckled * _edge(0.66 - abs(np.arctan2(_X, _Y + 1.7)))[..., None]


def _hairs(picture: Picture, mask: Plane, x: Plane, y: Plane, rng: np.random.Generator) -> Picture:
    """Dermoscopy: a few dark hairs."""
    hair = _edge(np.sin(9 * x + 4 * y + 0.8 * y * y + float(rng.uniform(0, 6))) - 0.985, 300)
    return picture * (1 - 0.5 * hair)[..., None]


def _vessels(picture: Picture, mask: Plane, x: Plane, y: Plane, rng: np.random.Generator) -> Picture:
    """Fundus: branching vessels and a bright disc."""
    lines = abs(np.sin(3.4 * y + 1.6 * x * x + float(rng.uniform(-0.3, 0.3))))
    dark = _blend(picture, mask * 0.55 * _edge(0.10 - lines, 60), _colour((0.45, 0.08, 0.02)))
    return _blend(dark, 0.8 * mask * _edge(0.14 - np.hypot(x + 0.45, y)), _colour((1.0, 0.85, 0.45)))


def _layers(picture: Picture, mask: Plane, x: Plane, y: Plane, rng: np.random.Generator) -> Picture:
    """OCT: lying layers, with a shallow pit."""
    depth = y + 0.12 * np.exp(-6 * x * x)
    return picture * (1 + 0.35 * mask * np.sin(24 * depth + float(rng.uniform(0, 6))))[..., None]


def _cells(picture: Picture, mask: Plane, x: Plane, y: Plane, rng: np.random.Generator) -> Picture:
    """Microscopy: rows of stained nuclei."""
    a, b = rng.uniform(0, 6, 2).tolist()
    nuclei = _edge(np.sin(15 * x + a + np.sin(4 * y)) * np.sin(15 * y + b) - 0.55, 12)
    return _blend(picture, nuclei * 0.6, _colour((0.40, 0.20, 0.58)))


_TEXTURE: dict[Modality, Texture] = {
    Modality.CT: _bone,
    Modality.MRI: _folds,
    Modality.XRAY: _ribs,
    Modality.ULTRASOUND: _fan,
    Modality.DERMOSCOPY: _hairs,
    Modality.FUNDUS: _vessels,
    Modality.OCT: _layers,
    Modality.MICROSCOPY: _cells,
}


# --- the data set on disk ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Entry:
    """One picture of the set: what it shows and where it lies, relative to the set's folder."""

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
    """Draw `train` + `test` pictures per modality into `folder`, with five questions each; return `folder`.

    The folder then holds the same questions in three forms, all with picture paths relative to `folder`:

    - OmniMedVQA's release: `Images/...`, `QA_information/Open-access/<dataset>.json`;
    - the published split files: `splits/modality/train/<Modality>_train.json`, `splits/question_type/...`;
    - `train.json` and `test.json`: everything in two lists, with modality and task in each row.

    The same arguments give the same bytes; a finished folder is left as it is. Raises `UserError` for counts
    below 1 and for a folder that holds something else.
    """
    folder, chosen = Path(folder), [each for each in Modality if each in set(modalities)]
    for name, count in (("train", train), ("test", test)):
        if count < 1:
            raise UserError(f"{name} pictures per modality: {count}; a split without rows is no use, ask for 1 or more")
    wanted = {"train": train, "test": test, "seed": seed, "modalities": [each.value for each in chosen]}
    if _is_finished(folder, wanted):
        return folder
    entries = [entry for modality in chosen for entry in _plan(modality, train, test, seed)]
    with disk_errors(folder, "what is there is drawn anew"):
        _write_pictures(folder, entries, workers or os.cpu_count() or 1)
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
            picture = {"bytes": (folder / row["image"]).read_bytes(), "path": row["image"]}
            key = row_id(row["image"], row["problem"], row["solution"])
            rows.append({**row, "image": picture, "id": key, "source": Path(row["image"]).parts[1]})
        splits[split] = Dataset.from_list(rows, features=FEATURES)
    DatasetDict(splits).save_to_disk(output)
    return output


def _is_finished(folder: Path, wanted: dict[str, Any]) -> bool:
    if (folder / MANIFEST).is_file():
        found = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if found == wanted:
            return True
        raise UserError(f"{folder} holds other phantoms ({found}); name another folder or delete this one")
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


def _write_pictures(folder: Path, entries: Sequence[_Entry], workers: int) -> None:
    for parent in {Path(entry.path).parent for entry in entries}:
        (folder / parent).mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(workers) as pool:  # numpy and Pillow let go of the interpreter lock
        list(pool.map(lambda entry: (folder / entry.path).write_bytes(encode(draw(entry.phantom))), entries))


def encode(picture: Image.Image) -> bytes:
    """The picture as PNG."""
    buffer = BytesIO()
    picture.save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()


def _write_questions(folder: Path, entries: Sequence[_Entry], seed: int) -> None:
    rng = random.Random(seed)
    rows = [
        {"image": entry.path, **question(entry.phantom, task, rng), "split": entry.split}
        for entry in entries
        for task in Task
    ]
    for modality in {entry.phantom.modality for entry in entries}:
        own = [row for row in rows if row["modality"] == modality]
        release = [_release_row(row, f"{_dataset(modality)}_{place:04d}") for place, row in enumerate(own)]
        _write_json(folder / "QA_information" / "Open-access" / f"{_dataset(modality)}.json", release)
    for split in ("train", "test"):
        part = [row for row in rows if row["split"] == split]
        for family, key in (("modality", "modality"), ("question_type", "task")):
            for label in {row[key] for row in part}:
                name = PUBLISHED_NAMES[Modality(label)] if family == "modality" else label
                own = [_split_row(row) for row in part if row[key] == label]
                _write_json(folder / "splits" / family / split / f"{name}_{split}.json", own)
        rng.shuffle(part)
        _write_json(folder / f"{split}.json", [{k: v for k, v in row.items() if k != "split"} for row in part])


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
    options = read_set_flags("Draw a phantom data set in OmniMedVQA's form.", "pictures per modality", 150, 16)
    folder = make_phantoms(options.output_dir, options.train, options.test, options.seed)
    print(f"{folder}: 8 modalities x ({options.train} + {options.test}) pictures x 5 questions")


if __name__ == "__main__":
    run_command(main)
