"""A small release in the layout of OmniMedVQA, drawn anew, and what its preparation writes."""

import json
from pathlib import Path

import datasets
import numpy as np
from PIL import Image

from open_r1.common.atomic_files import sha256_file
from open_r1.data.preparation.encoded_images import Encoding
from open_r1.vocabulary.labels import Modality, Task

SMALL = Encoding(size=32)
MODALITIES = {
    Modality.CT: "CT(Computed Tomography)",
    Modality.OCT: "OCT (Optical Coherence Tomography",
}
ASKED = {
    Task.MODALITY: ("Which method is it?", ["CT", "OCT", "X-Ray"]),
    Task.DIAGNOSIS: ("What is wrong?", ["edema, diffuse", "nothing (healthy)"]),
}


def draw(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def entries(modality: Modality, images: int) -> list[dict]:
    """Two questions on each image."""
    rows = []
    for number in range(images):
        for task, (question, options) in ASKED.items():
            answer = modality.value if task is Task.MODALITY else options[number % 2]
            row = {
                "dataset": f"{modality} set",
                "question_type": task.value,
                "modality_type": MODALITIES[modality],
                "question": question,
                "gt_answer": answer,
                "image_path": f"Images/{modality} set/{number:03d} (1).png",
            }
            rows.append(row | {f"option_{letter}": text for letter, text in zip("ABC", options, strict=False)})
    return rows


def make_release(folder: Path, images: int = 20) -> Path:
    for place, modality in enumerate(MODALITIES):
        rows = entries(modality, images)
        for number, path in enumerate(sorted({row["image_path"] for row in rows})):
            draw(folder / path, 1000 * place + number)
        file = folder / "QA_information" / "Open-access" / f"{modality} set.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(rows))
    return folder


def tree(folder: Path) -> dict[str, str]:
    """Every file below a folder with its hash."""
    return {str(p.relative_to(folder)): sha256_file(p) for p in sorted(folder.rglob("*")) if p.is_file()}


def ids(folder: Path, split) -> list[str]:
    return datasets.load_from_disk(str(folder))[split]["id"][:]  # type: ignore[index, return-value]
