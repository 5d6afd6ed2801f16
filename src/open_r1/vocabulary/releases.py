"""The checkpoints that were published with the papers, and the runs that made them."""

from collections.abc import Mapping
from dataclasses import dataclass

from open_r1.common.errors import UserError
from open_r1.vocabulary.labels import Family, Modality, Task, family_of
from open_r1.vocabulary.modes import Mode

HUB_REPOSITORY = "yuxianglai117/Med-R1"


@dataclass(frozen=True)
class Base:
    """A base model that Med-R1 started from, and how its checkpoints were trained."""

    name: str  # as in the published run names
    hub: str
    mode: Mode


QWEN2_VL_2B = Base("Qwen2-VL-2B", "Qwen/Qwen2-VL-2B-Instruct", Mode.THINK)
QWEN25_VL_3B = Base("Qwen2.5-VL-3B", "Qwen/Qwen2.5-VL-3B-Instruct", Mode.NOTHINK)

# Names that were confirmed in the hub folder of the no-think runs; the other six are assumed to follow the pattern.
_NOTHINK_FOLDER = "Qwen_2.5_3B_nothink"
_NOTHINK_CONFIRMED = {"VQA_AI", "VQA_CT", "VQA_Fundus", "VQA_LG", "VQA_MR", "VQA_MRI", "VQA_X-Ray"}


@dataclass(frozen=True)
class Run:
    """One training run: a base model, a mode, and the modality or task that it is trained on."""

    label: Modality | Task
    mode: Mode
    base: Base

    @property
    def family(self) -> Family:
        """The split family that this run may be tested on."""
        return family_of(self.label)

    @property
    def name(self) -> str:
        """The run name, in the published style: `Qwen2.5-VL-3B-GRPO-CT`."""
        return f"{self.base.name}-GRPO-{self.label.folder.removesuffix('_384')}"

    @property
    def subfolder(self) -> str:
        """The folder of the released checkpoint in `HUB_REPOSITORY`."""
        if self.base is QWEN2_VL_2B:
            return self.label.hub
        leaf = f"VQA_{self.label.short}" if isinstance(self.label, Task) else self.label.hub
        return f"{_NOTHINK_FOLDER}/{leaf}"

    @property
    def checkpoint(self) -> str:
        """The released checkpoint, as `--model_path` takes it: `org/repo:subfolder`."""
        return f"{HUB_REPOSITORY}:{self.subfolder}"

    @property
    def is_confirmed(self) -> bool:
        """True if the folder's name was confirmed on the hub, False if it is assumed."""
        return self.base is QWEN2_VL_2B or self.subfolder.split("/")[-1] in _NOTHINK_CONFIRMED


def matrix() -> list[Run]:
    """The 26 released runs: both bases, each in its mode, over 8 modalities and 5 tasks."""
    labels: list[Modality | Task] = [*Modality, *Task]
    return [Run(label, base.mode, base) for base in (QWEN2_VL_2B, QWEN25_VL_3B) for label in labels]


def released(subfolder: str) -> Run:
    """The released run in a hub subfolder; `VQA_MR` below the no-think folder is the task, `VQA_MRI` the modality."""
    runs: Mapping[str, Run] = {run.subfolder: run for run in matrix()}
    if subfolder.strip("/") not in runs:
        raise UserError(
            f"{subfolder!r} is not a released checkpoint of {HUB_REPOSITORY}; choose among: {', '.join(runs)}"
        )
    return runs[subfolder.strip("/")]
