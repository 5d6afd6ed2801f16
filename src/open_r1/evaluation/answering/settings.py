"""The flags of an evaluation and what they may be; torch is loaded by none of it, so that a typo costs no time."""

import re
from dataclasses import dataclass
from typing import Literal, get_args

from open_r1.common.errors import UserError
from open_r1.vocabulary.labels import Split
from open_r1.vocabulary.modes import Mode
from open_r1.vocabulary.prompts import NAMED

ImageChange = Literal["shown", "none", "noise", "shuffled"]
OptionsChange = Literal["as_given", "shuffled"]
BACKENDS = ("transformers", "vllm")
DTYPES = ("auto", "float32", "bfloat16", "float16")
_DEVICE = re.compile(r"(cpu|cuda|mps|xpu)(:\d+)?")


@dataclass(frozen=True)
class Sampling:
    """How completions are drawn: `count` of each question at a temperature; temperature 0 is greedy."""

    count: int = 1
    temperature: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.count < 1:
            raise UserError(f"--samples {self.count} must be at least 1")
        if not 0 <= self.temperature < float("inf"):
            raise UserError(f"--temperature {self.temperature} must be 0 (greedy) or a positive number")
        if self.count > 1 and self.temperature == 0:
            raise UserError(
                f"--samples {self.count} at --temperature 0 would be {self.count} times the same completion; "
                "set a temperature above 0, or leave --samples out"
            )

    @property
    def is_greedy(self) -> bool:
        """Whether nothing is drawn."""
        return self.temperature == 0


@dataclass(frozen=True)
class InferenceSettings:
    """The flags of eval/infer.py."""

    model_path: str
    prompt_path: str
    output_path: str
    image_root: str | None = None
    split: Split = "test"
    processor: str | None = None
    base: str | None = None
    mode: str | None = None
    prompt: str | None = None
    batch_size: int = 64
    max_new_tokens: int = 256
    min_pixels: int | None = None
    max_pixels: int | None = None
    limit: int | None = None
    dtype: str = "auto"
    attn_implementation: str | None = None
    device: str | None = None
    seed: int = 0
    strict: bool = False
    train_path: str | None = None
    image: ImageChange = "shown"
    options: OptionsChange = "as_given"
    samples: int = 1
    temperature: float | None = None
    backend: str = "transformers"
    force: bool = False

    def __post_init__(self) -> None:
        for name in ("batch_size", "max_new_tokens", "limit"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"--{name} {value} must be at least 1")
        if self.split not in get_args(Split):
            raise UserError(f"--split {self.split!r} does not exist; choose {' or '.join(get_args(Split))}")
        if self.mode is not None and self.mode not in list(Mode):
            raise UserError(f"--mode {self.mode!r} does not exist; choose one of {', '.join(Mode)}")
        if self.prompt is not None and self.prompt not in NAMED:
            raise UserError(f"there is no --prompt {self.prompt!r}; known are: {', '.join(NAMED)}")
        for name, known in (
            ("image", get_args(ImageChange)),
            ("options", get_args(OptionsChange)),
            ("backend", BACKENDS),
        ):
            if getattr(self, name) not in known:
                raise UserError(f"--{name} {getattr(self, name)!r} does not exist; choose one of {', '.join(known)}")
        if self.dtype not in DTYPES:
            raise UserError(f"there is no dtype {self.dtype!r} here; choose one of {', '.join(DTYPES)}")
        if self.device is not None and not _DEVICE.fullmatch(self.device):
            raise UserError(f"--device {self.device!r} is no device; give cpu, cuda or cuda:1")
        _ = self.sampling

    @property
    def sampling(self) -> Sampling:
        """How completions are drawn. Several samples are drawn at 1, as in training, unless told otherwise."""
        default = 1.0 if self.samples > 1 else 0.0
        return Sampling(self.samples, default if self.temperature is None else self.temperature, self.seed)

    @property
    def draws(self) -> bool:
        """Whether anything follows from the seed."""
        return not self.sampling.is_greedy or self.image in ("noise", "shuffled") or self.options == "shuffled"

    @property
    def where(self) -> str:
        """The device to run on: the one asked for, or the GPU if there is one.

        Raises:
            UserError: a GPU that is not there was asked for.
        """
        import torch

        has_gpu = torch.cuda.is_available()
        if self.device is not None and self.device.startswith("cuda") and not has_gpu:
            raise UserError(
                f"--device {self.device}: there is no GPU that torch can use; leave the flag out to run on the CPU"
            )
        return self.device or ("cuda" if has_gpu else "cpu")
