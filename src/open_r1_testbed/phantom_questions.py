"""Phantoms: made-up patients by number, and the questions that are asked about their images."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from open_r1.grading.problems import render_problem
from open_r1.vocabulary.labels import Modality, Task

SIZE = 384  # pixels of an image's side
LETTERS = "ABCD"

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
        "What organ or region does this image depict?",
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
        "How was this image acquired?",
        "What type of scan is this?",
    ),
    Task.ATTRIBUTES: (
        "Which stain surrounds the specimen?",
        "What tint has the border of the field?",
        "Which marker dye was used?",
        "What is the colour of the rim?",
    ),
}


@dataclass(frozen=True)
class Phantom:
    """What one image shows: a modality, four codes from 0 to 3, and the seed of everything accidental."""

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
    """One question in the split files' form, without its image: problem, solution, modality, task.

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
