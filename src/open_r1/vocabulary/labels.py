"""Modalities and tasks, and every spelling of them in data, on the hub and in figures.

OmniMedVQA's release, the published split files, the hub and the figures of the paper spell the same thirteen labels
differently, and "MR" is a modality in one place and a task in another. Names are parsed only here; all other code has
a `Modality` or a `Task`.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import PurePath
from typing import Literal

from open_r1.common.errors import UserError

Family = Literal["modality", "task"]
Split = Literal["train", "test"]


class Modality(StrEnum):
    """The eight imaging modalities of OmniMedVQA, in the order of the published tables."""

    CT = "CT"
    MRI = "MRI"
    XRAY = "X-Ray"
    ULTRASOUND = "Ultrasound"
    DERMOSCOPY = "Dermoscopy"
    FUNDUS = "Fundus"
    OCT = "OCT"
    MICROSCOPY = "Microscopy"

    @property
    def short(self) -> str:
        """The label of the published difference maps: CT, MRI, X-Ray, US, Der, FP, OCT, Micro."""
        return _MODALITY_SHORT[self]

    @property
    def folder(self) -> str:
        """The data set folder under `data/VQA`, for example `US_384`."""
        return f"{_MODALITY_FOLDER.get(self, self.value)}_384"

    @property
    def hub(self) -> str:
        """The subfolder of the released Qwen2-VL-2B checkpoint, for example `VQA_Dermo`."""
        return f"VQA_{_MODALITY_HUB.get(self, self.value)}"


class Task(StrEnum):
    """The five question types of OmniMedVQA."""

    ANATOMY = "Anatomy Identification"
    DIAGNOSIS = "Disease Diagnosis"
    GRADING = "Lesion Grading"
    MODALITY = "Modality Recognition"
    ATTRIBUTES = "Other Biological Attributes"

    @property
    def short(self) -> str:
        """The label of the published difference maps: AI, DD, LG, MR (Modality Recognition), OBA."""
        return "".join(word[0] for word in self.value.split())

    @property
    def folder(self) -> str:
        """The data set folder under `data/VQA`; spelt out, so that `MR` cannot be taken for MRI."""
        return f"{self.value.replace(' ', '_')}_384"

    @property
    def hub(self) -> str:
        """The subfolder of the released Qwen2-VL-2B checkpoint, for example `VQA_Other_Bio`."""
        return "VQA_Other_Bio" if self is Task.ATTRIBUTES else f"VQA_{self.value.replace(' ', '_')}"


_MODALITY_SHORT = {
    Modality.CT: "CT",
    Modality.MRI: "MRI",
    Modality.XRAY: "X-Ray",
    Modality.ULTRASOUND: "US",
    Modality.DERMOSCOPY: "Der",
    Modality.FUNDUS: "FP",
    Modality.OCT: "OCT",
    Modality.MICROSCOPY: "Micro",
}
_MODALITY_FOLDER = {Modality.ULTRASOUND: "US"}
_MODALITY_HUB = {
    Modality.ULTRASOUND: "US",
    Modality.DERMOSCOPY: "Dermo",
    Modality.MICROSCOPY: "Micro",
}

# Spellings beyond value, short, folder and hub. The typos are OmniMedVQA's own.
_OTHER_SPELLINGS: dict[Modality | Task, tuple[str, ...]] = {
    Modality.CT: ("CT(Computed Tomography)", "Computed Tomography"),
    Modality.MRI: (
        "MR (Mag-netic Resonance Imaging)",
        "MR (Magnetic Resonance Imaging)",
        "Magnetic Resonance Imaging",
    ),
    Modality.XRAY: ("X-Ray", "XRay", "X Ray"),
    Modality.ULTRASOUND: ("ultrasound", "US"),
    Modality.DERMOSCOPY: ("Dermoscopy", "Dermo"),
    Modality.FUNDUS: ("Fundus Photography", "Fundus"),
    Modality.OCT: ("OCT (Optical Coherence Tomography", "Optical Coherence Tomography"),
    Modality.MICROSCOPY: ("Microscopy Images", "Micro"),
    Task.ATTRIBUTES: ("Other Bio",),
}
_UNLABELLED = {"unknown", "none"}


def _key(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.casefold())


def _spellings() -> dict[str, Modality | Task]:
    """Normalised spelling -> label, without `MR`, which two labels share."""
    table: dict[str, Modality | Task] = {}
    for label in [*Modality, *Task]:
        label_spellings = (label.value, label.short, *_OTHER_SPELLINGS.get(label, ()))
        for spelling in (*label_spellings, label.folder.removesuffix("_384"), label.hub.removeprefix("VQA_")):
            assert table.setdefault(_key(spelling), label) is label, f"{spelling} names two labels"
    del table["mr"]
    return table


_SPELLINGS = _spellings()


def _stem(text: str) -> str:
    """The bare name in a file name, a folder or a hub subfolder, without extension, split and size."""
    name = text.strip().replace("\\", "/").rstrip("/").rsplit("/", 1)[-1]
    name = re.sub(r"\.jsonl?$", "", name)
    name = re.sub(r"_(train|test)$", "", name)
    return re.sub(r"_\d{2,4}$", "", name).strip()  # the size in pixels, whatever --size was


def parse_label(text: str, family: Family | None = None) -> Modality | Task | None:
    """Parse any published spelling of a modality or a task; None for the data's words for "no label".

    Accepts values of the release, split file names (`X-Ray_train.json`), data folders (`US_384`), hub
    subfolders (`VQA_Dermo`) and the short labels of the figures.

    Args:
        text: the spelling.
        family: the expected split family; needed for `MR` alone, which is MRI in one family and Modality
            Recognition in the other.

    Raises:
        UserError: the spelling is unknown, ambiguous, or of the other family.
    """
    stem = _stem(text)
    on_hub = stem.startswith("VQA_")
    key = _key(stem.removeprefix("VQA_"))
    if not stem or key in _UNLABELLED:
        return None
    if key == "mr":
        return _parse_ambiguous_mr(text, "task" if on_hub else family)
    label = _SPELLINGS.get(key)
    if label is None:
        label_names = ", ".join([*Modality, *Task])
        raise UserError(f"{text!r} is no modality or task of OmniMedVQA; known are: {label_names}")
    if family is not None and family_of(label) != family:
        raise UserError(f"{text!r} is a {family_of(label)}, but a {family} is expected here")
    return label


def _parse_ambiguous_mr(text: str, family: Family | None) -> Modality | Task:
    if family is None:
        raise UserError(
            f"{text!r} is ambiguous: it can mean the modality MRI or the task Modality Recognition; "
            "write one of these two in full"
        )
    return Modality.MRI if family == "modality" else Task.MODALITY


def parse_modality(text: str, family: Family | None = None) -> Modality | None:
    """Like `parse_label`, but a task is an error. `MR` alone still needs the family."""
    label = parse_label(text, family)
    if isinstance(label, Task):
        raise UserError(f"{text!r} is the task {label}, but a modality is expected here")
    return label


def parse_task(text: str, family: Family | None = None) -> Task | None:
    """Like `parse_label`, but a modality is an error. `MR` alone still needs the family."""
    label = parse_label(text, family)
    if isinstance(label, Modality):
        raise UserError(f"{text!r} is the modality {label}, but a task is expected here")
    return label


def family_of(label: Modality | Task) -> Family:
    """The split family of a label."""
    return "modality" if isinstance(label, Modality) else "task"


def refuse_other_family(trained_on: Modality | Task, tested_on: Modality | Task) -> None:
    """Raise a `UserError` if a checkpoint of one split family would be tested on the other.

    The two families are different splits of the same questions: 80 % of the test questions of one are training
    questions of the other, so the accuracy would mostly measure memorization.
    """
    if family_of(trained_on) != family_of(tested_on):
        raise UserError(
            f"trained on the {family_of(trained_on)} {trained_on}, tested on the {family_of(tested_on)} "
            f"{tested_on}: 80 % of these test questions are in that training set; test on a "
            f"{family_of(trained_on)} instead"
        )


@dataclass(frozen=True)
class SplitFile:
    """Label, family and split in the name of a published split file."""

    label: Modality | Task | None
    family: Family
    split: Split


_SPLIT_FOLDERS: dict[str, Family] = {"modality": "modality", "question_type": "task", "task": "task"}


def parse_split_file(path: str | PurePath) -> SplitFile:
    """Parse label, family and split from a path such as `modality/test/CT(Computed Tomography)_test.json`.

    The family comes from the label, or from the parent folders for `unknown_train.json`, whose single question
    has no label.

    Raises:
        UserError: the name does not end in `_train.json` or `_test.json`, or contains no known label.
    """
    path = PurePath(path)
    ending = re.search(r"_(train|test)\.json$", path.name)
    if ending is None:
        raise UserError(f"{path.name!r} is not a split file: its name must end in _train.json or _test.json")
    split: Split = "train" if ending.group(1) == "train" else "test"
    folder_families: list[Family] = [
        _SPLIT_FOLDERS[path_part] for path_part in path.parts[:-1] if path_part in _SPLIT_FOLDERS
    ]
    folder: Family | None = folder_families[-1] if folder_families else None
    label = parse_label(path.name, folder)
    family = family_of(label) if label is not None else folder
    if family is None:
        raise UserError(f"{path.name!r} contains no label; keep the file in its folder modality/ or question_type/")
    return SplitFile(label, family, split)
